#include <stdexcept>

#include "file_access.h"
#include "pellucid/files.h"

#ifndef PELLUCID_LIBRAW

namespace pellucid {

Mosaic read_mosaic(const std::string& path) {
    throw std::runtime_error(path + ": this program was built without LibRaw, so it cannot read camera RAW files");
}

}  // namespace pellucid

#else

#include <libraw/libraw.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace pellucid {

namespace {

// LibRaw's flip -> EXIF orientation: 1 mirrors columns, 2 mirrors rows, 4 transposes before.
constexpr int kOrientations[] = {1, 2, 4, 3, 5, 8, 6, 7};

void check(int code, const std::string& path) {
    if (code != LIBRAW_SUCCESS) throw std::runtime_error(path + ": LibRaw: " + LibRaw::strerror(code));
}

// The number with the 7 digits of single precision; 0 if LibRaw does not know it.
double round_known(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.7g", value);
    const double rounded = std::strtod(text, nullptr);
    return std::isfinite(rounded) && rounded > 0 ? rounded : 0;
}

std::array<float, 3> read_white_balance(const float* multipliers) {
    const double green = multipliers[1];
    if (!(green > 0)) return {};
    const double red = round_known(multipliers[0] / green), blue = round_known(multipliers[2] / green);
    if (red == 0 || blue == 0) return {};
    return {static_cast<float>(red), 1.0f, static_cast<float>(blue)};
}

// The black level of one site: of the whole sensor, of its color, and of a pattern of its own.
float find_black(const libraw_colordata_t& color, std::size_t row, std::size_t col, int index) {
    const unsigned* levels = color.cblack;
    const unsigned height = levels[4], width = levels[5];
    const unsigned of_pattern = height > 0 && width > 0 ? levels[6 + row % height * width + col % width] : 0;
    return static_cast<float>(color.black + levels[index] + of_pattern);
}

void read_filters(LibRaw& raw, Mosaic& mosaic, const std::string& path) {
    const std::size_t period = raw.imgdata.idata.filters == LIBRAW_XTRANS ? 6 : 2;
    for (std::size_t row = 0; row < period; ++row) {
        mosaic.pattern.emplace_back();
        for (std::size_t col = 0; col < period; ++col) {
            const int index = raw.COLOR(static_cast<int>(row), static_cast<int>(col));
            const char color = index >= 0 && index < 4 ? raw.imgdata.idata.cdesc[index] : '?';
            if (std::strchr("RGB", color) == nullptr || color == '\0' || raw.imgdata.idata.colors != 3)
                throw std::runtime_error(path + ": the sensor has other color filters than red, green and blue");
            mosaic.pattern.back() += color;
            mosaic.black_levels.push_back(find_black(raw.imgdata.rawdata.color, row, col, index));
        }
    }
}

template <std::size_t kColumns>
std::array<float, 9> flatten(const float (*matrix)[kColumns]) {
    std::array<float, 9> flat{};
    for (std::size_t i = 0; i < flat.size(); ++i) flat[i] = matrix[i / 3][i % 3];
    return flat;
}

// The matrix of a camera that LibRaw knows, or that of a DNG, if possible the one for daylight.
void read_color_matrix(const libraw_colordata_t& color, Shot& shot) {
    constexpr int kD65 = 21;
    const std::array<float, 9> none{};
    shot.color_matrix = flatten(color.cam_xyz);
    if (shot.color_matrix != none) return;
    for (const auto& of_light : color.dng_color) {
        const std::array<float, 9> matrix = flatten(of_light.colormatrix);
        if (matrix == none || (shot.color_matrix != none && of_light.illuminant != kD65)) continue;
        shot.color_matrix = matrix;
        shot.illuminant = of_light.illuminant;
    }
}

Shot read_shot(const libraw_data_t& data) {
    Shot shot;
    shot.make = data.idata.make;
    shot.model = data.idata.model;
    read_color_matrix(data.color, shot);
    shot.time_s = static_cast<float>(round_known(data.other.shutter));
    shot.iso = static_cast<float>(round_known(data.other.iso_speed));
    shot.f_number = static_cast<float>(round_known(data.other.aperture));
    shot.focal_mm = static_cast<float>(round_known(data.other.focal_len));
    char taken[20];
    std::tm local{};
    if (data.other.timestamp > 0 && localtime_r(&data.other.timestamp, &local) != nullptr &&
        std::strftime(taken, sizeof taken, "%Y:%m:%d %H:%M:%S", &local) > 0)
        shot.taken = taken;
    return shot;
}

}  // namespace

Mosaic read_mosaic(const std::string& path) {
    open_to_read(path);
    LibRaw raw;
    check(raw.open_file(path.c_str()), path);
    check(raw.unpack(), path);
    const auto& sizes = raw.imgdata.rawdata.sizes;
    const unsigned short* samples = raw.imgdata.rawdata.raw_image;
    if (samples == nullptr || raw.imgdata.idata.filters == 0)
        throw std::runtime_error(path + ": the file has several colors at every pixel instead of a mosaic");
    Mosaic mosaic;
    mosaic.samples = Picture(sizes.height, sizes.width, 1, 2);
    for (std::size_t row = 0; row < sizes.height; ++row)
        std::memcpy(mosaic.samples.at(row, 0),
                    samples + (row + sizes.top_margin) * (sizes.raw_pitch / 2) + sizes.left_margin, sizes.width * 2u);
    read_filters(raw, mosaic, path);
    mosaic.white_level = static_cast<float>(raw.imgdata.rawdata.color.maximum);
    mosaic.white_balance = read_white_balance(raw.imgdata.rawdata.color.cam_mul);
    mosaic.shot = read_shot(raw.imgdata);
    mosaic.orientation = sizes.flip >= 0 && sizes.flip < 8 ? kOrientations[sizes.flip] : 1;
    return mosaic;
}

}  // namespace pellucid

#endif
