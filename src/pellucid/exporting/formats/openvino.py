"""OpenVINO: an .xml file for the graph and a .bin file for the weights, checked with OpenVINO.

Metadata is in `rt_info` as `pellucid/KEY`. The graph is always float32 or int8. Half precision is a request to
OpenVINO's CPU plugin, and halves the file.
"""

import hashlib
from pathlib import Path

import torch

from pellucid.backends.metadata import PRECISIONS, PREFIX, STORED_WEIGHTS
from pellucid.backends.runtimes import OpenVinoBackend, load_openvino, note_openvino_precision
from pellucid.exporting import quantization
from pellucid.exporting.export_format import ExportFormat, ExportRequest, Run
from pellucid.system.optional_packages import import_optional


def write(request: ExportRequest, path: Path) -> None:
    """Also writes the .bin file next to `path`. Raises MissingExtraError without openvino, or nncf for int8."""
    openvino = import_optional("openvino")
    onnx_path = path.with_suffix(".onnx")
    onnx_path.write_bytes(request.to_onnx(torch.float32).SerializeToString())
    model = openvino.Core().read_model(str(onnx_path))
    if request.precision == "int8":
        model = quantization.quantize(model, request.pictures)
    for key, text in request.metadata.to_entries().items():
        model.set_rt_info(text, [PREFIX, key])
    # Weights are far from the limits of float16, which has more mantissa bits than bfloat16.
    is_half = request.precision in ("float16", "bfloat16")
    openvino.save_model(model, str(path), compress_to_fp16=is_half)
    model.set_rt_info(hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest(), [PREFIX, STORED_WEIGHTS])
    openvino.save_model(model, str(path), compress_to_fp16=is_half)


def run(request: ExportRequest, path: Path) -> Run:
    """Raises MissingExtraError without openvino, WeightsError if it cannot load the file."""
    if request.form is not None:
        return load_openvino(path, request.precision)
    return OpenVinoBackend(path, request.metadata, request.model.meta_network)


FORMAT = ExportFormat(
    "openvino", ".xml", PRECISIONS, write, run, companions=(".bin",), note=note_openvino_precision
)
