import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_degradation import clean, seeded

from pellucid.degradations.standard import GaussianNoise, Jpeg, Rounding, ShiftedJpeg, Shrink, ShrinkAndEnlarge
from pellucid.pictures import images


@pytest.mark.parametrize("sigma_255", [15, 25, 50])
def test_noise_has_the_given_standard_deviation(sigma_255: float) -> None:
    picture = torch.full((2, 1, 400, 500), 0.5)
    noise = (GaussianNoise(sigma_255)(picture, seeded(0)) - picture) * 255
    # The deviation of 400,000 samples is known to 1 / sqrt(800,000) = 0.11 %, the mean to sigma / 632.
    assert noise.std().item() == pytest.approx(sigma_255, rel=0.005)
    assert noise.mean().item() == pytest.approx(0, abs=sigma_255 / 150)


def test_noise_is_neither_clipped_nor_rounded() -> None:
    noisy = GaussianNoise(50)(torch.zeros(1, 1, 50, 50), seeded(0))
    assert noisy.min() < -0.1
    assert (noisy * 255).frac().abs().max() > 0.1


def test_noise_of_zero_changes_nothing() -> None:
    assert torch.equal(GaussianNoise(0)(clean(), seeded(0)), clean())


def test_each_picture_draws_its_own_noise_level() -> None:
    picture = torch.zeros(200, 1, 40, 40)
    levels = GaussianNoise((10, 50))(picture, seeded(0)).std(dim=(1, 2, 3)) * 255
    # Uniform from 10 to 50: mean 30, deviation 40 / sqrt(12) = 11.5; each is measured to 2 %.
    assert levels.min() > 9.4
    assert levels.max() < 53
    assert levels.mean().item() == pytest.approx(30, abs=3)
    assert levels.std().item() == pytest.approx(11.5, abs=1.5)


def test_noise_keeps_double_precision() -> None:
    assert GaussianNoise(25)(clean().double(), seeded(0)).dtype == torch.float64


def keys_cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with a = -1/2."""
    x = np.abs(distance)
    inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0))


def bicubic(planes: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """MATLAB's imresize by its documentation: a cubic kernel, wider to shrink; mirrored edges; axis by axis."""
    stretch = max(1.0, 1 / factor)
    for axis in (-2, -1):
        size = planes.shape[axis]
        weights = np.zeros((round(size * factor), size))
        for row, center in enumerate((np.arange(len(weights)) + 0.5) / factor - 0.5):
            for i in range(int(center - 2 * stretch) - 1, int(center + 2 * stretch) + 2):
                mirrored = (-1 - i) if i < 0 else i if i < size else 2 * size - 1 - i
                weights[row, mirrored] += keys_cubic(np.array((center - i) / stretch))
        weights /= weights.sum(axis=1, keepdims=True)
        planes = np.moveaxis(np.moveaxis(planes, axis, -1) @ weights.T, -1, axis)
    return planes


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrinking_is_the_formula_of_bicubic_interpolation(scale: int) -> None:
    expected = bicubic(clean().double().numpy(), 1 / scale)
    np.testing.assert_allclose(Shrink(scale)(clean(), seeded(0)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrinking_is_matlabs(data: Path, scale: int) -> None:
    """MATLAB rounds, and clips at sharp edges, after each axis; rounding alone makes a mean difference of 0.25."""
    paths = sorted((data / "super_resolution" / "matlab_lr" / f"Set5_SRF{scale}").glob("*_HR.png"))
    assert len(paths) == 5
    for path in paths:
        large, small = (images.read(path.with_name(path.name.replace("HR", size))) for size in ("HR", "LR"))
        shrunk = Shrink(scale)(large.as_depth("float32").to_tensor(), seeded(0)).clamp(0, 1) * 255
        difference = (shrunk - torch.from_numpy(small.samples.copy()).permute(2, 0, 1)).abs()
        assert difference.mean() < 0.31
        assert difference.flatten().quantile(0.95) < 0.8


@pytest.mark.parametrize("quality", [1, 10, 40, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_pillow(channels: int, quality: int) -> None:
    picture = clean(2, channels)
    result = Jpeg(quality)(picture, seeded(0))
    for one, compressed in zip(picture, result, strict=True):
        samples = np.floor(one.permute(1, 2, 0).numpy() * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        image = Image.fromarray(samples[..., 0], "L") if channels == 1 else Image.fromarray(samples, "RGB")
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=2)  # Pillow's constant for 4:2:0
        expected = np.asarray(Image.open(file)).reshape(samples.shape)
        np.testing.assert_array_equal((compressed * 255).round().permute(1, 2, 0).numpy(), expected)
        assert np.array_equal(compressed.permute(1, 2, 0).numpy(), expected.astype(np.float32) / 255)


def test_jpeg_clips_first() -> None:
    out_of_range = torch.tensor([[-3.0, 0.0, 1.0, 4.0]]).repeat(8, 2)[None, None]
    assert torch.equal(Jpeg(90)(out_of_range, seeded(0)), Jpeg(90)(out_of_range.clamp(0, 1), seeded(0)))


def test_jpeg_qualities_stay_within_their_range() -> None:
    picture = clean(1, 1, 8, 12)
    possible = [Jpeg(quality)(picture, seeded(0)) for quality in range(30, 33)]
    drawn = Jpeg((30, 32))(picture.expand(60, -1, -1, -1), seeded(0))
    matches = [[torch.equal(one, other[0]) for other in possible] for one in drawn]
    assert all(any(row) for row in matches)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_after_shrinking_is_the_formula_of_bicubic_interpolation(scale: int) -> None:
    expected = bicubic(bicubic(clean().double().numpy(), 1 / scale), scale)
    np.testing.assert_allclose(ShrinkAndEnlarge((scale,))(clean(), seeded(0)), expected, rtol=0, atol=1e-6)


def test_every_scale_is_drawn() -> None:
    results = ShrinkAndEnlarge((2, 3, 4))(clean(1).expand(30, -1, -1, -1), seeded(0))
    possible = [ShrinkAndEnlarge((scale,))(clean(1), seeded(0))[0] for scale in (2, 3, 4)]
    counts = [sum(torch.equal(result, one) for result in results) for one in possible]
    assert sum(counts) == 30
    assert all(counts)


@pytest.mark.parametrize("num_threads", [1, 4])
def test_jpeg_is_the_same_with_any_number_of_threads(num_threads: int) -> None:
    picture, before = clean(9), torch.get_num_threads()
    expected = torch.cat([Jpeg(20)(one[None], seeded(0)) for one in picture])
    torch.set_num_threads(num_threads)
    try:
        assert torch.equal(Jpeg(20)(picture, seeded(0)), expected)
    finally:
        torch.set_num_threads(before)


def block_edges(picture: torch.Tensor) -> set[int]:
    """Columns, modulo 8, at which a flat area that was compressed strongly has steps."""
    steps = picture.diff(dim=-1).abs().amax(dim=(0, 1, 2))
    return {int(column + 1) % 8 for column in (steps > 2 / 255).nonzero()[:, 0]}


def test_blocks_of_a_shifted_jpeg_start_anywhere() -> None:
    """A steep ramp in JPEG of low quality is flat in each block."""
    ramp = torch.linspace(0.2, 0.8, 96).expand(1, 1, 32, 96)
    assert block_edges(Jpeg(1)(ramp, seeded(0))) == {0}
    found = [block_edges(ShiftedJpeg(1)(ramp, seeded(seed))) for seed in range(30)]
    assert all(len(edges) == 1 for edges in found)
    assert set.union(*found) == set(range(8))


def test_all_samplings_of_chroma_are_drawn() -> None:
    """Colored stripes of one pixel survive in 4:4:4, upright ones are averaged in 4:2:2, all in 4:2:0."""
    stripes = torch.full((1, 3, 32, 32), 0.5)
    stripes[:, 0, :, ::2] = 0.8
    stripes[:, 2, :, ::2] = 0.2

    def contrast(picture: torch.Tensor) -> float:
        colors = picture[:, 0] - picture[:, 2]
        return (colors[..., ::2] - colors[..., 1::2]).abs().mean().item()

    upright = [contrast(ShiftedJpeg(100)(stripes, seeded(seed))) > 0.3 for seed in range(60)]
    level = [contrast(ShiftedJpeg(100)(stripes.mT, seeded(seed)).mT) > 0.3 for seed in range(60)]
    assert 10 < sum(upright) < 30  # a third of them
    assert 28 < sum(level) < 52  # two thirds
    assert all(upright[i] <= level[i] for i in range(60))


def test_rounding_is_that_of_a_file() -> None:
    assert torch.equal(
        Rounding()(torch.tensor([[[[-0.1, 0.5, 1.2]]]]), seeded(0)) * 255, torch.tensor([[[[0, 128.0, 255]]]])
    )
