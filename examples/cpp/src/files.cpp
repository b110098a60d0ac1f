#include "pellucid/files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <stdexcept>

#include "file_access.h"
#include "formats.h"

namespace pellucid {

namespace {

enum class Format { kPng, kJpeg, kTiff, kDng, kOther };

std::string find_suffix(const std::string& path) {
    const std::size_t dot = path.find_last_of("./");
    if (dot == std::string::npos || path[dot] != '.') return "";
    std::string suffix = path.substr(dot);
    std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return std::tolower(c); });
    return suffix;
}

Format find_format_of_suffix(const std::string& path) {
    const std::string suffix = find_suffix(path);
    if (suffix == ".png") return Format::kPng;
    if (suffix == ".jpg" || suffix == ".jpeg") return Format::kJpeg;
    if (suffix == ".dng") return Format::kDng;
    return suffix == ".tif" || suffix == ".tiff" ? Format::kTiff : Format::kOther;
}

Format find_format(const std::string& path) {
    const File file = open_to_read(path);
    std::array<char, 8> head{};
    const std::size_t size = std::fread(head.data(), 1, head.size(), file.get());
    const auto begins_with = [&](const char* magic, std::size_t length) {
        return size >= length && std::memcmp(head.data(), magic, length) == 0;
    };
    if (begins_with("\x89PNG", 4)) return Format::kPng;
    if (begins_with("\xff\xd8\xff", 3)) return Format::kJpeg;
    const bool is_tiff = begins_with("II*\0", 4) || begins_with("MM\0*", 4) || begins_with("II+\0", 4) ||
                         begins_with("MM\0+", 4);
    return is_tiff ? Format::kTiff : Format::kOther;
}

}  // namespace

bool names_jpeg(const std::string& path) { return find_format_of_suffix(path) == Format::kJpeg; }

Picture read_picture(const std::string& path) {
    switch (find_format(path)) {
        case Format::kPng:
            return read_png(path);
        case Format::kJpeg:
            return read_jpeg(path);
        case Format::kTiff:
            return read_tiff(path);
        default:
            throw std::runtime_error(path + ": not a PNG, JPEG or TIFF picture");
    }
}

void check_output(const std::string& path, std::size_t sample_bytes, const WriteOptions& options) {
    const Format format = find_format_of_suffix(path);
    if (format == Format::kDng) throw std::runtime_error(path + ": only models that denoise RAW files write DNG");
    if (format == Format::kOther) throw std::runtime_error(path + ": the suffix must be .png, .jpg or .tif");
    if (format == Format::kJpeg && sample_bytes != 1)
        throw std::runtime_error(path + ": JPEG has 8 bits, and the result 16; write .png or .tif");
    if (!options.overwrite) check_absent(path);
}

void write_picture(const Picture& picture, const std::string& path, const WriteOptions& options) {
    check_output(path, picture.sample_bytes, options);
    const Format format = find_format_of_suffix(path);
    write_whole(path, options.overwrite, [&](std::FILE* file) {
        if (format == Format::kPng) return write_png(picture, file, path);
        if (format == Format::kJpeg) return write_jpeg(picture, file, path, options.quality);
        write_tiff(picture, file, path);
    });
}

void check_mosaic_output(const std::string& path, const WriteOptions& options) {
    if (find_format_of_suffix(path) != Format::kDng)
        throw std::runtime_error(path + ": the result is a camera RAW file; the suffix must be .dng");
    if (!options.overwrite) check_absent(path);
}

void write_mosaic(const Mosaic& mosaic, const std::string& path, const WriteOptions& options) {
    check_mosaic_output(path, options);
    write_whole(path, options.overwrite, [&](std::FILE* file) { write_dng(mosaic, file, path); });
}

}  // namespace pellucid
