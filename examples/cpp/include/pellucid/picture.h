// Pictures and camera mosaics: the samples of files.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pellucid {

// Samples of 1 or 2 bytes, row by row, with interleaved channels: 1 (gray) or 3 (RGB).
struct Picture {
    std::size_t height = 0, width = 0, channels = 0, sample_bytes = 1;
    std::vector<unsigned char> samples;
    std::vector<unsigned char> profile;  // ICC; empty if there is none
    std::vector<unsigned char> exif;     // of PNG and JPEG, from "II" or "MM" on; empty if there is none
    int jpeg_quality = 0;                // of the JPEG file that it is from, 1 to 100; 0 if it is from another one
    bool has_half_color = false;         // whether that file had half as many rows and columns of color

    Picture() = default;
    Picture(std::size_t height, std::size_t width, std::size_t channels, std::size_t sample_bytes);

    // The profile, EXIF and the way of storage.
    void copy_facts(const Picture& other);

    std::size_t pixel_bytes() const { return channels * sample_bytes; }
    unsigned char* at(std::size_t row, std::size_t col) { return samples.data() + offset(row, col); }
    const unsigned char* at(std::size_t row, std::size_t col) const { return samples.data() + offset(row, col); }

  private:
    std::size_t offset(std::size_t row, std::size_t col) const { return (row * width + col) * pixel_bytes(); }
};

// What a RAW file contains about its camera and exposure; 0 and "" if it does not.
struct Shot {
    std::string make, model;
    std::string taken;                     // "2026:05:04 10:20:30"
    std::array<float, 9> color_matrix{};   // from XYZ to the colors of the camera, row by row
    int illuminant = 21;                   // light of that matrix, as in EXIF; 21 is D65
    float time_s = 0, iso = 0, f_number = 0, focal_mm = 0;
};

// The noise of a mosaic: the variance of a sample is shot * signal + read, where black is 0 and white is 1.
struct Noise {
    float shot = 0, read = 0;
};

// The visible samples of a camera RAW file.
struct Mosaic {
    Picture samples;                            // 1 channel of 16 bits
    std::vector<std::string> pattern;           // colors of the filters that repeat, e.g. {"RG", "GB"}
    std::vector<float> black_levels;            // one for each filter of the pattern, row by row
    float white_level = 0;
    std::array<float, 3> white_balance{};       // gains of red, green and blue; zeros if the file has none
    int orientation = 1;                        // as in EXIF, to be applied to the developed picture
    Shot shot;
};

// Throws std::runtime_error unless samples, pattern, levels and gains are complete and fit each other.
void check_mosaic(const Mosaic& mosaic);

// The exposure ratio that makes a dark mosaic as bright as a typical photograph, 1 to 300. Throws as check_mosaic does, and
// for mosaics that are smaller than their pattern.
float estimate_exposure_ratio(const Mosaic& mosaic);

// The same picture with 16 bits; white stays white.
Picture expand_to_16_bits(Picture picture);

// The upright picture. orientation: as in EXIF, 1 to 8; others are ignored.
Picture apply_orientation(Picture picture, int orientation);

}  // namespace pellucid
