#include "formats.h"

namespace pellucid {

namespace {

constexpr unsigned kWidth = 0x0100, kHeight = 0x0101, kOrientation = 0x0112;
constexpr unsigned kExifWidth = 0xa002, kExifHeight = 0xa003, kExifDirectory = 0x8769;
constexpr std::size_t kEntryBytes = 12, kHeadBytes = 8;
constexpr std::size_t kLong = 4;  // a type: 32 bits

// The directories of an EXIF block. Numbers outside of the block are 0, and are not written.
class Block {
  public:
    explicit Block(std::vector<unsigned char>& bytes)
        : bytes_(bytes), is_little_(!bytes.empty() && bytes[0] == 'I') {}

    std::size_t read(std::size_t offset, std::size_t count) const {
        std::size_t value = 0;
        for (std::size_t i = 0; is_inside(offset, count) && i < count; ++i)
            value = value << 8 | bytes_[offset + (is_little_ ? count - 1 - i : i)];
        return value;
    }

    void write(std::size_t offset, std::size_t count, std::size_t value) {
        for (std::size_t i = 0; is_inside(offset, count) && i < count; ++i)
            bytes_[offset + (is_little_ ? i : count - 1 - i)] = static_cast<unsigned char>(value >> 8 * i);
    }

    std::size_t first_directory() const { return read(4, 4); }

    // Where the place of the directory after this one is stored.
    std::size_t next_place(std::size_t directory) const { return directory + 2 + read(directory, 2) * kEntryBytes; }

    // The offset of an entry; 0 if the directory does not have it.
    std::size_t find(std::size_t directory, unsigned tag) const {
        if (directory < kHeadBytes) return 0;
        const std::size_t stop = next_place(directory);
        for (std::size_t entry = directory + 2; entry < stop && is_inside(entry, kEntryBytes); entry += kEntryBytes) {
            if (read(entry, 2) == tag) return entry;
        }
        return 0;
    }

    void replace(std::size_t directory, unsigned tag, std::size_t value) {
        const std::size_t entry = find(directory, tag);
        if (entry == 0) return;
        write(entry + 2, 2, kLong);
        write(entry + 4, 4, 1);
        write(entry + 8, 4, value);
    }

  private:
    bool is_inside(std::size_t offset, std::size_t count) const {
        return offset <= bytes_.size() && count <= bytes_.size() - offset;
    }

    std::vector<unsigned char>& bytes_;
    bool is_little_;
};

}  // namespace

int find_orientation(std::vector<unsigned char> exif) {
    const Block block(exif);
    const std::size_t entry = block.find(block.first_directory(), kOrientation);
    return entry == 0 ? 1 : static_cast<int>(block.read(entry + 8, 2));
}

std::vector<unsigned char> describe_upright(const Picture& picture) {
    std::vector<unsigned char> exif = picture.exif;
    Block block(exif);
    const std::size_t first = block.first_directory();
    if (first < kHeadBytes) return {};
    if (const std::size_t entry = block.find(first, kOrientation)) block.write(entry + 8, 2, 1);
    block.replace(first, kWidth, picture.width);
    block.replace(first, kHeight, picture.height);
    if (const std::size_t entry = block.find(first, kExifDirectory)) {
        const std::size_t of_camera = block.read(entry + 8, 4);
        block.replace(of_camera, kExifWidth, picture.width);
        block.replace(of_camera, kExifHeight, picture.height);
    }
    block.write(block.next_place(first), 4, 0);  // the next one is that of the thumbnail
    return exif;
}

}  // namespace pellucid
