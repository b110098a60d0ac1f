// One pair of functions for each format. All throw std::runtime_error that starts with the path.

#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "pellucid/picture.h"

namespace pellucid {

Picture read_png(const std::string& path);
void write_png(const Picture& picture, std::FILE* file, const std::string& path);

Picture read_jpeg(const std::string& path);
void write_jpeg(const Picture& picture, std::FILE* file, const std::string& path, int quality);

Picture read_tiff(const std::string& path);
void write_tiff(const Picture& picture, std::FILE* file, const std::string& path);

void write_dng(const Mosaic& mosaic, std::FILE* file, const std::string& path);

// The orientation in an EXIF block; 1 if it has none.
int find_orientation(std::vector<unsigned char> exif);

// The EXIF block of a picture for a file of it: upright, of its size, and without a reference to the
// thumbnail. All bytes keep their places, on which the notes of camera makers depend.
std::vector<unsigned char> describe_upright(const Picture& picture);

}  // namespace pellucid
