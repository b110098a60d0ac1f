"""Results of any size, and parts of results that equal the whole."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import PellucidError, PictureError
from pellucid.pictures import metadata
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import resize_to
from pellucid.pictures.samples import PEAKS
from pellucid.pictures.structures import chunks
from pellucid.restoration.one_picture import describe_lost, plan_size, restore_crop, restore_picture
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from pellucid.restoration.suitability import warn_about_size
from small_models import build_restorer

DENOISER = build_restorer("dncnn.gaussian", depth=4, width=8)
ENLARGER = build_restorer("srcnn.tuned", scale=2)
DEBLURRER = build_restorer("mimo_unet.gopro", num_blocks=1)
DEVELOPER = build_restorer("sid_unet.any_camera", width=4)
RESTORERS = {
    "denoise": DENOISER,
    "enlarge": ENLARGER,
    "deblur": DEBLURRER,
    "denoise and enlarge": Restorer.chain([DENOISER, ENLARGER]),
    "enlarge and deblur": Restorer.chain([ENLARGER, DEBLURRER]),
}


def _picture(height: int, width: int, *, alpha: bool = False) -> Picture:
    planes = np.random.default_rng(height * width).random((height, width, 4), np.float32)
    opacity = planes[..., 3:] * (planes[..., 3:] > 0.3)
    return Picture(planes[..., :3], opacity if alpha else None).as_depth("uint16")


# Crops


@pytest.mark.parametrize("name", RESTORERS)
@pytest.mark.parametrize("scale", [None, 0.7, 1.6, 3])
@settings(max_examples=3)
@given(data=st.data(), alpha=st.booleans(), ensemble=st.booleans())
def test_a_crop_equals_that_part_of_the_whole(
    name: str, scale: float | None, data: st.DataObject, alpha: bool, ensemble: bool
) -> None:
    restorer = RESTORERS[name]
    if scale is not None and (restorer.scale > 1) != (scale > 1):
        return
    height, width = data.draw(st.integers(30, 100)), data.draw(st.integers(30, 100))
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    part_height, part_width = data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x))
    picture, wanted = _picture(height, width, alpha=alpha), Settings(scale=scale, ensemble=ensemble)
    whole = restore_picture(restorer, picture, wanted)
    part = restore_crop(restorer, picture, x, y, part_width, part_height, wanted)
    top, bottom = ((2 * end * whole.height + height) // (2 * height) for end in (y, y + part_height))
    left, right = ((2 * end * whole.width + width) // (2 * width) for end in (x, x + part_width))
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    same = whole.crop(slice(top, bottom), slice(left, right))
    # One 16-bit step: on small maps, oneDNN splits the sums of U-Nets differently.
    for one, two in zip(part.planes, same.planes, strict=True):
        assert abs(one.astype(int) - two.astype(int)).max() <= ("deblur" in name or scale is not None or ensemble)


def test_a_crop_of_an_ensemble_is_on_the_grids_of_mirrored_pictures() -> None:
    """MIMO-UNet computes blocks of 4 px, which a mirrored picture counts from its other end."""
    picture, ensemble = _picture(99, 101), Settings(ensemble=True)
    whole = restore_picture(DEBLURRER, picture, ensemble)
    part = restore_crop(DEBLURRER, picture, 10, 10, 21, 30, ensemble)
    found, same = (one.samples.astype(int) for one in (part, whole.crop(slice(10, 40), slice(10, 31))))
    assert abs(found - same).max() <= 1


# Depth


@pytest.mark.parametrize("scale", [None, 1.6])
@pytest.mark.parametrize(("bit_depth", "dtype"), [(16, "uint16"), (32, "float32")])
def test_a_deeper_result_is_not_rounded_to_the_depth_of_the_picture(
    bit_depth: int, dtype: str, scale: float | None
) -> None:
    picture = _picture(40, 30, alpha=True).as_depth("uint8")
    restorer = DENOISER if scale is None else ENLARGER
    found = restore_picture(restorer, picture, Settings(bit_depth=bit_depth, scale=scale))
    exact = restore_picture(restorer, picture.as_depth("float32"), Settings(scale=scale))
    assert found.dtype == dtype and found.alpha is not None and exact.alpha is not None
    peak = PEAKS[dtype]
    for one, two in ((found.samples, exact.samples), (found.alpha, exact.alpha)):
        expected = two if bit_depth == 32 else np.clip(two, 0, 1)
        np.testing.assert_allclose(one / peak, expected, rtol=0, atol=(0.51 if bit_depth == 16 else 1e-3) / peak)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_results_are_reduced_to_a_lower_depth_when_written(dtype: str) -> None:
    """So that clipped samples are reported, and pictures in memory keep their depth."""
    picture = _picture(20, 20).as_depth(dtype)
    assert restore_picture(DENOISER, picture, Settings(bit_depth=8)).dtype == dtype


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_of_a_mosaic_is_of_the_upright_picture(orientation: int) -> None:
    samples = np.random.default_rng(0).integers(600, 3000, (140, 160), np.uint16)
    mosaic = Mosaic(samples, ("GR", "BG"), 512.0, 16383.0, exposure_ratio=7.0, orientation=orientation)
    for restorer in (DEVELOPER, Restorer.chain([DEVELOPER, ENLARGER])):
        whole, scale = restorer.restore(mosaic), restorer.scale
        left, top = whole.width // scale - 50, whole.height // scale - 24  # near the last corner
        part = restore_crop(restorer, mosaic, left, top, 40, 23)
        same = whole.crop(slice(top * scale, (top + 23) * scale), slice(left * scale, (left + 40) * scale))
        assert part.samples.shape == (23 * scale, 40 * scale, 3)
        assert abs(part.samples.astype(int) - same.samples.astype(int)).max() <= 1


def test_a_crop_reads_little_more_than_itself() -> None:
    calls: list[int] = []
    picture = _picture(400, 400)
    restore_picture(
        DENOISER, picture, Settings(crop=(100, 100, 10, 10)), progress=lambda _, total: calls.append(total)
    )
    assert calls[-1] == (10 + 2 * DENOISER.halo_px) ** 2


def test_a_crop_has_no_metadata_of_the_whole() -> None:
    given = _picture(40, 50)
    gamma, place = chunks.build_chunk(b"gAMA", bytes(4)), chunks.build_chunk(b"oFFs", bytes(9))
    kept = {"icc-profile-data": b"profile", "xres": 11.8, "yres": 11.8, "png-chunks": gamma}
    lost = {"png-chunks": gamma + place, "exif-data": b"Exif", "xmp-data": b"<xmp/>"}
    whole = {**kept, **lost, metadata.SIZE: (50, 40)}
    picture = Picture(given.samples, metadata=whole)
    part = restore_crop(ENLARGER, picture, 3, 5, 20, 10)
    assert dict(part.metadata) == {**kept, metadata.SIZE: (40, 20)}
    cropping = Settings(crop=(3, 5, 20, 10))
    assert describe_lost(picture, cropping)
    assert not describe_lost(Picture(given.samples, metadata=kept), cropping)


def test_masks_are_cropped_too() -> None:
    picture = _picture(60, 70)
    mask = np.zeros((60, 70), np.uint8)
    mask[:, 35:] = 255
    whole = restore_picture(ENLARGER, picture, Settings(), mask=mask)
    part = restore_picture(ENLARGER, picture, Settings(crop=(20, 10, 30, 30)), mask=mask)
    same = whole.crop(slice(20, 80), slice(40, 100))
    assert abs(part.samples.astype(int) - same.samples.astype(int)).max() <= 1


@pytest.mark.parametrize("crop", [(60, 0, 11, 10), (0, 55, 10, 6), (70, 0, 1, 1)])
def test_crops_outside_of_the_picture_are_refused(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(PictureError, match="is not inside of a picture of 70 x 60 px"):
        restore_crop(DENOISER, _picture(60, 70), *crop)


# Sizes


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"scale": 1.5}, (60, 45)),
        ({"scale": 2}, (80, 60)),
        ({"scale": 5}, (200, 150)),
        ({"size": (70, None)}, (70, 53)),
        ({"size": (None, 61)}, (81, 61)),
        ({"size": (1000, 61)}, (81, 61)),
        ({"size": (100, 1000)}, (100, 75)),
    ],
)
def test_results_have_the_size_asked_for(options: dict[str, Any], size: tuple[int, int]) -> None:
    restored = restore_picture(ENLARGER, _picture(30, 40), Settings(**options))
    assert (restored.width, restored.height) == size and restored.dtype == "uint16"


def test_a_size_is_reached_by_enlarging_and_reducing_without_rounding_between() -> None:
    picture = _picture(30, 40)
    enlarged = ENLARGER.restore(picture.as_depth("float32"))
    expected = resize_to(enlarged.to_tensor(), 45, 60)
    found = restore_picture(ENLARGER, picture, Settings(scale=1.5))
    assert np.array_equal(found.samples, Picture.from_tensor(expected, "uint16").samples)
    twice = ENLARGER.restore(enlarged)
    found = restore_picture(ENLARGER, picture, Settings(scale=3))
    expected = resize_to(twice.to_tensor(), 90, 120)
    assert np.array_equal(found.samples, Picture.from_tensor(expected, "uint16").samples)


def test_hidden_colors_have_no_effect_on_reduced_results() -> None:
    given = _picture(40, 50, alpha=True)
    assert given.alpha is not None
    given.alpha[8:30, 10:35] = 0
    other = Picture(np.where(given.alpha == 0, 65535 - given.samples, given.samples), given.alpha)
    one, two = (restore_picture(ENLARGER, picture, Settings(scale=1.3)) for picture in (given, other))
    assert one.alpha is not None
    visible = one.alpha[..., 0] > 0
    assert visible.sum() > 1000 and np.array_equal(one.samples[visible], two.samples[visible])


def test_only_the_last_model_that_enlarges_is_repeated() -> None:
    calls: list[int] = []
    chain = Restorer.chain([DENOISER, ENLARGER])
    restore_picture(chain, _picture(30, 40), Settings(scale=4), progress=lambda _, total: calls.append(total))
    assert calls[-1] == 30 * 40 * (1 + 1 + 4)  # denoised once, enlarged twice


def test_a_model_that_enlarges_enough_at_once_is_named() -> None:
    def warn(scale: float) -> list[str]:
        return list(warn_about_size(_picture(30, 40), ENLARGER, Settings(scale=scale)))

    assert warn(2) == warn(1.5) == []
    assert warn(2.5) == ["srcnn runs 2 times to reach 100 x 75 px; srcnn-x3 enlarges enough at once"]
    assert warn(4)[0].endswith("160 x 120 px; srcnn-x4 enlarges enough at once")
    assert warn(8) == ["srcnn runs 3 times to reach 320 x 240 px"]


@pytest.mark.parametrize(
    ("restorer", "options", "message"),
    [
        (
            DENOISER,
            {"scale": 1.5},
            r"would have 60 x 45 px, but dncnn does not enlarge; append a model that does, e.g. \+srcnn-x2",
        ),
        (ENLARGER, {"scale": 0.5}, "would have 20 x 15 px, but srcnn only enlarges; use a model that does not"),
        (ENLARGER, {"size": (40, None)}, "would have 40 x 30 px, but srcnn only enlarges"),
        (ENLARGER, {"scale": 1.001}, "would have 40 x 30 px, but srcnn only enlarges"),
        (
            ENLARGER,
            {"scale": 999, "max_pixels": 9999},
            "more than the 9,999 pixels that are allowed; max_pixels sets the limit",
        ),
        (
            Restorer.of(10 * [*ENLARGER.models]),
            {},
            "would have 40960 x 30720 px, more than the 500,000,000 pixels",
        ),
    ],
)
def test_sizes_that_make_no_sense_are_refused(restorer: Restorer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PictureError, match=message):
        restore_picture(restorer, _picture(30, 40), Settings(**options))


def test_the_limit_of_pixels_counts_those_of_a_crop() -> None:
    """A small part of a result that would be too large as a whole."""
    restorer, settings = Restorer.of(10 * [*ENLARGER.models]), Settings(crop=(3, 2, 4, 4))
    assert plan_size(restorer, (30, 40), settings) == (restorer, (30720, 40960))
    with pytest.raises(PictureError, match="more than the 500,000,000 pixels"):
        plan_size(restorer, (30, 40), Settings(crop=(0, 0, 40, 30)))


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0},
        {"scale": -1},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": 2, "size": (3, 4)},
        {"size": (None, None)},
        {"size": (0, None)},
        {"crop": (0, 0, 0, 5)},
        {"crop": (-1, 0, 5, 5)},
        {"crop": (0, 0, 5)},
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PellucidError):
        Settings(**options)
