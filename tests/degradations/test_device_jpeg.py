import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from test_degradation import clean, seeded
from torch import Tensor

from device_waits import META, RefuseWaitingCopies
from pellucid.degradations import standard
from pellucid.degradations.degradation import Degradation
from pellucid.degradations.device_jpeg import compress_on_device
from pellucid.degradations.rng import DeviceGenerator
from pellucid.degradations.standard import Jpeg, ShiftedJpeg

SAMPLINGS = ["4:2:0", "4:2:2", "4:4:4"]

qualities = st.integers(1, 100)
shifts = st.tuples(st.integers(0, 15), st.integers(0, 15))
settings = st.lists(st.tuples(qualities, st.sampled_from(SAMPLINGS), shifts), min_size=1, max_size=3)


def compress_by_pillow(picture: Tensor, quality: int, sampling: str, shift: tuple[int, int]) -> Tensor:
    """A file of the picture with more rows above and columns on the left, and then without them."""
    down, right = shift
    samples = np.floor(picture.permute(1, 2, 0).numpy() * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    canvas = np.pad(samples, ((down, 0), (right, 0), (0, 0)), "edge")
    file = io.BytesIO()
    image = Image.fromarray(canvas[..., 0], "L") if len(picture) == 1 else Image.fromarray(canvas, "RGB")
    image.save(file, "JPEG", quality=quality, subsampling=sampling)
    decoded = np.asarray(Image.open(file)).reshape(canvas.shape)[down:, right:]
    return torch.from_numpy(decoded.astype(np.float32) / np.float32(255)).permute(2, 0, 1)


def assert_equals_pillow(pictures: Tensor, *options: list[Any]) -> None:
    compressed = compress_on_device(pictures, *options)
    assert compressed.dtype == torch.float32
    for i, each in enumerate(zip(pictures, *options, strict=True)):
        assert torch.equal(compressed[i], compress_by_pillow(*each)), each[1:]


def draw_pictures(seed: int, shape: tuple[int, ...], content: str) -> Tensor:
    """(N, C, H, W): noise, a random walk, or black and white."""
    random = np.random.default_rng(seed).random(shape)
    if content == "smooth":
        random = (random - 0.5).cumsum(-1).cumsum(-2) * 0.05 + 0.5
    if content == "extreme":
        random = random.round()
    return torch.from_numpy(random.clip(0, 1).astype(np.float32))


@pytest.mark.parametrize("content", ["noise", "smooth", "extreme"])
@pytest.mark.parametrize("channels", [1, 3])
@given(st.integers(0, 2**32), settings, st.integers(1, 50), st.integers(1, 50))
def test_samples_are_those_of_libjpeg(
    channels: int, content: str, seed: int, each: list[Any], height: int, width: int
) -> None:
    pictures = draw_pictures(seed, (len(each), channels, height, width), content)
    assert_equals_pillow(pictures, *map(list, zip(*each, strict=True)))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_all_qualities(sampling: str) -> None:
    pictures = draw_pictures(0, (100, 3, 24, 40), "smooth")
    assert_equals_pillow(pictures, list(range(1, 101)), [sampling] * 100, [(0, 0)] * 100)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_all_shifts(sampling: str) -> None:
    pictures = draw_pictures(0, (1, 3, 18, 19), "noise").expand(256, -1, -1, -1)
    every = [(down, right) for down in range(16) for right in range(16)]
    assert_equals_pillow(pictures, [90] * 256, [sampling] * 256, every)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("width", range(1, 19))
def test_all_small_sizes(width: int, sampling: str) -> None:
    """Chroma of one or two columns is enlarged in another way."""
    for height in range(1, 19):
        pictures = draw_pictures(height, (2, 3, height, width), "noise")
        assert_equals_pillow(pictures, [95, 30], [sampling] * 2, [(0, 0), (1, 1)])


@pytest.mark.parametrize("quality", [1, 2, 5])
def test_coefficients_that_are_rounded_far_from_their_value(quality: int) -> None:
    """Black and white in the pattern of a few waves: the inverse DCT then exceeds the range of samples."""
    rng, place = np.random.default_rng(0), np.arange(8)
    waves = np.cos((2 * place + 1) * place[:, None] * np.pi / 16)
    weights = rng.normal(size=(64, 8, 8)) * (rng.random((64, 8, 8)) < 0.1)
    patterns: NDArray[np.float64] = waves.T @ weights @ waves
    picture = (patterns > 0).astype(np.float32).reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(1, 1, 64, 64)
    assert_equals_pillow(torch.from_numpy(picture), [quality], ["4:4:4"], [(0, 0)])


def test_samples_out_of_range_are_clipped_and_precision_is_kept() -> None:
    picture = torch.tensor([[-3.0, 0.0, 1.0, 4.0]]).repeat(8, 2)[None, None].double()
    compressed = compress_on_device(picture, [90], ["4:4:4"], [(0, 0)])
    assert compressed.dtype == torch.float64
    assert_equals_pillow(picture.clamp(0, 1).float(), [90], ["4:4:4"], [(0, 0)])
    assert torch.equal(compressed, compress_on_device(picture.clamp(0, 1), [90], ["4:4:4"], [(0, 0)]))


class MetaGenerator(DeviceGenerator):
    device = META


JPEGS: list[Degradation] = [Jpeg(10), Jpeg((5, 99)), ShiftedJpeg((5, 95))]


@pytest.mark.parametrize("degradation", JPEGS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_waits_for_the_device(
    channels: int, degradation: Degradation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has no values, so reading one raises an error."""
    generator = MetaGenerator()
    generator.companion = seeded(0)
    pictures = clean(3, channels).to(META)
    with RefuseWaitingCopies(monkeypatch):
        compressed = degradation(pictures, generator)
    assert compressed.device == META
    assert compressed.shape == pictures.shape
    assert compressed.dtype == torch.float32


@pytest.mark.parametrize("degradation", JPEGS, ids=repr)
def test_on_a_cpu_libjpeg_compresses(degradation: Degradation, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = degradation(clean(), seeded(0))
    monkeypatch.delattr(standard, "compress_on_device")
    assert torch.equal(degradation(clean(), seeded(0)), expected)
    with pytest.raises(NameError, match="compress_on_device"):
        degradation(clean().to(META), seeded(0))
