#include "formats.h"

namespace pellucid {

namespace {

constexpr unsigned kOrientation = 0x0112;
constexpr std::size_t kEntryBytes = 12;

}  // namespace

int find_orientation(const unsigned char* block, std::size_t size) {
    if (size < 14) return 1;
    const bool is_little = block[0] == 'I';
    const auto number = [&](std::size_t offset, std::size_t bytes) {
        std::size_t value = 0;
        for (std::size_t i = 0; i < bytes; ++i) value = value << 8 | block[offset + (is_little ? bytes - 1 - i : i)];
        return value;
    };
    const std::size_t directory = number(4, 4);
    if (directory > size - 2) return 1;
    const std::size_t count = number(directory, 2);
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t entry = directory + 2 + i * kEntryBytes;
        if (entry + kEntryBytes > size) break;
        if (number(entry, 2) == kOrientation) return static_cast<int>(number(entry + 8, 2));
    }
    return 1;
}

}  // namespace pellucid
