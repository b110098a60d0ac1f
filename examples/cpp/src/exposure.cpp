// How bright a dark mosaic should become, as pellucid/pictures/camera/exposure.py estimates it.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "pellucid/picture.h"

namespace pellucid {

namespace {

constexpr double kMaxRatio = 300;
constexpr double kBrightness = 0.4;  // mean luminance of a typical photograph after gamma
constexpr double kGamma = 2.2;
constexpr double kBright = 0.9;  // the part of the luminances that must not exceed white
constexpr double kNumCells = 400, kTrimmed = 0.02;

double weigh(char color) { return color == 'R' ? 0.2126 : color == 'G' ? 0.7152 : 0.0722; }  // BT.709

// Means of the square cells of one site of the pattern, without the darkest and the brightest samples of each.
std::vector<double> average_cells(const Mosaic& mosaic, std::size_t site_row, std::size_t site_col) {
    const std::size_t period = mosaic.pattern.size();
    const std::size_t height = mosaic.samples.height / period, width = mosaic.samples.width / period;
    const double area = std::sqrt(static_cast<double>(height) * static_cast<double>(width) / kNumCells);
    const std::size_t side = std::max<std::size_t>(1, std::min({height, width, static_cast<std::size_t>(area)}));
    const auto trimmed = static_cast<std::size_t>(kTrimmed * static_cast<double>(side * side));
    std::vector<double> means;
    std::vector<std::uint16_t> cell(side * side);
    for (std::size_t top = 0; top + side <= height; top += side) {
        for (std::size_t left = 0; left + side <= width; left += side) {
            for (std::size_t i = 0; i < cell.size(); ++i) {
                const std::size_t row = (top + i / side) * period + site_row;
                const std::size_t col = (left + i % side) * period + site_col;
                std::memcpy(&cell[i], mosaic.samples.at(row, col), sizeof cell[i]);
            }
            std::sort(cell.begin(), cell.end());
            const double sum = std::accumulate(cell.begin() + trimmed, cell.end() - trimmed, 0.0);
            means.push_back(sum / static_cast<double>(cell.size() - 2 * trimmed));
        }
    }
    return means;
}

// Luminances of the cells with the camera's white balance; black is 0, white is 1.
std::vector<double> measure_cells(const Mosaic& mosaic) {
    const std::size_t period = mosaic.pattern.size();
    std::string colors;
    for (const std::string& row : mosaic.pattern) colors += row;
    std::vector<double> luminances;
    for (std::size_t site = 0; site < colors.size(); ++site) {
        const std::size_t channel = std::string("RGB").find(colors[site]);
        const double gain = mosaic.white_balance[1] > 0 ? mosaic.white_balance[channel] : 1;
        const auto same = static_cast<double>(std::count(colors.begin(), colors.end(), colors[site]));
        const double black = mosaic.black_levels[site], weight = weigh(colors[site]) * gain / same;
        const std::vector<double> means = average_cells(mosaic, site / period, site % period);
        luminances.resize(means.size());
        for (std::size_t i = 0; i < means.size(); ++i)
            luminances[i] += weight * (means[i] - black) / (mosaic.white_level - black);
    }
    return luminances;
}

// A percentile with linear interpolation.
double find_bright(std::vector<double> luminances) {
    std::sort(luminances.begin(), luminances.end());
    const double place = kBright * static_cast<double>(luminances.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, luminances.size() - 1);
    return luminances[below] + (place - std::floor(place)) * (luminances[above] - luminances[below]);
}

double measure_brightness(const std::vector<double>& luminances, double ratio) {
    double sum = 0;
    for (const double luminance : luminances) sum += std::pow(std::clamp(luminance * ratio, 0.0, 1.0), 1 / kGamma);
    return sum / static_cast<double>(luminances.size());
}

}  // namespace

float estimate_exposure_ratio(const Mosaic& mosaic) {
    check_mosaic(mosaic);
    const std::vector<double> luminances = measure_cells(mosaic);
    if (luminances.empty()) throw std::runtime_error("the mosaic is smaller than the pattern of its filters");
    const double bright = find_bright(luminances);
    const double highest = bright > 0 ? std::min(kMaxRatio, 1 / bright) : kMaxRatio;
    double low = 1, high = std::max(1.0, highest);
    for (int i = 0; i < 20; ++i) {  // bisects an interval of log(300)
        const double middle = std::sqrt(low * high);
        (measure_brightness(luminances, middle) < kBrightness ? low : high) = middle;
    }
    return static_cast<float>(high);
}

}  // namespace pellucid
