"""Arrays, tensors and Pillow images go in, and the same form comes out."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from pellucid.backends.eager import TorchBackend
from pellucid.errors import PellucidError, PictureError
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings


def _restorer(name: str, **parameters: Any) -> Restorer:
    torch.manual_seed(0)
    chosen = registry.find(name, **parameters)
    return Restorer(name, chosen, TorchBackend(chosen.network(), "cpu"))


DENOISER = _restorer("dncnn.blind", depth=3, width=4, channels=3)
ENLARGER = _restorer("srcnn.tuned", scale=2)


def _array(*shape: int, dtype: str = "uint8") -> Any:
    drawn = np.random.default_rng(0).random(shape)
    return (drawn * {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)], ids=str)
def test_an_array_gives_an_array_of_its_type_and_axes(dtype: str, channels: tuple[int, ...]) -> None:
    array = _array(9, 14, *channels, dtype=dtype)
    result = ENLARGER.restore(array)
    assert (result.shape, result.dtype) == ((18, 28, *channels), array.dtype)
    expected = ENLARGER.restore(Picture.from_array(array)).to_array()
    np.testing.assert_array_equal(result.reshape(expected.shape), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_tensor_gives_a_tensor_of_its_type(channels: int, dtype: torch.dtype) -> None:
    tensor = torch.rand(channels, 9, 14, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = ENLARGER.restore(tensor)
    assert (result.shape, result.dtype) == ((channels, 18, 28), dtype)
    expected = ENLARGER.restore(tensor.float().permute(1, 2, 0).numpy())
    assert torch.equal(result, torch.from_numpy(expected).permute(2, 0, 1).to(dtype))


def test_a_batch_is_restored_picture_by_picture() -> None:
    batch = torch.rand(3, 3, 8, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    seen: list[tuple[int, int]] = []
    result = DENOISER.restore(batch, tile_px=5, progress=lambda *position: seen.append(position))
    assert result.shape == batch.shape and not result.requires_grad
    assert all(torch.equal(result[i], DENOISER.restore(batch[i])) for i in range(3))
    assert seen[-1] == (3 * 72, 3 * 72) and len(seen) == 3 * 4


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_a_pillow_image_gives_an_image_of_its_mode(mode: str) -> None:
    array = {"L": _array(7, 8), "I;16": _array(7, 8, dtype="uint16")}.get(mode)
    image = PIL.Image.fromarray(_array(7, 8, len(mode)) if array is None else array)
    assert image.mode == mode
    result = ENLARGER.restore(image)
    assert (result.mode, result.size) == (mode, (16, 14))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy.matrix is discouraged
def test_other_layouts_of_memory_give_the_same_result() -> None:
    array = _array(9, 14, 3, dtype="float32")
    expected = DENOISER.restore(array)
    reversed_twice = np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    for same in (np.asfortranarray(array), reversed_twice):
        np.testing.assert_array_equal(DENOISER.restore(same), expected)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for other in (tensor.contiguous(), torch._neg_view(-tensor)):
        assert torch.equal(DENOISER.restore(other), torch.from_numpy(expected).permute(2, 0, 1))
    gray = _array(9, 14)
    np.testing.assert_array_equal(ENLARGER.restore(np.asmatrix(gray)), ENLARGER.restore(gray))


def test_the_changes_of_a_copy_on_write_map_are_kept(tmp_path: Path) -> None:
    """Large arrays of our own are released and read from their file again; this one is not in its file."""
    np.save(tmp_path / "zeros.npy", np.zeros((40, 50, 3), np.uint8))
    mapped = np.load(tmp_path / "zeros.npy", mmap_mode="c")
    mapped[:] = drawn = _array(40, 50, 3)
    np.testing.assert_array_equal(DENOISER.restore(mapped), DENOISER.restore(drawn))
    np.testing.assert_array_equal(mapped, drawn)


def test_values_that_are_slightly_out_of_range_are_kept() -> None:
    """Noise that is not clipped is what denoisers expect."""
    noisy = np.array([[[-0.7, 0.5, 1.7]]], np.float32)
    np.testing.assert_array_equal(DENOISER.restore(noisy, strength=0), noisy)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("photo.png", "a str .'photo.png'.; .*pellucid.restore takes paths; pellucid.read gives a Picture"),
        (Path("photo.png"), "pellucid.restore takes paths"),
        (None, "a NoneType; a Picture, .* is needed$"),
        ([[0.5]], "a list; a Picture"),
        (_array(8, 8, 3).astype(np.float32), "from 0 to 25., but white is 1 unless .*; .*white=255"),
        (_array(8, 8, 3).astype(np.float64), "float64"),
        (_array(8, 8, 3).astype(np.float32) - 300, "samples from -300"),
        (np.full((8, 8), np.nan, np.float32), "NaN or infinite"),
        (_array(3, 8, 8), "channels come last"),
        (_array(8, 8, 5), "shape .8, 8, 5."),
        (np.zeros((0, 8), np.float32), "at least 1 x 1"),
        (torch.zeros(8, 8), "shape .8, 8.; .C, H, W. or .N, C, H, W."),
        (torch.zeros(8, 9, 3), "tensor.permute"),
        (
            torch.zeros(1, 8, 9, 3),
            "with 1 to 4 channels is needed$",
        ),  # the order of three axes would be wrong here
        (torch.zeros(0, 3, 8, 8), "shape .0, 3, 8, 8."),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8; floating point .*; tensor / 255"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), "complex64; floating point .* is needed$"),
        (torch.zeros(3, 8, 8).to_sparse(), "a sparse tensor"),
        (torch.zeros(3, 8, 8, device="meta"), "a meta tensor"),
        (_array(8, 8, dtype="uint16").astype(">u2"), "in the byte order of another machine"),
        (torch.full((3, 8, 8), 255.0), "from 255 to 255, but white is 1 unless .*white=255"),
        (torch.full((3, 8, 8), torch.inf), "NaN or infinite"),
        (PIL.Image.new("P", (8, 8)), "mode P"),
        (PIL.Image.new("I;16B", (8, 8)), "mode I;16B; .*Picture.from_array"),
        (Picture(np.full((8, 8, 3), np.nan, np.float32)), "NaN or infinite samples; replace them"),
    ],
)
def test_wrong_inputs_give_one_clear_line(given: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message) as caught:
        DENOISER.restore(given)
    assert "\n" not in str(caught.value)


def test_halo_error_takes_arrays() -> None:
    array = _array(60, 60, 3, dtype="float32")
    assert DENOISER.halo_error(array, halo_px=0, tile_px=20) > 0


def test_a_truncated_pillow_image_gives_one_clear_line() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(_array(99, 99, 3)).save(file, "PNG")
    image = PIL.Image.open(io.BytesIO(file.getvalue()[:300]))
    with image, pytest.raises(PictureError, match="cannot be decoded: image file is truncated"):
        DENOISER.restore(image)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_is_an_array() -> None:
    array = _array(8, 9)
    np.testing.assert_array_equal(ENLARGER.restore(np.matrix(array)), ENLARGER.restore(array))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_px": 2.5}, "tile_px is 2.5; a whole number is needed"),
        ({"tile_px": "8"}, "tile_px is '8'; a whole number is needed"),
        ({"halo_px": -1}, "halo_px can be a whole number of 0 or more"),
        ({"memory_bytes": "2GB"}, "memory_bytes"),
        ({"strength": None}, "strength is None; a number is needed"),
        ({"strength": "1"}, "strength"),
        ({"strength": float("nan")}, "strength"),
    ],
)
def test_impossible_settings_give_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PellucidError, match=message):
        DENOISER.restore(_array(8, 8, 3), **settings)


# White


def test_an_array_of_12_bits_in_16_gives_a_python_warning() -> None:
    array = _array(20, 20, dtype="uint16") >> 4
    with pytest.warns(UserWarning, match=r"no sample is above 4095 of 65535: .*\(white=4095\)"):
        DENOISER.restore(array)
    (outcome,) = restore(array, DENOISER)
    assert "no sample is above 4095" in outcome.warnings[0]


@pytest.mark.parametrize("white", [4095, 16383])
def test_white_scales_arrays_and_results(white: int) -> None:
    array = (_array(20, 20, 3, dtype="uint16") * (white / 65535)).astype(np.uint16)
    full = np.floor(array * (65535 / white) + 0.5).astype(np.uint16)
    restored = DENOISER.restore(array, white=white)
    expected = DENOISER.restore(full).astype(float) * (white / 65535)
    assert restored.dtype == np.uint16 and np.abs(restored - expected).max() <= 0.51
    assert np.array_equal(DENOISER.restore(array, white=white, strength=0), array)
    (outcome,) = restore(array, DENOISER, settings=Settings(white=white))
    assert np.array_equal(outcome.restored, restored)


def test_white_scales_tensors_and_floating_point() -> None:
    array = _array(20, 20, 3, dtype="float32")
    expected = DENOISER.restore(array)
    np.testing.assert_allclose(DENOISER.restore(array * 255, white=255) / 255, expected, atol=1e-5)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    scaled = DENOISER.restore(tensor * 255, white=255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(scaled / 255, expected, atol=1e-5)


def test_a_picture_has_its_own_white() -> None:
    with pytest.raises(PictureError, match="a picture has its own white"):
        DENOISER.restore(Picture(_array(8, 8, 3)), white=100)
