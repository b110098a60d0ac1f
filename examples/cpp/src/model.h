// A whole graph in a runtime, and the metadata that `pellucid export` wrote into it.

#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pellucid/picture.h"
#include "pellucid/restorer.h"

namespace pellucid {

// The text of a key, e.g. "halo"; "" if the file has no such key.
using FindText = std::function<std::string(const std::string& key)>;

struct Metadata {
    std::size_t scale, multiple, halo;  // in pixels of the picture or mosaic
    std::size_t channels, sample_bytes;
    std::string precision;
    bool gives_mosaic, takes_noise;
    bool deblocks;                     // whether a low quality of JPEG would undo what it does
    std::vector<std::string> pattern;  // of the mosaic that the graph takes, e.g. {"RG", "GB"}; empty for pictures

    // Throws std::runtime_error if it is not a whole graph with interleaved channels.
    explicit Metadata(const FindText& find_text);

    bool takes_mosaic() const { return !pattern.empty(); }
};

// The inputs of a graph for mosaics other than the samples, which are those of a part that starts with the pattern.
struct MosaicNumbers {
    std::vector<float> black_levels;
    float white_level, exposure_ratio;
    std::array<float, 3> white_balance;
    Noise noise;
};

// One of these inputs. Its shape is that for one mosaic.
struct NumbersInput {
    std::string name;
    std::vector<std::size_t> shape;
    std::vector<float> values;
};

// All of them; a graph has those that its network needs.
std::vector<NumbersInput> list_inputs(const MosaicNumbers& numbers);

// A graph in one of the runtimes, each of which has one file and one class.
class Model {
  public:
    explicit Model(Metadata metadata) : metadata(std::move(metadata)) {}
    virtual ~Model() = default;

    // numbers: for mosaics, else nullptr.
    virtual Picture run(const Picture& part, const MosaicNumbers* numbers) = 0;

    const Metadata metadata;
};

// Throws std::runtime_error if the file is not a model, or if the library was built without the runtime for it.
std::unique_ptr<Model> load_model(const std::string& path, Runtime runtime);

// What load_model calls. The runtime need not be part of the library.
std::unique_ptr<Model> load_openvino(const std::string& path);
std::unique_ptr<Model> load_onnxruntime(const std::string& path);

}  // namespace pellucid
