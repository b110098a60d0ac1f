// Restore a PNG with a model that `pellucid export MODEL --out MODEL.xml` wrote; no Python, no PyTorch.
//
//     restore MODEL.xml INPUT.png OUTPUT.png [TILE_PX]
//
// For gray and RGB models; a gray model restores each color plane by itself. The picture is restored in tiles. For
// each tile, `halo` more pixels are read on every side, starting on multiples of `multiple`. At the border of the
// picture, nothing is padded. So the result does not depend on the size of the tiles.

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

// 8-bit samples, row by row, with interleaved channels.
struct Picture {
    size_t height = 0, width = 0, channels = 0;
    std::vector<unsigned char> samples;

    Picture(size_t height, size_t width, size_t channels)
        : height(height), width(width), channels(channels), samples(height * width * channels) {}

    unsigned char& at(size_t row, size_t col, size_t channel) {
        return samples[(row * width + col) * channels + channel];
    }
};

// The metadata of the model.
struct Metadata {
    size_t scale, multiple, halo, num_planes;
    std::string input, precision;

    explicit Metadata(const ov::Model& model)
        : scale(number(model, "scale")),
          multiple(number(model, "multiple")),
          halo(number(model, "halo")),
          num_planes(number(model, "num_planes")),
          input(text(model, "input")),
          precision(text(model, "precision")) {
        if (input.rfind("gray;", 0) != 0 && input.rfind("RGB;", 0) != 0)
            throw std::runtime_error("this example restores gray and RGB pictures; the model takes " + input);
    }

    static std::string text(const ov::Model& model, const std::string& key) {
        if (!model.has_rt_info("pellucid", key))
            throw std::runtime_error("the model has no metadata '" + key + "'; use a model from `pellucid export`");
        return model.get_rt_info<std::string>("pellucid", key);
    }

    static size_t number(const ov::Model& model, const std::string& key) {
        return std::stoul(text(model, key));
    }
};

// Rows or columns of a tile: [read_start, read_stop) is read, [start, stop) of the result is kept.
struct Span {
    size_t start, stop, read_start, read_stop;

    Span(size_t start, size_t stop, size_t size, const Metadata& metadata) : start(start), stop(stop) {
        read_start = (start > metadata.halo ? start - metadata.halo : 0) / metadata.multiple * metadata.multiple;
        read_stop = (stop + metadata.halo + metadata.multiple - 1) / metadata.multiple * metadata.multiple;
        read_stop = std::min(size, read_stop);
    }

    size_t read() const { return read_stop - read_start; }
};

Picture read_png(const char* path) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&image, path)) throw std::runtime_error(std::string(path) + ": " + image.message);
    const bool color = image.format & PNG_FORMAT_FLAG_COLOR;
    image.format = color ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    Picture picture(image.height, image.width, color ? 3 : 1);
    if (!png_image_finish_read(&image, nullptr, picture.samples.data(), 0, nullptr))
        throw std::runtime_error(std::string(path) + ": " + image.message);
    return picture;
}

void write_png(const char* path, const Picture& picture) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.height = static_cast<png_uint_32>(picture.height);
    image.width = static_cast<png_uint_32>(picture.width);
    image.format = picture.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    if (!png_image_write_to_file(&image, path, 0, picture.samples.data(), 0, nullptr))
        throw std::runtime_error(std::string(path) + ": " + image.message);
}

// The input of a tile, (N, C, H, W), black is 0, white is 1. For a gray model, N color planes with C = 1.
ov::Tensor to_input(Picture& picture, const Span& rows, const Span& cols, size_t num_planes) {
    const size_t count = num_planes == 1 ? picture.channels : 1;
    ov::Tensor input(ov::element::f32, {count, num_planes, rows.read(), cols.read()});
    float* sample = input.data<float>();
    for (size_t plane = 0; plane < count * num_planes; ++plane)
        for (size_t row = rows.read_start; row < rows.read_stop; ++row)
            for (size_t col = cols.read_start; col < cols.read_stop; ++col)
                *sample++ = picture.at(row, col, std::min(plane, picture.channels - 1)) / 255.0f;
    return input;
}

// Copies the kept part of a tile's output. The three outputs of an RGB model for a gray picture are averaged.
void paste(Picture& restored, const ov::Tensor& output, const Span& rows, const Span& cols, const Metadata& metadata) {
    const ov::Shape shape = output.get_shape();
    const size_t height = shape[2], width = shape[3], num_planes = shape[0] * shape[1];
    const size_t num_averaged = num_planes / restored.channels;
    for (size_t row = rows.start * metadata.scale; row < rows.stop * metadata.scale; ++row)
        for (size_t col = cols.start * metadata.scale; col < cols.stop * metadata.scale; ++col)
            for (size_t channel = 0; channel < restored.channels; ++channel) {
                const size_t y = row - rows.read_start * metadata.scale, x = col - cols.read_start * metadata.scale;
                float sum = 0;
                for (size_t i = 0; i < num_averaged; ++i)
                    sum += output.data<float>()[((channel * num_averaged + i) * height + y) * width + x];
                const float value = std::clamp(sum / static_cast<float>(num_averaged), 0.0f, 1.0f);
                restored.at(row, col, channel) = static_cast<unsigned char>(std::floor(value * 255.0f + 0.5f));
            }
}

void restore(const char* model_path, const char* input_path, const char* output_path, size_t tile_px) {
    ov::Core core;
    const std::shared_ptr<ov::Model> model = core.read_model(model_path);
    const Metadata metadata(*model);
    // Without this, CPUs that support bfloat16 use it, whatever the precision of the model.
    const auto precision = metadata.precision == "bfloat16" ? ov::element::bf16 : ov::element::f32;
    ov::CompiledModel compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(precision));
    ov::InferRequest request = compiled.create_infer_request();

    Picture picture = read_png(input_path);
    Picture restored(picture.height * metadata.scale, picture.width * metadata.scale, picture.channels);
    for (size_t top = 0; top < picture.height; top += tile_px)
        for (size_t left = 0; left < picture.width; left += tile_px) {
            const Span rows(top, std::min(top + tile_px, picture.height), picture.height, metadata);
            const Span cols(left, std::min(left + tile_px, picture.width), picture.width, metadata);
            request.set_input_tensor(to_input(picture, rows, cols, metadata.num_planes));
            request.infer();
            paste(restored, request.get_output_tensor(), rows, cols, metadata);
        }
    write_png(output_path, restored);
}

int main(int argc, char** argv) {
    const long tile_px = argc == 5 ? std::atol(argv[4]) : 512;
    if (argc < 4 || argc > 5 || tile_px < 1) {
        std::cerr << "usage: restore MODEL.xml INPUT.png OUTPUT.png [TILE_PX]\n";
        return 2;
    }
    try {
        restore(argv[1], argv[2], argv[3], static_cast<size_t>(tile_px));
    } catch (const std::exception& error) {
        std::cerr << "restore: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
