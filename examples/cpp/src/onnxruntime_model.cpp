#define ORT_API_MANUAL_INIT  // so that a library that is too old causes a one-line error
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
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

bool has_input(const Ort::Session& session, const std::string& name) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session.GetInputCount(); ++i) {
        if (name == session.GetInputNameAllocated(i, allocator).get()) return true;
    }
    return false;
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

    Ort::Value wrap(const Shape& shape, const float* numbers, std::size_t count) const {
        return Ort::Value::CreateTensor(memory_, const_cast<float*>(numbers), count, shape.data(), shape.size());
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
          takes_white_balance_(has_input(session_, "white_balance")) {}

    Picture run(const Picture& part, const Development* development) override {
        std::vector<const char*> names{development == nullptr ? "picture" : "mosaic"};
        std::vector<Ort::Value> values;
        values.push_back(wrapper_.wrap(part));
        const auto add = [&](const char* name, const Shape& shape, const float* numbers, std::size_t count) {
            names.push_back(name);
            values.push_back(wrapper_.wrap(shape, numbers, count));
        };
        if (development != nullptr) {
            const auto period = static_cast<std::int64_t>(metadata.pattern.size());
            add("black_levels", {1, period, period}, development->black_levels.data(), development->black_levels.size());
            add("white_level", {1}, &development->white_level, 1);
            add("exposure_ratio", {1}, &development->exposure_ratio, 1);
            // Networks that learned the white balance do not take it.
            if (takes_white_balance_) add("white_balance", {1, 3}, development->white_balance.data(), 3);
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
    const bool takes_white_balance_;
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
