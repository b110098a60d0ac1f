#include <stdexcept>

#include "file_access.h"
#include "model.h"

namespace pellucid {

namespace {

#ifdef PELLUCID_OPENVINO
constexpr bool kHasOpenVino = true;
#else
constexpr bool kHasOpenVino = false;
#endif

#ifdef PELLUCID_ONNXRUNTIME
constexpr bool kHasOnnxRuntime = true;
#else
constexpr bool kHasOnnxRuntime = false;
#endif

bool has_suffix(const std::string& path, const std::string& suffix) {
    return path.size() > suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
}

}  // namespace

std::unique_ptr<Model> load_model(const std::string& path, Runtime runtime) {
    open_to_read(path);
    const bool is_onnx = has_suffix(path, ".onnx");
    // Given other files, OpenVINO also prints messages of the libraries that it tries.
    if (!is_onnx && !has_suffix(path, ".xml"))
        throw std::runtime_error(path + ": not a model; .xml or .onnx is needed");
    if (runtime == Runtime::kAutomatic)
        runtime = is_onnx && kHasOnnxRuntime ? Runtime::kOnnxRuntime : Runtime::kOpenVino;
    if (runtime == Runtime::kOnnxRuntime && !is_onnx)
        throw std::runtime_error(path + ": ONNX Runtime runs .onnx files; export the model with --format onnx");
    if constexpr (kHasOnnxRuntime) {
        if (runtime == Runtime::kOnnxRuntime) return load_onnxruntime(path);
    }
    if constexpr (kHasOpenVino) {
        if (runtime == Runtime::kOpenVino) return load_openvino(path);
    }
    throw std::runtime_error(path + ": this program was built without " +
                             (runtime == Runtime::kOpenVino ? "OpenVINO" : "ONNX Runtime"));
}

}  // namespace pellucid
