#include "model.h"

#include <algorithm>
#include <stdexcept>

namespace pellucid {

namespace {

std::string require_text(const FindText& find_text, const std::string& key) {
    std::string text = find_text(key);
    if (text.empty())
        throw std::runtime_error("the model has no metadata '" + key + "'; use a model from `pellucid export`");
    return text;
}

std::size_t require_count(const FindText& find_text, const std::string& key) {
    const std::string text = require_text(find_text, key);
    if (text.size() > 9 || !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }))
        throw std::runtime_error("the metadata '" + key + "' of the model is not a count");
    return std::stoul(text);
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// "uint16 mosaic that starts with RG/GB, (N, H, W, C), as in files" -> {"RG", "GB"}
std::vector<std::string> parse_pattern(const std::string& input) {
    const std::string before = "mosaic that starts with ";
    const std::size_t found = input.find(before);
    if (found == std::string::npos) return {};
    const std::size_t start = found + before.size();
    std::vector<std::string> pattern(1);
    for (const char c : input.substr(start, input.find(',', start) - start)) {
        if (c == '/')
            pattern.emplace_back();
        else
            pattern.back() += c;
    }
    return pattern;
}

}  // namespace

Metadata::Metadata(const FindText& find_text)
    : scale(require_count(find_text, "scale")),
      multiple(require_count(find_text, "multiple")),
      halo(require_count(find_text, "halo")),
      precision(require_text(find_text, "precision")),
      pattern(parse_pattern(require_text(find_text, "input"))) {
    const std::string form = find_text("whole"), shape = find_text("shape");
    if (form.empty()) throw std::runtime_error("the model is not a whole graph; export it with --whole --layout nhwc");
    if (!contains(form, "\"nhwc\""))
        throw std::runtime_error("the layout of the model is nchw; export it with --layout nhwc");
    if (!shape.empty() && shape != "null")
        throw std::runtime_error("the model takes pictures of one shape; export it without --shape");
    if (scale == 0 || multiple == 0) throw std::runtime_error("the metadata of the model is damaged; export it again");
    channels = contains(form, "\"rgb\"") ? 3 : 1;
    gives_mosaic = contains(form, "\"mosaic\"");
    takes_noise = contains(find_text("input"), "; noise: ");
    sample_bytes = contains(form, "\"uint16\"") ? 2 : 1;
    deblocks = find_text("deblocks") == "true";
}

std::vector<NumbersInput> list_inputs(const MosaicNumbers& numbers) {
    const auto& balance = numbers.white_balance;
    const std::size_t period = numbers.black_levels.size() == 4 ? 2 : 6;
    return {{"black_levels", {1, period, period}, numbers.black_levels},
            {"white_level", {1}, {numbers.white_level}},
            {"exposure_ratio", {1}, {numbers.exposure_ratio}},
            {"white_balance", {1, 3}, {balance.begin(), balance.end()}},
            {"noise", {1, 2}, {numbers.noise.shot, numbers.noise.read}}};
}

}  // namespace pellucid
