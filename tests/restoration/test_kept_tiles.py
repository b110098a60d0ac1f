"""An interrupted picture resumes: finished tiles are not computed again, and the result has the same bytes."""

import errno
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pellucid.domains import Degraded
from pellucid.errors import OutputError
from pellucid.pictures import images
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration import kept_tiles, restore
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.one_picture import restore_picture
from pellucid.restoration.position import Position
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from pellucid.restoration.tiled_model import TiledModel
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata
from small_models import build_restorer

DENOISER = build_restorer("dncnn.gaussian", depth=4, width=8)
ENLARGER = build_restorer("srcnn.tuned", scale=2)
RAW_DENOISER = build_restorer("dncnn.raw", depth=3, width=8)
DEVELOPER = build_restorer("sid_unet.any_camera", width=4)
CHAIN = Restorer.chain([DENOISER, ENLARGER])


def _picture(*, seed: int = 0) -> Picture:
    """100 x 70 px with alpha and an extra channel, partly transparent."""
    planes = np.random.default_rng(seed).random((70, 100, 5), np.float32)
    alpha = planes[..., 3:4] * (planes[..., 3:4] > 0.3)
    return Picture(planes[..., :3], alpha, {"xres": 11.8}, extra=planes[..., 4:]).as_depth("uint16")


def _mosaic() -> Mosaic:
    samples = np.random.default_rng(0).integers(600, 3000, (100, 90), np.uint16)
    return Mosaic(samples, ("GR", "BG"), 512.0, 16383.0, exposure_ratio=7.0, orientation=6)


MASK = np.random.default_rng(1).integers(0, 256, (70, 100), np.uint8)
CASES: dict[str, tuple[Restorer, Picture | Mosaic, Settings, Any]] = {
    "denoise": (DENOISER, _picture(), Settings(tile_px=20), None),
    "enlarge": (ENLARGER, _picture(), Settings(tile_px=30), None),
    "chain": (CHAIN, _picture(), Settings(tile_px=40), None),
    "mosaic": (DEVELOPER, _mosaic(), Settings(tile_px=33), None),
    "mosaic that stays one": (RAW_DENOISER, _mosaic(), Settings(tile_px=33), None),
    "mask and ensemble": (DENOISER, _picture(), Settings(tile_px=50, ensemble=True), MASK),
    "size and crop": (ENLARGER, _picture(), Settings(tile_px=30, scale=1.5, crop=(20, 10, 70, 50)), None),
}


@pytest.fixture(autouse=True)
def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tiles, "KEEP_AFTER_S", 0.0)


def _interrupt_after(num_tiles: int) -> Callable[[int, int], None]:
    num_left = [num_tiles]

    def advance(_: int, __: int) -> None:
        num_left[0] -= 1
        if num_left[0] <= 0:
            raise KeyboardInterrupt

    return advance


def _count_computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which the side of each tile is added that is computed from now on."""
    computed: list[int] = []
    compute = TiledModel._start_tile

    def count(self: TiledModel, degraded: Any, tile: Any, *others: Any) -> Callable[[], Picture]:
        computed.append(tile.longer_side_px)
        return compute(self, degraded, tile, *others)

    monkeypatch.setattr(TiledModel, "_start_tile", count)
    return computed


def _assert_equal(one: Degraded, two: Degraded) -> None:
    assert one.metadata == two.metadata and len(one.planes) == len(two.planes)
    for a, b in zip(one.planes, two.planes, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
@hypothesis_settings(max_examples=4)
@given(interruptions=st.lists(st.integers(1, 12), max_size=3))
def test_however_often_it_is_interrupted_the_result_is_the_same(
    name: str, interruptions: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    restorer, picture, settings, mask = CASES[name]
    expected, target = restore_picture(restorer, picture, settings, mask=mask), tmp_path_factory.mktemp("a") / "a"
    for num_tiles in interruptions:
        kept, progress = KeptTiles(target), _interrupt_after(num_tiles)
        with suppress(KeyboardInterrupt):  # or all tiles are finished
            restore_picture(restorer, picture, settings, mask=mask, kept=kept, progress=progress)
    kept = KeptTiles(target)
    _assert_equal(restore_picture(restorer, picture, settings, mask=mask, kept=kept), expected)
    assert (kept.found_s > 0) == bool(interruptions)
    kept.remove()
    assert not list(target.parent.iterdir())


def test_finished_tiles_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, settings = _picture(), Settings(tile_px=20)
    computed = _count_computed(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        restore_picture(DENOISER, picture, settings, kept=KeptTiles(tmp_path / "a"), progress=_interrupt_after(15))
    assert len(computed) == 15  # of 20
    restore_picture(DENOISER, picture, settings, kept=KeptTiles(tmp_path / "a"))
    assert len(computed) == 20 + 1 and 1 in computed  # a tile of one pixel, for the metadata
    restore_picture(DENOISER, picture, settings, kept=KeptTiles(tmp_path / "a"))
    assert len(computed) == 20 + 2


def test_tiles_of_anything_else_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, target = Settings(tile_px=20), tmp_path / "a"
    restore_picture(DENOISER, _picture(), settings, kept=KeptTiles(target))
    computed = _count_computed(monkeypatch)
    other_weights = build_restorer("dncnn.gaussian", depth=4, width=8, batch_norm=False)
    changes: list[tuple[Restorer, Picture, Settings, Any]] = [
        (other_weights, _picture(), settings, None),
        (DENOISER, _picture(seed=1), settings, None),
        (DENOISER, _picture().as_depth("uint8"), settings, None),
        (DENOISER, replace(_picture(), alpha=None), settings, None),
        (DENOISER, _picture(), replace(settings, strength=0.5), None),
        (DENOISER, _picture(), replace(settings, halo_px=1), None),
        (DENOISER, _picture(), replace(settings, ensemble=True), None),
        (DENOISER, _picture(), settings, MASK),
    ]
    for restorer, picture, other_settings, mask in changes:
        kept, before = KeptTiles(target), len(computed)
        restored = restore_picture(restorer, picture, other_settings, mask=mask, kept=kept)
        assert kept.found_s == 0 and len(computed) == before + 20
        _assert_equal(restored, restore_picture(restorer, picture, other_settings, mask=mask))


@pytest.mark.parametrize(("tile_px", "is_found"), [(50, True), (20, True), (19, False)])
def test_the_plan_of_tiles_is_kept_if_it_fits_the_memory(tile_px: int, is_found: bool, tmp_path: Path) -> None:
    restore_picture(DENOISER, _picture(), Settings(tile_px=20), kept=KeptTiles(tmp_path / "a"))
    kept = KeptTiles(tmp_path / "a")
    restore_picture(DENOISER, _picture(), Settings(tile_px=tile_px), kept=kept)
    assert (kept.found_s > 0) == is_found


@hypothesis_settings(max_examples=15)
@given(data=st.data())
def test_damaged_tiles_are_computed_again(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("a") / "a"
    settings = Settings(tile_px=50)
    expected = restore_picture(ENLARGER, _picture(), settings, kept=KeptTiles(target))
    for path in target.parent.rglob("*.npz"):
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= data.draw(st.integers(1, 255))
        else:  # as after a power failure
            del content[place:]
        path.write_bytes(content)
    _assert_equal(restore_picture(ENLARGER, _picture(), settings, kept=KeptTiles(target)), expected)


# Files


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    recipe = DENOISER.recipe
    checkpoint.save(path, recipe.network(), WeightsMetadata(recipe.name, recipe.parameters, "random", "none"))
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scans" / "big.png"
    images.write(Picture(np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)), path)
    return path


def _hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


def _interrupt(scan: Path, out: Path, settings: Settings, part: float = 0.5) -> Position:
    """Restore until this part of the picture is done; returns where it was."""
    positions: list[Position] = []

    def stop(position: Position) -> None:
        positions.append(position)
        if position.num_done >= part:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore.restore(scan, DENOISER, out, settings, progress=stop)
    return positions[-1]


KILLED = """
import sys
from pellucid.restoration import kept_tiles, restore
from pellucid.restoration.settings import Settings
kept_tiles.KEEP_AFTER_S = 0
print("ready", flush=True)
restore.restore(sys.argv[1], sys.argv[2], sys.argv[3], Settings(tile_px=20))
"""


def test_killed_at_any_moments_the_result_has_the_same_bytes(scan: Path, weights: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    settings, expected, out = Settings(tile_px=20), tmp_path / "expected.png", tmp_path / "out.png"
    restore.restore(scan, str(weights), expected, settings)[0].raise_error()
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(scan), str(weights), str(out)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            before = len(list(tmp_path.rglob("*.npz")))
            while len(list(tmp_path.rglob("*.npz"))) == before and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.random() / 2)
            process.kill()
    num_kept = len(list(tmp_path.rglob("*.npz")))
    assert num_kept >= 2 and not out.exists(), "killed too late for this test"
    positions: list[Position] = []
    (outcome,) = restore.restore(scan, str(weights), out, settings, progress=positions.append)
    outcome.raise_error()
    assert out.read_bytes() == expected.read_bytes() and not _hidden(tmp_path)
    assert positions[-1].num_skipped == pytest.approx(num_kept / (25 * 30))
    made_now = positions[-1].restored_megapixels
    assert made_now == pytest.approx(0.3 * (1 - num_kept / (25 * 30)))


def test_short_work_keeps_nothing(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert kept_tiles.KEEP_AFTER_S >= 1
    position = _interrupt(scan, tmp_path / "out.png", Settings(tile_px=100))
    assert position.kept_s == 0 and not _hidden(tmp_path)


def test_pages_and_folders_resume_within_a_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pages = [PIL.Image.fromarray(rng.integers(0, 256, (90, 80), np.uint8)) for _ in range(3)]
    (tmp_path / "scans").mkdir()
    pages[0].save(tmp_path / "scans" / "a.tif", save_all=True, append_images=pages[1:])
    settings, expected, out = Settings(tile_px=30), tmp_path / "expected", tmp_path / "out"
    restore.restore(tmp_path / "scans", DENOISER, expected, settings)[0].raise_error()
    assert _interrupt(tmp_path / "scans", out, settings).kept_s > 0
    positions: list[Position] = []
    (outcome,) = restore.restore(tmp_path / "scans", DENOISER, out, settings, progress=positions.append)
    outcome.raise_error()
    assert positions[-1].num_skipped == pytest.approx(0.5, abs=0.05)
    assert (out / "a.tif").read_bytes() == (expected / "a.tif").read_bytes()
    assert [path.name for path in _hidden(out)] == [".pellucid.jsonl"]


def test_tiles_of_a_finished_result_are_removed(scan: Path, tmp_path: Path) -> None:
    """Its process may have been killed before it removed them."""
    out, settings = tmp_path / "out", Settings(tile_px=100)
    _interrupt(scan.parent, out, settings)
    (tiles,) = out.glob(".pellucid-*-tiles")
    tiles.rename(tmp_path / "tiles")
    restore.restore(scan.parent, DENOISER, out, settings)[0].raise_error()
    (tmp_path / "tiles").rename(tiles)
    (outcome,) = restore.restore(scan.parent, DENOISER, out, settings)
    assert outcome.is_skipped and [path.name for path in _hidden(out)] == [".pellucid.jsonl"]


def test_without_space_for_tiles_the_result_is_complete(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, num_saved = Path.replace, [0]

    def fail(self: Path, target: Path) -> Path:
        if target.suffix == ".npz":
            num_saved[0] += 1
            if num_saved[0] > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    (outcome,) = restore.restore(scan, DENOISER, tmp_path / "out.png", Settings(tile_px=100))
    assert outcome.error is None and not outcome.info and not _hidden(tmp_path)
    assert num_saved == [4]


def test_a_result_that_cannot_be_written_keeps_its_tiles(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = _count_computed(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(images, "write", lambda *_, **__: (_ for _ in ()).throw(OutputError("the disk is full")))
        (outcome,) = restore.restore(scan, DENOISER, tmp_path / "out.png", Settings(tile_px=100))
    assert "the disk is full" in str(outcome.error)
    assert outcome.info == ("its finished tiles are kept, and the same command resumes",)
    (outcome,) = restore.restore(scan, DENOISER, tmp_path / "out.png", Settings(tile_px=100))
    assert outcome.error is None and not _hidden(tmp_path)
    assert len(computed) == 30 + 1


def test_a_picture_that_takes_too_long_leaves_nothing(scan: Path, tmp_path: Path) -> None:
    (outcome,) = restore.restore(scan, DENOISER, tmp_path / "out.png", Settings(tile_px=50, timeout_s=1e-6))
    assert "takes longer" in str(outcome.error) and not outcome.info and not _hidden(tmp_path)
