// Reading and writing picture files. All functions throw std::runtime_error with one line.

#pragma once

#include <string>

#include "pellucid/picture.h"

namespace pellucid {

// A PNG, JPEG or TIFF: gray or RGB, 8 or 16 bits, upright. Fewer bits become 8, and palettes RGB.
// Refused: transparency, CMYK, floating point, several pages, camera RAW files, and files that are damaged.
Picture read_picture(const std::string& path);

// A camera RAW file, read by LibRaw. Throws if the library was built without LibRaw.
Mosaic read_mosaic(const std::string& path);

struct WriteOptions {
    bool overwrite = false;
    int quality = 0;  // of JPEG, 1 to 100; 0: that of the file that the picture is from, or 95; others ignore it
};

// JPEG cannot contain more EXIF, which is then left out.
constexpr std::size_t kMostExifBytesInJpeg = 65527;

// Whether a result of this name becomes a JPEG.
bool names_jpeg(const std::string& path);

// Throws if the suffix is not of PNG, JPEG or TIFF, if the format cannot contain samples of this size, or if the file
// exists and must not be overwritten.
void check_output(const std::string& path, std::size_t sample_bytes, const WriteOptions& options);

// The format is that of the suffix. The file appears under its name when it is complete.
void write_picture(const Picture& picture, const std::string& path, const WriteOptions& options = {});

// The same for the DNG file of a Bayer mosaic, which RAW programs develop.
void check_mosaic_output(const std::string& path, const WriteOptions& options);
void write_mosaic(const Mosaic& mosaic, const std::string& path, const WriteOptions& options = {});

}  // namespace pellucid
