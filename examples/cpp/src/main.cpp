// Restores a picture with a model that `pellucid export --whole` wrote, without Python and PyTorch.

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pellucid/files.h"
#include "pellucid/restorer.h"

namespace {

const char* const kUsage =
    "usage: restore MODEL INPUT OUTPUT [options]\n"
    "  MODEL                  .xml or .onnx of `pellucid export NAME --whole --layout nhwc`\n"
    "  INPUT, OUTPUT          .png, .jpg or .tif; for a model for camera RAW files, INPUT is one, and OUTPUT a .dng if\n"
    "                         the model denoises it\n"
    "  --runtime NAME         onnxruntime (for .onnx) or openvino (for .xml and .onnx); default: onnxruntime for .onnx\n"
    "                         if this program was built with it, else openvino\n"
    "  --exposure-ratio X     brighten a RAW file as if the exposure had been X times longer; default: as bright as a\n"
    "                         typical photograph\n"
    "  --noise SHOT,READ      of a RAW file to denoise: the variance of a sample is SHOT * signal + READ, where black is 0\n"
    "                         and white is 1; `pellucid restore` prints both\n"
    "  --memory SIZE          limit of the process, e.g. 2GB; default: half of the free memory\n"
    "  --tile PX              side of the tiles instead of what the memory allows\n"
    "  --quality N            of JPEG, 1 to 100; default: that of INPUT, or 95, also if the model removes JPEG blocks\n"
    "  --overwrite            replace OUTPUT\n";

struct WrongUsage : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Arguments {
    std::vector<std::string> paths;
    pellucid::Options options;
    pellucid::WriteOptions write;
    double exposure_ratio = 0;
    std::optional<pellucid::Noise> noise;
};

double parse_number(const std::string& name, const std::string& text, std::size_t* parsed = nullptr) {
    std::size_t length = 0;
    double number = 0;
    try {
        number = std::stod(text, &length);
    } catch (const std::logic_error&) {
        length = 0;
    }
    const bool is_complete = parsed != nullptr || length == text.size();
    const bool is_number = length > 0 && is_complete && std::isfinite(number) && number > 0;
    if (!is_number) throw WrongUsage(name + " " + text + ": a number above 0 is needed");
    if (parsed != nullptr) *parsed = length;
    return number;
}

std::size_t parse_count(const std::string& name, const std::string& text, double most) {
    const double number = parse_number(name, text);
    if (number > most || number != std::floor(number))
        throw WrongUsage(name + " " + text + ": a whole number from 1 to " + std::to_string(std::lround(most)) +
                         " is needed");
    return static_cast<std::size_t>(number);
}

// 2GB and 800MB are decimal, 1.5GiB is binary.
std::size_t parse_size(const std::string& name, const std::string& text) {
    std::size_t length = 0;
    const double number = parse_number(name, text, &length);
    const std::string unit = text.substr(length);
    const std::vector<std::pair<std::string, double>> units{
        {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    for (const auto& [known, bytes] : units) {
        if (unit == known) return static_cast<std::size_t>(number * bytes);
    }
    throw WrongUsage(name + " " + text + ": a size is needed, e.g. 2GB or 800MB");
}

pellucid::Noise parse_noise(const std::string& name, const std::string& text) {
    pellucid::Noise noise;
    int length = 0;
    const bool is_complete = std::sscanf(text.c_str(), "%f,%f%n", &noise.shot, &noise.read, &length) == 2 &&
                             static_cast<std::size_t>(length) == text.size();
    const bool is_possible = noise.shot >= 0 && noise.shot < 1 && noise.read >= 0 && noise.read < 1;
    if (!is_complete || !is_possible || noise.shot + noise.read == 0)
        throw WrongUsage(name + " " + text + ": two variances from 0 to 1, not both 0, are needed, e.g. 4e-4,1e-6");
    return noise;
}

pellucid::Runtime parse_runtime(const std::string& name, const std::string& text) {
    if (text == "onnxruntime") return pellucid::Runtime::kOnnxRuntime;
    if (text == "openvino") return pellucid::Runtime::kOpenVino;
    throw WrongUsage(name + " " + text + ": onnxruntime or openvino is needed");
}

Arguments parse(int argc, char** argv) {
    Arguments arguments;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name.rfind("--", 0) != 0) {
            arguments.paths.push_back(name);
            continue;
        }
        if (name == "--overwrite") {
            arguments.write.overwrite = true;
            continue;
        }
        if (i + 1 == argc) throw WrongUsage(name + ": unknown, or without a value");
        const std::string value = argv[++i];
        if (name == "--tile")
            arguments.options.tile_px = parse_count(name, value, 65536);
        else if (name == "--memory")
            arguments.options.memory_bytes = parse_size(name, value);
        else if (name == "--quality")
            arguments.write.quality = static_cast<int>(parse_count(name, value, 100));
        else if (name == "--runtime")
            arguments.options.runtime = parse_runtime(name, value);
        else if (name == "--exposure-ratio")
            arguments.exposure_ratio = parse_number(name, value);
        else if (name == "--noise")
            arguments.noise = parse_noise(name, value);
        else
            throw WrongUsage(name + ": unknown option");
    }
    if (arguments.paths.size() != 3) throw WrongUsage("MODEL, INPUT and OUTPUT are needed");
    return arguments;
}

// Percent and the time left, on a terminal.
class ProgressLine {
  public:
    void show(double finished) const {
        if (!is_shown_) return;
        const double elapsed_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
        const long left_s = std::lround(elapsed_s / finished * (1 - finished));
        std::fprintf(stderr, "\r%3.0f %%, %ld:%02ld left ", 100 * finished, left_s / 60, left_s % 60);
    }

    ~ProgressLine() {
        if (is_shown_) std::fputc('\n', stderr);
    }

  private:
    const bool is_shown_ = isatty(STDERR_FILENO) != 0;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_options(const pellucid::Restorer& restorer, const Arguments& arguments) {
    const bool develops = restorer.takes_mosaic() && !restorer.gives_mosaic();
    if (!develops && arguments.exposure_ratio > 0)
        throw WrongUsage("--exposure-ratio is for models that develop camera RAW files");
    if (restorer.takes_noise() && !arguments.noise)
        throw WrongUsage("this model denoises camera RAW files: --noise is needed; `pellucid restore` prints that of "
                         "a file");
    if (!restorer.takes_noise() && arguments.noise)
        throw WrongUsage("--noise is for models that denoise camera RAW files and were exported without it");
    if (arguments.write.quality > 0 && !pellucid::names_jpeg(arguments.paths[2]))
        throw WrongUsage("--quality is for JPEG, which " + arguments.paths[2] + " will not be");
}

void restore(const pellucid::Restorer& restorer, const Arguments& arguments) {
    const std::string &input = arguments.paths[1], &output = arguments.paths[2];
    const auto with_progress = [](const auto& run) {
        const ProgressLine line;
        return run([&](double finished) { line.show(finished); });
    };
    check_options(restorer, arguments);
    if (restorer.gives_mosaic()) {
        pellucid::check_mosaic_output(output, arguments.write);
        const pellucid::Mosaic mosaic = pellucid::read_mosaic(input);
        const pellucid::Noise noise = arguments.noise.value_or(pellucid::Noise{});
        const auto denoised = with_progress([&](const auto& show) { return restorer.denoise(mosaic, noise, show); });
        return pellucid::write_mosaic(denoised, output, arguments.write);
    }
    pellucid::check_output(output, restorer.sample_bytes(), arguments.write);
    if (restorer.takes_mosaic()) {
        const pellucid::Mosaic mosaic = pellucid::read_mosaic(input);
        const float ratio = arguments.exposure_ratio > 0 ? static_cast<float>(arguments.exposure_ratio)
                                                         : pellucid::estimate_exposure_ratio(mosaic);
        const auto developed = with_progress([&](const auto& show) { return restorer.restore(mosaic, ratio, show); });
        return pellucid::write_picture(developed, output, arguments.write);
    }
    pellucid::Picture picture = pellucid::read_picture(input);
    if (pellucid::names_jpeg(output) && picture.exif.size() > pellucid::kMostExifBytesInJpeg)
        std::cerr << output << ": not kept in JPEG: EXIF, which has more than 64 KB\n";
    const auto restored =
        with_progress([&](const auto& show) { return restorer.restore(std::move(picture), show); });
    pellucid::write_picture(restored, output, arguments.write);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h")) {
        std::cout << kUsage;
        return 0;
    }
    try {
        const Arguments arguments = parse(argc, argv);
        restore(pellucid::Restorer(arguments.paths[0], arguments.options), arguments);
    } catch (const WrongUsage& error) {
        std::cerr << "restore: " << error.what() << "; restore --help lists the options\n";
        return 2;
    } catch (const std::bad_alloc&) {
        std::cerr << "restore: the memory is not enough\n";
        return 1;
    } catch (const std::exception& error) {
        std::cerr << "restore: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
