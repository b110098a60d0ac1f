#include <png.h>

#include <csetjmp>
#include <stdexcept>

#include "file_access.h"
#include "formats.h"

namespace pellucid {

namespace {

// libpng reports errors by a jump, so all objects with destructors are made before it is called.
[[noreturn]] void on_error(png_structp png, png_const_charp message) {
    *static_cast<std::string*>(png_get_error_ptr(png)) = message;
    png_longjmp(png, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

// Samples with fewer significant bits than they are stored with would have another white.
bool has_fewer_bits(png_structp png, png_infop info) {
    png_color_8p significant = nullptr;
    if (png_get_sBIT(png, info, &significant) == 0) return false;
    const int depth = png_get_color_type(png, info) == PNG_COLOR_TYPE_PALETTE ? 8 : png_get_bit_depth(png, info);
    const bool is_gray = (png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR) == 0;
    return (is_gray ? significant->gray : significant->green) < depth;
}

// Everything becomes gray or RGB of 8 or 16 bits.
void set_conversions(png_structp png, png_infop info) {
    png_set_expand(png);
    if (png_get_bit_depth(png, info) == 16) png_set_swap(png);
    png_set_interlace_handling(png);
    if (png_get_valid(png, info, PNG_INFO_tRNS) != 0 || (png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA) != 0)
        png_error(png, "the picture has transparency; remove it first");
    if (has_fewer_bits(png, info))
        png_error(png, "fewer bits are significant (sBIT) than are stored, which this program does not support");
    png_read_update_info(png, info);
}

void read_profile(png_structp png, png_infop info, std::vector<unsigned char>& profile) {
    png_charp name = nullptr;
    png_bytep content = nullptr;
    png_uint_32 size = 0;
    int compression = 0;
    if (png_get_iCCP(png, info, &name, &compression, &content, &size) != 0) profile.assign(content, content + size);
}

void read_exif(png_structp png, png_infop info, std::vector<unsigned char>& exif) {
    png_bytep block = nullptr;
    png_uint_32 size = 0;
    if (png_get_eXIf_1(png, info, &size, &block) != 0) exif.assign(block, block + size);
}

}  // namespace

Picture read_png(const std::string& path) {
    const File file = open_to_read(path);
    std::string message;
    Picture picture;
    std::vector<unsigned char> profile, exif;
    std::vector<png_bytep> rows;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message, on_error, ignore_warning);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)) == 0) {
        png_init_io(png, file.get());
        png_read_info(png, info);
        set_conversions(png, info);
        picture = Picture(png_get_image_height(png, info), png_get_image_width(png, info), png_get_channels(png, info),
                          png_get_bit_depth(png, info) / 8u);
        for (std::size_t row = 0; row < picture.height; ++row) rows.push_back(picture.at(row, 0));
        png_read_image(png, rows.data());
        png_read_end(png, info);  // EXIF may follow the samples
        read_profile(png, info, profile);
        read_exif(png, info, exif);
    }
    png_destroy_read_struct(&png, &info, nullptr);
    if (!message.empty()) throw std::runtime_error(path + ": " + message);
    picture.profile = std::move(profile);
    picture.exif = std::move(exif);
    const int orientation = find_orientation(picture.exif);
    return apply_orientation(std::move(picture), orientation);
}

void write_png(const Picture& picture, std::FILE* file, const std::string& path) {
    std::string message;
    std::vector<png_const_bytep> rows;
    std::vector<unsigned char> exif = describe_upright(picture);
    for (std::size_t row = 0; row < picture.height; ++row) rows.push_back(picture.at(row, 0));
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &message, on_error, ignore_warning);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)) == 0) {
        png_init_io(png, file);
        png_set_IHDR(png, info, static_cast<png_uint_32>(picture.width), static_cast<png_uint_32>(picture.height),
                     static_cast<int>(8 * picture.sample_bytes),
                     picture.channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        if (!picture.profile.empty())
            png_set_iCCP(png, info, "ICC profile", PNG_COMPRESSION_TYPE_BASE, picture.profile.data(),
                         static_cast<png_uint_32>(picture.profile.size()));
        if (!exif.empty()) png_set_eXIf_1(png, info, static_cast<png_uint_32>(exif.size()), exif.data());
        png_write_info(png, info);
        if (picture.sample_bytes == 2) png_set_swap(png);
        png_write_image(png, const_cast<png_bytepp>(rows.data()));
        png_write_end(png, nullptr);  // some releases would write EXIF a second time
    }
    png_destroy_write_struct(&png, &info);
    if (!message.empty()) throw std::runtime_error(path + ": " + message);
}

}  // namespace pellucid
