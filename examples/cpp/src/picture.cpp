#include "pellucid/picture.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace pellucid {

Picture::Picture(std::size_t height, std::size_t width, std::size_t channels, std::size_t sample_bytes)
    : height(height),
      width(width),
      channels(channels),
      sample_bytes(sample_bytes),
      samples(height * width * channels * sample_bytes) {}

void Picture::copy_facts(const Picture& other) {
    profile = other.profile;
    exif = other.exif;
    jpeg_quality = other.jpeg_quality;
    has_half_color = other.has_half_color;
}

void check_mosaic(const Mosaic& mosaic) {
    const Picture& samples = mosaic.samples;
    const std::size_t period = mosaic.pattern.size();
    bool is_complete = samples.channels == 1 && samples.sample_bytes == 2 && period > 0 &&
                       samples.samples.size() == samples.height * samples.width * 2 &&
                       mosaic.black_levels.size() == period * period && std::isfinite(mosaic.white_level);
    for (const std::string& row : mosaic.pattern)
        is_complete &= row.size() == period && row.find_first_not_of("RGB") == std::string::npos;
    for (const float level : mosaic.black_levels) is_complete &= level < mosaic.white_level;
    const auto& gains = mosaic.white_balance;
    const bool has_gains = gains[0] > 0 && gains[1] > 0 && gains[2] > 0;
    if (!is_complete || !(has_gains || gains == std::array<float, 3>{}))
        throw std::runtime_error("the mosaic's samples, filters, levels or gains are incomplete or do not fit each other");
}

Picture expand_to_16_bits(Picture picture) {
    if (picture.sample_bytes == 2) return picture;
    Picture expanded(picture.height, picture.width, picture.channels, 2);
    expanded.copy_facts(picture);
    for (std::size_t i = 0; i < picture.samples.size(); ++i) {  // times 257: both bytes are the same
        expanded.samples[2 * i] = expanded.samples[2 * i + 1] = picture.samples[i];
    }
    return expanded;
}

Picture apply_orientation(Picture picture, int orientation) {
    if (orientation < 2 || orientation > 8) return picture;
    const bool transposes = orientation >= 5;
    const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    Picture upright(picture.height, picture.width, picture.channels, picture.sample_bytes);
    if (transposes) std::swap(upright.height, upright.width);
    upright.copy_facts(picture);
    for (std::size_t row = 0; row < upright.height; ++row) {
        for (std::size_t col = 0; col < upright.width; ++col) {
            std::size_t source_row = row, source_col = col;
            if (transposes) std::swap(source_row, source_col);
            if (from_bottom) source_row = picture.height - 1 - source_row;
            if (from_right) source_col = picture.width - 1 - source_col;
            std::memcpy(upright.at(row, col), picture.at(source_row, source_col), picture.pixel_bytes());
        }
    }
    return upright;
}

}  // namespace pellucid
