// Memory of this process and of the computer, on Linux. Elsewhere all are 0, for unknown.

#pragma once

#include <cstddef>

namespace pellucid {

std::size_t read_free_bytes();
std::size_t read_resident_bytes();

// The largest resident memory since the last call of reset_peak.
std::size_t read_peak_bytes();
void reset_peak();

}  // namespace pellucid
