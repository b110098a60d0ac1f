"""The options of `pellucid restore` as users see them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.weights import checkpoint
from test_cli import Terminal


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """In a folder with photo.png (31 x 24 px), album/a.png and album/deep/b.tif, and models named dn and x2."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", "album/a.png", "album/deep/b.tif"):
        images.write(Picture(rng.integers(0, 256, (24, 31, 3), np.uint8)), tmp_path / name)
    for name, recipe, keywords in (
        ("dn", "dncnn.gaussian", {"depth": 3, "width": 4}),
        ("x2", "srcnn.tuned", {"scale": 2}),
    ):
        torch.manual_seed(0)
        chosen = registry.find(recipe, **keywords)
        metadata = checkpoint.WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0")
        checkpoint.save(tmp_path / "models" / f"{name}.safetensors", chosen.network(), metadata)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal(monkeypatch, capsys)


def _size(path: str) -> tuple[int, int]:
    picture = images.read(path)
    return picture.width, picture.height


def test_models_of_a_chain_run_one_after_the_other(run: Terminal) -> None:
    result = run("restore album --model dn+x2 --out out")
    assert result.code == 0 and "2 of 2 pictures restored by dn+x2" in result.out
    assert _size("out/a.png") == (62, 48)
    assert "no model 'dm'; did you mean dn" in run("restore photo.png --model dm+x2").err


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("--scale 1.5", (47, 36)),
        ("--scale 3", (93, 72)),
        ("--size 40x", (40, 31)),
        ("--size x40", (52, 40)),
        ("--size 40x1000", (40, 31)),
        ("--crop 3,4,10,8", (20, 16)),
        ("--crop 3,4,10,8 --scale 3", (30, 24)),
    ],
)
def test_results_have_the_size_asked_for(run: Terminal, options: str, size: tuple[int, int]) -> None:
    result = run(f"restore photo.png --model x2 {options}")
    assert (result.code, result.err, _size("photo-restored.png")) == (0, "", size)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--scale 0.5", 1, "a picture of 31 x 24 px to be made 16 x 12, but x2 enlarges"),
        ("--size 10x", 1, "but x2 enlarges; use a model that does not"),
        ("--scale nan", 1, "nan is not possible; --scale can be a number"),
        ("--scale 2 --size 3x", 1, "a scale and a size is not possible"),
        ("--size x", 2, "expected a size in pixels, e.g. 3000x2000, 3000x or x2000"),
        ("--size 0x3", 2, "expected a size in pixels"),
        ("--crop 1,2,3", 2, "expected x, y, width and height in pixels"),
        ("--crop 30,0,2,2", 1, "the crop 30,0,2,2 is not inside of a picture of 31 x 24 px"),
        ("--scale 99999", 1, "more than 500000000 pixels; --max-pixels sets the limit"),
    ],
)
def test_impossible_sizes_are_one_line(run: Terminal, options: str, code: int, message: str) -> None:
    result = run(f"restore photo.png --model x2 {options}")
    assert (result.code, message in " ".join(result.err.replace("│", "").split())) == (code, True), result.err
    assert not Path("photo-restored.png").exists()
