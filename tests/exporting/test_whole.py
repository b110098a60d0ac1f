"""Whole graphs give the samples that `restore` gives, in plain runtimes, from the samples of files alone."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
import small_models
from pellucid.backends import runtimes
from pellucid.backends.eager import TorchBackend
from pellucid.backends.metadata import GraphMetadata
from pellucid.backends.model import load_model
from pellucid.backends.sample_form import SampleForm
from pellucid.errors import ArgumentError, PellucidError, WeightsError
from pellucid.exporting import export as exporting
from pellucid.exporting import registry, whole_parity
from pellucid.exporting.export_format import ExportRequest, Run
from pellucid.pictures import images
from pellucid.pictures.camera import dng
from pellucid.pictures.picture import Mosaic, NoiseLevel, Picture
from pellucid.restoration.restorer import Restorer

onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    recipes: dict[str, dict[str, Any]] = {
        **small_models.RECIPES,
        "sid_unet.any_camera": {"width": 4},
        "dncnn.raw": {"depth": 3, "width": 8},
    }
    paths = {name: small_models.save_weights(folder, name, **keywords) for name, keywords in recipes.items()}
    paths["srcnn.x3"] = small_models.save_weights(folder / "x3", "srcnn.paper", mapping_px=1, scale=3)
    return paths


@pytest.fixture(scope="module")
def larger(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole SRCNN x3 for pictures as Pillow and OpenCV have them."""
    out = tmp_path_factory.mktemp("whole") / "larger.onnx"
    return exporting.export(weights["srcnn.x3"], out, whole=True, layout="nhwc").path


@pytest.fixture(scope="module")
def denoising(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole denoiser of mosaics."""
    return exporting.export(
        weights["dncnn.raw"], tmp_path_factory.mktemp("whole") / "denoise.onnx", whole=True
    ).path


@pytest.mark.parametrize(
    ("name", "out", "form"),
    [
        ("srcnn.paper", "a.pt2", {}),
        ("srcnn.x3", "a.onnx", {"samples": "uint16", "layout": "nhwc"}),
        ("srcnn.x3", "a.xml", {"colors": "gray"}),
        ("dncnn.gaussian", "a.xml", {"colors": "rgb", "layout": "nhwc"}),
        ("mimo_unet.gopro", "a.onnx", {"colors": "gray"}),
        ("sid_unet.sony", "a.onnx", {"layout": "nhwc"}),
        ("dncnn.raw", "a.onnx", {}),
        ("dncnn.raw", "a.xml", {"layout": "nhwc"}),
        ("dncnn.raw", "a.pt2", {}),
    ],
)
def test_samples_are_those_of_restore_at_any_size(
    weights: dict[str, Path], tmp_path: Path, name: str, out: str, form: dict[str, Any]
) -> None:
    exported = exporting.export(weights[name], tmp_path / out, whole=True, **form)
    assert exported.agreement.psnr_db > 130 and exported.agreement.num_inputs == 6


def test_a_plain_runtime_needs_nothing_but_the_metadata(larger: Path) -> None:
    session = onnxruntime.InferenceSession(larger)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["pellucid.whole"]) == {"samples": "uint8", "layout": "nhwc", "colors": "rgb"}
    assert metadata["pellucid.input"] == "uint8 RGB, (N, H, W, C), as in files"
    assert metadata["pellucid.output"] == "uint8 RGB, (N, H, W, C), 3x the size, as in files"
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("picture", "tensor(uint8)", ["count", "height", "width", 3])
    assert returned.shape == ["count", "restored_height", "restored_width", 3]


def test_tiles_with_the_halo_in_the_metadata_equal_the_whole(larger: Path) -> None:
    metadata = runtimes.read_metadata(larger)
    assert (metadata.scale, metadata.multiple) == (3, 1)
    session, halo = onnxruntime.InferenceSession(larger), metadata.halo
    picture = small_models.make_picture(3).samples
    (expected,) = session.run(None, {"picture": picture[None]})
    cut = 40
    (left,) = session.run(None, {"picture": picture[None, :, : cut + halo]})
    (right,) = session.run(None, {"picture": picture[None, :, cut - halo :]})
    joined = np.concatenate([left[:, :, : 3 * cut], right[:, :, 3 * halo :]], axis=2)
    assert np.abs(joined.astype(int) - expected).max() <= 1 and (joined != expected).mean() < 1e-3
    (without,) = session.run(None, {"picture": picture[None, :, :cut]})
    assert np.abs(without.astype(int) - expected[:, :, : 3 * cut]).max() > 1


def test_the_scale_and_grid_of_a_mosaic_are_in_its_own_pixels(weights: dict[str, Path]) -> None:
    model, _ = load_model(weights["sid_unet.sony"])
    network = ExportRequest(model).metadata
    whole = ExportRequest(model, form=SampleForm("uint16")).metadata
    assert (network.scale, whole.scale) == (2, 1)
    assert whole.multiple == 2 * network.multiple and whole.halo == 2 * (network.halo + 1) - 1
    assert whole.to_entries()["input"] == "uint16 mosaic that starts with RG/GB, (N, C, H, W), as in files"


def test_the_metadata_of_a_denoiser_of_mosaics_explain_its_noise(weights: dict[str, Path]) -> None:
    model, _ = load_model(weights["dncnn.raw"])
    whole = ExportRequest(model, form=SampleForm("uint16", colors="mosaic")).metadata
    assert (whole.scale, whole.multiple, whole.halo) == (1, 2, 2 * (model.network.halo + 1) - 1)
    entries = whole.to_entries()
    mosaic, _, noise = entries["input"].partition("; ")
    assert mosaic == "uint16 mosaic that starts with RG/GB, (N, C, H, W), as in files"
    assert noise.startswith("noise: shot and read, the variance of a sample is shot * signal + read")
    assert entries["output"] == "uint16 mosaic that starts with RG/GB, (N, C, H, W), the same size, as in files"
    assert GraphMetadata.from_entries(entries, source="a.onnx").form == whole.form
    network = ExportRequest(model).metadata.to_entries()
    assert "scale of equal noise" in network["input"] and network["output"].startswith("the planes of the mosaic")


def test_a_denoiser_of_stated_noise_takes_no_noise(weights: dict[str, Path], tmp_path: Path) -> None:
    exported = exporting.export(weights["dncnn.raw"], tmp_path / "a.onnx", whole=True, noise=(2e-3, 1e-5))
    assert exported.agreement.psnr_db > 130
    given = [value.name for value in onnxruntime.InferenceSession(exported.path).get_inputs()]
    assert given == ["mosaic", "black_levels", "white_level"]
    assert "noise: " not in exported.metadata.to_entries()["input"]


def test_saturated_samples_stay_whatever_the_levels(denoising: Path) -> None:
    white = np.arange(1000, 1200)
    samples = np.broadcast_to(white[:, None, None, None], (200, 1, 4, 4)).astype(np.uint16)
    inputs = {
        "mosaic": samples,
        "black_levels": np.full((200, 2, 2), 512, np.float32),
        "white_level": white.astype(np.float32),
        "noise": np.full((200, 2), 1e-3, np.float32),
    }
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    in_openvino = openvino.Core().compile_model(denoising, "CPU", options)(inputs)[0]
    (in_onnxruntime,) = onnxruntime.InferenceSession(denoising).run(None, inputs)
    for found in (in_openvino, in_onnxruntime):
        np.testing.assert_array_equal(found, samples)


def test_int8_quantizes_the_network_only(weights: dict[str, Path], tmp_path: Path) -> None:
    for number in range(2):
        images.write(small_models.make_picture(3), tmp_path / "album" / f"{number}.png")
    options: dict[str, Any] = {"precision": "int8", "calibrate": tmp_path / "album"}
    whole = exporting.export(weights["srcnn.paper"], tmp_path / "whole.xml", whole=True, **options)
    network = exporting.export(weights["srcnn.paper"], tmp_path / "network.xml", **options)
    assert whole.agreement.psnr_db > 45
    assert _count_quantized(whole.path) == _count_quantized(network.path) > 0


def _count_quantized(path: Path) -> int:
    operations = openvino.Core().read_model(path).get_ordered_ops()
    return sum(node.get_type_name() == "FakeQuantize" for node in operations)


def test_a_fixed_shape_of_several_pictures(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    shape = (2, 20, 30, 3)
    exported = exporting.export(
        weights["srcnn.paper"],
        tmp_path / "a.onnx",
        precision="float16",
        whole=True,
        layout="nhwc",
        shape=shape,
    )
    assert exported.note is not None and exported.note.startswith("onnxruntime computes float16 in float32")
    assert runtimes.read_metadata(exported.path).shape == shape
    (given,) = onnxruntime.InferenceSession(exported.path).get_inputs()
    assert given.shape == list(shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: samples + (samples < 255).to(samples), r"PSNR 5\d"),  # one level too bright
        (lambda samples: samples[..., :-1], "has shape"),
    ],
)
def test_a_file_with_wrong_samples_is_not_written(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    onnx = registry.find_format("onnx", tmp_path / "a.onnx")

    def run_wrongly(request: ExportRequest, path: Path) -> Run:
        run = onnx.run(request, path)
        return lambda *inputs: change(run(*inputs))

    monkeypatch.setattr(registry, "find_format", lambda name, out: replace(onnx, run=run_wrongly))
    with pytest.raises(PellucidError, match=message):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx", whole=True)
    assert not [*tmp_path.iterdir()]


def test_a_sample_between_two_levels_may_be_either(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, network = small_models.build("dncnn.gaussian")
    reference = Restorer("half", recipe, TorchBackend(network, "cpu"))
    picture = Picture(np.full((4, 5, 1), 7, np.uint8))
    half = Picture.from_tensor(torch.full((1, 1, 4, 5), 100.5 / 255))
    monkeypatch.setattr(reference, "restore", lambda degraded: half)
    for level, is_right in ((99, False), (100, True), (101, True), (102, False)):
        agreement = whole_parity.compare_samples(
            lambda _, level=level: torch.full((1, 1, 4, 5), level, dtype=torch.uint8),
            reference,
            SampleForm(colors="gray"),
            [picture],
        )
        assert (agreement.max_error < 1e-6) == is_right


@pytest.mark.parametrize(
    ("name", "out", "options", "message"),
    [
        ("dncnn.gaussian", "a.onnx", {"layout": "nhwc"}, "layout: only with whole"),
        (
            "dncnn.gaussian",
            "a.onnx",
            {"whole": True, "samples": "int4"},
            "samples 'int4'; possible are uint8, uint16",
        ),
        ("dncnn.gaussian", "a.air", {"whole": True}, "possible are aoti, mindir, onnx, openvino, torch"),
        ("dncnn.gaussian", "a.onnx", {"whole": True, "data": "x"}, "leave out data, or whole"),
        ("sid_unet.sony", "a.onnx", {"whole": True, "samples": "uint8"}, "takes the uint16 mosaics"),
        ("sid_unet.sony", "a.onnx", {"whole": True, "colors": "gray"}, "gives uint16 RGB pictures"),
        ("dncnn.raw", "a.onnx", {"whole": True, "samples": "uint8"}, "gives uint16 mosaics"),
        ("dncnn.raw", "a.onnx", {"whole": True, "colors": "rgb"}, "gives uint16 mosaics"),
        ("dncnn.raw", "a.onnx", {"whole": True, "shape": (1, 1, 9, 8)}, "must be multiples of 2"),
        ("srcnn.paper", "a.onnx", {"whole": True, "colors": "mosaic"}, "the result of this model is a picture"),
        ("srcnn.paper", "a.onnx", {"whole": True, "shape": (1, 1, 9, 9)}, r"needs \(N, 3, H, W\)"),
        ("sid_unet.sony", "a.onnx", {"whole": True, "shape": (1, 1, 8, 9)}, "must be multiples of 2"),
    ],
)
def test_what_cannot_be_is_refused(
    weights: dict[str, Path], tmp_path: Path, name: str, out: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        exporting.export(weights[name], tmp_path / out, **options)
    assert not [*tmp_path.iterdir()]


def test_restore_refuses_whole_graphs(larger: Path) -> None:
    with pytest.raises(WeightsError, match="is a whole graph"):
        pellucid.load(larger)


def _read_program(first_line: str) -> str:
    """The indented block of docs/export.md that starts with this line."""
    block = re.search(rf"^    {re.escape(first_line)}\n(?:    .*\n|\n)+", PAGE.read_text(), re.MULTILINE)
    assert block is not None
    return re.sub("^    ", "", block.group(), flags=re.MULTILINE)


def _run_program(first_line: str, folder: Path) -> None:
    program = _read_program(first_line)
    assert len([line for line in program.splitlines() if line and not line.startswith("#")]) <= 20
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)


def test_the_program_for_pictures_in_the_documentation(
    weights: dict[str, Path], larger: Path, tmp_path: Path
) -> None:
    (tmp_path / "larger.onnx").symlink_to(larger)
    images.write(small_models.make_picture(3), tmp_path / "photo.png")
    _run_program("import onnxruntime", tmp_path)
    expected = pellucid.load(weights["srcnn.x3"]).restore(images.read(tmp_path / "photo.png"))
    found = images.read(tmp_path / "larger.png").samples.astype(int)
    assert np.abs(found - expected.samples).max() <= 1 and (found != expected.samples).mean() < 1e-3


def test_the_program_for_raw_in_the_documentation(weights: dict[str, Path], tmp_path: Path) -> None:
    exporting.export(weights["sid_unet.any_camera"], tmp_path / "night.onnx", whole=True)
    samples = np.random.default_rng(0).integers(400, 4000, (45, 64)).astype(np.uint16)
    levels = ((510.0, 512.0), (513.0, 511.0))
    mosaic = Mosaic(samples, ("GB", "RG"), black_level=levels, white_level=16383.0, white_balance=(2.0, 1.0, 1.5))
    dng.write(mosaic, tmp_path / "night.dng")
    _run_program("import rawpy", tmp_path)
    expected = pellucid.load(weights["sid_unet.any_camera"]).restore(replace(mosaic, exposure_ratio=8.0))
    found = np.load(tmp_path / "night.npy")[0].transpose(1, 2, 0).astype(int)
    assert np.abs(found - expected.samples).max() <= 1
    _check_unknown_white_balance(tmp_path / "night.onnx", weights["sid_unet.any_camera"])


@pytest.mark.parametrize("pattern", [("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR")])
def test_the_program_for_denoising_raw_in_the_documentation(
    weights: dict[str, Path], denoising: Path, tmp_path: Path, pattern: tuple[str, ...]
) -> None:
    (tmp_path / "denoise.onnx").symlink_to(denoising)
    samples = np.random.default_rng(0).integers(400, 5000, (45, 63)).astype(np.uint16)
    mosaic = Mosaic(samples, pattern, ((510.0, 512.0), (513.0, 511.0)), white_level=4500.0)
    dng.write(mosaic, tmp_path / "noisy.dng")
    _run_program("from onnxruntime import InferenceSession", tmp_path)
    found = np.load(tmp_path / "noisy.npy")
    expected = pellucid.load(weights["dncnn.raw"]).restore(replace(mosaic, noise=NoiseLevel(1.2e-3, 3.4e-6)))
    off = np.abs(found.astype(int) - expected.samples)
    assert off.max() <= 1 and (off > 0).mean() < 1e-2
    is_white = samples >= 4500
    assert is_white.any() and np.array_equal(found[is_white], samples[is_white])
    assert found.min() < 510 and (found[~is_white] != samples[~is_white]).mean() > 0.9


def _check_unknown_white_balance(graph: Path, weights: Path) -> None:
    """Files without white balance have zeros."""
    samples = np.random.default_rng(0).integers(400, 4000, (6, 8)).astype(np.uint16)
    inputs = {
        "mosaic": samples[None, None],
        "black_levels": np.full((1, 2, 2), 512, np.float32),
        "white_level": np.full(1, 16383, np.float32),
        "exposure_ratio": np.full(1, 8, np.float32),
        "white_balance": np.zeros((1, 3), np.float32),
    }
    (found,) = onnxruntime.InferenceSession(graph).run(None, inputs)
    mosaic = Mosaic(samples, ("RG", "GB"), black_level=512.0, white_level=16383.0, exposure_ratio=8.0)
    expected = pellucid.load(weights).restore(mosaic).samples
    assert np.abs(found[0].transpose(1, 2, 0).astype(int) - expected).max() <= 1
