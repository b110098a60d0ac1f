"""The example for browsers and Node gives the same result as the command line."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_models
from pellucid.exporting import export as exporting
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration import restorer

EXAMPLE = Path(__file__).parent.parent / "examples" / "web"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ENETUNREACH")
pytest.importorskip("onnx")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The example's program for Node, installed in its own folder."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    folder = tmp_path_factory.mktemp("web") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    installing = ["npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"]
    installed = subprocess.run(installing, cwd=folder, capture_output=True, text=True)
    if any(code in installed.stderr for code in OFFLINE):
        pytest.skip("npm has no network to install the example's packages from")
    assert installed.returncode == 0, installed.stderr

    def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        command = ["node", folder / "restore.mjs", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run


def _make_picture(colors: str = "rgb") -> Picture:
    return small_models.make_picture(1 if colors == "gray" else 3)


def _export(weights: Path, out: Path, **options: Any) -> Path:
    return exporting.export(weights, out, whole=True, **{"layout": "nhwc"} | options).path


@pytest.mark.parametrize("colors", ["gray", "rgb"])
@pytest.mark.parametrize("name", ["srcnn.paper", "dncnn.gaussian", "mimo_unet.gopro"])
def test_the_result_equals_pellucids(run: Run, tmp_path: Path, name: str, colors: str) -> None:
    weights = small_models.save_weights(tmp_path, name)
    model = _export(weights, tmp_path / "a.onnx", colors=colors)
    degraded = _make_picture(colors)
    images.write(degraded, tmp_path / "in.png")
    wanted = restorer.load(weights).restore(degraded).samples
    for tile_px in ("1000", "37"):
        ran = run(model, tmp_path / "in.png", tmp_path / f"{tile_px}.png", tile_px)
        assert ran.returncode == 0, ran.stderr
        found = images.read(tmp_path / f"{tile_px}.png").samples
        assert found.shape == wanted.shape
        # Equal, except values within 1e-5 of the middle between two steps: sums have another order.
        off = np.abs(found.astype(int) - wanted)
        assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_wrong_arguments_print_a_one_line_error(run: Run, tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "dncnn.gaussian")
    model = _export(weights, tmp_path / "a.onnx", colors="rgb")
    raw = small_models.save_weights(tmp_path, "dncnn.raw", depth=2, width=2)
    gray_model = _export(weights, tmp_path / "gray.onnx", colors="gray")
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:-1000])
    opaque, clear = _make_picture(), np.full((61, 90, 1), 7, np.uint8)
    images.write(opaque, tmp_path / "in.png")
    images.write(_make_picture("gray"), tmp_path / "gray.png")
    images.write(Picture(opaque.samples, alpha=clear), tmp_path / "clear.png")
    needed = (
        "this example needs files from `pellucid export --whole --layout nhwc --samples uint8`; the model takes"
    )
    for path, name, message in [
        (exporting.export(weights, tmp_path / "b.onnx").path, "in.png", f"{needed} gray; black is 0"),
        (_export(weights, tmp_path / "c.onnx", layout="nchw"), "in.png", f"{needed} uint8"),
        (_export(weights, tmp_path / "d.onnx", samples="uint16"), "in.png", f"{needed} uint16"),
        (
            _export(weights, tmp_path / "e.onnx", shape=(1, 8, 8, 1)),
            "in.png",
            "this model accepts only inputs of [1, 8, 8, 1]",
        ),
        (
            _export(raw, tmp_path / "f.onnx"),
            "in.png",
            "this example restores pictures; the model takes",
        ),
        (gray_model, "in.png", "the picture has colors, and the model was exported for gray pictures"),
        (model, "gray.png", f"{tmp_path / 'gray.png'} is gray; export the model with --colors gray"),
        (tmp_path / "cut.onnx", "in.png", "this file is not an ONNX model, or it is incomplete"),
        (tmp_path / "in.png", "in.png", "this file is not an ONNX model, or it is incomplete"),
        (tmp_path / "absent.onnx", "in.png", "ENOENT: no such file"),
        (model, "cut.onnx", f"{tmp_path / 'cut.onnx'} is not a complete PNG"),
        (model, "clear.png", "this example restores only opaque pictures"),
    ]:
        ran = run(path, tmp_path / name, tmp_path / "out.png")
        assert ran.returncode == 1 and ran.stderr.startswith(f"restore: {message}") and ran.stderr.count("\n") == 1
    images.write(opaque, tmp_path / "there.png")
    ran = run(model, tmp_path / "in.png", tmp_path / "there.png")
    assert ran.returncode == 1 and "there.png exists; choose another name" in ran.stderr
    for words in ([], [model, tmp_path / "in.png", tmp_path / "out.png", "8.5"]):
        assert run(*words).returncode == 2
    assert not (tmp_path / "out.png").exists()
