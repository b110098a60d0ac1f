"""Exported models on other devices: ONNX Runtime's providers and OpenVINO's devices, or one line."""

import math
import types
from typing import Any

import pytest

from pellucid.backends import accelerators
from pellucid.backends.parity import Agreement
from pellucid.errors import PellucidError

runtime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


@pytest.fixture
def all_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    known = runtime.get_all_providers()
    monkeypatch.setattr(runtime, "get_available_providers", lambda: known)


@pytest.mark.parametrize(
    ("device", "provider", "options"),
    [
        ("auto", "CPUExecutionProvider", {}),
        ("cpu", "CPUExecutionProvider", {}),
        ("cuda", "CUDAExecutionProvider", {"use_tf32": "0"}),
        ("cuda:1", "CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"}),
        ("tensorrt:0", "TensorrtExecutionProvider", {"device_id": "0"}),
        ("coreml", "CoreMLExecutionProvider", {}),
        ("directml", "DmlExecutionProvider", {}),
        ("openvino", "OpenVINOExecutionProvider", {"precision": "FP32"}),
    ],
)
def test_a_device_is_a_provider_that_onnx_runtime_knows(
    all_providers: None, device: str, provider: str, options: dict[str, str]
) -> None:
    assert accelerators.find_provider(device) == (provider, options)


@pytest.mark.parametrize("device", ["mps", "", "cpu:0", "cuda:", "cuda:x", "cuda:²", "coreml:1", "auto:1", "CUDA"])
def test_an_unknown_device_is_an_error(all_providers: None, device: str) -> None:
    with pytest.raises(PellucidError, match=r"onnxruntime has no device .*; it has cpu, cuda"):
        accelerators.find_provider(device)


def test_a_device_of_another_package_is_an_error() -> None:
    with pytest.raises(PellucidError, match=r"cannot use cuda \(it can use cpu\); onnxruntime-gpu can"):
        accelerators.find_provider("cuda")


@pytest.mark.parametrize(
    ("device", "found"), [("auto", "CPU"), ("cpu", "CPU"), ("gpu", "GPU"), ("gpu:1", "GPU.1")]
)
def test_devices_of_openvino(monkeypatch: pytest.MonkeyPatch, device: str, found: str) -> None:
    core = types.SimpleNamespace(available_devices=["CPU", "GPU", "GPU.1"])
    monkeypatch.setattr(openvino, "Core", lambda: core)
    assert accelerators.find_openvino_device(device) == found
    with pytest.raises(PellucidError, match="does not find the device npu here; it finds cpu, gpu, gpu:1"):
        accelerators.find_openvino_device("npu")
    with pytest.raises(PellucidError, match="openvino has no device 'cuda'; it has cpu, gpu, npu"):
        accelerators.find_openvino_device("cuda")


def test_a_provider_that_did_not_start_is_an_error() -> None:
    session: Any = types.SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    accelerators.check_provider(session, "cpu", "CPUExecutionProvider")
    with pytest.raises(PellucidError, match="could not start CUDAExecutionProvider for the device cuda"):
        accelerators.check_provider(session, "cuda", "CUDAExecutionProvider")


@pytest.mark.parametrize(
    ("psnr_db", "precision", "is_enough"),
    [
        (math.inf, "float32", True),
        (60.0, "float32", True),
        (59.9, "float32", False),
        (45.0, "bfloat16", True),
        (44.9, "bfloat16", False),
    ],
)
def test_results_that_differ_from_those_of_the_cpu_are_an_error(
    psnr_db: float, precision: str, is_enough: bool
) -> None:
    agreement = Agreement(0.0, psnr_db, 1)
    if is_enough:
        accelerators.check_agreement(agreement, "cuda", name="a.onnx", precision=precision)
    else:
        with pytest.raises(PellucidError, match=r"a.onnx on cuda have a PSNR of only .*; at least"):
            accelerators.check_agreement(agreement, "cuda", name="a.onnx", precision=precision)
