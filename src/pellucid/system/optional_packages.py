"""Packages that not everybody needs: which extra brings each, and that none of them talks behind one's back."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pellucid.errors import MissingExtraError

_BROUGHT = {
    "onnx": ("ONNX", "onnx"),
    "onnxscript": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX Runtime", "onnx"),
    "openvino": ("OpenVINO", "openvino"),
    "nncf": ("int8 of OpenVINO", "int8"),
    "mindspore": ("MindSpore", "mindspore"),
}
"""What needs a package, and which extra brings it."""

_SILENT = ("ORT_DISABLE_TELEMETRY", "NNCF_CI")
"""Set before they are imported, or ONNX Runtime and NNCF report each use to their makers over the network."""


def import_optional(name: str) -> Any:
    """A package, or a module of it, that not everybody needs. Raises MissingExtraError where it is missing."""
    for variable in _SILENT:
        os.environ.setdefault(variable, "1")
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(*_BROUGHT[name.partition(".")[0]]) from error


def check_installed(name: str, *, needed_by: str | None = None) -> None:
    """Raise MissingExtraError where a package is not installed. Nothing is imported.

    needed_by: the package for whose sake, whose extra brings both.
    """
    if find_spec(name) is None:
        raise MissingExtraError(*_BROUGHT[needed_by or name])
