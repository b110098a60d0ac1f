#include <cstring>
#include <openvino/openvino.hpp>
#include <sstream>
#include <stdexcept>

#include "model.h"

namespace pellucid {

namespace {

// In files of OpenVINO, metadata is in the section "pellucid"; in ONNX, each key begins with that.
std::string find_text(const ov::Model& model, const std::string& key) {
    if (model.has_rt_info("pellucid", key)) return model.get_rt_info<std::string>("pellucid", key);
    const std::string of_onnx = "pellucid." + key;
    return model.has_rt_info("framework", of_onnx) ? model.get_rt_info<std::string>("framework", of_onnx) : "";
}

// OpenVINO's messages begin with lines about its source code.
[[noreturn]] void fail(const std::string& path, const std::exception& error) {
    std::istringstream lines(error.what());
    std::string line, last = "unknown reason";
    while (std::getline(lines, line)) {
        if (!line.empty()) last = line;
    }
    throw std::runtime_error(path + ": OpenVINO cannot use it: " + last);
}

class OpenVinoModel : public Model {
  public:
    OpenVinoModel(const std::shared_ptr<ov::Model>& model, ov::Core& core)
        : Model(Metadata([&](const std::string& key) { return find_text(*model, key); })),
          // Without this, CPUs that support bfloat16 use it, whatever the precision of the model.
          compiled_(core.compile_model(
              model, "CPU",
              ov::hint::inference_precision(metadata.precision == "bfloat16" ? ov::element::bf16 : ov::element::f32))),
          request_(compiled_.create_infer_request()) {}

    Picture run(const Picture& part, const MosaicNumbers* numbers) override {
        const bool is_mosaic = numbers != nullptr;
        const ov::element::Type type = part.sample_bytes == 2 ? ov::element::u16 : ov::element::u8;
        auto* samples = const_cast<unsigned char*>(part.samples.data());
        request_.set_tensor(is_mosaic ? "mosaic" : "picture",
                            ov::Tensor(type, {1, part.height, part.width, part.channels}, samples));
        if (is_mosaic) set_numbers(*numbers);
        request_.infer();
        const ov::Tensor output = request_.get_output_tensor();
        const ov::Shape shape = output.get_shape();
        Picture restored(shape[1], shape[2], shape[3], output.get_element_type().size());
        std::memcpy(restored.samples.data(), output.data(), restored.samples.size());
        return restored;
    }

  private:
    void set_numbers(const MosaicNumbers& numbers) {
        for (const NumbersInput& given : list_inputs(numbers)) {
            for (const auto& input : compiled_.inputs()) {
                if (input.get_names().count(given.name) == 0) continue;
                ov::Tensor tensor(ov::element::f32, given.shape);
                std::memcpy(tensor.data(), given.values.data(), tensor.get_byte_size());
                request_.set_tensor(input, tensor);
            }
        }
    }

    ov::CompiledModel compiled_;
    ov::InferRequest request_;
};

}  // namespace

std::unique_ptr<Model> load_openvino(const std::string& path) {
    try {
        ov::Core core;
        return std::make_unique<OpenVinoModel>(core.read_model(path), core);
    } catch (const ov::Exception& error) {
        fail(path, error);
    }
}

}  // namespace pellucid
