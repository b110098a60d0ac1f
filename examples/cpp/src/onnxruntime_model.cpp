#define ORT_API_MANUAL_INIT  // so that a library that is too old causes a one-line error
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "model.h"

namespace pellucid {

namespace {

using Shape = std::vector<std::int64_t>;

void start_api() {
    const OrtApiBase* base = OrtGetApiBase();
    const OrtApi* api = base->GetApi(ORT_API_VERSION);
    if (api == nullptr)
        throw std::runtime_error(std::string("ONNX Runtime ") + base->GetVersionString() + " is older than 1." +
                                 std::to_string(ORT_API_VERSION) + ", for which this program was built");
    Ort::InitApi(api);
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // since 1.29, it reports each use over the network
}

// Its messages may have several lines, and repeat the path.
[[noreturn]] void fail(const std::string& what, const Ort::Exception& error) {
    std::string reason = error.what();
    const std::size_t repeated = reason.find(" failed:");
    if (reason.rfind("Load model from ", 0) == 0 && repeated != std::string::npos) reason.erase(0, repeated + 8);
    std::replace(reason.begin(), reason.end(), '\n', ' ');
    throw std::runtime_error(what + ": " + reason);
}

std::string find_text(const Ort::Session& session, const std::string& key) {
    Ort::AllocatorWithDefaultOptions allocator;
    const std::string of_onnx = "pellucid." + key;
    const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(of_onnx.c_str(), allocator);
    return text ? text.get() : "";
}

std::set<std::string> find_input_names(const Ort::Session& session) {
    Ort::AllocatorWithDefaultOptions allocator;
    std::set<std::string> names;
    for (std::size_t i = 0; i < session.GetInputCount(); ++i)
        names.insert(session.GetInputNameAllocated(i, allocator).get());
    return names;
}

// Tensors that use the memory of the caller.
class Wrapper {
  public:
    Ort::Value wrap(const Picture& picture) const {
        const ONNXTensorElementDataType type =
            picture.sample_bytes == 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        const Shape shape{1, static_cast<std::int64_t>(picture.height), static_cast<std::int64_t>(picture.width),
                          static_cast<std::int64_t>(picture.channels)};
        auto* samples = const_cast<unsigned char*>(picture.samples.data());
        return Ort::Value::CreateTensor(memory_, samples, picture.samples.size(), shape.data(), shape.size(), type);
    }

    Ort::Value wrap(const NumbersInput& input) const {
        const Shape shape(input.shape.begin(), input.shape.end());
        auto* values = const_cast<float*>(input.values.data());
        return Ort::Value::CreateTensor(memory_, values, input.values.size(), shape.data(), shape.size());
    }

  private:
    const Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
};

class OnnxRuntimeModel : public Model {
  public:
    OnnxRuntimeModel(Ort::Env env, Ort::Session session)
        : Model(Metadata([&](const std::string& key) { return find_text(session, key); })),
          env_(std::move(env)),
          session_(std::move(session)),
          input_names_(find_input_names(session_)) {}

    Picture run(const Picture& part, const MosaicNumbers* numbers) override {
        std::vector<const char*> names{numbers == nullptr ? "picture" : "mosaic"};
        std::vector<Ort::Value> values;
        values.push_back(wrapper_.wrap(part));
        const auto inputs = numbers == nullptr ? std::vector<NumbersInput>() : list_inputs(*numbers);
        for (const NumbersInput& input : inputs) {
            if (input_names_.count(input.name) == 0) continue;
            names.push_back(input.name.c_str());
            values.push_back(wrapper_.wrap(input));
        }
        Picture restored(part.height * metadata.scale, part.width * metadata.scale, metadata.channels,
                         metadata.sample_bytes);
        const char* const output_name = "restored";
        Ort::Value output = wrapper_.wrap(restored);
        try {
            session_.Run(Ort::RunOptions{nullptr}, names.data(), values.data(), values.size(), &output_name, &output, 1);
        } catch (const Ort::Exception& error) {
            fail("ONNX Runtime cannot run the model", error);
        }
        return restored;
    }

  private:
    Ort::Env env_;
    Ort::Session session_;
    const std::set<std::string> input_names_;
    const Wrapper wrapper_;
};

}  // namespace

std::unique_ptr<Model> load_onnxruntime(const std::string& path) {
    start_api();
    try {
        Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "pellucid");  // errors are thrown
        Ort::SessionOptions options;
        options.DisableMemPattern();  // it would keep a block of memory for each size of parts
        Ort::Session session(env, path.c_str(), options);
        return std::make_unique<OnnxRuntimeModel>(std::move(env), std::move(session));
    } catch (const Ort::Exception& error) {
        fail(path + ": ONNX Runtime cannot use it", error);
    }
}

}  // namespace pellucid
