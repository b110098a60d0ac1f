"""Chroma of half resolution, compared with libavif, which interpolates it."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from numpy.typing import NDArray

import format_matrix
from pellucid.pictures import chroma, images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.system import memory

AVIFENC = shutil.which("avifenc")
needs_avifenc = pytest.mark.skipif(AVIFENC is None, reason="avifenc is not installed")


def encode(path: Path, samples: Samples, *options: str) -> None:
    PIL.Image.fromarray(samples).save(path.with_suffix(".png"))
    command = [
        str(AVIFENC),
        "-s",
        "8",
        "--min",
        "5",
        "--max",
        "5",
        *options,
        str(path.with_suffix(".png")),
        str(path),
    ]
    subprocess.run(command, capture_output=True, check=True, timeout=60)


def difference(picture: Picture, expected: NDArray[np.float64]) -> tuple[float, float]:
    """(mean, share of samples that differ by more than two) in steps of the expected samples."""
    difference = np.abs(picture.samples - expected)
    return float(difference.mean()), float((difference > 2).mean())


@needs_avifenc
@pytest.mark.parametrize("subsampling", ["420", "422"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_avif_agrees_with_libavif(subsampling: str, matrix: int, tmp_path: Path) -> None:
    encode(tmp_path / "a.avif", format_matrix.photo()[:41, :57], "-y", subsampling, "--cicp", f"1/13/{matrix}")
    with PIL.Image.open(tmp_path / "a.avif") as file:
        mean, share = difference(images.read(tmp_path / "a.avif"), np.asarray(file.convert("RGB"), float))
    assert mean < 0.5 and share < 0.002  # repeated: 1 and 0.1


@needs_avifenc
@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_agrees_with_libavif(bits: int, tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    encode(tmp_path / "a.avif", format_matrix.photo(), "-y", "420", "-d", str(bits), "--cicp", "9/16/9")
    expected = imagecodecs.avif_decode((tmp_path / "a.avif").read_bytes()) / (2**bits - 1)
    found = images.read(tmp_path / "a.avif").samples / 65535
    assert np.abs(found - expected).mean() * (2**bits - 1) < 0.5


@needs_avifenc
@pytest.mark.parametrize("turn", [("--irot", "1"), ("--imir", "1"), ("--imir", "0")])
def test_a_turned_picture_agrees_with_libavif(turn: tuple[str, str], tmp_path: Path) -> None:
    """Of odd height, so that the first row has chroma of its own after turning."""
    height = 41 if turn[0] == "--irot" else 40
    encode(tmp_path / "a.avif", format_matrix.photo()[:height, :56], "-y", "420", *turn)
    with PIL.Image.open(tmp_path / "a.avif") as file:
        upright = PIL.ImageOps.exif_transpose(file).convert("RGB")
    mean, share = difference(images.read(tmp_path / "a.avif"), np.asarray(upright, float))
    assert mean < 0.5 and share < 0.002


@pytest.mark.parametrize("bits", [8, 10])
def test_heic_is_nearer_to_its_original(bits: int, tmp_path: Path) -> None:
    """No other decoder of HEIC is at hand, so a picture with smooth colors is compared with itself."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra formats")
    x, y = np.meshgrid(np.linspace(0, 25, 120), np.linspace(0, 20, 90))
    source = np.stack([128 + 90 * np.sin(x), 128 + 90 * np.sin(y + 1), 128 + 90 * np.cos(x - y)], axis=2)
    peak = 255 if bits == 8 else 65535
    samples = np.rint(source * (peak / 255)).astype(np.uint8 if bits == 8 else np.uint16)
    mode = "RGB" if bits == 8 else "RGB;16"
    file = pillow_heif.from_bytes(mode=mode, size=(120, 90), data=samples.tobytes())
    content = io.BytesIO()
    file.save(content, quality=98, chroma=420)
    (tmp_path / "a.heic").write_bytes(content.getvalue())
    repeated = np.asarray(pillow_heif.open_heif(content, convert_hdr_to_8bit=False)) * (255 / peak)
    found = images.read(tmp_path / "a.heic").samples * (255 / peak)
    assert np.abs(found - source).mean() < 0.6 * np.abs(repeated - source).mean()


@needs_avifenc
def test_full_resolution_stays_as_it_is(tmp_path: Path) -> None:
    """Enlarged drawings have equal colors in neighboring pixels, too."""
    doubled = format_matrix.photo()[:20, :30].repeat(2, axis=0).repeat(2, axis=1)
    encode(tmp_path / "a.avif", doubled, "--lossless")
    np.testing.assert_array_equal(images.read(tmp_path / "a.avif").samples, doubled)


def repeat(planes: NDArray[np.float64], height: int, width: int) -> Samples:
    """RGB with chroma from a gray ramp that is a function of the pixel."""
    blocks = planes.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    luma = np.add.outer(np.arange(height), np.arange(width))[..., None] / 2 + 60
    red, green, blue = 0.299, 0.587, 0.114
    u, v = blocks[..., :1], blocks[..., 1:]
    colors = np.concatenate([luma + v, luma - u * (blue / green) - v * (red / green), luma + u], axis=2)
    return np.rint(colors).astype(np.uint8)


def test_large_pictures_are_completed_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.random.default_rng(0).uniform(-30, 30, (20, 26, 2))
    whole, strips = repeat(planes, 39, 51), repeat(planes, 39, 51)
    before = whole.copy()
    assert chroma.interpolate_chroma(whole, 8, (2, 2), 6)
    monkeypatch.setattr(memory, "STRIP_BYTES", 1000)
    assert chroma.interpolate_chroma(strips, 8, (2, 2), 6)
    np.testing.assert_array_equal(strips, whole)
    assert np.abs(whole.astype(int) - before).max() > 5


def test_a_sample_is_weighted_by_its_distance() -> None:
    """In the middle of its four pixels: 9/16, 3/16, 3/16 and 1/16 of the nearest ones, as in the JPEG standard."""
    planes = np.zeros((3, 3, 2))
    planes[1, 1, 1] = 32
    samples = repeat(planes, 6, 6)
    assert chroma.interpolate_chroma(samples, 8, (2, 2), 6)
    red = samples[..., 0] - np.add.outer(np.arange(6), np.arange(6)) / 2 - 60
    weights = np.array([0, 0.25, 0.75, 0.75, 0.25, 0])
    assert np.abs(red - 32 * np.outer(weights, weights)).max() <= 1


def test_interpolated_chroma_stays_as_it_is() -> None:
    planes = np.random.default_rng(0).uniform(-30, 30, (20, 26, 2))
    samples = repeat(planes, 40, 52)
    assert chroma.interpolate_chroma(samples, 8, (2, 2), 6)
    before = samples.copy()
    assert not chroma.interpolate_chroma(samples, 8, (2, 2), 6)
    np.testing.assert_array_equal(samples, before)
