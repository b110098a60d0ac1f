// Restores pictures with a whole graph, which takes and returns the samples of files:
//
//     pellucid export MODEL --out MODEL.onnx --whole --layout nhwc [--samples uint16] [--colors gray]

#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "pellucid/picture.h"

namespace pellucid {

enum class Runtime {
    kAutomatic,    // ONNX Runtime for .onnx if the library was built with it, else OpenVINO
    kOnnxRuntime,  // runs .onnx
    kOpenVino,     // runs .xml and .onnx
};

struct Options {
    std::size_t tile_px = 0;       // side of the tiles without their halo; 0: as large as the memory allows
    std::size_t memory_bytes = 0;  // limit of the whole process; 0: half of the free memory
    Runtime runtime = Runtime::kAutomatic;
};

// Called after each tile with the finished part, 0 to 1.
using Progress = std::function<void(double)>;

// All functions throw std::runtime_error with one line.
class Restorer {
  public:
    // model_path: .xml or .onnx. Throws if the library was built without the runtime that it needs.
    explicit Restorer(const std::string& model_path, const Options& options = {});
    ~Restorer();

    bool takes_mosaic() const;
    bool gives_mosaic() const;         // whether the result is still to be developed
    bool takes_noise() const;          // whether the noise of a mosaic must be given
    std::size_t scale() const;         // pixels of the result per pixel of the picture, along one side
    std::size_t sample_bytes() const;  // of pictures and results

    // The result does not depend on the size of the tiles: around each of them, all pixels are read that it depends on.
    // A picture of 8 bits becomes one of 16 bits if the model has those samples.
    Picture restore(Picture picture, const Progress& progress = {}) const;

    // For models that develop dark mosaics. exposure_ratio: the mosaic is brightened as if the exposure had been so many times longer.
    Picture restore(const Mosaic& mosaic, float exposure_ratio, const Progress& progress = {}) const;

    // For models that denoise mosaics. noise: ignored if the model was exported for a noise of its own.
    Mosaic denoise(const Mosaic& mosaic, const Noise& noise, const Progress& progress = {}) const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace pellucid
