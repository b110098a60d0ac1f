#include "tiff_access.h"

#include <unistd.h>

#include <cstdarg>
#include <stdexcept>

namespace pellucid {

namespace {

thread_local std::string last_error;  // libtiff reports errors by a callback, and then returns

void on_error(const char*, const char* format, va_list arguments) {
    if (!last_error.empty()) return;
    char text[512];
    std::vsnprintf(text, sizeof text, format, arguments);
    last_error = text;
}

void reset_errors() {
    last_error.clear();
    TIFFSetErrorHandler(on_error);
    TIFFSetWarningHandler(nullptr);
}

}  // namespace

Tiff open_tiff(const std::string& path) {
    reset_errors();
    Tiff tiff(TIFFOpen(path.c_str(), "r"));
    if (!tiff) fail_tiff(path);
    return tiff;
}

Tiff open_tiff_to_write(std::FILE* file, const std::string& path, const char* mode) {
    reset_errors();
    Tiff tiff(TIFFFdOpen(dup(fileno(file)), path.c_str(), mode));
    if (!tiff) fail_tiff(path);
    return tiff;
}

bool has_tiff_failed() { return !last_error.empty(); }

void fail_tiff(const std::string& path) {
    throw std::runtime_error(path + ": " + (last_error.empty() ? "the file is damaged" : last_error));
}

}  // namespace pellucid
