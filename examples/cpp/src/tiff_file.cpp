#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "file_access.h"
#include "formats.h"
#include "tiff_access.h"

namespace pellucid {

namespace {

std::uint16_t find(const Tiff& tiff, std::uint32_t tag) {
    std::uint16_t value = 0;
    TIFFGetFieldDefaulted(tiff.get(), tag, &value);
    return value;
}

// What a TIFF can contain and this program does not restore; nullptr if there is nothing of it.
const char* find_obstacle(const Tiff& tiff) {
    const std::uint16_t bits = find(tiff, TIFFTAG_BITSPERSAMPLE), colors = find(tiff, TIFFTAG_PHOTOMETRIC);
    const std::uint16_t channels = find(tiff, TIFFTAG_SAMPLESPERPIXEL), peak = bits == 16 ? 65535 : 255;
    std::uint16_t white = peak;
    TIFFGetField(tiff.get(), TIFFTAG_MAXSAMPLEVALUE, &white);
    const std::uint8_t* version = nullptr;
    const std::uint64_t* directories = nullptr;
    std::uint16_t num_directories = 0;
    if (TIFFGetField(tiff.get(), TIFFTAG_DNGVERSION, &version) != 0 ||
        TIFFGetField(tiff.get(), TIFFTAG_SUBIFD, &num_directories, &directories) != 0)
        return "a camera RAW file, or one with several pictures; this model takes developed pictures";
    if (TIFFNumberOfDirectories(tiff.get()) > 1) return "the file has several pages; split it first";
    if (find(tiff, TIFFTAG_SAMPLEFORMAT) != SAMPLEFORMAT_UINT || (bits != 8 && bits != 16))
        return "the samples are not unsigned integers of 8 or 16 bits";
    if (colors != PHOTOMETRIC_MINISBLACK && colors != PHOTOMETRIC_MINISWHITE && colors != PHOTOMETRIC_RGB)
        return "the picture is neither gray nor RGB; convert it first";
    if (channels != (colors == PHOTOMETRIC_RGB ? 3 : 1))
        return "the picture has transparency or other channels; remove them first";
    return white == peak ? nullptr : "white is not the largest value (MaxSampleValue); scale the samples first";
}

// Copies rows x cols of one channel, or of all of them, from a strip or tile.
void paste(Picture& picture, const unsigned char* source, std::size_t row, std::size_t col, std::size_t width,
           std::size_t channel, std::size_t num_channels) {
    const std::size_t bytes = picture.sample_bytes, count = std::min(width, picture.width - col);
    if (num_channels == picture.channels) {
        std::memcpy(picture.at(row, col), source, count * picture.pixel_bytes());
        return;
    }
    for (std::size_t i = 0; i < count; ++i)
        std::memcpy(picture.at(row, col + i) + channel * bytes, source + i * bytes, bytes);
}

bool read_samples(const Tiff& tiff, Picture& picture) {
    const bool is_tiled = TIFFIsTiled(tiff.get()) != 0;
    const bool is_planar = find(tiff, TIFFTAG_PLANARCONFIG) == PLANARCONFIG_SEPARATE;
    std::uint32_t tile_width = static_cast<std::uint32_t>(picture.width), tile_height = 1;
    if (is_tiled) {
        TIFFGetField(tiff.get(), TIFFTAG_TILEWIDTH, &tile_width);
        TIFFGetField(tiff.get(), TIFFTAG_TILELENGTH, &tile_height);
    }
    const std::size_t num_channels = is_planar ? 1 : picture.channels;
    const std::size_t row_bytes = tile_width * num_channels * picture.sample_bytes;
    const auto size = is_tiled ? TIFFTileSize(tiff.get()) : TIFFScanlineSize(tiff.get());
    const auto part_bytes = static_cast<std::size_t>(size);
    if (part_bytes < row_bytes * tile_height) return false;
    std::vector<unsigned char> part(part_bytes);
    for (std::size_t channel = 0; channel < picture.channels; channel += num_channels) {
        for (std::uint32_t top = 0; top < picture.height; top += tile_height) {
            for (std::uint32_t left = 0; left < picture.width; left += tile_width) {
                const auto plane = static_cast<std::uint16_t>(channel);
                const bool is_read = is_tiled ? TIFFReadTile(tiff.get(), part.data(), left, top, 0, plane) >= 0
                                              : TIFFReadScanline(tiff.get(), part.data(), top, plane) >= 0;
                if (!is_read) return false;
                for (std::uint32_t row = 0; row < tile_height && top + row < picture.height; ++row)
                    paste(picture, part.data() + row * row_bytes, top + row, left, tile_width, channel, num_channels);
            }
        }
    }
    return !has_tiff_failed();
}

}  // namespace

Picture read_tiff(const std::string& path) {
    open_to_read(path);
    const Tiff tiff = open_tiff(path);
    if (const char* obstacle = find_obstacle(tiff)) throw std::runtime_error(path + ": " + obstacle);
    std::uint32_t width = 0, height = 0, profile_bytes = 0;
    TIFFGetField(tiff.get(), TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(tiff.get(), TIFFTAG_IMAGELENGTH, &height);
    Picture picture(height, width, find(tiff, TIFFTAG_SAMPLESPERPIXEL), find(tiff, TIFFTAG_BITSPERSAMPLE) / 8u);
    if (!read_samples(tiff, picture)) fail_tiff(path);
    if (find(tiff, TIFFTAG_PHOTOMETRIC) == PHOTOMETRIC_MINISWHITE) {
        for (unsigned char& byte : picture.samples) byte = static_cast<unsigned char>(~byte);
    }
    const void* profile = nullptr;
    if (TIFFGetField(tiff.get(), TIFFTAG_ICCPROFILE, &profile_bytes, &profile) != 0) {
        const auto* begin = static_cast<const unsigned char*>(profile);
        picture.profile.assign(begin, begin + profile_bytes);
    }
    return apply_orientation(std::move(picture), find(tiff, TIFFTAG_ORIENTATION));
}

void write_tiff(const Picture& picture, std::FILE* file, const std::string& path) {
    constexpr std::size_t kClassicBytes = 0xf0000000;  // of the 4 GB of a classic TIFF
    const char* mode = picture.samples.size() > kClassicBytes ? "w8" : "w";
    const Tiff tiff = open_tiff_to_write(file, path, mode);
    const auto set = [&](std::uint32_t tag, auto value) { TIFFSetField(tiff.get(), tag, value); };
    set(TIFFTAG_IMAGEWIDTH, static_cast<std::uint32_t>(picture.width));
    set(TIFFTAG_IMAGELENGTH, static_cast<std::uint32_t>(picture.height));
    set(TIFFTAG_SAMPLESPERPIXEL, static_cast<int>(picture.channels));
    set(TIFFTAG_BITSPERSAMPLE, static_cast<int>(8 * picture.sample_bytes));
    set(TIFFTAG_PHOTOMETRIC, picture.channels == 3 ? PHOTOMETRIC_RGB : PHOTOMETRIC_MINISBLACK);
    set(TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    set(TIFFTAG_COMPRESSION, COMPRESSION_ADOBE_DEFLATE);
    set(TIFFTAG_PREDICTOR, PREDICTOR_HORIZONTAL);
    set(TIFFTAG_ROWSPERSTRIP, TIFFDefaultStripSize(tiff.get(), 0));
    if (!picture.profile.empty())
        TIFFSetField(tiff.get(), TIFFTAG_ICCPROFILE, static_cast<std::uint32_t>(picture.profile.size()),
                     picture.profile.data());
    std::vector<unsigned char> row(picture.width * picture.pixel_bytes());  // the predictor changes what it is given
    for (std::size_t i = 0; i < picture.height; ++i) {
        std::memcpy(row.data(), picture.at(i, 0), row.size());
        if (TIFFWriteScanline(tiff.get(), row.data(), static_cast<std::uint32_t>(i), 0) < 0) fail_tiff(path);
    }
    if (TIFFFlush(tiff.get()) == 0) fail_tiff(path);
}

}  // namespace pellucid
