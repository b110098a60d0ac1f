// How a picture is cut into parts that the graph restores one by one.

#pragma once

#include <cstddef>
#include <vector>

#include "model.h"

namespace pellucid {

// Rows or columns of a part: [read_start, read_stop) is read, [start, stop) of the result is kept. Both are in pixels
// of the picture.
struct Span {
    std::size_t start, stop, read_start, read_stop;
};

// Parts of part_px, halos included, that cover a side of size_px. They begin on the grid of the graph, and all that is
// kept is at least a halo away from what was cut off. All have the same size, except the last one, which may be larger
// by less than the grid: a runtime keeps memory for each size that it has seen.
std::vector<Span> cut(std::size_t size_px, std::size_t part_px, const Metadata& metadata);

// The least size of a part, and that of a part with a tile of tile_px.
std::size_t find_least_part(const Metadata& metadata);
std::size_t find_part(std::size_t tile_px, const Metadata& metadata);

// The largest part that keeps the process below a limit, found by running the graph on two small black pictures.
// numbers: for mosaics, else nullptr. Throws if the least part is too large.
std::size_t choose_part(Model& model, std::size_t longer_side_px, std::size_t memory_bytes,
                        const MosaicNumbers* numbers);

// Throws std::runtime_error if the process has used more than the limit.
void check_peak(std::size_t memory_bytes);

}  // namespace pellucid
