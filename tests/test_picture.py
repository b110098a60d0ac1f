import io
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import PictureError
from pellucid.picture import PEAKS, Exposure, Mosaic, Picture, upright

BAYER = ("RG", "GB")


def ramp(dtype: str, channels: int) -> np.ndarray[Any, Any]:
    """Every value of an integer type once in each channel, in another order in each."""
    values = np.arange(int(PEAKS[dtype]) + 1, dtype=dtype).reshape(-1, 256)
    return np.stack([np.roll(values, channel) for channel in range(channels)], axis=-1)


def mosaic(height: int = 4, width: int = 4, **changes: Any) -> Mosaic:
    samples = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    return Mosaic(**{"samples": samples, "pattern": BAYER, "black_level": 0, "white_level": 100, **changes})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_value_survives_the_way_to_a_tensor_and_back(dtype: str, channels: int) -> None:
    samples = ramp(dtype, channels)
    picture = Picture(samples)
    tensor = picture.to_tensor()
    assert tensor.shape == (1, channels, *samples.shape[:2])
    assert tensor.dtype == torch.float32
    assert [tensor.min(), tensor.max()] == [0, 1]
    back = Picture.from_tensor(tensor, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back.samples, samples)
    np.testing.assert_array_equal(picture.with_tensor(tensor).samples, samples)


def test_float_samples_are_kept_as_they_are() -> None:
    samples = np.array([[[-0.5], [0.25], [1.75]]], np.float32)
    back = Picture.from_tensor(Picture(samples).to_tensor())
    assert back.dtype == "float32"
    np.testing.assert_array_equal(back.samples, samples)


@pytest.mark.parametrize(
    ("value", "expected"),
    # 0.3 * 255 is 76.5 and 0.7 * 255 is 178.5: halves, which even rounding would send down.
    [(-0.1, 0), (0.4 / 255, 0), (0.6 / 255, 1), (0.3, 77), (0.5, 128), (0.7, 179), (1.5, 255)],
)
def test_integers_clamp_and_round_half_up(value: float, expected: int) -> None:
    assert Picture.from_tensor(torch.full((1, 1, 1, 1), value), "uint8").samples.item() == expected


def test_channels_and_rows_stay_where_they_are() -> None:
    samples = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    tensor = (Picture(samples).to_tensor() * 255).round()
    assert tensor[0, :, 0, 0].tolist() == [0, 1, 2]
    assert tensor[0, 0].tolist() == [[0, 3], [6, 9]]


def test_a_picture_says_what_it_is() -> None:
    picture = Picture(np.zeros((2, 5, 3), np.uint16))
    assert (picture.height, picture.width, picture.channels, picture.dtype) == (2, 5, 3, "uint16")


@pytest.mark.parametrize(
    ("shape", "dtype", "fault"),
    [
        ((4, 4), "uint8", r"shape \(4, 4\)"),
        ((4, 4, 2), "uint8", r"shape \(4, 4, 2\)"),
        ((4, 4, 4), "uint8", r"shape \(4, 4, 4\)"),
        ((0, 4, 1), "uint8", "4 x 0 px"),
        ((4, 0, 3), "uint8", "0 x 4 px"),
        ((4, 4, 1), "float64", "float64"),
        ((4, 4, 1), "int16", "int16"),
        ((4, 4, 1), "bool", "bool"),
    ],
)
def test_impossible_pictures_are_refused(shape: tuple[int, ...], dtype: str, fault: str) -> None:
    with pytest.raises(PictureError, match=fault):
        Picture(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "alpha", [np.zeros((4, 4, 1), np.uint16), np.zeros((4, 5, 1), np.uint8), np.zeros((4, 4), np.uint8)]
)
def test_alpha_must_fit(alpha: np.ndarray[Any, Any]) -> None:
    with pytest.raises(PictureError, match="alpha"):
        Picture(np.zeros((4, 4, 3), np.uint8), alpha)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_read_only_samples_are_taken_and_stay(dtype: str) -> None:
    samples = np.full((2, 2, 1), 1, dtype)
    samples.flags.writeable = False
    tensor = Picture(samples).to_tensor()  # no warning, which would be an error here
    tensor += 1
    assert (samples == 1).all()


def test_a_crop_takes_alpha_and_metadata_along() -> None:
    samples = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    alpha = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    part = Picture(samples, alpha, {"icc": b"profile"}).crop(slice(1, 3), slice(2, 5))
    np.testing.assert_array_equal(part.samples, samples[1:3, 2:5])
    assert part.alpha is not None
    np.testing.assert_array_equal(part.alpha, alpha[1:3, 2:5])
    assert part.metadata == {"icc": b"profile"}
    assert np.shares_memory(part.samples, samples)


def test_with_tensor_keeps_depth_and_metadata() -> None:
    picture = Picture(np.zeros((2, 2, 1), np.uint16), metadata={"exif": b"camera"})
    larger = picture.with_tensor(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    assert (larger.height, larger.dtype, larger.metadata) == (4, "uint16", {"exif": b"camera"})
    assert (larger.samples == 65535).all()
    assert larger.alpha is not None
    assert (larger.alpha == 0).all()


def test_alpha_to_tensor_has_one_plane() -> None:
    picture = Picture(np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 1), 255, np.uint8))
    alpha = picture.alpha_to_tensor()
    assert alpha is not None
    assert torch.equal(alpha, torch.ones(1, 1, 2, 3))
    assert Picture(picture.samples).alpha_to_tensor() is None


def test_more_depth_and_back_loses_nothing() -> None:
    samples = ramp("uint8", 3)
    deeper = Picture(samples, samples[..., :1]).as_depth("uint16")
    # 65535 = 257 * 255
    np.testing.assert_array_equal(deeper.samples, samples.astype(np.uint16) * 257)
    back = deeper.as_depth("uint8")
    np.testing.assert_array_equal(back.samples, samples)
    assert back.alpha is not None
    np.testing.assert_array_equal(back.alpha, samples[..., :1])
    assert back.as_depth("uint8") is back


def test_pasted_parts_make_the_picture() -> None:
    samples = np.arange(36, dtype=np.uint8).reshape(4, 3, 3)
    picture = Picture(samples, samples[..., :1], {"icc": b"profile"})
    copy = picture.blank(4, 3)
    for rows in (slice(0, 1), slice(1, 4)):
        copy.paste(picture.crop(rows, slice(0, 3)), rows, slice(0, 3))
    np.testing.assert_array_equal(copy.samples, samples)
    assert copy.alpha is not None
    np.testing.assert_array_equal(copy.alpha, samples[..., :1])
    assert copy.metadata == {"icc": b"profile"}
    assert not np.shares_memory(copy.samples, samples)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"samples": np.zeros((4, 4, 1), np.uint16)}, r"shape \(4, 4, 1\)"),
        ({"samples": np.zeros((0, 4), np.uint16)}, r"shape \(0, 4\)"),
        ({"pattern": ()}, "filter pattern"),
        ({"pattern": ("RG", "G")}, "filter pattern"),
        ({"pattern": ("RG", "GC")}, "filter pattern"),
        ({"pattern": ("RGB", "RGB")}, "filter pattern"),
        ({"black_level": ((1.0, 2.0),)}, "black level of shape"),
        ({"black_level": 100}, "not below the white level"),
        ({"black_level": ((0.0, 0.0), (0.0, 200.0))}, "black level 200 is not below the white level 100"),
        ({"white_level": float("nan")}, "not below the white level"),
        ({"exposure_ratio": 0}, "exposure ratio 0"),
        ({"exposure_ratio": -1}, "exposure ratio -1"),
        ({"exposure_ratio": float("inf")}, "exposure ratio inf"),
        ({"exposure_ratio": float("nan")}, "exposure ratio nan"),
        ({"white_balance": (2.0, 1.1, 2.0)}, "white balance .*G being 1"),
        ({"white_balance": (0.0, 1.0, 2.0)}, "white balance"),
        ({"white_balance": (2.0, 1.0, float("inf"))}, "white balance"),
        ({"white_balance": (2.0, 1.0)}, "white balance"),
        ({"orientation": 0}, "orientation 0"),
        ({"orientation": 9}, "orientation 9"),
    ],
)
def test_impossible_mosaics_are_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(PictureError, match=fault):
        mosaic(**changes)


@pytest.mark.parametrize("name", ["time_s", "iso", "f_number"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_impossible_exposures_are_refused(name: str, value: float) -> None:
    with pytest.raises(PictureError, match=f"exposure {name} {value:g}; a number above 0"):
        Exposure(**{name: value})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_viewers_make_of_the_orientation(orientation: int) -> None:
    samples = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    tagged = io.BytesIO()
    PIL.Image.fromarray(samples).save(tagged, "PNG", exif=exif)
    with PIL.Image.open(tagged) as file:
        expected = np.asarray(PIL.ImageOps.exif_transpose(file))
    picture = Picture(samples, samples[..., :1], {"icc": b"profile"})
    turned = upright(picture, orientation)
    np.testing.assert_array_equal(turned.samples, expected)
    assert turned.alpha is not None
    np.testing.assert_array_equal(turned.alpha, expected[..., :1])
    assert turned.metadata == {"icc": b"profile"}
    assert turned.samples.flags.c_contiguous


def test_each_site_has_its_own_black_level() -> None:
    raw = Mosaic(
        np.array([[10, 20, 110], [30, 40, 10], [60, 20, 5]], np.uint16),
        BAYER,
        black_level=((10.0, 20.0), (30.0, 40.0)),
        white_level=110,
    )
    # (value - black of the site) / (white - black of the site), and nothing below 0.
    expected = [[0, 0, 1], [0, 0, 0], [50 / 100, 0, 0]]
    tensor = raw.to_tensor()
    assert tensor.shape == (1, 1, 3, 3)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor[0, 0], torch.tensor(expected, dtype=torch.float32))


def test_one_black_level_serves_all_sites_and_white_may_be_passed() -> None:
    raw = Mosaic(np.array([[512, 16383], [0, 32254]], np.uint16), BAYER, 512, 16383)
    assert raw.to_tensor()[0, 0].tolist() == [[0, 1], [0, 2]]


def test_float_mosaics_are_taken() -> None:
    raw = Mosaic(np.array([[0.25, 1.0]], np.float32), BAYER, 0.25, 1.0)
    assert raw.to_tensor().flatten().tolist() == [0, 1]


@given(st.integers(0, 3), st.integers(0, 3))
def test_a_mosaic_is_cut_on_its_grid_only(top: int, left: int) -> None:
    raw = mosaic(8, 8, exposure_ratio=3.0)
    if top % 2 or left % 2:
        with pytest.raises(PictureError, match="multiples of 2"):
            raw.crop(slice(top, 8), slice(left, 8))
    else:
        part = raw.crop(slice(top, 7), slice(left, 8))
        np.testing.assert_array_equal(part.samples, raw.samples[top:7, left:8])
        assert (part.pattern, part.exposure_ratio) == (BAYER, 3.0)


def test_a_mosaic_says_what_it_is() -> None:
    raw = mosaic(4, 6)
    assert (raw.height, raw.width, raw.period) == (4, 6, 2)
