"""The example for browsers and Node gives what the command line gives."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import exports
from pellucid import exporting, restorer
from pellucid.backends import parity
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

EXAMPLE = Path(__file__).parent.parent / "examples" / "web"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytest.importorskip("onnx")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The example's program in Node, installed in a folder of its own."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    folder = tmp_path_factory.mktemp("web") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    installing = ["npm", "ci", "--no-audit", "--no-fund", "--silent"]
    if subprocess.run(installing, cwd=folder, capture_output=True, timeout=300).returncode:
        pytest.skip("npm could not install the example's packages")

    def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        command = ["node", folder / "restore.mjs", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run


def _picture(channels: int) -> Picture:
    chosen, _ = exports.built("mimo_unet.gopro")
    planes = parity.made_up(chosen, 96)[:1, :channels, :61, :90]
    return Picture.from_tensor(planes.clamp(0, 1)).as_depth("uint8")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["dncnn.gaussian", "mimo_unet.gopro"])
def test_it_gives_what_pellucid_gives(run: Run, tmp_path: Path, name: str, channels: int) -> None:
    model = exporting.export(exports.weights(tmp_path, name), tmp_path / "a.onnx").path
    degraded = _picture(channels)
    images.write(degraded, tmp_path / "in.png")
    wanted = restorer.load(model).restore(degraded).samples
    for tile_px in ("1000", "37"):
        ran = run(model, tmp_path / "in.png", tmp_path / f"{tile_px}.png", tile_px)
        assert ran.returncode == 0, ran.stderr
        found = images.read(tmp_path / f"{tile_px}.png").samples
        # Equal, but for values within 1e-5 of halfway between two steps: it adds in another order.
        off = np.abs(found.astype(int) - wanted)
        assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_what_it_cannot_use_is_one_line(run: Run, tmp_path: Path) -> None:
    model = exporting.export(exports.weights(tmp_path, "srcnn.paper"), tmp_path / "a.onnx").path
    images.write(_picture(3), tmp_path / "in.png")
    for path, message in [
        (model, "restore: this example restores gray and RGB pictures; the model takes BT.601 luma"),
        (tmp_path / "in.png", "restore: this file is no ONNX model"),
        (tmp_path / "absent.onnx", "restore: ENOENT: no such file"),
    ]:
        ran = run(path, tmp_path / "in.png", tmp_path / "out.png")
        assert ran.returncode == 1 and ran.stderr.startswith(message) and ran.stderr.count("\n") == 1
    assert run().returncode == 2 and not (tmp_path / "out.png").exists()
