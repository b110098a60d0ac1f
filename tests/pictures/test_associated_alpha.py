"""Colors that are multiplied by alpha in the file."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.pictures import images
from pellucid.pictures.samples import Samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile


def premultiplied(dtype: str, seed: int = 0) -> Samples:
    """(16, 16, 4), with all alphas, and colors that are not brighter than their alpha."""
    rng = np.random.default_rng(seed)
    peak = np.iinfo(dtype).max
    samples = rng.integers(0, peak, (16, 16, 4), dtype, endpoint=True)
    samples[..., 3] = np.linspace(0, peak, 256).reshape(16, 16)
    samples[..., :3] = np.minimum(samples[..., :3], samples[..., 3:])
    return samples


@settings(max_examples=40, deadline=None)
@given(dtype=st.sampled_from(["uint8", "uint16"]), seed=st.integers(0, 999))
def test_integers_come_back_exactly(dtype: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path, samples = tmp_path_factory.getbasetemp() / "x.tif", premultiplied(dtype, seed)
    tifffile.imwrite(path, samples, photometric="rgb", extrasamples=[1])
    images.write(images.read(path), path, overwrite=True)
    assert np.array_equal(tifffile.imread(path), samples)
    with tifffile.TiffFile(path) as file:
        assert [int(kind) for kind in file.pages.first.extrasamples] == [1]


def test_colors_are_divided_by_alpha(tmp_path: Path) -> None:
    samples = premultiplied("uint8")
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", extrasamples=[1])
    picture = images.read(tmp_path / "x.tif")
    assert picture.alpha is not None and picture.encoding is not None and picture.encoding.warnings == ()
    visible = samples[..., 3] > 0
    expected = samples[visible][:, :3] * 255.0 / samples[visible][:, 3:]
    assert np.abs(picture.samples[visible] - expected).max() <= 0.5


def test_colors_brighter_than_alpha_give_a_warning(tmp_path: Path) -> None:
    samples = premultiplied("uint8")
    samples[3, 4] = 200, 200, 200, 100
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", extrasamples=[1])
    picture = images.read(tmp_path / "x.tif")
    assert picture.encoding is not None
    assert "brighter than their alpha" in picture.encoding.warnings[0]


def test_another_format_gets_plain_alpha(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", premultiplied("uint8"), photometric="rgb", extrasamples=[1])
    picture = images.read(tmp_path / "x.tif")
    images.write(picture, tmp_path / "x.png")
    assert np.array_equal(images.read(tmp_path / "x.png").samples, picture.samples)
