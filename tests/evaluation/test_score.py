"""Results of any program are scored as scikit-image scores them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pellucid.errors import DataError, PellucidError
from pellucid.evaluation.evaluate import score
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.system import memory


def make_folder(folder: Path, **pictures: Samples) -> Path:
    for name, samples in pictures.items():
        images.write(Picture(samples), folder / f"{name}.png")
    return folder


def make_samples(seed: int, height: int = 40, width: int = 52, channels: int = 3) -> Samples:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def similarity(one: Samples, other: Samples, data_range: float) -> float:
    axis = 2 if one.ndim == 3 else None
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(one, other, data_range=data_range, channel_axis=axis, **settings))


@pytest.mark.parametrize("border_px", [0, 4])
@pytest.mark.parametrize("colors", ["rgb", "y", "gray"])
def test_scores_are_those_of_scikit_image(tmp_path: Path, colors: str, border_px: int) -> None:
    clean, restored = make_samples(0), make_samples(1)
    target, results = make_folder(tmp_path / "t", a=clean), make_folder(tmp_path / "r", a=restored)
    (found,) = score(results, target, colors=colors, border_px=border_px).scores
    planes = [clean.astype(float), restored.astype(float)]
    if colors == "y":
        planes = [rgb2ycbcr(samples)[..., 0].round() for samples in (clean, restored)]
    elif colors == "gray":  # not scikit-image's, which are those of BT.709; Pillow's have three digits of MATLAB's
        planes = [np.array(Image.fromarray(samples).convert("L"), float) for samples in (clean, restored)]
    side = slice(border_px, -border_px or None)
    one, other = (plane[side, side] for plane in planes)
    tolerance = 1e-3 if colors == "gray" else 1e-6
    assert found.psnr_db == pytest.approx(peak_signal_noise_ratio(one, other, data_range=255), abs=tolerance)
    assert found.ssim == pytest.approx(similarity(one, other, 255), abs=tolerance)
    assert found.degraded_psnr_db is None


def test_all_16_bits_of_results_count(tmp_path: Path) -> None:
    clean = make_samples(0).astype(np.uint16) * 257
    results, target = make_folder(tmp_path / "r", a=clean ^ 1), make_folder(tmp_path / "t", a=clean)
    (found,) = score(results, target).scores
    assert found.psnr_db == pytest.approx(20 * np.log10(65535), abs=1e-3)


def test_a_result_of_another_size_is_not_scored(tmp_path: Path) -> None:
    target = make_folder(tmp_path / "t", a=make_samples(0), b=make_samples(1))
    results = make_folder(tmp_path / "r", a=make_samples(0), b=make_samples(1, 39))
    report = score(results, target)
    assert [found.name for found in report.scores] == ["a.png"]
    ((path, error),) = report.failures
    assert path == results / "b.png" and "has 52 x 39 px, but its target has 52 x 40" in str(error)
    (results / "a.png").unlink()
    with pytest.raises(DataError, match="0 of 1 picture could be scored: .* 52 x 39 px"):
        score(results, target)


def test_a_picture_that_is_all_border_is_too_small(tmp_path: Path) -> None:
    target = make_folder(tmp_path / "t", a=make_samples(0))
    assert score(target, target, border_px=19).scores
    with pytest.raises(DataError, match="a.png is too small to be scored: 52 x 40 px; 20 px on each side are not"):
        score(target, target, border_px=20)


def test_a_picture_that_needs_more_memory_than_is_free_is_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with a limit would end the process, and the scores of the other pictures would be lost."""
    target = make_folder(tmp_path / "t", a=make_samples(0), b=make_samples(1, 400, 500))
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**7)
    report = score(target, target)
    assert [found.name for found in report.scores] == ["a.png"]
    ((_, error),) = report.failures
    assert re.search(r"b.png: scoring 500 x 400 px needs \d+ MB; 10 MB are free; score parts", str(error))


def test_the_luma_of_a_gray_result_is_not_compared_with_that_of_a_color_target(tmp_path: Path) -> None:
    target = make_folder(tmp_path / "t", a=make_samples(0))
    results = make_folder(tmp_path / "r", a=make_samples(0, channels=1))
    assert score(results, target, colors="gray").scores
    with pytest.raises(DataError, match="a.png is gray, but its target is in color; .* another range"):
        score(results, target, colors="y")
    assert not score(results, target, colors="gray").warnings
    (warning,) = score(results, target, colors="rgb").warnings
    assert warning.startswith("a.png: it is gray, but its target is in color")


def test_a_match_by_order_is_a_warning(tmp_path: Path) -> None:
    target = make_folder(tmp_path / "t", a=make_samples(0))
    results = make_folder(tmp_path / "r", a_x2=make_samples(0))
    report = score(results, target)
    assert report.scores[0].psnr_db == np.inf
    assert "no names agree, so pictures were matched in sorted order" in report.warnings[0]


def test_settings_that_are_not_possible_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="colors 'lab' are unknown; known: gray, y, rgb"):
        score(tmp_path, tmp_path, colors="lab")
    with pytest.raises(PellucidError, match="border_px can be a whole number"):
        score(tmp_path, tmp_path, border_px=-1)
