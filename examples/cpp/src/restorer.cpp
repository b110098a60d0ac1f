#include "pellucid/restorer.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "memory.h"
#include "model.h"
#include "tiles.h"

namespace pellucid {

namespace {

Picture copy_part(const Picture& picture, const Span& rows, const Span& cols) {
    Picture part(rows.read_stop - rows.read_start, cols.read_stop - cols.read_start, picture.channels,
                 picture.sample_bytes);
    for (std::size_t row = 0; row < part.height; ++row)
        std::memcpy(part.at(row, 0), picture.at(rows.read_start + row, cols.read_start),
                    part.width * part.pixel_bytes());
    return part;
}

// Copies what is kept of a restored part.
void paste(Picture& result, const Picture& part, const Span& rows, const Span& cols, std::size_t scale) {
    const std::size_t row_bytes = (cols.stop - cols.start) * scale * part.pixel_bytes();
    for (std::size_t row = rows.start * scale; row < rows.stop * scale; ++row)
        std::memcpy(result.at(row, cols.start * scale),
                    part.at(row - rows.read_start * scale, (cols.start - cols.read_start) * scale), row_bytes);
}

void check_form(const Picture& picture, const Metadata& metadata) {
    if (picture.channels > metadata.channels)
        throw std::runtime_error("the picture has colors; export the model with --colors rgb");
    if (picture.channels < metadata.channels)
        throw std::runtime_error("the picture is gray; export the model with --colors gray");
    if (picture.sample_bytes > metadata.sample_bytes)
        throw std::runtime_error("the picture has 16 bits; export the model with --samples uint16");
}

// Where a mosaic with one pattern has another one: {row, column}.
std::pair<std::size_t, std::size_t> find_phase(const std::vector<std::string>& given,
                                               const std::vector<std::string>& wanted) {
    const std::size_t period = wanted.size();
    for (std::size_t top = 0; given.size() == period && top < period; ++top) {
        for (std::size_t left = 0; left < period; ++left) {
            bool is_equal = true;
            for (std::size_t i = 0; i < period * period; ++i)
                is_equal &= given[(top + i / period) % period][(left + i) % period] == wanted[i / period][i % period];
            if (is_equal) return {top, left};
        }
    }
    throw std::runtime_error("the color filters of the camera are not arranged as the model needs");
}

// The black levels of the block that starts at this row and column.
std::vector<float> roll_black_levels(const Mosaic& mosaic, std::size_t top, std::size_t left) {
    const std::size_t period = mosaic.pattern.size();
    std::vector<float> levels;
    for (std::size_t i = 0; i < period * period; ++i) {
        const std::size_t row = (top + i / period) % period, col = (left + i) % period;
        levels.push_back(mosaic.black_levels[row * period + col]);
    }
    return levels;
}

// The sample that a mirror at the outermost samples shows; before: how many samples are added in front.
std::size_t mirror(std::size_t position, std::size_t before, std::size_t size) {
    if (position < before) return before - position;
    const std::size_t inside = position - before;
    return inside < size ? inside : 2 * size - 2 - inside;
}

// A Bayer mosaic with rows and columns in front and at the end, so that its blocks are complete.
Picture complete_blocks(const Picture& samples, std::size_t top, std::size_t left) {
    Picture complete((top + samples.height + 1) / 2 * 2, (left + samples.width + 1) / 2 * 2, 1, samples.sample_bytes);
    for (std::size_t row = 0; row < complete.height; ++row) {
        for (std::size_t col = 0; col < complete.width; ++col)
            std::memcpy(complete.at(row, col),
                        samples.at(mirror(row, top, samples.height), mirror(col, left, samples.width)),
                        samples.sample_bytes);
    }
    return complete;
}

}  // namespace

struct Restorer::State {
    std::unique_ptr<Model> model;
    Options options;

    // picture: of the form that the graph takes.
    Picture restore(const Picture& picture, const MosaicNumbers* numbers, const Progress& progress) const {
        const Metadata& metadata = model->metadata;
        const std::size_t limit = options.memory_bytes;
        Picture result(picture.height * metadata.scale, picture.width * metadata.scale, metadata.channels,
                       metadata.sample_bytes);
        result.copy_facts(picture);
        if (metadata.deblocks) result.jpeg_quality = 0;
        const std::size_t part_px =
            options.tile_px > 0 ? find_part(options.tile_px, metadata)
                                : choose_part(*model, std::max(picture.height, picture.width), limit, numbers);
        const double area = static_cast<double>(picture.height) * static_cast<double>(picture.width);
        double finished = 0;
        for (const Span& rows : cut(picture.height, part_px, metadata)) {
            for (const Span& cols : cut(picture.width, part_px, metadata)) {
                paste(result, model->run(copy_part(picture, rows, cols), numbers), rows, cols, metadata.scale);
                check_peak(limit);
                finished += static_cast<double>(rows.stop - rows.start) * static_cast<double>(cols.stop - cols.start);
                if (progress) progress(finished / area);
            }
        }
        return result;
    }
};

Restorer::Restorer(const std::string& model_path, const Options& options)
    : state_(new State{load_model(model_path, options.runtime), options}) {
    std::size_t& limit = state_->options.memory_bytes;
    if (limit == 0) limit = read_free_bytes() / 2 + read_resident_bytes();
    if (limit == 0) limit = static_cast<std::size_t>(-1);
}

Restorer::~Restorer() = default;

bool Restorer::takes_mosaic() const { return state_->model->metadata.takes_mosaic(); }

bool Restorer::gives_mosaic() const { return state_->model->metadata.gives_mosaic; }

bool Restorer::takes_noise() const { return state_->model->metadata.takes_noise; }

std::size_t Restorer::scale() const { return state_->model->metadata.scale; }

std::size_t Restorer::sample_bytes() const { return state_->model->metadata.sample_bytes; }

Picture Restorer::restore(Picture picture, const Progress& progress) const {
    if (takes_mosaic()) throw std::runtime_error("the model takes the mosaics of camera RAW files");
    check_form(picture, state_->model->metadata);
    if (sample_bytes() == 2) picture = expand_to_16_bits(std::move(picture));
    return state_->restore(picture, nullptr, progress);
}

Picture Restorer::restore(const Mosaic& mosaic, float exposure_ratio, const Progress& progress) const {
    check_mosaic(mosaic);
    const std::vector<std::string>& pattern = state_->model->metadata.pattern;
    if (pattern.empty() || gives_mosaic()) throw std::runtime_error("the model does not develop camera RAW files");
    const std::size_t period = pattern.size();
    const auto [top, left] = find_phase(mosaic.pattern, pattern);
    const Picture& samples = mosaic.samples;
    if (samples.height < top + period || samples.width < left + period)
        throw std::runtime_error("the mosaic is smaller than one block of color filters");
    const Span rows{0, 0, top, top + (samples.height - top) / period * period};
    const Span cols{0, 0, left, left + (samples.width - left) / period * period};
    const MosaicNumbers numbers{roll_black_levels(mosaic, top, left), mosaic.white_level, exposure_ratio,
                                mosaic.white_balance, {}};
    return apply_orientation(state_->restore(copy_part(samples, rows, cols), &numbers, progress), mosaic.orientation);
}

Mosaic Restorer::denoise(const Mosaic& mosaic, const Noise& noise, const Progress& progress) const {
    if (!gives_mosaic()) throw std::runtime_error("the model does not denoise the mosaics of camera RAW files");
    check_mosaic(mosaic);
    const auto [top, left] = find_phase(mosaic.pattern, state_->model->metadata.pattern);
    const Picture& samples = mosaic.samples;
    if (samples.height < 2 || samples.width < 2) throw std::runtime_error("the mosaic is smaller than 2 x 2 pixels");
    const MosaicNumbers numbers{roll_black_levels(mosaic, top, left), mosaic.white_level, 1, {}, noise};
    Picture restored = state_->restore(complete_blocks(samples, top, left), &numbers, progress);
    const bool is_complete = restored.height == samples.height && restored.width == samples.width;
    if (!is_complete)
        restored = copy_part(restored, {0, 0, top, top + samples.height}, {0, 0, left, left + samples.width});
    return {std::move(restored),  mosaic.pattern,     mosaic.black_levels, mosaic.white_level,
            mosaic.white_balance, mosaic.orientation, mosaic.shot};
}

}  // namespace pellucid
