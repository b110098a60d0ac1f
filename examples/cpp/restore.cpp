// Restore a PNG with a whole graph, which takes and returns the samples of files; no Python, no PyTorch.
//
//     pellucid export MODEL --out MODEL.xml --whole --layout nhwc [--samples uint16] [--colors gray]
//     restore MODEL.xml INPUT.png OUTPUT.png [TILE_PX]
//
// Colors, enlarging and rounding are in the graph; this program reads, cuts and writes. The picture is restored in
// tiles. For each tile, `halo` more pixels are read on every side, starting on multiples of `multiple`. At the border
// of the picture, nothing is padded. So the result does not depend on the size of the tiles.

#include <png.h>
#include <unistd.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

// Samples of 1 or 2 bytes, row by row, with interleaved channels.
struct Picture {
    size_t height = 0, width = 0, channels = 0, sample_bytes = 1;
    std::vector<unsigned char> samples;

    Picture() = default;

    Picture(size_t height, size_t width, size_t channels, size_t sample_bytes)
        : height(height),
          width(width),
          channels(channels),
          sample_bytes(sample_bytes),
          samples(height * width * channels * sample_bytes) {}

    size_t pixel_bytes() const { return channels * sample_bytes; }

    unsigned char* at(size_t row, size_t col) { return samples.data() + (row * width + col) * pixel_bytes(); }
};

// The metadata of the model. scale, multiple and halo are in pixels of the picture.
struct Metadata {
    size_t scale, multiple, halo, channels, sample_bytes;
    std::string precision;

    explicit Metadata(const ov::Model& model)
        : scale(number(model, "scale")),
          multiple(number(model, "multiple")),
          halo(number(model, "halo")),
          channels(number(model, "num_planes")),
          precision(text(model, "precision")) {
        if (!model.has_rt_info("pellucid", "whole"))
            throw std::runtime_error("the model is not a whole graph; export it with --whole --layout nhwc");
        const std::string form = text(model, "whole");
        if (form.find("\"nhwc\"") == std::string::npos)
            throw std::runtime_error("the layout of the model is nchw; export it with --layout nhwc");
        if (model.inputs().size() != 1)
            throw std::runtime_error("this example restores pictures; the model takes a " + text(model, "input"));
        sample_bytes = form.find("\"uint16\"") == std::string::npos ? 1 : 2;
    }

    static std::string text(const ov::Model& model, const std::string& key) {
        if (!model.has_rt_info("pellucid", key))
            throw std::runtime_error("the model has no metadata '" + key + "'; use a model from `pellucid export`");
        return model.get_rt_info<std::string>("pellucid", key);
    }

    static size_t number(const ov::Model& model, const std::string& key) { return std::stoul(text(model, key)); }
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

struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

using File = std::unique_ptr<std::FILE, Close>;

File open_file(const std::string& path, const char* mode) {
    File file(std::fopen(path.c_str(), mode));
    if (!file) throw std::runtime_error(path + ": " + std::strerror(errno));
    return file;
}

// libpng reports errors by a jump, so all objects with destructors are made before it is called.
[[noreturn]] void on_error(png_structp png, png_const_charp message) {
    *static_cast<std::string*>(png_get_error_ptr(png)) = message;
    png_longjmp(png, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

Picture read_png(const std::string& path, const Metadata& metadata) {
    const File file = open_file(path, "rb");
    std::string message;
    Picture picture;
    std::vector<png_bytep> rows;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message, on_error, ignore_warning);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)) == 0) {
        png_init_io(png, file.get());
        png_read_info(png, info);
        png_set_expand(png);
        if (metadata.sample_bytes == 2) {
            png_set_expand_16(png);
            png_set_swap(png);
        }
        if (metadata.channels == 3) png_set_gray_to_rgb(png);
        png_set_interlace_handling(png);
        png_read_update_info(png, info);
        if (png_get_channels(png, info) != metadata.channels)
            png_error(png, metadata.channels == 3 ? "the picture has transparency" : "the picture has colors or transparency");
        if (png_get_bit_depth(png, info) != 8 * metadata.sample_bytes)
            png_error(png, "the picture has 16 bits; export the model with --samples uint16");
        picture = Picture(png_get_image_height(png, info), png_get_image_width(png, info), metadata.channels,
                          metadata.sample_bytes);
        for (size_t row = 0; row < picture.height; ++row) rows.push_back(picture.at(row, 0));
        png_read_image(png, rows.data());
        png_read_end(png, nullptr);
    }
    png_destroy_read_struct(&png, &info, nullptr);
    if (!message.empty()) throw std::runtime_error(path + ": " + message);
    return picture;
}

// The file appears under its name when it is complete.
void write_png(const std::string& path, Picture& picture) {
    const std::string part = path + ".part";
    std::string message;
    std::vector<png_bytep> rows;
    for (size_t row = 0; row < picture.height; ++row) rows.push_back(picture.at(row, 0));
    {
        const File file = open_file(part, "wb");
        png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &message, on_error, ignore_warning);
        png_infop info = png_create_info_struct(png);
        if (setjmp(png_jmpbuf(png)) == 0) {
            png_init_io(png, file.get());
            png_set_IHDR(png, info, static_cast<png_uint_32>(picture.width), static_cast<png_uint_32>(picture.height),
                         static_cast<int>(8 * picture.sample_bytes),
                         picture.channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                         PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
            png_write_info(png, info);
            if (picture.sample_bytes == 2) png_set_swap(png);
            png_write_image(png, rows.data());
            png_write_end(png, info);
        }
        png_destroy_write_struct(&png, &info);
        if (message.empty() && std::fflush(file.get()) != 0) message = std::strerror(errno);
    }
    if (message.empty() && std::rename(part.c_str(), path.c_str()) != 0) message = std::strerror(errno);
    if (message.empty()) return;
    std::remove(part.c_str());
    throw std::runtime_error(path + ": " + message);
}

// The samples of a tile with its halo, (1, H, W, C).
ov::Tensor to_input(Picture& picture, const Span& rows, const Span& cols) {
    const auto type = picture.sample_bytes == 2 ? ov::element::u16 : ov::element::u8;
    ov::Tensor input(type, {1, rows.read(), cols.read(), picture.channels});
    const size_t row_bytes = cols.read() * picture.pixel_bytes();
    auto* target = static_cast<unsigned char*>(input.data());
    for (size_t row = rows.read_start; row < rows.read_stop; ++row, target += row_bytes)
        std::memcpy(target, picture.at(row, cols.read_start), row_bytes);
    return input;
}

// Copies the kept part of a tile's output.
void paste(Picture& restored, const ov::Tensor& output, const Span& rows, const Span& cols, size_t scale) {
    const size_t width = output.get_shape()[2], pixel_bytes = restored.pixel_bytes();
    const auto* source = static_cast<const unsigned char*>(output.data());
    for (size_t row = rows.start * scale; row < rows.stop * scale; ++row) {
        const size_t y = row - rows.read_start * scale, x = (cols.start - cols.read_start) * scale;
        std::memcpy(restored.at(row, cols.start * scale), source + (y * width + x) * pixel_bytes,
                    (cols.stop - cols.start) * scale * pixel_bytes);
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

    Picture picture = read_png(input_path, metadata);
    Picture restored(picture.height * metadata.scale, picture.width * metadata.scale, picture.channels,
                     picture.sample_bytes);
    const bool shows_progress = isatty(STDERR_FILENO) != 0;
    for (size_t top = 0; top < picture.height; top += tile_px) {
        for (size_t left = 0; left < picture.width; left += tile_px) {
            const Span rows(top, std::min(top + tile_px, picture.height), picture.height, metadata);
            const Span cols(left, std::min(left + tile_px, picture.width), picture.width, metadata);
            request.set_input_tensor(to_input(picture, rows, cols));
            request.infer();
            paste(restored, request.get_output_tensor(), rows, cols, metadata.scale);
        }
        if (shows_progress) std::cerr << '\r' << 100 * std::min(top + tile_px, picture.height) / picture.height << " %";
    }
    if (shows_progress) std::cerr << '\n';
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
