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
from pellucid.pictures.picture import Exposure, Mosaic, Picture, check_tensor
from pellucid.pictures.samples import PEAKS
from pellucid.system import memory

BAYER = ("RG", "GB")


def ramp(dtype: str, channels: int) -> np.ndarray[Any, Any]:
    """Every value of an integer type once in each channel, in a different order in each."""
    values = np.arange(int(PEAKS[dtype]) + 1, dtype=dtype).reshape(-1, 256)
    return np.stack([np.roll(values, channel) for channel in range(channels)], axis=-1)


def mosaic(height: int = 4, width: int = 4, **changes: Any) -> Mosaic:
    samples = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    return Mosaic(**{"samples": samples, "pattern": BAYER, "black_level": 0, "white_level": 100, **changes})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_value_round_trips_through_a_tensor(dtype: str, channels: int) -> None:
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


def test_float_samples_are_not_clamped() -> None:
    samples = np.array([[[-0.5], [0.25], [1.75]]], np.float32)
    back = Picture.from_tensor(Picture(samples).to_tensor())
    assert back.dtype == "float32"
    np.testing.assert_array_equal(back.samples, samples)


@pytest.mark.parametrize(
    ("value", "expected"),
    # 0.3 * 255 is 76.5 and 0.7 * 255 is 178.5, which rounding half to even would round down.
    [(-0.1, 0), (0.4 / 255, 0), (0.6 / 255, 1), (0.3, 77), (0.5, 128), (0.7, 179), (1.5, 255)],
)
def test_integers_clamp_and_round_half_up(value: float, expected: int) -> None:
    assert Picture.from_tensor(torch.full((1, 1, 1, 1), value), "uint8").samples.item() == expected


def test_tensors_have_channels_first() -> None:
    samples = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    tensor = (Picture(samples).to_tensor() * 255).round()
    assert tensor[0, :, 0, 0].tolist() == [0, 1, 2]
    assert tensor[0, 0].tolist() == [[0, 3], [6, 9]]


def test_properties() -> None:
    picture = Picture(np.zeros((2, 5, 3), np.uint16))
    assert (picture.height, picture.width, picture.channels, picture.dtype) == (2, 5, 3, "uint16")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
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
def test_invalid_pictures_are_refused(shape: tuple[int, ...], dtype: str, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        Picture(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "alpha", [np.zeros((4, 4, 1), np.uint16), np.zeros((4, 5, 1), np.uint8), np.zeros((4, 4), np.uint8)]
)
def test_alpha_of_another_shape_or_type_is_refused(alpha: np.ndarray[Any, Any]) -> None:
    with pytest.raises(PictureError, match="alpha"):
        Picture(np.zeros((4, 4, 3), np.uint8), alpha)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_read_only_samples_are_copied(dtype: str) -> None:
    samples = np.full((2, 2, 1), 1, dtype)
    samples.flags.writeable = False
    tensor = Picture(samples).to_tensor()  # no warning, which would be an error here
    tensor += 1
    assert (samples == 1).all()


def test_a_crop_has_alpha_and_metadata() -> None:
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


def test_more_depth_and_back_is_exact() -> None:
    samples = ramp("uint8", 3)
    deeper = Picture(samples, samples[..., :1]).as_depth("uint16")
    # 65535 = 257 * 255
    np.testing.assert_array_equal(deeper.samples, samples.astype(np.uint16) * 257)
    back = deeper.as_depth("uint8")
    np.testing.assert_array_equal(back.samples, samples)
    assert back.alpha is not None
    np.testing.assert_array_equal(back.alpha, samples[..., :1])
    assert back.as_depth("uint8") is back


def test_a_picture_is_assembled_by_paste() -> None:
    samples = np.arange(36, dtype=np.uint8).reshape(4, 3, 3)
    picture = Picture(samples, samples[..., :1], {"icc": b"profile"})
    copy = picture.empty_like(4, 3)
    for rows in (slice(0, 1), slice(1, 4)):
        copy.paste(picture.crop(rows, slice(0, 3)), rows, slice(0, 3))
    np.testing.assert_array_equal(copy.samples, samples)
    assert copy.alpha is not None
    np.testing.assert_array_equal(copy.alpha, samples[..., :1])
    assert copy.metadata == {"icc": b"profile"}
    assert not np.shares_memory(copy.samples, samples)


@pytest.mark.parametrize(
    ("changes", "message"),
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
        ({"white_balance": (2.0, 1.1, 2.0)}, "white balance .*with 1 for G"),
        ({"white_balance": (0.0, 1.0, 2.0)}, "white balance"),
        ({"white_balance": (2.0, 1.0, float("inf"))}, "white balance"),
        ({"white_balance": (2.0, 1.0)}, "white balance"),
        ({"orientation": 0}, "orientation 0"),
        ({"orientation": 9}, "orientation 9"),
    ],
)
def test_invalid_mosaics_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PictureError, match=message):
        mosaic(**changes)


@pytest.mark.parametrize("name", ["time_s", "iso", "f_number"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_invalid_exposures_are_refused(name: str, value: float) -> None:
    with pytest.raises(PictureError, match=f"exposure {name} {value:g}; a number above 0"):
        Exposure(**{name: value})


# --- orientation and transparency


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_orientations_agree_with_pillow(orientation: int, channels: int) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    image = PIL.Image.fromarray(samples.squeeze())
    image.getexif()[0x0112] = orientation
    expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    oriented = Picture(samples, samples[..., :1]).apply_orientation(orientation)
    np.testing.assert_array_equal(oriented.samples.squeeze(), expected)
    assert oriented.alpha is not None
    np.testing.assert_array_equal(oriented.alpha, oriented.samples[..., :1])
    assert np.shares_memory(oriented.samples, samples)


@pytest.mark.parametrize("orientation", [0, 9])
def test_other_orientations_are_refused(orientation: int) -> None:
    with pytest.raises(PictureError, match=f"orientation {orientation}"):
        Picture(np.zeros((2, 2, 1), np.uint8)).apply_orientation(orientation)


def random_picture(height: int, width: int, dtype: str, seed: int, share: float) -> Picture:
    """Random colors. share: fraction of fully transparent pixels."""
    rng = np.random.default_rng(seed)
    peak = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    samples = (rng.random((height, width, 3)) * peak).astype(dtype)
    alpha = ((rng.random((height, width, 1)) > share) * peak).astype(dtype)
    return Picture(samples, alpha)


def test_hidden_colors_are_filled_from_visible_neighbors() -> None:
    samples = np.array([[[10], [99], [99], [99], [99], [40]]], np.uint8)
    alpha = np.array([[[255], [0], [0], [0], [0], [1]]], np.uint8)
    picture = Picture(samples, alpha)
    assert picture.fill_hidden(1).samples.ravel().tolist() == [10, 10, 99, 99, 40, 40]
    assert picture.fill_hidden(2).samples.ravel().tolist() == [10, 10, 10, 40, 40, 40]
    assert picture.fill_hidden(9).alpha is alpha
    assert samples.ravel().tolist() == [10, 99, 99, 99, 99, 40]


def test_a_hidden_pixel_is_the_mean_of_its_visible_neighbors() -> None:
    samples = np.array([[0, 20, 200], [40, 99, 200], [200, 200, 63]], np.uint8)[..., None]
    alpha = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], np.uint8)[..., None]
    assert Picture(samples, alpha).fill_hidden(1).samples[1, 1].item() == 31  # (0 + 20 + 40 + 63) / 4, rounded up


@given(seed=st.integers(0, 999), color=st.integers(0, 255), reach_px=st.integers(1, 6))
def test_all_hidden_colors_near_visible_pixels_are_replaced(seed: int, color: int, reach_px: int) -> None:
    picture = random_picture(14, 17, "uint8", seed, 0.9)
    assert picture.alpha is not None
    other = np.where(picture.alpha > 0, picture.samples, np.uint8(color))
    changed = picture.fill_hidden(reach_px).samples != Picture(other, picture.alpha).fill_hidden(reach_px).samples
    rows, cols = np.nonzero(picture.alpha[..., 0])
    for row, col in zip(rows, cols, strict=True):
        near = slice(max(0, row - reach_px), row + reach_px + 1), slice(max(0, col - reach_px), col + reach_px + 1)
        assert not changed[near].any()


@given(
    dtype=st.sampled_from(("uint8", "uint16", "float32")),
    seed=st.integers(0, 999),
    share=st.sampled_from((0.3, 0.9, 0.99)),
    reach_px=st.integers(0, 7),
    top=st.integers(0, 20),
    left=st.integers(0, 20),
)
def test_filling_a_crop_with_a_margin_equals_filling_the_whole(
    dtype: str, seed: int, share: float, reach_px: int, top: int, left: int
) -> None:
    picture = random_picture(30, 33, dtype, seed, share)
    whole = picture.fill_hidden(reach_px).samples[top : top + 8, left : left + 9]
    rows = slice(max(0, top - reach_px), top + 8 + reach_px)
    cols = slice(max(0, left - reach_px), left + 9 + reach_px)
    part = picture.crop(rows, cols).fill_hidden(reach_px).samples
    inner = part[top - rows.start :][:8, left - cols.start :][:, :9]
    np.testing.assert_array_equal(inner, whole)


def test_opaque_pictures_are_not_filled() -> None:
    opaque = Picture(np.zeros((2, 2, 1), np.uint8), np.ones((2, 2, 1), np.uint8))
    assert opaque.fill_hidden(3) is opaque
    assert Picture(opaque.samples).fill_hidden(3).samples is opaque.samples


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_large_pictures_are_converted_like_small_ones(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(np.random.default_rng(0).integers(0, 65536, (40, 30, 3)).astype(np.uint16))
    expected = picture.as_depth(dtype)
    monkeypatch.setattr(memory, "STRIP_BYTES", 1000)
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)
    np.testing.assert_array_equal(picture.as_depth(dtype).samples, expected.samples)


# --- NumPy and Pillow

DTYPES = ("uint8", "uint16", "float32")


@st.composite
def arrays(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES) -> np.ndarray[Any, Any]:
    """Random samples of each type: (H, W) or (H, W, C) with 2 to 4 channels."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    channels = draw(st.sampled_from([(), (2,), (3,), (4,)]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    dtype = draw(st.sampled_from(dtypes))
    return (rng.random((height, width, *channels)) * PEAKS[dtype]).astype(dtype)


@given(array=arrays())
def test_arrays_round_trip(array: np.ndarray[Any, Any]) -> None:
    picture = Picture.from_array(array)
    assert (picture.height, picture.width, picture.dtype) == (*array.shape[:2], array.dtype.name)
    assert (picture.alpha is None) == (array.shape[2:] in [(), (3,)])
    assert np.shares_memory(picture.samples, array)
    back = picture.to_array()
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert np.shares_memory(back, array) == (picture.alpha is None)


def test_one_channel_is_gray() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(Picture.from_array(array).to_array(), array[..., 0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4)), r"float64; .* array.astype\(numpy.float32\) .* white is 1"),
        (np.zeros((4, 4), bool), r"bool; .* array.astype\(numpy.uint8\) \* 255"),
        (np.zeros((4, 4), np.int64), "int64; a picture has uint8, uint16, float32; array.astype"),
        (np.zeros((4, 4), ">u2"), "uint16 in the byte order of another machine"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\); .*array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\); .*one by one"),
        (np.zeros(4, np.uint8), r"shape \(4,\); \(H, W\) or \(H, W, C\) with 1 to 4 channels is needed$"),
        (np.zeros((0, 4), np.uint8), "4 x 0 px"),
        (torch.zeros(1, 3, 4, 4), "type Tensor; a NumPy array is needed; .*Picture.from_tensor"),
    ],
)
def test_other_arrays_are_refused_with_what_to_do(array: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        Picture.from_array(array)


@given(array=arrays(("uint8",)))
def test_pillow_images_round_trip(array: np.ndarray[Any, Any]) -> None:
    image = PIL.Image.fromarray(array)
    picture = Picture.from_pil(image)
    np.testing.assert_array_equal(picture.to_array(), array)
    back = picture.to_pil()
    assert (back.mode, back.size) == (image.mode, image.size)
    np.testing.assert_array_equal(np.asarray(back), array)


def test_16_bit_gray_round_trips_through_pillow() -> None:
    array = ramp("uint16", 1)[..., 0]
    image = Picture.from_array(array).to_pil()
    assert image.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(image), array)
    np.testing.assert_array_equal(Picture.from_pil(image).to_array(), array)


def test_pillow_keeps_the_icc_profile_and_makes_a_transparent_color_alpha() -> None:
    image = PIL.Image.fromarray(np.array([[0, 7]], np.uint8))
    image.info = {"icc_profile": b"profile", "transparency": 7}
    picture = Picture.from_pil(image)
    assert picture.to_array().tolist() == [[[0, 255], [7, 0]]]
    assert picture.metadata == {"icc-profile-data": b"profile"}
    assert picture.to_pil().info["icc_profile"] == b"profile"


@pytest.mark.parametrize("mode", ["1", "P", "I", "F", "CMYK"])
def test_other_modes_are_refused_with_what_to_do(mode: str) -> None:
    hint = r"numpy.asarray\(image\)" if mode in "IF" else r"image.convert\('RGB'\)"
    with pytest.raises(PictureError, match=rf"mode {mode}; .*I;16 are supported; .*{hint}"):
        Picture.from_pil(PIL.Image.new(mode, (2, 2)))


@pytest.mark.parametrize(
    ("shape", "dtype", "what"),
    [
        ((2, 2, 3), "uint16", "RGB, uint16"),
        ((2, 2, 2), "uint16", "gray, uint16, alpha"),
        ((2, 2), "float32", "gray, float32"),
    ],
)
def test_what_pillow_has_no_mode_for_is_refused(shape: tuple[int, ...], dtype: str, what: str) -> None:
    with pytest.raises(PictureError, match=rf"no mode for a picture of {what}; picture.as_depth\('uint8'\)"):
        Picture.from_array(np.zeros(shape, dtype)).to_pil()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(30, 20), (5000, 40, 4), (3000, 2100, 3)])
def test_a_notebook_shows_a_small_preview(shape: tuple[int, ...], dtype: str) -> None:
    picture = Picture.from_array(np.full(shape, PEAKS[dtype] * 0.5, dtype))
    with PIL.Image.open(io.BytesIO(picture._repr_png_())) as preview:
        assert preview.format == "PNG"
        assert max(preview.size) == min(1024, max(shape[:2]))
        assert preview.mode == {2: "L", 3: "RGB"}.get(len(shape), "") or shape[2] == 4
        assert abs(int(np.asarray(preview).flat[0]) - 128) <= 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_floating_point_type_are_converted_alike(dtype: torch.dtype) -> None:
    """65535 is infinite in float16, and bfloat16 has no 255.5."""
    tensor = torch.linspace(0, 1, 256).reshape(1, 1, 16, 16).to(dtype)
    for name in PEAKS:
        expected = Picture.from_tensor(tensor.float(), name).samples
        np.testing.assert_array_equal(Picture.from_tensor(tensor, name).samples, expected)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "a tensor of 2 pictures"),
        (torch.zeros(3, 4, 4), "shape .3, 4, 4.; .N, C, H, W."),
        (torch.full((1, 3, 4, 4), 200, dtype=torch.uint8), "uint8; floating point"),
        (torch.zeros(1, 3, 4, 4, device="meta"), "a meta tensor"),
        (np.zeros((1, 3, 4, 4)), "ndarray; a tensor"),
    ],
)
def test_other_tensors_are_refused(tensor: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        Picture.from_tensor(tensor, "uint8")


def test_what_is_not_an_array_is_refused() -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    for samples, alpha in (([[1]], None), (torch.zeros(4, 5, 3), None), (array, [1])):
        with pytest.raises(PictureError, match="a NumPy array is needed"):
            Picture(samples, alpha)  # type: ignore[arg-type]
    with pytest.raises(PictureError, match="an image of Pillow is needed"):
        Picture.from_pil(array)  # type: ignore[arg-type]
    with pytest.raises(PictureError, match="samples of type float64"):
        Picture(array).as_depth("float64")


def test_only_parts_of_the_same_kind_are_pasted() -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    everything = slice(0, 4), slice(0, 5)
    for part in (Picture(array[..., :1]), Picture(array.astype(np.uint16)), Picture(array, array[..., :1])):
        with pytest.raises(PictureError, match="a part with .*; RGB, uint8 is needed"):
            Picture(array.copy()).paste(part, *everything)


# Extra channels


def _with_extra(num_extra: int = 2) -> Picture:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 256, (6, 7, 4 + num_extra), np.uint8)
    return Picture(planes[..., :3], planes[..., 3:4], extra=planes[..., 4:])


def test_extra_channels_follow_every_change() -> None:
    picture = _with_extra()
    assert picture.extra is not None and len(picture.planes) == 3
    assert np.array_equal(picture.crop(slice(1, 3), slice(2, 5)).planes[2], picture.extra[1:3, 2:5])
    assert np.array_equal(picture.apply_orientation(6).planes[2], np.rot90(picture.extra, -1))
    assert np.array_equal(picture.as_depth("uint16").planes[2], picture.extra.astype(np.uint16) * 257)
    assert np.array_equal(picture.fill_hidden(3).planes[2], picture.extra)
    whole = picture.empty_like(6, 7)
    whole.paste(picture, slice(0, 6), slice(0, 7))
    assert np.array_equal(whole.planes[2], picture.extra)
    assert repr(picture) == "<Picture 7 x 6 px, RGB, uint8, alpha, 2 extra channels>"


def test_extra_channels_are_never_taken_for_alpha() -> None:
    opaque = Picture(_with_extra().samples, extra=_with_extra(1).extra)
    assert opaque.to_array().shape == (6, 7, 3) and opaque.to_pil().mode == "RGB"
    with pytest.raises(PictureError, match="a part with RGB, uint8, 1 extra channel; RGB, uint8, alpha is needed"):
        Picture(opaque.samples, opaque.extra).paste(opaque, slice(0, 6), slice(0, 7))


@pytest.mark.parametrize("shape", [(6, 7), (5, 7, 1), (6, 7, 0)])
def test_extra_channels_must_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"extra channels of uint8 .*\(H, W, E\) of the same type"):
        Picture(np.zeros((6, 7, 3), np.uint8), extra=np.zeros(shape, np.uint8))
    with pytest.raises(PictureError, match="extra channels of uint16"):
        Picture(np.zeros((6, 7, 3), np.uint8), extra=np.zeros((6, 7, 1), np.uint16))


@pytest.mark.parametrize("shape", [(1, 5, 4, 4), (1, 0, 4, 4), (1, 3, 0, 4), (3, 4, 4)])
def test_tensors_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match="with 1 to 4 channels is needed"):
        check_tensor(torch.zeros(shape), (4,))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((6, 7, 3), "tensor.permute(2, 0, 1) puts channels first"),
        ((6, 7, 5), ""),
        ((1, 6, 7, 3), ""),  # permute(2, 0, 1) does not work for four axes
    ],
)
def test_only_a_picture_with_channels_last_gets_the_hint_to_put_them_first(
    shape: tuple[int, ...], hint: str
) -> None:
    with pytest.raises(PictureError) as caught:
        check_tensor(torch.zeros(shape), (3, 4))
    assert caught.value.hint == hint


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tensors_have_1_to_4_channels(channels: int) -> None:
    check_tensor(torch.zeros(2, channels, 3, 5), (4,))
    check_tensor(torch.zeros(channels, 3, 5), (3, 4))
