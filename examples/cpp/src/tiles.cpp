#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "memory.h"

namespace pellucid {

namespace {

constexpr std::size_t kLeastTile = 64, kLargestTile = 1024;
constexpr double kReserve = 1.2;  // other sizes may take more memory per pixel than those that were measured

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// The peak of the process while the graph runs on a black square.
std::size_t measure(Model& model, std::size_t side_px, const MosaicNumbers* numbers) {
    reset_peak();
    const std::size_t channels = model.metadata.takes_mosaic() ? 1 : model.metadata.channels;
    model.run(Picture(side_px, side_px, channels, model.metadata.sample_bytes), numbers);
    return read_peak_bytes();
}

}  // namespace

std::vector<Span> cut(std::size_t size_px, std::size_t part_px, const Metadata& metadata) {
    const std::size_t grid = metadata.multiple, halo = metadata.halo;
    std::vector<std::size_t> starts{0};
    const std::size_t last = size_px > part_px ? (size_px - part_px) / grid * grid : 0;
    const std::size_t step = part_px - std::min(part_px, round_up(2 * halo, grid));
    while (starts.back() < last) starts.push_back(std::min(last, starts.back() + step));
    std::vector<Span> spans;
    for (std::size_t i = 0; i < starts.size(); ++i) {
        const bool is_last = i + 1 == starts.size();
        const std::size_t start = i == 0 ? 0 : spans.back().stop;
        spans.push_back({start, is_last ? size_px : starts[i + 1] + halo, starts[i],
                         is_last ? size_px : starts[i] + part_px});
    }
    return spans;
}

std::size_t find_part(std::size_t tile_px, const Metadata& metadata) {
    return round_up(2 * metadata.halo, metadata.multiple) + round_up(tile_px, metadata.multiple);
}

std::size_t find_least_part(const Metadata& metadata) { return find_part(kLeastTile, metadata); }

std::size_t choose_part(Model& model, std::size_t longer_side_px, std::size_t memory_bytes,
                        const MosaicNumbers* numbers) {
    const std::size_t grid = model.metadata.multiple;
    const std::size_t largest = std::min(find_part(kLargestTile, model.metadata), round_up(longer_side_px, grid));
    const std::size_t least = find_least_part(model.metadata), more = round_up(least + least / 2, grid);
    if (largest <= least) return largest;
    const std::size_t least_bytes = measure(model, least, numbers);
    if (least_bytes == 0) return std::min(largest, more);  // unknown, on other systems than Linux
    check_peak(memory_bytes);
    const double area = static_cast<double>(more) * more - static_cast<double>(least) * least;
    // Twice the size of what a part may take, if memory grows as it did until here.
    const std::size_t before = read_resident_bytes();
    if (largest <= more || least_bytes + (least_bytes - std::min(before, least_bytes)) > memory_bytes) return least;
    const std::size_t more_bytes = measure(model, more, numbers);
    const double growth = static_cast<double>(more_bytes) - static_cast<double>(least_bytes);
    const double per_pixel = kReserve * std::max(growth, 1e6) / area;
    const double room = static_cast<double>(memory_bytes) - static_cast<double>(more_bytes);
    if (room <= 0) return least;
    const double side = std::sqrt(room / per_pixel + static_cast<double>(more) * more);
    return std::clamp(static_cast<std::size_t>(std::min(side, 1e9)) / grid * grid, least, largest);
}

void check_peak(std::size_t memory_bytes) {
    const std::size_t used = read_peak_bytes();
    if (used <= memory_bytes) return;
    const std::size_t megabytes = used / 1000000 + 1;
    throw std::runtime_error("this picture needs more than " + std::to_string(memory_bytes / 1000000) +
                             " MB; --memory " + std::to_string(megabytes + megabytes / 4) + "MB may be enough");
}

}  // namespace pellucid
