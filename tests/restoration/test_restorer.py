"""Tiles equal the whole picture for every recipe, whatever their size."""

import gc
import pickle
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from device_waits import META, RefuseWaitingCopies
from large_arrays import is_in_file
from pellucid.backends.eager import TorchBackend
from pellucid.domains import Degraded, Gray, PackedRaw
from pellucid.errors import NotEnoughMemoryError, PellucidError, PictureError, WeightsError
from pellucid.pictures import resize as resize_module
from pellucid.pictures.camera.packing import BAYER, XTRANS
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import resize
from pellucid.pictures.samples import PEAKS
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.restoration.kept_tiles import KeptTiles
from pellucid.restoration.one_picture import restore_picture
from pellucid.restoration.restorer import Restorer, load, to_mask
from pellucid.restoration.settings import Settings
from pellucid.restoration.tiled_model import ALL_EIGHT, IDENTITY, Effort, TiledModel, TileSettings
from pellucid.restoration.tiling import Tile
from pellucid.system import devices, memory
from pellucid.weights import checkpoint

# Keywords that make the networks of recipes small: the same kinds of layers and domains, but fast.
# Recipes that are not here are tested as they are.
SMALL: dict[str, dict[str, Any]] = {
    "srcnn.paper": {"scale": 3, "mapping_px": 1},
    "srcnn.tuned": {"scale": 2},
    "dncnn.gaussian": {"depth": 5, "width": 8},
    "dncnn.blind": {"depth": 4, "width": 8, "channels": 3},
    "dncnn.three_tasks": {"depth": 4, "width": 8, "scale": 4},
    "mimo_unet.gopro": {"num_blocks": 1},
    "mimo_unet.synthetic": {"num_blocks": 1, "width": 8},
    "sid_unet.any_camera": {"width": 8},
    "dncnn.raw": {"depth": 4, "width": 8},
}
NAMES = [name for name in registry.list_names() if name != "mimo_unet.gopro_plus"]  # the same layers, more of them


def _network(restorer: Restorer) -> Network:
    assert isinstance(restorer.backend, TorchBackend)
    return restorer.backend._network


def _restorer(name: str, **parameters: Any) -> Restorer:
    torch.manual_seed(0)
    chosen = registry.find(name, **parameters)
    return Restorer(name, chosen, TorchBackend(chosen.network(), "cpu"))


RESTORERS = {name: _restorer(name, **SMALL.get(name, {})) for name in NAMES}


def _degraded(restorer: Restorer, height: int, width: int, channels: int, seed: int = 0) -> Degraded:
    rng = np.random.default_rng(seed)
    domain = restorer.recipe.domain
    if domain.gives_mosaic:
        return Mosaic(rng.random((height + 2, width + 2), np.float32), BAYER, 0.0, 1.0)
    if isinstance(domain, PackedRaw):
        pattern = BAYER if domain.sensor == "bayer" else XTRANS
        period = len(pattern)
        size = (height + period, width + period)  # at least one whole block
        return Mosaic(rng.random(size, np.float32), pattern, 0.0, 1.0)
    return Picture(rng.random((height, width, channels), np.float32))


def _assert_equal(name: str, tiled: Degraded, whole: Degraded) -> None:
    """Exactly for plain stacks of convolutions, unless roots are computed before and after.

    For U-Nets to 1e-6: on their reduced feature maps, oneDNN splits sums depending on the size of the map.
    """
    if name.startswith(("srcnn", "dncnn")) and name != "dncnn.raw":
        assert np.array_equal(tiled.samples, whole.samples)
    else:
        np.testing.assert_allclose(tiled.samples, whole.samples, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("size", "channels"), [((160, 163), 1), ((71, 98), 3), ((370, 362), 1)])
def test_larger_tiles_equal_the_whole(name: str, size: tuple[int, int], channels: int) -> None:
    # On both sides of the sizes at which PyTorch switches to other kernels.
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, *size, channels)
    whole, tiled = restorer.restore(degraded, tile_px=10_000), restorer.restore(degraded, tile_px=150)
    _assert_equal(name, tiled, whole)


@pytest.mark.parametrize("name", ["dncnn.gaussian", "srcnn.tuned", "mimo_unet.gopro"])
def test_halo_error_measures_what_a_smaller_halo_changes(name: str) -> None:
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, 90, 90, 1)
    whole, cut = restorer.restore(degraded, tile_px=10_000), restorer.restore(degraded, tile_px=30, halo_px=0)
    assert not np.allclose(cut.samples, whole.samples, rtol=0, atol=1e-6)
    assert restorer.halo_error(degraded, tile_px=30, halo_px=0) > 1e-6
    assert restorer.halo_error(degraded, tile_px=30, halo_px=restorer.halo_px) == 0


PICTURES = [name for name in NAMES if not RESTORERS[name].recipe.domain.takes_mosaic]


@pytest.mark.parametrize("name", sorted({*NAMES} - {*PICTURES}))
def test_mosaics_are_not_restored_as_an_ensemble(name: str) -> None:
    """A mirrored mosaic has other filters in the places that the network expects."""
    restorer = RESTORERS[name]
    with pytest.raises(PictureError, match="cannot be rotated and mirrored") as error:
        restorer.restore(_degraded(restorer, 36, 36, 1), ensemble=True)
    assert "ensemble" in str(error.value)


@pytest.mark.parametrize("name", PICTURES)
def test_ensemble_in_tiles_equals_the_whole(name: str) -> None:
    restorer = RESTORERS[name]
    degraded = _degraded(restorer, 37, 26, 3)
    whole = restorer.restore(degraded, tile_px=10_000, ensemble=True)
    tiled = restorer.restore(degraded, tile_px=18, ensemble=True)
    np.testing.assert_allclose(tiled.samples, whole.samples, rtol=0, atol=1e-6)


def test_ensemble_is_the_mean_over_eight_transforms() -> None:
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


@pytest.mark.parametrize("name", NAMES)
def test_pytorchs_own_precision_of_the_calling_code_changes_nothing(name: str) -> None:
    """Code around a restorer often sets both, for its own networks."""
    restorer, degraded = RESTORERS[name], _degraded(RESTORERS[name], 40, 50, 3)
    options: dict[str, Any] = {} if restorer.recipe.domain.takes_mosaic else {"strength": 0.3}
    expected = restorer.restore(degraded, **options).samples
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(restorer.restore(degraded, **options).samples, expected)
    try:
        torch.set_default_dtype(torch.bfloat16)
        resize_module._phases.cache_clear()
        assert np.array_equal(restorer.restore(degraded, **options).samples, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_that_are_loaded_while_pytorch_has_another_type_are_not_rounded() -> None:
    expected = load("dncnn-gray-25", backend="torch").fingerprint()
    try:
        torch.set_default_dtype(torch.bfloat16)
        assert load("dncnn-gray-25", backend="torch").fingerprint() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_strength_blends_input_and_output() -> None:
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
def test_depth_channels_and_alpha_are_kept(dtype: str, channels: int, alpha: bool) -> None:
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
    """Returns its input."""

    scale, multiple, halo = 1, 1, 0

    def forward(self, degraded: Tensor) -> Tensor:
        return degraded


@pytest.mark.parametrize("name", ["dncnn.gaussian", "dncnn.blind", "dncnn.three_tasks", "mimo_unet.gopro"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_identity_network_returns_the_picture(name: str, dtype: str, channels: int) -> None:
    restorer = Restorer(name, registry.find(name), TorchBackend(Identity(), "cpu"))
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (33, 20, channels), dtype, endpoint=True)
    assert np.array_equal(restorer.restore(Picture(samples), tile_px=7).samples, samples)


def test_weights_that_return_nan_are_reported() -> None:
    chosen = registry.find("dncnn.gaussian", depth=2, width=1)
    network = chosen.network()
    for parameter in network.parameters():
        parameter.data.fill_(float("nan"))
    restorer = Restorer("damaged", chosen, TorchBackend(network, "cpu"))
    with pytest.raises(WeightsError, match="NaN or infinite"):
        restorer.restore(_degraded(restorer, 5, 5, 1))


def test_mosaic_becomes_a_16_bit_picture() -> None:
    mosaic = Mosaic(np.full((37, 50), 700, np.uint16), ("GB", "RG"), 512.0, 16383.0, exposure_ratio=100)
    restored = RESTORERS["sid_unet.sony"].restore(mosaic)
    assert (restored.samples.shape, restored.dtype) == ((36, 50, 3), "uint16")


@pytest.mark.parametrize(
    ("name", "degraded", "options", "message"),
    [
        ("sid_unet.sony", Picture(np.zeros((4, 4, 3), np.uint8)), {}, "developed picture.*camera RAW"),
        ("dncnn.gaussian", "photo.png", {}, "a str .*photo.png.*; pellucid.restore takes paths"),
        ("sid_unet.sony", np.zeros((4, 4), np.uint8), {}, "developed picture.*camera RAW"),
        ("dncnn.gaussian", Mosaic(np.zeros((4, 4), np.float32), BAYER, 0, 1), {}, "camera mosaic.*gray or RGB"),
        ("sid_unet.sony", Mosaic(np.zeros((6, 6), np.float32), XTRANS, 0, 1), {}, "RBGBRG.*needs RG/GB"),
        (
            "sid_unet.sony",
            Mosaic(np.zeros((4, 4), np.float32), BAYER, 0, 1),
            {"strength": 0.5},
            "leave strength at 1",
        ),
        ("dncnn.gaussian", Picture(np.zeros((4, 4, 3), np.uint8)), {"strength": 2}, "from 0 to 1"),
        ("dncnn.gaussian", Picture(np.zeros((4, 4, 3), np.uint8)), {"tile_px": 0}, "1 or more"),
        ("dncnn.gaussian", Picture(np.zeros((4, 4, 3), np.uint8)), {"halo_px": -1}, "0 or more"),
    ],
)
def test_wrong_input_gives_one_clear_line(
    name: str, degraded: Degraded, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PellucidError, match=message):
        RESTORERS[name].restore(degraded, **options)


def test_a_mask_in_color_counts_as_its_gray() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    mask = to_mask(colors, Picture(np.zeros((6, 9, 1), np.uint8)))
    expected = np.asarray(Image.fromarray(colors).convert("L"))[..., None] / 255
    np.testing.assert_allclose(mask.samples, expected, rtol=0, atol=0.6 / 255)  # Pillow rounds


def test_transparent_parts_of_a_mask_are_black() -> None:
    mask = np.full((6, 8, 4), 255, np.uint8)
    mask[:, 4:, 3] = 0
    found = to_mask(mask, Picture(np.zeros((6, 8, 1), np.uint8))).samples[..., 0]
    np.testing.assert_allclose(found, np.repeat([[1, 1, 1, 1, 0, 0, 0, 0]], 6, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "keywords", "expected"),
    [
        ("dncnn-color-blind", {}, []),
        ("dncnn-color-blind", {"sigma_255": 50}, ["dncnn-color-blind: sigma_255=50.0 only affects evaluation"]),
        ("dncnn-three-tasks", {"scale": 2}, []),
        ("raw-denoise", {"noise": "4e-4,1e-6"}, []),
        ("dncnn-gray-25", {"sigma_255": 50}, []),  # `overrides` warns about it
    ],
)
def test_keywords_that_only_affect_evaluation_are_named(
    name: str, keywords: dict[str, Any], expected: list[str]
) -> None:
    assert [line for model in load(name, **keywords).models for line in model.describe_idle()] == expected


# Memory


def test_memory_limit_makes_tiles_smaller_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda: 10**8)  # what this process really uses varies
    restorer = RESTORERS["dncnn.gaussian"]
    degraded = _degraded(restorer, 300, 320, 1)
    whole = restorer.restore(degraded, tile_px=1000)
    calls: list[int] = []
    ceiling = 10**8 + 2 * 10**6
    tiled = restorer.restore(degraded, memory_bytes=ceiling, progress=lambda done, _: calls.append(done))
    assert len(calls) > 10 and calls[-1] == 300 * 320
    assert np.array_equal(tiled.samples, whole.samples)


def test_tiles_leave_large_arrays_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda: 10**8)
    restorer = RESTORERS["dncnn.gaussian"]
    degraded = _degraded(restorer, 300, 320, 1)
    effort = Effort(None, None, ensemble=False, strength=1.0, limit_bytes=10**8 + 10**7)
    least = replace(effort, limit_bytes=10**8 + 2 * 10**6)
    tile_px, least_px = (restorer.models[0].choose_tile_px(degraded, each) for each in (effort, least))
    monkeypatch.setattr(memory, "unused_share_bytes", lambda: 8 * 10**6)
    assert restorer.models[0].choose_tile_px(degraded, effort) == least_px < tile_px


def test_limit_in_the_error_is_enough() -> None:
    restorer = RESTORERS["mimo_unet.gopro"]
    degraded = _degraded(restorer, 300, 320, 3)
    with pytest.raises(NotEnoughMemoryError, match="smallest tile of a picture of 320 x 300 px") as error:
        restorer.restore(degraded, memory_bytes=1000)
    least = error.value.parameters["memory_bytes"]
    effort = Effort(None, None, ensemble=False, strength=1.0, limit_bytes=least + 10**7)
    assert restorer.models[0].choose_tile_px(degraded, effort) >= 1


class Frugal(TorchBackend):
    """A backend that reports that it takes no memory."""

    def working_bytes(self, shape: tuple[int, int, int, int], *, available_bytes: int = 0) -> int:
        return 0


def test_memory_besides_the_network_makes_tiles_smaller() -> None:
    roomy = RESTORERS["dncnn.gaussian"]
    frugal = Restorer("frugal", roomy.recipe, Frugal(_network(roomy), "cpu"))
    degraded = _degraded(frugal, 300, 320, 3)
    calls: list[int] = []
    # Samples, planes and results of the whole take 6 MB.
    frugal.restore(
        degraded, memory_bytes=memory.used_bytes() + 4 * 10**6, progress=lambda done, _: calls.append(done)
    )
    assert len(calls) > 1


class Scarce(TorchBackend):
    """A backend on a machine without memory for more than this many pixels."""

    most_px = 50 * 50

    def __call__(self, degraded: Tensor) -> Tensor:
        if degraded.shape[-1] * degraded.shape[-2] > self.most_px:
            raise NotEnoughMemoryError("not enough memory for a tile")
        return super().__call__(degraded)


def test_restorer_can_be_sent_to_another_process() -> None:
    sent = RESTORERS["dncnn.gaussian"]
    degraded = _degraded(sent, 20, 31, 1)
    expected = sent.restore(degraded).samples  # what it has measured for these sizes is sent along
    assert np.array_equal(pickle.loads(pickle.dumps(sent)).restore(degraded).samples, expected)


def test_tiles_get_smaller_when_memory_runs_out_and_none_is_missing() -> None:
    roomy = RESTORERS["dncnn.gaussian"]
    degraded = _degraded(roomy, 90, 101, 3)
    backend = Scarce(_network(roomy), "cpu")
    scarce = Restorer("scarce", roomy.recipe, backend)
    assert np.array_equal(scarce.restore(degraded).samples, roomy.restore(degraded).samples)
    backend.most_px = 5
    with pytest.raises(NotEnoughMemoryError, match="even with the smallest tiles"):
        scarce.restore(degraded)


def test_large_picture_and_its_result_are_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = RESTORERS["srcnn.tuned"]
    degraded = _degraded(roomy, 60, 70, 3)
    expected = roomy.restore(degraded)
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    monkeypatch.setattr(memory, "SPARED_BYTES", 2**60)
    forgotten: list[int] = []
    monkeypatch.setattr(memory, "release", lambda samples: forgotten.append(samples.size))
    restored = roomy.restore(degraded, tile_px=25)
    assert np.array_equal(restored.samples, expected.samples)
    assert forgotten.count(restored.samples.size) == 9
    assert is_in_file(restored.samples) and is_in_file(roomy.restore(degraded, tile_px=1000).samples)


def test_nothing_of_a_picture_stays_in_memory() -> None:
    """Neither until Python looks for references in cycles, nor while its result is written."""
    roomy = RESTORERS["srcnn.tuned"]
    degraded, kept = _degraded(roomy, 60, 70, 3), KeptTiles()
    gc.collect()
    gc.disable()
    try:
        restored = restore_picture(roomy, degraded, Settings(tile_px=25), kept=kept)
        left = [weakref.ref(picture.samples) for picture in (degraded, restored)]
        del degraded, restored
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


# Transparency


def test_hidden_colors_have_no_effect_and_are_kept() -> None:
    restorer = RESTORERS["dncnn.blind"]
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (40, 50, 3), np.uint8)
    alpha = np.zeros((40, 50, 1), np.uint8)
    alpha[8:30, 10:35] = rng.integers(1, 256, (22, 25, 1))
    other = np.where(alpha == 0, 255 - samples, samples)
    one, two = (restorer.restore(Picture(colors, alpha)) for colors in (samples, other))
    visible = alpha[..., 0] > 0
    assert np.array_equal(one.samples[visible], two.samples[visible])
    assert np.array_equal(one.samples[~visible], samples[~visible])
    assert one.alpha is not None and np.array_equal(one.alpha, alpha)


def test_enlarged_hidden_colors_are_those_of_the_picture() -> None:
    restorer = RESTORERS["srcnn.paper"]
    rng = np.random.default_rng(0)
    picture = Picture(rng.integers(0, 256, (40, 50, 3), np.uint8), np.full((40, 50, 1), 255, np.uint8))
    assert picture.alpha is not None
    picture.alpha[8:30, 10:35] = 0
    restored = restorer.restore(picture)
    assert restored.alpha is not None
    hidden = restored.alpha[..., 0] == 0
    enlarged = Picture.from_tensor(resize(picture.to_tensor(), restorer.scale), "uint8")
    assert hidden.sum() > 1000 and np.array_equal(restored.samples[hidden], enlarged.samples[hidden])


@pytest.mark.parametrize("name", ["dncnn.gaussian", "dncnn.blind", "srcnn.paper", "mimo_unet.gopro"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_extra_channels_are_only_enlarged(name: str, dtype: str) -> None:
    restorer = RESTORERS[name]
    rng = np.random.default_rng(1)
    planes = rng.random((60, 70, 5))
    peak = PEAKS[dtype]
    colors, extra = ((planes[..., part] * peak).astype(dtype) for part in (slice(0, 3), slice(3, 5)))
    restored = restorer.restore(Picture(colors, extra=extra))
    assert restored.alpha is None and restored.extra is not None
    planar = torch.from_numpy(extra.transpose(2, 0, 1).astype(np.float32) / np.float32(peak))
    expected = resize(planar[None], restorer.scale)
    expected = expected if dtype == "float32" else (expected.clamp(0, 1) * peak + 0.5).floor()
    assert np.array_equal(restored.extra, expected[0].permute(1, 2, 0).numpy().astype(dtype))
    alone = restorer.restore(Picture(colors))
    assert np.array_equal(restored.samples, alone.samples)
    tiled = restorer.restore(Picture(colors, extra=extra), tile_px=23)
    assert tiled.extra is not None and np.array_equal(tiled.extra, restored.extra)


@pytest.mark.parametrize("name", ["dncnn.gaussian", "srcnn.paper", "mimo_unet.gopro"])
def test_transparent_pictures_in_tiles_equal_the_whole(name: str) -> None:
    restorer = RESTORERS[name]
    rng = np.random.default_rng(1)
    alpha = (rng.random((60, 70, 1)) * (rng.random((60, 70, 1)) > 0.5)).astype(np.float32)
    alpha[20:50, 5:60] = 0
    picture = Picture(rng.random((60, 70, 3), np.float32), alpha)
    _assert_equal(name, restorer.restore(picture, tile_px=23), restorer.restore(picture, tile_px=1000))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_alpha_is_enlarged_bicubically(dtype: str) -> None:
    rng = np.random.default_rng(0)
    alpha = (0.25 + 0.5 * rng.random((9, 14, 1)) * PEAKS[dtype]).astype(dtype)
    restored = RESTORERS["srcnn.tuned"].restore(Picture(rng.random((9, 14, 3)).astype(dtype), alpha), tile_px=5)
    expected = Picture.from_tensor(resize(Picture(alpha).to_tensor(), 2), dtype)
    np.testing.assert_array_equal(restored.alpha, expected.samples)


def test_opaque_stays_opaque() -> None:
    opaque = Picture(np.zeros((9, 9, 3), np.uint16), np.full((9, 9, 1), 65535, np.uint16))
    restored = RESTORERS["srcnn.tuned"].restore(opaque)
    assert restored.alpha is not None and (restored.alpha == 65535).all()


def test_enlarged_alpha_is_a_fraction() -> None:
    alpha = np.zeros((20, 30, 1), np.float32)
    alpha[5:15, 5:15] = 1
    restored = RESTORERS["srcnn.tuned"].restore(Picture(np.zeros((20, 30, 3), np.float32), alpha))
    assert restored.alpha is not None
    assert (restored.alpha.min(), restored.alpha.max()) == (0, 1)


def test_memory_that_runs_out_outside_of_the_network_makes_tiles_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = RESTORERS["dncnn.gaussian"]
    degraded = _degraded(restorer, 50, 50, 1)
    expected = restorer.restore(degraded)
    to_input, seen = Gray.to_input, []

    def scarce(self: Gray, part: Degraded) -> Tensor:
        seen.append(part.height)
        if part.height == 50 and seen.count(50) == 1:
            torch.empty(10**14)  # raises RuntimeError
        return to_input(self, part)

    monkeypatch.setattr(Gray, "to_input", scarce)
    assert np.array_equal(restorer.restore(degraded).samples, expected.samples)


def test_overrides_are_those_that_change_the_result(tmp_path: Path) -> None:
    """Metadata is JSON, where a tuple is a list."""
    made = registry.find("sid_unet.any_camera", width=4, betas=(0.8, 0.99))
    metadata = checkpoint.WeightsMetadata(made.name, made.parameters, "random", "none")
    checkpoint.save(tmp_path / "any.safetensors", made.network(), metadata)
    assert load(tmp_path / "any.safetensors", device="cpu").overrides() == []
    (change,) = load(tmp_path / "any.safetensors", device="cpu", exposure_ratio=(1.0, 10.0)).overrides()
    assert change.startswith("any: exposure_ratio=(1.0, 10.0), but the weights were trained with")


# ---- without waiting for a GPU, shown on the CPU or the meta device ----------------------


@pytest.mark.parametrize("dtype", PEAKS)
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", ["dncnn.gaussian", "srcnn.tuned", "mimo_unet.gopro"])
def test_tiles_that_are_waited_for_later_are_the_same(
    name: str, alpha: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = RESTORERS[name]
    picture = _degraded(restorer, 70, 66, 3)
    assert isinstance(picture, Picture)
    if alpha:
        picture = replace(picture, alpha=np.round(picture.samples[..., :1]), extra=picture.samples[..., 1:])
    picture = picture.as_depth(dtype)
    expected = restorer.restore(picture, tile_px=24, strength=0.7)
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: True)
    restored = restorer.restore(picture, tile_px=24, strength=0.7)
    assert len(restored.planes) == (3 if alpha else 1)
    for found, wanted in zip(restored.planes, expected.planes, strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_a_tile_is_started_before_the_last_one_is_waited_for(
    is_asynchronous: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: is_asynchronous)
    start, events = TiledModel._start_tile, list[str]()

    def record(*given: Any) -> Callable[[], Picture]:
        finish = start(*given)
        events.append("start")

        def wait() -> Picture:
            events.append("wait")
            return finish()

        return wait

    monkeypatch.setattr(TiledModel, "_start_tile", record)
    restorer = RESTORERS["dncnn.gaussian"]
    seen: list[int] = []
    restorer.restore(_degraded(restorer, 8, 32, 1), tile_px=8, progress=lambda done, _: seen.append(done // 64))
    expected = "start start wait start wait start wait wait" if is_asynchronous else "start wait " * 4
    assert events == expected.split() and seen == [1, 2, 3, 4]


def test_tiles_get_smaller_while_another_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: True)
    roomy = RESTORERS["dncnn.gaussian"]
    degraded = _degraded(roomy, 60, 101, 3)
    expected = roomy.restore(degraded, tile_px=20)
    backend = Scarce(_network(roomy), "cpu")
    backend.most_px = 31 * 31  # the first tile, in a corner, fits; those with a halo on two sides do not
    found = Restorer("scarce", roomy.recipe, backend).restore(degraded, tile_px=20)
    assert np.array_equal(found.samples, expected.samples)


def test_weights_that_return_nan_are_reported_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: True)
    restorer = _restorer("dncnn.gaussian", depth=3, width=4)
    torch.nn.init.constant_(next(_network(restorer).parameters()), torch.nan)
    with pytest.raises(WeightsError, match="returns NaN or infinite samples; its weights are damaged"):
        restorer.restore(_degraded(restorer, 20, 20, 1), tile_px=10)


@pytest.mark.parametrize("name", NAMES)
def test_starting_a_tile_does_not_wait_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples travel as they are in the file, and come back as samples."""
    restorer = _restorer(name, **SMALL.get(name, {}))
    backend = restorer.backend
    assert isinstance(backend, TorchBackend)
    backend.device, backend._network = META, _network(restorer).to(META)
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: True)
    degraded = _degraded(restorer, 40, 40, 3)
    is_mosaic = isinstance(degraded, Mosaic)
    if isinstance(degraded, Mosaic):
        degraded = replace(degraded, samples=(degraded.samples * 1000).astype(np.uint16), white_level=1000.0)
    else:
        degraded = degraded.as_depth("uint16")
    degraded = restorer.recipe.domain.accept(degraded)
    model, tile = restorer.models[0], Tile(8, 24, 8, 32)
    settings = TileSettings(12, IDENTITY if is_mosaic else ALL_EIGHT, 1.0 if is_mosaic else 0.5)
    model._start_tile(degraded, tile, settings, "uint16")  # fills caches of constants
    with RefuseWaitingCopies(monkeypatch) as copies:
        finish = model._start_tile(degraded, tile, settings, "uint16")
    assert copies.dtypes >= {torch.uint16}
    with pytest.raises(NotImplementedError, match="meta tensor"):
        finish()  # which waits


# ---- the memory of a GPU -------------------------------------------------------------------------


class OnDevice(TorchBackend):
    """The CPU with the memory of a device, of which each pixel of a tile with its halo takes 100 bytes."""

    def device_bytes(self, shape: tuple[int, int, int, int], *, available_bytes: int = 0) -> int:
        return 100 * shape[-1] * shape[-2]


@pytest.mark.parametrize(
    ("free_bytes", "expected_px"),
    # Sides of tiles of a picture of 96 x 96 px with halos of 5 px: 96, or half or a quarter of it, plus 10.
    [(None, 96), (2 * 100 * 96**2, 96), (2 * 100 * 96**2 - 2, 48), (2 * 100 * 58**2 - 2, 24), (0, 1)],
)
def test_tiles_fit_half_of_the_free_memory_of_the_device(
    free_bytes: int | None, expected_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "free_device_bytes", lambda device: free_bytes)
    roomy = RESTORERS["dncnn.gaussian"]
    restorer = Restorer("on a device", roomy.recipe, OnDevice(_network(roomy), "cpu"))
    degraded = _degraded(restorer, 96, 96, 1)
    effort = Effort(None, None, ensemble=False, strength=1.0, limit_bytes=10**12)
    assert restorer.models[0].choose_tile_px(degraded, effort) == expected_px
    if expected_px > 1:
        assert np.array_equal(restorer.restore(degraded).samples, roomy.restore(degraded).samples)


def test_tiles_on_a_device_are_larger() -> None:
    restorer = _restorer("dncnn.gaussian", depth=5, width=8)
    effort = Effort(None, None, ensemble=False, strength=1.0, limit_bytes=10**12)
    large = Picture(np.zeros((3000, 2500, 1), np.uint8))
    assert restorer.models[0].choose_tile_px(large, effort) == 512
    assert isinstance(restorer.backend, TorchBackend)
    restorer.backend.device = META
    assert restorer.models[0].choose_tile_px(large, effort) == 2048
