"""The one door: tiles equal the whole for every recipe, and files come back whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid import checkpoint, images, recipe, restoration
from pellucid.backends import TorchBackend
from pellucid.domains import Degraded, PackedRaw
from pellucid.errors import DataError, OutputError, PellucidError, PictureError, WeightsError
from pellucid.packing import BAYER, XTRANS
from pellucid.picture import Mosaic, Picture
from pellucid.recipe import Network
from pellucid.restoration import Restorer

# Small relatives of every recipe: the same layers and domains, fewer of them, so that a tile costs little.
SMALL: dict[str, dict[str, Any]] = {
    "srcnn.paper": {"scale": 3, "mapping_px": 1},
    "srcnn.tuned": {"scale": 2},
    "dncnn.gaussian": {"depth": 5, "width": 8},
    "dncnn.blind": {"depth": 4, "width": 8, "channels": 3},
    "dncnn.three_tasks": {"depth": 4, "width": 8, "scale": 4},
    "mimo_unet.gopro": {"num_blocks": 1},
    "sid_unet.sony": {},
    "sid_unet.fuji": {},
}


def _restorer(name: str, **parameters: Any) -> Restorer:
    torch.manual_seed(0)
    chosen = recipe.find(name, **parameters)
    return Restorer(name, chosen, TorchBackend(chosen.network(), "cpu"))


RESTORERS = {name: _restorer(name, **parameters) for name, parameters in SMALL.items()}


def _degraded(restorer: Restorer, height: int, width: int, channels: int, seed: int = 0) -> Degraded:
    rng = np.random.default_rng(seed)
    domain = restorer.recipe.domain
    if isinstance(domain, PackedRaw):
        pattern = BAYER if domain.sensor == "bayer" else XTRANS
        period = len(pattern)
        size = (height + period, width + period)  # at least one whole block
        return Mosaic(rng.random(size, np.float32), pattern, 0.0, 1.0)
    return Picture(rng.random((height, width, channels), np.float32))


def test_every_recipe_is_covered() -> None:
    assert set(SMALL) | {"mimo_unet.gopro_plus"} == set(recipe.names())


def _assert_equal(name: str, tiled: Picture, whole: Picture) -> None:
    """To the bit for the plain stacks of convolutions.

    For the U-Nets to 1e-6: on their reduced feature maps oneDNN divides the sums by the size of the map.
    """
    if name.startswith(("srcnn", "dncnn")):
        assert np.array_equal(tiled.samples, whole.samples)
    else:
        np.testing.assert_allclose(tiled.samples, whole.samples, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    tile_px=st.integers(1, 80),
    channels=st.sampled_from([1, 3]),
)
@example(height=1, width=1, tile_px=1, channels=3)
def test_tiles_equal_the_whole(name: str, height: int, width: int, tile_px: int, channels: int) -> None:
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, height, width, channels)
    tile_px = max(tile_px, (height * width // 30) ** 0.5 // 1, 1) if name[0] in "ms" else tile_px
    whole = restorer.restore(degraded, tile_px=10_000)
    tiled = restorer.restore(degraded, tile_px=int(tile_px))
    _assert_equal(name, tiled, whole)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("size", "channels"), [((160, 163), 1), ((71, 98), 3), ((370, 362), 1)])
def test_larger_tiles_equal_the_whole(name: str, size: tuple[int, int], channels: int) -> None:
    # On both sides of the sizes at which PyTorch changes its kernels.
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, *size, channels)
    whole, tiled = restorer.restore(degraded, tile_px=10_000), restorer.restore(degraded, tile_px=150)
    _assert_equal(name, tiled, whole)


@pytest.mark.parametrize("name", ["dncnn.gaussian", "srcnn.tuned", "mimo_unet.gopro"])
def test_a_smaller_halo_is_not_exact_and_says_by_how_much(name: str) -> None:
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, 90, 90, 1)
    whole, cut = restorer.restore(degraded, tile_px=10_000), restorer.restore(degraded, tile_px=30, halo_px=0)
    assert not np.allclose(cut.samples, whole.samples, rtol=0, atol=1e-6)
    assert restorer.given_up(degraded, tile_px=30, halo_px=0) > 1e-6
    assert restorer.given_up(degraded, tile_px=30, halo_px=restorer.halo_px) == 0


@pytest.mark.parametrize("name", SMALL)
def test_ensemble_in_tiles_equals_the_whole(name: str) -> None:
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, 37, 26, 3)
    whole = restorer.restore(degraded, tile_px=10_000, ensemble=True)
    tiled = restorer.restore(degraded, tile_px=18, ensemble=True)
    np.testing.assert_allclose(tiled.samples, whole.samples, rtol=0, atol=1e-6)


def test_ensemble_is_the_mean_over_eight_views_of_the_picture() -> None:
    restorer = RESTORERS["dncnn.gaussian"]
    samples = np.random.default_rng(0).random((12, 17, 1), np.float32)
    expected = []
    for flip in (False, True):
        for turns in range(4):
            seen = np.rot90(samples[:, ::-1] if flip else samples, turns)
            back = np.rot90(restorer.restore(Picture(seen.copy())).samples, -turns)
            expected.append(back[:, ::-1] if flip else back)
    ensemble = restorer.restore(Picture(samples), ensemble=True).samples
    np.testing.assert_allclose(ensemble, np.mean(expected, axis=0), rtol=0, atol=1e-6)


def test_strength_goes_from_the_input_to_the_full_effect() -> None:
    restorer = RESTORERS["dncnn.gaussian"]
    picture = Picture(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    full = restorer.restore(picture).samples
    assert np.array_equal(restorer.restore(picture, strength=0).samples, picture.samples)
    assert np.array_equal(restorer.restore(picture, strength=1).samples, full)
    half = restorer.restore(picture.as_depth("float32"), strength=0.5).samples * 255
    middle = (picture.samples.astype(float) + restorer.restore(picture.as_depth("float32")).samples * 255) / 2
    np.testing.assert_allclose(half, middle, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_depth_channels_and_alpha_come_back(dtype: str, channels: int, alpha: bool) -> None:
    rng = np.random.default_rng(0)
    peak = np.iinfo(dtype).max
    samples = rng.integers(0, peak, (9, 14, channels), dtype, endpoint=True)
    mask = rng.integers(0, peak, (9, 14, 1), dtype, endpoint=True) if alpha else None
    for name, scale in (("dncnn.gaussian", 1), ("dncnn.blind", 1), ("srcnn.paper", 3)):
        restored = RESTORERS[name].restore(Picture(samples, mask, {"icc-profile-data": b"icc"}))
        assert restored.samples.shape == (9 * scale, 14 * scale, channels)
        assert restored.dtype == dtype
        assert restored.metadata == {"icc-profile-data": b"icc"}
        assert (restored.alpha is not None) == alpha
        if scale == 1 and mask is not None:
            assert restored.alpha is not None and np.array_equal(restored.alpha, mask)


class Identity(Network):
    """Gives its input back."""

    scale, multiple, halo = 1, 1, 0

    def forward(self, degraded: Tensor) -> Tensor:
        return degraded


@pytest.mark.parametrize("name", ["dncnn.gaussian", "dncnn.blind", "dncnn.three_tasks", "mimo_unet.gopro"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_identity_network_gives_the_picture_back(name: str, dtype: str, channels: int) -> None:
    restorer = Restorer(name, recipe.find(name), TorchBackend(Identity(), "cpu"))
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (33, 20, channels), dtype, endpoint=True)
    assert np.array_equal(restorer.restore(Picture(samples), tile_px=7).samples, samples)


def test_weights_that_give_no_numbers_are_named() -> None:
    chosen = recipe.find("dncnn.gaussian", depth=2, width=1)
    network = chosen.network()
    for parameter in network.parameters():
        parameter.data.fill_(float("nan"))
    restorer = Restorer("damaged", chosen, TorchBackend(network, "cpu"))
    with pytest.raises(WeightsError, match="NaN or infinite"):
        restorer.restore(_degraded(restorer, 5, 5, 1))


def test_a_mosaic_becomes_a_picture_of_16_bit() -> None:
    mosaic = Mosaic(np.full((37, 50), 700, np.uint16), ("GB", "RG"), 512.0, 16383.0, exposure_ratio=100)
    restored = RESTORERS["sid_unet.sony"].restore(mosaic)
    assert (restored.samples.shape, restored.dtype) == ((36, 50, 3), "uint16")


@pytest.mark.parametrize(
    ("name", "degraded", "options", "message"),
    [
        ("sid_unet.sony", Picture(np.zeros((4, 4, 3), np.uint8)), {}, "developed picture.*camera RAW"),
        ("dncnn.gaussian", "photo.png", {}, "a str; a Picture is needed, as pellucid.read gives it"),
        ("sid_unet.sony", np.zeros((4, 4)), {}, "a ndarray; a Picture is needed"),
        ("dncnn.gaussian", Mosaic(np.zeros((4, 4)), BAYER, 0, 1), {}, "camera mosaic.*gray or RGB"),
        ("sid_unet.sony", Mosaic(np.zeros((6, 6)), XTRANS, 0, 1), {}, "RBGBRG.*needs RG/GB"),
        ("sid_unet.sony", Mosaic(np.zeros((4, 4)), BAYER, 0, 1), {"strength": 0.5}, "leave it at 1"),
        ("dncnn.gaussian", Picture(np.zeros((4, 4, 3), np.uint8)), {"strength": 2}, "from 0 to 1"),
        ("dncnn.gaussian", Picture(np.zeros((4, 4, 3), np.uint8)), {"tile_px": 0}, "at least 1"),
        ("dncnn.gaussian", Picture(np.zeros((4, 4, 3), np.uint8)), {"halo_px": -1}, "0 or more"),
    ],
)
def test_wrong_input_is_named(name: str, degraded: Degraded, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PellucidError, match=message):
        RESTORERS[name].restore(degraded, **options)


# Files and folders


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "tiny.safetensors"
    chosen = recipe.find("dncnn.gaussian", depth=3, width=4)
    torch.manual_seed(0)
    card = checkpoint.Card(chosen.name, chosen.parameters, "random", "none")
    checkpoint.save(path, chosen.network(), card)
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures at two depths of folder, one broken file between them."""
    folder = tmp_path / "album"
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.tif", "deep/c.png"):
        images.write(Picture(rng.integers(0, 256, (20, 31, 3), np.uint8)), folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:150])
    return folder


def _errors(outcomes: Sequence[restoration.Outcome]) -> list[str]:
    return [str(outcome.error) for outcome in outcomes if outcome.error is not None]


def test_a_folder_keeps_its_tree_and_a_bad_file_stops_nothing(album: Path, weights: Path) -> None:
    restorer = restoration.load(weights)
    outcomes = list(restoration.restore(restoration.plan([album], album.parent / "out"), restorer))
    assert len(outcomes) == 4 and len(_errors(outcomes)) == 1
    assert "broken.png" in _errors(outcomes)[0]
    results = sorted(path.relative_to(album.parent / "out") for path in (album.parent / "out").rglob("*.*"))
    assert results == [Path("a.png"), Path("b.tif"), Path("deep/c.png")]


def test_the_same_call_goes_on_where_it_was_interrupted(album: Path, weights: Path) -> None:
    restorer = restoration.load(weights)
    jobs = restoration.plan([album], None)
    first = next(restoration.restore(jobs, restorer))
    before = first.job.target.stat().st_mtime_ns
    rest = list(restoration.restore(jobs, restorer))
    assert [outcome.skipped for outcome in rest] == [True, False, False, False]
    assert first.job.target.stat().st_mtime_ns == before
    assert first.job.target.parent == album.with_name("album-restored")


def test_results_inside_the_folder_are_not_restored_again(album: Path, weights: Path) -> None:
    jobs = restoration.plan([album], album / "out")
    list(restoration.restore(jobs, restoration.load(weights)))
    assert restoration.plan([album], album / "out") == jobs


def test_a_folder_without_a_name_of_its_own_goes_beside_itself(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    assert restoration.plan(["."])[0].target == album.with_name("album-restored") / "a.png"
    monkeypatch.chdir(album / "deep")
    with pytest.raises(OutputError, match="--out"):
        restoration.plan([".."])


def test_links_that_lead_nowhere_stop_nothing(album: Path, weights: Path) -> None:
    (album / "dangling.png").symlink_to("nowhere")
    (album / "loop.png").symlink_to("loop.png")
    outcomes = list(restoration.restore(restoration.plan([album]), restoration.load(weights)))
    assert len(_errors(outcomes)) == 3
    with pytest.raises(OutputError):
        restoration.plan([album / "a.png", album / "b.tif"], album / "loop.png")


def test_one_file_goes_where_it_is_told(album: Path, weights: Path) -> None:
    (job,) = restoration.plan([album / "a.png"], None)
    assert job.target == album / "a-restored.png"
    (job,) = restoration.plan([album / "a.png"], album / "x" / "new.tif")
    assert job.target == album / "x" / "new.tif"
    (job,) = restoration.plan([album / "a.png"], album / "elsewhere")
    assert job.target == album / "elsewhere" / "a.png"
    (outcome,) = restoration.restore(
        restoration.plan([album / "a.png"], album / "n.tif"), restoration.load(weights)
    )
    assert outcome.error is None and images.read(album / "n.tif").width == 31


def test_nothing_is_lost_by_a_wrong_target(album: Path) -> None:
    with pytest.raises(OutputError, match="is the input itself"):
        restoration.plan([album / "a.png"], album / "a.png")
    with pytest.raises(OutputError, match="is the input itself"):
        restoration.plan([album], album)
    images.write(images.read(album / "a.png"), album / "deep" / "a.png")
    with pytest.raises(OutputError, match=r"would both become .*a\.png"):
        restoration.plan([album / "a.png", album / "deep" / "a.png"], album / "out")
    with pytest.raises(OutputError, match="is the input itself"):
        restoration.plan([album / "deep" / "c.png", album / "a.png"], album / "deep" / ".." / "deep")
    with pytest.raises(PictureError, match="does not exist"):
        restoration.plan([album / "missing.png"], None)
    (album / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        restoration.plan([album / "empty"], None)
