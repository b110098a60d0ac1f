#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

// It needs FILE, and does not include it.
#include <jpeglib.h>

#include "file_access.h"
#include "formats.h"
#include "pellucid/files.h"

namespace pellucid {

namespace {

constexpr int kQuality = 95;  // of pictures that are not from a JPEG

constexpr int kExifMarker = JPEG_APP0 + 1;
constexpr char kExifHead[] = "Exif\0";
constexpr std::size_t kExifHeadBytes = 6;

// libjpeg reports errors by a callback that must not return, so all objects with destructors are made before.
struct Errors {
    jpeg_error_mgr manager{};  // first, because libjpeg's pointer to it is cast to Errors
    std::jmp_buf place{};
    char message[JMSG_LENGTH_MAX] = "";
};

[[noreturn]] void on_error(j_common_ptr jpeg) {
    auto* errors = reinterpret_cast<Errors*>(jpeg->err);
    if (errors->message[0] == '\0') jpeg->err->format_message(jpeg, errors->message);
    std::longjmp(errors->place, 1);
}

// Warnings are about damage: libjpeg continues with samples that are not in the file.
void on_message(j_common_ptr jpeg, int level) {
    if (level < 0) on_error(jpeg);
}

void set_handlers(Errors& errors) {
    jpeg_std_error(&errors.manager);
    errors.manager.error_exit = on_error;
    errors.manager.emit_message = on_message;
}

[[noreturn]] void refuse(jpeg_decompress_struct& jpeg, const char* reason) {
    auto* errors = reinterpret_cast<Errors*>(jpeg.err);
    std::strncpy(errors->message, reason, sizeof errors->message - 1);
    on_error(reinterpret_cast<j_common_ptr>(&jpeg));
}

void read_exif(const jpeg_decompress_struct& jpeg, std::vector<unsigned char>& exif) {
    for (jpeg_saved_marker_ptr marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
        const bool is_exif = marker->marker == kExifMarker && marker->data_length > kExifHeadBytes &&
                             std::memcmp(marker->data, kExifHead, kExifHeadBytes) == 0;
        if (!is_exif) continue;
        exif.assign(marker->data + kExifHeadBytes, marker->data + marker->data_length);
        return;
    }
}

void write_exif(jpeg_compress_struct& jpeg, const std::vector<unsigned char>& exif) {
    jpeg_write_m_header(&jpeg, kExifMarker, static_cast<unsigned>(kExifHeadBytes + exif.size()));
    for (std::size_t i = 0; i < kExifHeadBytes; ++i) jpeg_write_m_byte(&jpeg, kExifHead[i]);
    for (const unsigned char byte : exif) jpeg_write_m_byte(&jpeg, byte);
}

// The quality for which libjpeg has the most similar tables; exact for files of most programs.
int find_quality(const jpeg_decompress_struct& jpeg) {
    jpeg_error_mgr manager{};
    jpeg_compress_struct other{};
    other.err = jpeg_std_error(&manager);
    jpeg_create_compress(&other);
    long least = -1;
    int best = 0;
    for (int quality = 100; quality > 0; --quality) {
        jpeg_set_quality(&other, quality, TRUE);
        long distance = 0;
        for (int table = 0; table < 2; ++table) {
            const JQUANT_TBL* own = jpeg.quant_tbl_ptrs[table];
            for (int i = 0; own != nullptr && i < DCTSIZE2; ++i)
                distance += std::labs(static_cast<long>(own->quantval[i]) - other.quant_tbl_ptrs[table]->quantval[i]);
        }
        if (least < 0 || distance < least) {
            least = distance;
            best = quality;
        }
    }
    jpeg_destroy_compress(&other);
    return best;
}

}  // namespace

Picture read_jpeg(const std::string& path) {
    const File file = open_to_read(path);
    Errors errors;
    jpeg_decompress_struct jpeg{};
    Picture picture;
    std::vector<unsigned char> exif;
    jpeg.err = &errors.manager;
    set_handlers(errors);
    const bool has_failed = setjmp(errors.place) != 0;
    if (!has_failed) {
        jpeg_create_decompress(&jpeg);
        jpeg_stdio_src(&jpeg, file.get());
        jpeg_save_markers(&jpeg, kExifMarker, 0xffff);
        jpeg_save_markers(&jpeg, JPEG_APP0 + 2, 0xffff);  // ICC
        jpeg_read_header(&jpeg, TRUE);
        if (jpeg.num_components != 1 && jpeg.num_components != 3)
            refuse(jpeg, "the picture is CMYK; convert it to RGB");
        jpeg.out_color_space = jpeg.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
        jpeg_start_decompress(&jpeg);
        picture = Picture(jpeg.output_height, jpeg.output_width, static_cast<std::size_t>(jpeg.output_components), 1);
        while (jpeg.output_scanline < jpeg.output_height) {
            JSAMPROW row = picture.at(jpeg.output_scanline, 0);
            jpeg_read_scanlines(&jpeg, &row, 1);
        }
        picture.jpeg_quality = find_quality(jpeg);
        picture.has_half_color = jpeg.max_h_samp_factor == 2 && jpeg.max_v_samp_factor == 2;
        read_exif(jpeg, exif);
        JOCTET* profile = nullptr;
        unsigned size = 0;
        if (jpeg_read_icc_profile(&jpeg, &profile, &size) != 0) picture.profile.assign(profile, profile + size);
        std::free(profile);
        jpeg_finish_decompress(&jpeg);
    }
    jpeg_destroy_decompress(&jpeg);
    if (has_failed) throw std::runtime_error(path + ": " + errors.message);
    picture.exif = std::move(exif);
    const int orientation = find_orientation(picture.exif);
    return apply_orientation(std::move(picture), orientation);
}

void write_jpeg(const Picture& picture, std::FILE* file, const std::string& path, int quality) {
    Errors errors;
    const std::vector<unsigned char> exif = describe_upright(picture);
    jpeg_compress_struct jpeg{};
    jpeg.err = &errors.manager;
    set_handlers(errors);
    const bool has_failed = setjmp(errors.place) != 0;
    if (!has_failed) {
        jpeg_create_compress(&jpeg);
        jpeg_stdio_dest(&jpeg, file);
        jpeg.image_width = static_cast<JDIMENSION>(picture.width);
        jpeg.image_height = static_cast<JDIMENSION>(picture.height);
        jpeg.input_components = static_cast<int>(picture.channels);
        jpeg.in_color_space = picture.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
        jpeg_set_defaults(&jpeg);
        const int own_quality = picture.jpeg_quality > 0 ? picture.jpeg_quality : kQuality;
        jpeg_set_quality(&jpeg, quality > 0 ? quality : own_quality, TRUE);
        jpeg.optimize_coding = TRUE;
        jpeg.comp_info[0].h_samp_factor = jpeg.comp_info[0].v_samp_factor = picture.has_half_color ? 2 : 1;
        jpeg_start_compress(&jpeg, TRUE);
        if (!exif.empty() && exif.size() <= kMostExifBytesInJpeg) write_exif(jpeg, exif);
        if (!picture.profile.empty())
            jpeg_write_icc_profile(&jpeg, picture.profile.data(), static_cast<unsigned>(picture.profile.size()));
        while (jpeg.next_scanline < jpeg.image_height) {
            JSAMPROW row = const_cast<JSAMPROW>(picture.at(jpeg.next_scanline, 0));
            jpeg_write_scanlines(&jpeg, &row, 1);
        }
        jpeg_finish_compress(&jpeg);
    }
    jpeg_destroy_compress(&jpeg);
    if (has_failed) throw std::runtime_error(path + ": " + errors.message);
}

}  // namespace pellucid
