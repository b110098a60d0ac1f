"""What is found wrong with pictures, and the model that is chosen for it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from pellucid.degradations.cameras import Sensor
from pellucid.degradations.raw_synthesis import SensorNoise, SyntheticRaw
from pellucid.pictures.picture import Exposure, Mosaic, NoiseLevel, Picture
from pellucid.restoration.advice import (
    Candidate,
    Suggestion,
    advise,
    choose_model,
    choose_sure,
    find_problems,
    list_models_to_try,
)

CANDIDATES = (
    Candidate("color", ("noise",), "rgb"),
    Candidate("gray-25", ("noise",), "gray"),
    Candidate("gray-blind", ("noise",), "gray"),
    Candidate("photo", ("noise of a camera",), "rgb"),
    Candidate("luma", ("noise", "JPEG blocks"), "y"),
    Candidate("jpeg", ("JPEG blocks",), "rgb"),
    Candidate("raw", ("too dark",), "rgb"),
    Candidate("mosaic", ("noise in RAW files",), "rgb"),
)


@pytest.mark.parametrize(
    ("problem", "gray", "color"),
    [
        ("noise", "gray-blind", "color"),
        ("noise of a camera", "photo", "photo"),
        ("JPEG blocks", "luma", "jpeg"),
        ("too dark", "raw", "raw"),
        ("noise in RAW files", "mosaic", "mosaic"),
        ("too small", None, None),
    ],
)
def test_the_model_sees_the_colors_of_the_picture(problem: str, gray: str | None, color: str | None) -> None:
    assert choose_model(problem, CANDIDATES, is_gray=True) == gray
    assert choose_model(problem, CANDIDATES, is_gray=False) == color


def test_models_that_leave_the_noise_of_colors_are_not_advised() -> None:
    assert choose_model("noise", CANDIDATES[4:], is_gray=False) is None
    assert choose_model("noise of a camera", CANDIDATES[:1], is_gray=False) == "color"


def save(folder: Path, samples: np.ndarray, suffix: str = ".png", **options: Any) -> Path:
    path = folder / f"picture{suffix}"
    Image.fromarray(samples).save(path, **options)
    return path


def expose(shot: float, read: float, *, noise: NoiseLevel | None = None, pattern: str = "RGGB") -> Mosaic:
    """A Bayer mosaic of a photograph with noise of this strength."""
    rng = np.random.default_rng(0)
    linear = (photographs.chelsea()[:300, :300, 1] / 255) ** 2.2
    noisy = linear + rng.standard_normal(linear.shape) * np.sqrt(shot * linear + read)
    samples = (noisy.clip(-0.01, 1) * 16000 + 500).astype(np.uint16)
    rows = (pattern[:2], pattern[2:])
    return Mosaic(samples, rows, 500.0, 16500.0, exposure=Exposure(0.01, 3200.0, 4.0), noise=noise)


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_noise_of_a_raw_file_is_found(pattern: str) -> None:
    (found,) = find_problems(expose(2e-3, 1e-5, pattern=pattern))
    # sqrt(0.1 * 2e-3 + 1e-5) / 0.1 = 0.145
    assert found.problem == "noise in RAW files"
    assert re.fullmatch(
        r"a camera RAW file at ISO 3200 with noise of about 1[2-7]% of its dark tones", found.reason
    )


def test_noise_that_the_file_states_is_used() -> None:
    (found,) = find_problems(expose(1e-5, 1e-8, noise=NoiseLevel(4e-3, 0.0)))
    assert "noise of about 20% of its dark tones" in found.reason


def test_a_raw_file_of_low_sensitivity_has_no_noise_to_remove() -> None:
    assert "noise in RAW files" not in [one.problem for one in find_problems(expose(1e-5, 1e-8))]


def test_a_raw_file_stays_raw_only_if_its_result_is_one() -> None:
    advice = (Suggestion("noise in RAW files", "ISO 3200", "raw-denoise", ("dncnn-photo",)),)
    assert choose_sure(advice, writes_mosaics=True) == advice[0]
    developed = choose_sure(advice)
    assert developed is not None and developed.model == "dncnn-photo"
    assert choose_sure((replace(advice[0], others=()),)) is None
    of_developed = Suggestion("noise of a camera", "taken at ISO 3200", "dncnn-photo")
    assert choose_sure([of_developed, *advice], writes_mosaics=True) == advice[0]
    assert choose_sure([of_developed], writes_mosaics=True) is None


def photo(width: int = 451) -> np.ndarray:
    samples: np.ndarray = photographs.chelsea()[:, :width]
    return samples


def problems(path: Path) -> list[str]:
    return [one.problem for one in advise(path)]


def test_a_clean_photograph_is_only_small(tmp_path: Path) -> None:
    assert problems(save(tmp_path, photo())) == ["too small"]


@pytest.mark.parametrize("sigma_255", [8, 25, 50])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_white_noise_is_found(sigma_255: float, dtype: str) -> None:
    noisy = photo() / 255 + np.random.default_rng(0).normal(0, sigma_255 / 255, photo().shape)
    found = find_problems(Picture(np.clip(noisy, 0, 1).astype(np.float32)).as_depth(dtype))
    assert [one.problem for one in found] == ["noise", "too small"]
    assert f"about {sigma_255 if sigma_255 < 30 else 4}" in found[0].reason


def test_fine_noise_without_color_is_that_of_a_camera() -> None:
    noisy = photo() + np.random.default_rng(0).normal(0, 8, (*photo().shape[:2], 1))
    (first, _) = find_problems(Picture(np.clip(noisy, 0, 255).round().astype(np.uint8)))
    assert first.problem == "noise of a camera"


def test_a_high_iso_is_noise_of_a_camera(tmp_path: Path) -> None:
    for iso, expected in ((3200, ["noise of a camera", "too small"]), (200, ["too small"])):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x8827] = iso
        assert problems(save(tmp_path, photo(), ".jpg", quality=95, exif=exif)) == expected


@pytest.mark.parametrize(("quality", "expected"), [(20, ["JPEG blocks"]), (59, ["JPEG blocks"]), (90, [])])
def test_jpegs_of_low_quality_have_blocks(tmp_path: Path, quality: int, expected: list[str]) -> None:
    assert problems(save(tmp_path, photo(), ".jpg", quality=quality)) == [*expected, "too small"]


def test_blocks_are_found_in_other_formats_wherever_they_start(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "low.jpg", quality=15)
    cropped = np.asarray(Image.open(tmp_path / "low.jpg"))[3:, 5:]
    assert problems(save(tmp_path, cropped)) == ["JPEG blocks", "too small"]
    assert problems(save(tmp_path, cropped, ".jpg", quality=95)) == ["JPEG blocks", "too small"]


def test_soft_edges_are_found(tmp_path: Path) -> None:
    moved = np.mean([np.roll(photo(), step, axis=1) for step in range(9)], axis=0)[:, 9:]
    (first, *_) = advise(save(tmp_path, moved.round().astype(np.uint8)))
    assert (first.problem, first.model) == ("motion blur", "mimo-unet")


def test_soft_pictures_with_coarse_noise_are_those_of_a_camera(data: Path) -> None:
    """PolyU: the same scenes, noisy and as the mean of many photographs."""
    found = {
        kind: [advise(path)[0].problem for path in sorted((data / "denoising/PolyU").glob(f"*{kind}.JPG"))[:60:2]]
        for kind in ("real", "mean")
    }
    assert found["real"].count("motion blur") <= 3 < 9 <= found["real"].count("noise of a camera")
    assert found["mean"].count("noise of a camera") <= 1


def test_large_pictures_are_not_small(tmp_path: Path) -> None:
    assert problems(save(tmp_path, np.zeros((800, 800), np.uint8))) == []


@pytest.mark.parametrize(("ratio", "expected"), [(100, ["too dark"]), (1, ["too small"])])
def test_dark_mosaics_are_for_models_that_brighten(ratio: float, expected: list[str]) -> None:
    exposure = SyntheticRaw(noise=SensorNoise(Sensor(gain=1e-6, read=0.0)), exposure_ratio=ratio)
    picture = Picture(np.ascontiguousarray(photo(450)))
    found = find_problems(exposure.mosaic(picture.to_tensor(), torch.Generator().manual_seed(0)))
    assert [one.problem for one in found] == expected
    if ratio > 1:
        assert 50 < float(found[0].reason.split()[-4]) < 200


def test_models_to_try_enlarge_last() -> None:
    advice = (Suggestion("too small", "", "x2"), Suggestion("noise", "", "a", ("b",)), Suggestion("odd", "", None))
    assert list_models_to_try(advice) == ["a", "b", "x2"]
