"""int8 inside, float at both ends, close to the network."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small_models
from pellucid.backends import parity, runtimes
from pellucid.backends.model import load_model
from pellucid.backends.sample_form import SampleForm
from pellucid.errors import MissingExtraError
from pellucid.exporting import export as exporting
from pellucid.exporting import quantization
from pellucid.exporting.export_format import ExportRequest
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration import restorer

pytest.importorskip("openvino")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    chosen, _ = small_models.build("dncnn.gaussian")
    for seed in range(2):
        for i, planes in enumerate(parity.synthetic_inputs(chosen, 48, seed=seed)):
            picture = Picture.from_tensor(planes[None].clamp(0, 1)).as_depth("uint8")
            images.write(picture, tmp_path / "album" / f"{seed}{i}.png")
    return tmp_path / "album"


# NNCF uses deprecated parts of NumPy and NetworkX.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_inner_layers_are_int8_and_both_ends_float(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    weights = small_models.save_weights(tmp_path, "dncnn.gaussian")
    out = tmp_path / "a.xml"
    exported = exporting.export(weights, out, precision="int8", calibrate=album, data=album)
    assert capsys.readouterr().out == ""
    assert parity.MIN_PSNR_DB["int8"] < exported.agreement.psnr_db < 90
    assert exported.loss_db is not None and abs(exported.loss_db) < 0.5
    graph = out.read_text()
    assert graph.count('element_type="i8"') == 2  # the weights of both inner convolutions, of four
    chosen = restorer.load(out)
    assert (chosen.backend.name, runtimes.read_metadata(out).precision) == ("openvino int8 on cpu", "int8")


def _graph(kind: str) -> Any:
    """An OpenVINO model: one convolution; or two, with branches, a stride and a dilation between them."""
    openvino, operations = pytest.importorskip("openvino"), pytest.importorskip("openvino.opset13")
    rng = np.random.default_rng(0)

    def convolve(x: Any, shape: tuple[int, int, int, int], stride: int = 1, dilation: int = 1) -> Any:
        weights = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        padding = [dilation * (shape[2] // 2)] * 2
        constant = operations.constant(weights.astype(np.float32))
        return operations.convolution(x, constant, [stride] * 2, padding, padding, [dilation] * 2)

    degraded = operations.parameter([-1, 1, -1, -1], np.float32)
    result = convolve(degraded, (1 if kind == "one convolution" else 8, 1, 3, 3))
    if kind == "branches":
        read = operations.relu(result)
        both = operations.add(
            operations.relu(convolve(read, (8, 8, 3, 3), dilation=2)),
            operations.relu(convolve(read, (8, 8, 1, 1))),
        )
        result = convolve(operations.relu(convolve(both, (8, 8, 3, 3), stride=2)), (1, 8, 3, 3))
    return openvino.Model([operations.result(result)], [degraded], kind)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_joint_rounding_agrees_better(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf")
    pictures = torch.rand(4, 1, 1, 40, 44, generator=torch.Generator().manual_seed(0))
    model, inputs = _graph("branches"), [(picture,) for picture in pictures]
    joint = quantization.quantize(model, inputs)
    monkeypatch.setattr(quantization, "_replace_weights", lambda quantized, rounded: None)
    nearest = quantization.quantize(model, inputs)
    samples = [(picture.numpy(),) for picture in pictures]
    assert quantization._mean_squared_error(joint, model, samples) < 0.6 * quantization._mean_squared_error(
        nearest, model, samples
    )


def test_convolutions_of_smaller_inputs_are_quantized(tmp_path: Path) -> None:
    openvino, onnx = pytest.importorskip("openvino"), pytest.importorskip("onnx")
    model, _ = load_model(small_models.save_weights(tmp_path, "mimo_unet.gopro"))
    for form in (None, SampleForm(samples="uint16")):
        onnx.save(ExportRequest(model, form=form).to_onnx(torch.float32), tmp_path / "a.onnx")
        graph = openvino.Core().read_model(tmp_path / "a.onnx")
        convolutions, ends = list(quantization._convolutions(graph)), quantization._find_ends(graph)
        assert [name for name in convolutions if name in ends] == [convolutions[0], convolutions[-1]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_single_convolution_stays_in_float() -> None:
    pytest.importorskip("nncf")
    model, picture = _graph("one convolution"), torch.rand(1, 1, 40, 44)
    quantized = quantization.quantize(model, [(picture,)])
    assert quantization._mean_squared_error(quantized, model, [(picture.numpy(),)]) == 0


def test_a_missing_package_is_named(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    weights = small_models.save_weights(tmp_path, "dncnn.gaussian")
    with pytest.raises(MissingExtraError, match=r"pip install 'pellucid\[int8\]'"):
        exporting.export(weights, tmp_path / "a.xml", precision="int8", calibrate=album)
