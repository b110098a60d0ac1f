"""ONNX: one .onnx file, opset 18, checked with ONNX Runtime.

Metadata is in `metadata_props` as `pellucid.KEY`. ONNX Runtime has no bfloat16 convolution
on CPUs.
"""

from pathlib import Path

from pellucid.backends import graphs
from pellucid.backends.runtimes import OnnxBackend, load_onnx, note_onnx_precision
from pellucid.exporting.export_format import ExportFormat, ExportRequest, Run


def write(request: ExportRequest, path: Path) -> None:
    """Raises MissingExtraError without onnx and onnxscript."""
    model = request.to_onnx()
    graphs.annotate(model, request.metadata.to_entries())
    path.write_bytes(model.SerializeToString())


def run(request: ExportRequest, path: Path) -> Run:
    """Raises MissingExtraError without onnxruntime, WeightsError if it cannot load the file."""
    if request.form is not None:
        return load_onnx(path)
    return OnnxBackend(path, request.metadata, request.model.meta_network)


FORMAT = ExportFormat("onnx", ".onnx", ("float32", "float16"), write, run, note=note_onnx_precision)
