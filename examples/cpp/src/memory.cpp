#include "memory.h"

#include <fstream>
#include <limits>
#include <string>

namespace pellucid {

namespace {

// A line is "VmRSS:     1234 kB".
std::size_t read_line(const char* path, const std::string& name) {
    std::ifstream file(path);
    std::string word;
    while (file >> word) {
        std::size_t kilobytes = 0;
        if (word == name + ":") return file >> kilobytes ? kilobytes * 1024 : 0;
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    return 0;
}

}  // namespace

std::size_t read_free_bytes() { return read_line("/proc/meminfo", "MemAvailable"); }

std::size_t read_resident_bytes() { return read_line("/proc/self/status", "VmRSS"); }

std::size_t read_peak_bytes() { return read_line("/proc/self/status", "VmHWM"); }

void reset_peak() { std::ofstream("/proc/self/clear_refs") << 5; }

}  // namespace pellucid
