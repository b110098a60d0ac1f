#include "file_access.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace pellucid {

namespace {

[[noreturn]] void fail(const std::string& path) { throw std::runtime_error(path + ": " + std::strerror(errno)); }

// Unlike rename, link fails if the name is taken, even if another program took it just now.
void give_name(const std::string& part, const std::string& path, bool overwrite) {
    if (overwrite) {
        if (std::rename(part.c_str(), path.c_str()) != 0) fail(path);
        return;
    }
    if (link(part.c_str(), path.c_str()) == 0) {
        unlink(part.c_str());
        return;
    }
    if (errno == EEXIST) check_absent(path);
    if (errno != EPERM && errno != ENOTSUP) fail(path);  // these two: the file system has no links
    check_absent(path);
    if (std::rename(part.c_str(), path.c_str()) != 0) fail(path);
}

mode_t usual_mode() {
    const mode_t mask = umask(0);
    umask(mask);
    return 0666 & ~mask;
}

}  // namespace

File open_to_read(const std::string& path) {
    struct stat status {};
    if (stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        fail(path);
    }
    File file(std::fopen(path.c_str(), "rb"));
    if (!file) fail(path);
    return file;
}

void check_absent(const std::string& path) {
    struct stat status {};
    if (lstat(path.c_str(), &status) == 0) throw std::runtime_error(path + " exists; --overwrite replaces it");
}

void write_whole(const std::string& path, bool overwrite, const std::function<void(std::FILE*)>& write) {
    const std::string pattern = path + ".XXXXXX";
    std::vector<char> part(pattern.begin(), pattern.end());
    part.push_back('\0');
    const int descriptor = mkstemp(part.data());
    if (descriptor < 0) fail(path);
    try {
        const File file(fdopen(descriptor, "wb"));
        write(file.get());
        if (std::fflush(file.get()) != 0 || fchmod(descriptor, usual_mode()) != 0 || fsync(descriptor) != 0) fail(path);
        give_name(part.data(), path, overwrite);
    } catch (const std::exception&) {
        unlink(part.data());
        throw;
    }
}

}  // namespace pellucid
