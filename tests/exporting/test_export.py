"""Exported files agree with the network, and a file that does not agree is not written."""

import json
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small_models
from pellucid.backends import runtimes
from pellucid.backends.eager import TorchBackend
from pellucid.errors import ArgumentError, DataError, MissingExtraError, OutputError, PellucidError, WeightsError
from pellucid.exporting import export as exporting
from pellucid.exporting import registry
from pellucid.exporting.export_format import ExportRequest, Run
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration.restorer import Restorer

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: small_models.save_weights(folder, name) for name in small_models.RECIPES}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(0)
    for i in range(3):
        smooth = np.kron(rng.integers(0, 256, (8, 9, 3), np.uint8), np.ones((6, 6, 1), np.uint8))
        images.write(Picture(smooth), folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        # torch.export simplifies the sizes of a U-Net for half a minute.
        pytest.param(name, suffix, marks=[pytest.mark.slow] if (name, suffix) == ("sid_unet.sony", ".pt2") else [])
        for name in small_models.RECIPES
        for suffix in (".onnx", ".xml", ".pt2")
    ],
)
def test_every_network_agrees_in_every_format(
    weights: dict[str, Path], tmp_path: Path, name: str, suffix: str
) -> None:
    out = tmp_path / "made" / f"model{suffix}"
    exported = exporting.export(weights[name], out)
    assert exported.path == out and exported.agreement.psnr_db > 115
    assert exported.agreement.num_inputs >= 6
    wanted = {".xml": ["model.bin", "model.xml"]}.get(suffix, [out.name])
    assert sorted(path.name for path in out.parent.iterdir()) == wanted


def test_keywords_that_the_weights_were_not_trained_with_are_reported(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx", sigma_255=30)
    assert exported.warnings == (
        "dncnn.gaussian: sigma_255=30.0, but the weights were trained with sigma_255=25.0",
    )


@pytest.mark.parametrize(
    ("name", "precision", "least_db"),
    [("a.onnx", "float16", 60), ("a.xml", "float16", 60), ("a.xml", "bfloat16", 45), ("a.pt2", "bfloat16", 45)],
)
def test_half_precision_is_close(
    weights: dict[str, Path], tmp_path: Path, name: str, precision: str, least_db: float
) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / name, precision=precision)
    assert exported.warnings == ()
    assert least_db < exported.agreement.psnr_db < 115
    assert exported.metadata.precision == precision


def test_files_contain_the_metadata(weights: dict[str, Path], tmp_path: Path) -> None:
    for suffix in (".onnx", ".xml"):
        exported = exporting.export(weights["srcnn.paper"], tmp_path / f"model{suffix}")
        assert runtimes.read_metadata(exported.path) == exported.metadata
    exporting.export(weights["srcnn.paper"], tmp_path / "model.pt2")
    extra = {"pellucid.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    metadata = json.loads(extra["pellucid.json"])
    assert (metadata["scale"], metadata["halo"], metadata["license"]) == ("1", "6", "CC0")
    assert json.loads(metadata["scores"])[0]["psnr_db"] == 33.5


def test_a_file_that_does_not_agree_is_not_written(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = registry.find_format("onnx", tmp_path / "a.onnx")

    def run_inexactly(request: ExportRequest, path: Path) -> Run:
        run = onnx.run(request, path)
        return lambda degraded: run(degraded) + 1e-4

    monkeypatch.setattr(registry, "find_format", lambda name, out: replace(onnx, run=run_inexactly))
    with pytest.raises(PellucidError, match=r"is not written: .* PSNR 80.0 dB.*at least 100 dB are needed"):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_replaced_only_if_asked(weights: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"another file")
    with pytest.raises(OutputError, match=r"a.bin exists; overwrite=True"):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.xml")
    exporting.export(weights["dncnn.gaussian"], tmp_path / "a.xml", overwrite=True)
    assert runtimes.read_metadata(tmp_path / "a.xml").halo == 4


def test_the_users_pictures_are_compared_and_scored(weights: dict[str, Path], album: Path, tmp_path: Path) -> None:
    exported = exporting.export(weights["srcnn.paper"], tmp_path / "a.onnx", calibrate=album, data=album)
    assert exported.agreement.num_inputs > 6
    assert exported.loss_db == pytest.approx(0, abs=1e-4)


def test_pictures_that_cannot_be_scored_are_named(weights: dict[str, Path], album: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(album, data)
    first = min(data.iterdir())
    first.write_bytes(first.read_bytes()[:60])
    exported = exporting.export(weights["srcnn.paper"], tmp_path / "a.onnx", data=data)
    (warning,) = exported.warnings
    assert (
        f"{data}: 1 of {len(list(data.iterdir()))} pictures left out, e.g. " in warning and first.name in warning
    )


@pytest.mark.parametrize(
    ("size", "used"), [((30, 40), (30, 40)), ((300, 200), (192, 192)), ((100, 500), (100, 192))]
)
def test_crops_are_from_the_middle_and_small_pictures_whole(
    size: tuple[int, int], used: tuple[int, int], tmp_path: Path
) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    images.write(Picture(samples), tmp_path / "a.png")
    recipe, network = small_models.build("dncnn.gaussian")
    (found,) = exporting.read_inputs(tmp_path, Restorer("tiny", recipe, TorchBackend(network, "cpu")))
    (top, left), (height, width) = ((whole - part) // 2 for whole, part in zip(size, used, strict=True)), used
    expected = samples[top : top + height, left : left + width, 0] / 255
    np.testing.assert_allclose(found[0, 0], expected, rtol=0, atol=1e-6)


def test_a_fixed_shape(weights: dict[str, Path], tmp_path: Path) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx", shape=(2, 1, 40, 30))
    assert runtimes.read_metadata(exported.path).shape == (2, 1, 40, 30)
    assert exported.agreement.num_inputs == 1


@pytest.mark.parametrize(
    ("out", "options", "error", "message"),
    [
        (
            "a.tflite",
            {},
            PellucidError,
            "'.tflite' does not belong to an export format; format can be air, aoti, mindir, onnx",
        ),
        ("a.onnx", {"format": "onyx"}, PellucidError, "no format 'onyx'; did you mean onnx"),
        ("a.xml", {"format": "onnx"}, ArgumentError, "does not end in .onnx, the suffix of onnx files"),
        (
            "a.onnx",
            {"precision": "bfloat16"},
            PellucidError,
            "onnx does not support precision 'bfloat16'; it supports float32",
        ),
        (
            "a.xml",
            {"precision": "int8"},
            PellucidError,
            "int8 needs pictures for calibration; calibrate is a folder",
        ),
        ("a.xml", {"calibrate": "empty"}, DataError, "empty contains no pictures"),
        ("a.xml", {"calibrate": "absent"}, DataError, "absent does not exist"),
        ("a.xml", {"calibrate": "file"}, DataError, "file is a file, not a folder"),
        ("a.onnx", {"shape": (1, 3, 8, 8)}, PellucidError, r"needs \(N, 1, H, W\)"),
        ("file/a.onnx", {}, OutputError, "file is a file; a folder is needed"),
        (
            "a.pt2",
            {"format": "aoti", "precision": "int8"},
            PellucidError,
            "aoti does not support precision 'int8'",
        ),
        (
            "a.mindir",
            {"precision": "bfloat16"},
            PellucidError,
            "mindir does not support precision 'bfloat16'; it supports float32",
        ),
    ],
)
def test_wrong_arguments_raise_a_one_line_error(
    weights: dict[str, Path],
    tmp_path: Path,
    out: str,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file")
    given = {key: tmp_path / value if key == "calibrate" else value for key, value in options.items()}
    with pytest.raises(error, match=message) as raised:
        exporting.export(weights["dncnn.gaussian"], tmp_path / out, **given)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_a_file_that_is_not_a_weight_file(tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_text("not weights")
    with pytest.raises(WeightsError, match="not a .* safetensors file"):
        exporting.export(tmp_path / "notes.safetensors", tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("package", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("mindspore", ".mindir")]
)
def test_a_missing_package_is_named_with_the_pip_command(
    weights: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    suffix: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'pellucid\[{package}\]'"):
        exporting.export(weights["dncnn.gaussian"], tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        "dncnn.gaussian",
        *(pytest.param(name, marks=pytest.mark.slow) for name in small_models.RECIPES if name != "dncnn.gaussian"),
    ],
)
def test_a_compiled_network_agrees_and_contains_metadata(
    weights: dict[str, Path], tmp_path: Path, name: str
) -> None:
    exported = exporting.export(weights[name], tmp_path / "a.pt2", format="aoti")
    assert exported.agreement.psnr_db > 115 and exported.agreement.num_inputs == 6
    inductor: Any = import_module("torch._inductor")
    metadata = inductor.aoti_load_package(str(exported.path)).get_metadata()
    assert (metadata["pellucid.recipe"], metadata["pellucid.license"]) == (name, "CC0")


def write_compiler(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "exit 1",
            r"^aoti compiles the network and needs a C\+\+ compiler, but found none; install one \(apt-get",
        ),
        pytest.param(
            'case "$*" in --version|"-E "*|*" -E "*) exec g++ "$@" ;; esac; '
            'echo "x.h:1:2: fatal error: omp.h" >&2; exit 1',
            r"^aoti cannot compile the network: .*fatal error: omp.h; CXX=/path/to/g.. selects another",
            marks=needs_compiler,
        ),
    ],
)
def test_a_compiler_that_fails_raises_a_one_line_error(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # an empty one
    config: Any = import_module("torch._inductor.config")
    with (
        config.patch({"cpp.cxx": (str(write_compiler(tmp_path / "compiler", text)),)}),
        pytest.raises(PellucidError, match=message) as raised,
    ):
        exporting.export(weights["srcnn.paper"], tmp_path / "a.pt2", format="aoti")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a.pt2").exists()


@pytest.mark.skipif(any(Path("/dev").glob("davinci*")), reason="this is Ascend hardware")
def test_air_needs_ascend_hardware(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="^only Ascend hardware .* this machine has none; format='mindir' is"):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.air")
    assert list(tmp_path.iterdir()) == []


def test_an_exported_file_cannot_be_exported_again(weights: dict[str, Path], tmp_path: Path) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx").path
    with pytest.raises(PellucidError, match=r"a\.onnx is an exported model.*; give the weights"):
        exporting.export(exported, tmp_path / "b.onnx")
