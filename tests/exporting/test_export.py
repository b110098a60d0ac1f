"""Export: what is written agrees with the network, and what does not agree is not written."""

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
from pellucid.backends import model, runtimes
from pellucid.errors import DataError, MissingExtraError, OutputError, PellucidError, WeightsError
from pellucid.exporting import export as exporting, export_format, registry
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

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


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("name", small_models.RECIPES)
def test_every_network_agrees_in_every_format(
    weights: dict[str, Path], tmp_path: Path, name: str, suffix: str
) -> None:
    out = tmp_path / "made" / f"model{suffix}"
    exported = exporting.export(weights[name], out)
    assert exported.path == out and exported.agreement.psnr_db > 115
    assert exported.agreement.num_inputs >= 6
    wanted = {".xml": ["model.bin", "model.xml"]}.get(suffix, [out.name])
    assert sorted(path.name for path in out.parent.iterdir()) == wanted


@pytest.mark.parametrize(
    ("name", "precision", "least_db"),
    [("a.onnx", "float16", 60), ("a.xml", "float16", 60), ("a.xml", "bfloat16", 45), ("a.pt2", "bfloat16", 45)],
)
def test_half_precision_is_close(
    weights: dict[str, Path], tmp_path: Path, name: str, precision: str, least_db: float
) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / name, precision=precision)
    assert least_db < exported.agreement.psnr_db < 115
    assert exported.metadata.precision == precision


def test_facts_travel_along(weights: dict[str, Path], tmp_path: Path) -> None:
    for suffix in (".onnx", ".xml"):
        exported = exporting.export(weights["srcnn.paper"], tmp_path / f"model{suffix}")
        assert runtimes.read_metadata(exported.path) == exported.metadata
    exporting.export(weights["srcnn.paper"], tmp_path / "model.pt2")
    extra = {"pellucid.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    told = json.loads(extra["pellucid.json"])
    assert (told["scale"], told["halo"], told["license"]) == ("1", "6", "CC0")
    assert json.loads(told["scores"])[0]["psnr_db"] == 33.5


def test_what_does_not_agree_is_not_written(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = formats.FORMATS["onnx"]

    def off(plan: model.Model, path: Path) -> formats.Run:
        run = onnx.run(plan, path)
        return lambda degraded: run(degraded) + 1e-4

    monkeypatch.setitem(formats.FORMATS, "onnx", replace(onnx, run=off))
    with pytest.raises(PellucidError, match=r"is not written: .* to 80.0 dB.*100 dB are needed"):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced_unasked(weights: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"a.bin exists; --overwrite"):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.xml")
    exporting.export(weights["dncnn.gaussian"], tmp_path / "a.xml", overwrite=True)
    assert runtimes.read_metadata(tmp_path / "a.xml").halo == 4


def test_pictures_of_ones_own_are_compared_and_scored(
    weights: dict[str, Path], album: Path, tmp_path: Path
) -> None:
    exported = exporting.export(weights["srcnn.paper"], tmp_path / "a.onnx", calibrate=album, data=album)
    assert exported.agreement.num_inputs > 6
    assert exported.loss_db == pytest.approx(0, abs=1e-4)


def test_a_fixed_shape(weights: dict[str, Path], tmp_path: Path) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx", shape=(2, 1, 40, 30))
    assert runtimes.read_metadata(exported.path).shape == (2, 1, 40, 30)
    assert exported.agreement.num_inputs == 1


@pytest.mark.parametrize(
    ("out", "options", "error", "message"),
    [
        ("a.tflite", {}, PellucidError, "say with --format what it shall be: onnx, openvino, torch"),
        ("a.onnx", {"format": "onyx"}, PellucidError, "no format 'onyx'; did you mean onnx"),
        ("a.xml", {"format": "onnx"}, OutputError, "does not end in .onnx"),
        ("a.onnx", {"precision": "bfloat16"}, PellucidError, "onnx has no precision 'bfloat16'; it has float32"),
        ("a.xml", {"precision": "int8"}, PellucidError, "int8 is calibrated on pictures.*--calibrate FOLDER"),
        ("a.xml", {"calibrate": "empty"}, DataError, "empty holds no pictures"),
        ("a.xml", {"calibrate": "absent"}, DataError, "absent does not exist; a folder is needed"),
        ("a.xml", {"calibrate": "file"}, DataError, "file is a file; a folder is needed"),
        ("a.onnx", {"shape": (1, 3, 8, 8)}, PellucidError, r"takes \(N, 1, H, W\)"),
        ("file/a.onnx", {}, OutputError, "a.onnx cannot be written"),
        ("a.pt2", {"format": "aoti", "precision": "int8"}, PellucidError, "aoti has no precision 'int8'"),
        (
            "a.mindir",
            {"precision": "bfloat16"},
            PellucidError,
            "mindir has no precision 'bfloat16'; it has float32",
        ),
    ],
)
def test_wrong_calls_are_one_line(
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


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.safetensors").write_text("no weights")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        exporting.export(tmp_path / "notes.safetensors", tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("package", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("mindspore", ".mindir")]
)
def test_a_missing_package_is_named_with_its_pip_command(
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


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler: g++")


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        "dncnn.gaussian",
        *(pytest.param(name, marks=pytest.mark.slow) for name in small_models.RECIPES if name != "dncnn.gaussian"),
    ],
)
def test_a_compiled_network_agrees_and_says_what_it_is(
    weights: dict[str, Path], tmp_path: Path, name: str
) -> None:
    exported = exporting.export(weights[name], tmp_path / "a.pt2", format="aoti")
    assert exported.agreement.psnr_db > 115 and exported.agreement.num_inputs == 6
    inductor: Any = import_module("torch._inductor")
    told = inductor.aoti_load_package(str(exported.path)).get_metadata()
    assert (told["pellucid.recipe"], told["pellucid.license"]) == (name, "CC0")


def compiler(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "exit 1",
            r"^aoti compiles the network and finds no C\+\+ compiler; install one \(apt-get install g\+\+\)",
        ),
        pytest.param(
            'case "$*" in --version|"-E "*|*" -E "*) exec g++ "$@" ;; esac; '
            'echo "x.h:1:2: fatal error: omp.h" >&2; exit 1',
            r"^aoti cannot compile the network: .*fatal error: omp.h; another compiler may do: CXX=",
            marks=needs_compiler,
        ),
    ],
)
def test_a_compiler_that_does_not_do_is_one_line(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # nothing is compiled there yet
    config: Any = import_module("torch._inductor.config")
    with (
        config.patch({"cpp.cxx": (str(compiler(tmp_path / "compiler", text)),)}),
        pytest.raises(PellucidError, match=message) as raised,
    ):
        exporting.export(weights["srcnn.paper"], tmp_path / "a.pt2", format="aoti")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a.pt2").exists()


@pytest.mark.skipif(any(Path("/dev").glob("davinci*")), reason="this is Ascend hardware")
def test_air_is_refused_where_there_is_no_ascend(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        PellucidError, match="^only Ascend hardware with CANN can write AIR, and there is none here"
    ):
        exporting.export(weights["dncnn.gaussian"], tmp_path / "a.air")
    assert list(tmp_path.iterdir()) == []


def test_what_is_exported_already_is_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    exported = exporting.export(weights["dncnn.gaussian"], tmp_path / "a.onnx").path
    with pytest.raises(PellucidError, match=r"a\.onnx is exported already; name the weights it was made of"):
        exporting.export(exported, tmp_path / "b.onnx")
