// Files that appear under their name when they are complete.

#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>

namespace pellucid {

struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

using File = std::unique_ptr<std::FILE, CloseFile>;

File open_to_read(const std::string& path);

// Throws if the file exists.
void check_absent(const std::string& path);

// Calls write with a new file in the same folder, which is renamed to path if write returns, and removed if it throws.
void write_whole(const std::string& path, bool overwrite, const std::function<void(std::FILE*)>& write);

}  // namespace pellucid
