// libtiff, whose errors become exceptions.

#pragma once

#include <tiffio.h>

#include <cstdio>
#include <memory>
#include <string>

namespace pellucid {

struct CloseTiff {
    void operator()(TIFF* tiff) const { TIFFClose(tiff); }
};

using Tiff = std::unique_ptr<TIFF, CloseTiff>;

// Throw std::runtime_error if libtiff cannot open it. mode: as for TIFFOpen.
Tiff open_tiff(const std::string& path);
Tiff open_tiff_to_write(std::FILE* file, const std::string& path, const char* mode);

// Whether libtiff reported an error since this thread opened a file.
bool has_tiff_failed();

// Throws std::runtime_error with what libtiff reported first.
[[noreturn]] void fail_tiff(const std::string& path);

}  // namespace pellucid
