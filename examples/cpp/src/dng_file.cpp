#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "formats.h"
#include "tiff_access.h"

namespace pellucid {

namespace {

constexpr std::uint8_t kVersion[] = {1, 4, 0, 0}, kBackwardVersion[] = {1, 1, 0, 0};
constexpr int kD65 = 21;
constexpr std::uint16_t kLargestExifIso = 65535;  // EXIF: this one or a higher one

// From XYZ to linear sRGB, for cameras that LibRaw does not know.
constexpr std::array<float, 9> kOfSrgb{3.2406f,  -1.5372f, -0.4986f, -0.9689f, 1.8758f,
                                       0.0415f, 0.0557f,  -0.2040f, 1.0570f};

// Sets tags with one value, or with arrays, whose length libtiff wants to know for some tags.
class Directory {
  public:
    Directory(TIFF* tiff, const std::string& path) : tiff_(tiff), path_(path) {}

    template <typename Value>
    void set(std::uint32_t tag, Value value) const {
        check(TIFFSetField(tiff_, tag, value));
    }

    template <typename Value>
    void set_array(std::uint32_t tag, const Value* values, std::size_t count) const {
        const TIFFField* field = TIFFFieldWithTag(tiff_, tag);
        if (field == nullptr || TIFFFieldPassCount(field) == 0) return check(TIFFSetField(tiff_, tag, values));
        if (TIFFFieldWriteCount(field) == TIFF_VARIABLE2)
            return check(TIFFSetField(tiff_, tag, static_cast<std::uint32_t>(count), values));
        check(TIFFSetField(tiff_, tag, static_cast<int>(count), values));
    }

    void set_text(std::uint32_t tag, const std::string& text) const {
        if (!text.empty()) set(tag, text.c_str());
    }

    void set_known(std::uint32_t tag, float value) const {
        if (value > 0) set(tag, static_cast<double>(value));
    }

  private:
    void check(int result) const {
        if (result != 1) fail_tiff(path_);
    }

    TIFF* tiff_;
    const std::string& path_;
};

void set_form(const Directory& directory, const Mosaic& mosaic) {
    const Picture& samples = mosaic.samples;
    directory.set(TIFFTAG_SUBFILETYPE, 0);
    directory.set(TIFFTAG_IMAGEWIDTH, static_cast<std::uint32_t>(samples.width));
    directory.set(TIFFTAG_IMAGELENGTH, static_cast<std::uint32_t>(samples.height));
    directory.set(TIFFTAG_SAMPLESPERPIXEL, 1);
    directory.set(TIFFTAG_BITSPERSAMPLE, 16);
    directory.set(TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_CFA);
    directory.set(TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    directory.set(TIFFTAG_COMPRESSION, COMPRESSION_NONE);
    directory.set(TIFFTAG_ROWSPERSTRIP, static_cast<std::uint32_t>(samples.height));
    directory.set(TIFFTAG_ORIENTATION, mosaic.orientation);
    directory.set(TIFFTAG_SOFTWARE, "pellucid");
}

void set_mosaic(const Directory& directory, const Mosaic& mosaic) {
    constexpr std::uint16_t kPeriod[] = {2, 2};
    constexpr std::uint8_t kPlanes[] = {0, 1, 2};
    const std::string names = "RGB";
    std::vector<std::uint8_t> filters;
    for (const std::string& row : mosaic.pattern) {
        for (const char color : row) filters.push_back(static_cast<std::uint8_t>(names.find(color)));
    }
    const auto white = static_cast<std::uint32_t>(std::lround(mosaic.white_level));
    directory.set_array(TIFFTAG_CFAREPEATPATTERNDIM, kPeriod, 2);
    directory.set_array(TIFFTAG_CFAPATTERN, filters.data(), filters.size());
    directory.set_array(TIFFTAG_CFAPLANECOLOR, kPlanes, 3);
    directory.set(TIFFTAG_CFALAYOUT, 1);
    directory.set_array(TIFFTAG_BLACKLEVELREPEATDIM, kPeriod, 2);
    directory.set_array(TIFFTAG_BLACKLEVEL, mosaic.black_levels.data(), mosaic.black_levels.size());
    directory.set_array(TIFFTAG_WHITELEVEL, &white, 1);
}

void set_colors(const Directory& directory, const Mosaic& mosaic) {
    const Shot& shot = mosaic.shot;
    const std::string camera = shot.make + (shot.make.empty() || shot.model.empty() ? "" : " ") + shot.model;
    const bool is_known = shot.color_matrix != std::array<float, 9>{};
    const std::array<float, 9>& matrix = is_known ? shot.color_matrix : kOfSrgb;
    directory.set_text(TIFFTAG_MAKE, shot.make);
    directory.set_text(TIFFTAG_MODEL, shot.model);
    directory.set_array(TIFFTAG_DNGVERSION, kVersion, 4);
    directory.set_array(TIFFTAG_DNGBACKWARDVERSION, kBackwardVersion, 4);
    directory.set_text(TIFFTAG_UNIQUECAMERAMODEL, camera.empty() ? "pellucid" : camera);
    directory.set_array(TIFFTAG_COLORMATRIX1, matrix.data(), matrix.size());
    directory.set(TIFFTAG_CALIBRATIONILLUMINANT1, is_known ? shot.illuminant : kD65);
    const auto& gains = mosaic.white_balance;
    if (gains[0] == 0) return;
    const float neutral[] = {1 / gains[0], 1 / gains[1], 1 / gains[2]};
    directory.set_array(TIFFTAG_ASSHOTNEUTRAL, neutral, 3);
}

// libtiff cannot write a directory without tags.
bool has_exposure(const Shot& shot) {
    return shot.time_s > 0 || shot.f_number > 0 || shot.focal_mm > 0 || shot.iso >= 0.5f || !shot.taken.empty();
}

void set_exposure(const Directory& directory, const Shot& shot) {
    directory.set_known(EXIFTAG_EXPOSURETIME, shot.time_s);
    directory.set_known(EXIFTAG_FNUMBER, shot.f_number);
    directory.set_known(EXIFTAG_FOCALLENGTH, shot.focal_mm);
    directory.set_text(EXIFTAG_DATETIMEORIGINAL, shot.taken);
    if (!(shot.iso >= 0.5f)) return;
    const auto iso = static_cast<std::uint16_t>(std::min(std::lround(shot.iso), static_cast<long>(kLargestExifIso)));
    directory.set_array(EXIFTAG_ISOSPEEDRATINGS, &iso, 1);
}

}  // namespace

// libtiff writes the directory of EXIF after the main one, which is then written again with the place of the first.
void write_dng(const Mosaic& mosaic, std::FILE* file, const std::string& path) {
    check_mosaic(mosaic);
    if (mosaic.pattern.size() != 2) throw std::runtime_error(path + ": only Bayer mosaics are written");
    if (*std::min_element(mosaic.black_levels.begin(), mosaic.black_levels.end()) < 0 || mosaic.white_level > 65535)
        throw std::runtime_error(path + ": the levels of the mosaic are not those of 16 bits");
    const Tiff tiff = open_tiff_to_write(file, path, "w");
    const Directory directory(tiff.get(), path);
    set_form(directory, mosaic);
    set_mosaic(directory, mosaic);
    set_colors(directory, mosaic);
    std::vector<unsigned char> row(mosaic.samples.width * 2);  // libtiff may change what it is given
    for (std::size_t i = 0; i < mosaic.samples.height; ++i) {
        std::memcpy(row.data(), mosaic.samples.at(i, 0), row.size());
        if (TIFFWriteScanline(tiff.get(), row.data(), static_cast<std::uint32_t>(i), 0) < 0) fail_tiff(path);
    }
    if (!has_exposure(mosaic.shot)) {
        if (TIFFFlush(tiff.get()) == 0) fail_tiff(path);
        return;
    }
    std::uint64_t place = 0;
    bool is_written = TIFFWriteDirectory(tiff.get()) != 0 && TIFFCreateEXIFDirectory(tiff.get()) == 0;
    set_exposure(directory, mosaic.shot);
    is_written = is_written && TIFFWriteCustomDirectory(tiff.get(), &place) != 0;
    is_written = is_written && TIFFSetDirectory(tiff.get(), 0) != 0;
    directory.set(TIFFTAG_EXIFIFD, place);
    if (!is_written || TIFFRewriteDirectory(tiff.get()) == 0) fail_tiff(path);
}

}  // namespace pellucid
