"""The devices of ONNX Runtime and OpenVINO, by the names that users write."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pellucid.backends.parity import CLOSE_PSNR_DB, MIN_PSNR_DB, Agreement
from pellucid.errors import PellucidError
from pellucid.system.optional_packages import import_optional

PROVIDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "cpu": ("CPUExecutionProvider", "onnxruntime"),
        "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
        "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
        "migraphx": ("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
        "coreml": ("CoreMLExecutionProvider", "onnxruntime for macOS"),
        "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
        "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    }
)
"""Execution provider of ONNX Runtime, and the package that has it."""

_NUMBERED = {"cuda", "tensorrt", "migraphx", "directml"}
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "cuda": {"use_tf32": "0"},  # its mantissa of 10 bits changes results: about 60 dB against float32
    "openvino": {"precision": "FP32"},
}


def find_provider(device: str) -> tuple[str, dict[str, str]]:
    """The execution provider of ONNX Runtime for a device, with its options.

    device: auto (the CPU), or one of PROVIDERS; several GPUs are numbered, e.g. "cuda:1".

    Raises PellucidError for an unknown device, and for one that the installed onnxruntime does not support.
    """
    name, number = _parse("onnxruntime", device, tuple(PROVIDERS), _NUMBERED)
    provider, package = PROVIDERS[name]
    available = import_optional("onnxruntime").get_available_providers()
    if provider not in available:
        found = ", ".join(short for short, (long, _) in PROVIDERS.items() if long in available)
        raise PellucidError(f"the installed onnxruntime cannot use {name} (it can use {found}); {package} can")
    options = dict(_OPTIONS.get(name, {}))
    return provider, options | ({"device_id": number} if number else {})


def find_openvino_device(device: str) -> str:
    """OpenVINO's name of a device: auto (the CPU), cpu, gpu, gpu:1 or npu.

    Raises PellucidError for an unknown device, and for one that OpenVINO does not find on this computer.
    """
    name, number = _parse("openvino", device, ("cpu", "gpu", "npu"), {"gpu"})
    wanted = f"{name.upper()}.{number}" if number else name.upper()
    found: Sequence[str] = import_optional("openvino").Core().available_devices
    if wanted not in found and not (number == "0" and name.upper() in found):
        here = ", ".join(each.lower().replace(".", ":") for each in found)
        raise PellucidError(f"openvino does not find the device {device} here; it finds {here}")
    return wanted


def check_provider(session: Any, device: str, provider: str) -> None:
    """Raise PellucidError if a session does not use the provider.

    ONNX Runtime falls back to the CPU without an error.
    """
    if provider not in session.get_providers():
        raise PellucidError(
            f"onnxruntime could not start {provider} for the device {device}: "
            "its libraries or its driver are missing"
        )


def check_agreement(found: Agreement, device: str, *, name: str, precision: str = "float32") -> None:
    """Raise PellucidError if a device gives other results than the CPU.

    Some devices compute in half precision, whatever they are asked for.
    """
    min_psnr_db = min(MIN_PSNR_DB[precision], CLOSE_PSNR_DB)
    if found.psnr_db < min_psnr_db:
        raise PellucidError(
            f"results of {name} on {device} have a PSNR of only {found.psnr_db:.1f} dB against those on the CPU; "
            f"at least {min_psnr_db:.0f} dB are needed",
            hint="{device} can be cpu",
        )


def _parse(runtime: str, device: str, names: Sequence[str], numbered: set[str]) -> tuple[str, str]:
    """(name, number or "")"""
    name, colon, number = device.partition(":")
    if name == "auto" and not colon:
        return "cpu", ""
    is_number = number.isascii() and number.isdigit() and name in numbered
    if name not in names or (colon and not is_number):
        raise PellucidError(f"{runtime} has no device {device[:40]!r}; it has {', '.join(names)}")
    return name, number
