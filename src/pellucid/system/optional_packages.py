"""Optional packages: which extra installs each, and their telemetry switched off."""

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

from pellucid.errors import MissingExtraError
from pellucid.system.signals import defer_sigint

_EXTRAS = {
    "onnx": ("ONNX", "onnx"),
    "onnxscript": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX Runtime", "onnx"),
    "openvino": ("OpenVINO", "openvino"),
    "nncf": ("int8 of OpenVINO", "int8"),
    "mindspore": ("MindSpore", "mindspore"),
    "pillow_heif": ("HEIC", "formats"),
    "pyjpegxl": ("JPEG XL", "formats"),
    "openjpeg": ("JPEG 2000", "formats"),
    "ray": ("a cluster", "ray"),
    "obstore": ("buckets", "cloud"),
    "fastapi": ("the service", "serve"),
    "uvicorn": ("the service", "serve"),
    "python_multipart": ("the service", "serve"),
    "prometheus_client": ("the service", "serve"),
}
"""Package -> what to call it in errors, and the extra that installs it."""

_TELEMETRY_OFF = ("ORT_DISABLE_TELEMETRY", "NNCF_CI")
"""Environment variables set before an import; otherwise ONNX Runtime and NNCF report each use over the network."""

_REPORTING = "openvino_telemetry"
"""Reports each use of OpenVINO over the network, from a child process; OpenVINO works without it."""


def import_optional(name: str) -> Any:
    """Import an optional package or a module of it. Raises MissingExtraError if it is not installed."""
    for variable in _TELEMETRY_OFF:
        os.environ.setdefault(variable, "1")
    sys.modules.setdefault(_REPORTING, None)  # type: ignore[arg-type]  # None: its import fails
    package = name.partition(".")[0]
    try:
        with defer_sigint():
            imported = import_module(name)
    except ImportError as error:
        raise MissingExtraError(*_EXTRAS[package]) from error
    if _is_folder(sys.modules[package].__spec__):
        raise MissingExtraError(*_EXTRAS[package])
    return imported


def check_installed(name: str, *, needed_by: str | None = None) -> None:
    """Raise MissingExtraError if a package is not installed, without importing it.

    needed_by: the package that depends on it; the error names the extra that installs both.
    """
    found = find_spec(name)
    if found is None or _is_folder(found):
        raise MissingExtraError(*_EXTRAS[needed_by or name])


def _is_folder(spec: ModuleSpec | None) -> bool:
    """Whether an import found only a folder of this name, e.g. in the current directory, not a package."""
    return spec is not None and spec.origin is None and spec.submodule_search_locations is not None
