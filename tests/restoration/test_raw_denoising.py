"""Mosaics that stay mosaics: from a RAW file to a DNG that RAW programs develop in the same way."""

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawpy
import tifffile
import torch

import exiftool
from pellucid.errors import DataError, PictureError, WeightsError
from pellucid.evaluation.evaluate import evaluate
from pellucid.pictures import images
from pellucid.pictures.camera import dng, raw
from pellucid.pictures.picture import Mosaic, NoiseLevel, Picture
from pellucid.restoration.reading import read_degraded
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings
from small_models import build_restorer, save_weights
from test_cli import Terminal

RAW = {"depth": 3, "width": 8}
NOISE = NoiseLevel(1e-3, 1e-5)


def build_denoiser(*, trained: bool = True) -> Restorer:
    """Of random weights; before training, its output is its input."""
    restorer = build_restorer("dncnn.raw", **RAW)
    layers: Any = restorer.network.layers
    if trained:
        torch.nn.init.normal_(layers[-1].conv.weight, std=0.05)
    else:
        torch.nn.init.zeros_(layers[-1].conv.weight)
        torch.nn.init.zeros_(layers[-1].conv.bias)
    return restorer


def mosaic(height: int = 41, width: int = 38, pattern: tuple[str, ...] = ("RG", "GB")) -> Mosaic:
    """Samples from below black to above white."""
    samples = np.random.default_rng(0).integers(400, 16383, (height, width)).astype(np.uint16)
    black = ((512.0, 560.0), (610.0, 660.0))
    return Mosaic(samples, pattern, black, 15000.0, noise=NOISE, orientation=6)


def flat(printed: str) -> str:
    return " ".join(printed.split())


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_untrained_network_returns_every_sample() -> None:
    """Below black, saturated, at odd edges and in each phase."""
    restorer = build_denoiser(trained=False)
    for pattern in (("RG", "GB"), ("GR", "BG"), ("GB", "RG"), ("BG", "GR")):
        given = mosaic(pattern=pattern)
        restored = restorer.restore(given)
        np.testing.assert_array_equal(restored.samples, given.samples)
        assert (restored.pattern, restored.black_level) == (pattern, given.black_level)
        assert restored.samples.dtype == np.uint16 and restored.orientation == 6 and restored.noise is None


def test_the_phase_of_the_filters_makes_no_difference() -> None:
    """A mosaic without its first column or row has the same results, further inside than the network sees."""
    restorer = build_denoiser()
    whole = restorer.restore(replace(mosaic(), black_level=512.0)).samples
    for down, right, pattern in ((0, 1, ("GR", "BG")), (1, 0, ("GB", "RG")), (1, 1, ("BG", "GR"))):
        given = replace(mosaic(), black_level=512.0, pattern=pattern, samples=mosaic().samples[down:, right:])
        part = restorer.restore(given).samples
        assert part.shape == given.samples.shape
        np.testing.assert_array_equal(part[10:-10, 10:-10], whole[down:, right:][10:-10, 10:-10])


def test_tiles_equal_the_whole() -> None:
    restorer = build_denoiser()
    for pattern in (("RG", "GB"), ("BG", "GR")):
        whole = restorer.restore(mosaic(pattern=pattern), tile_px=1000).samples
        for tile_px in (7, 16):
            tiled = restorer.restore(mosaic(pattern=pattern), tile_px=tile_px).samples.astype(int)
            assert abs(tiled - whole).max() <= 1  # rounding


def test_saturated_samples_stay_and_others_do_not_exceed_white() -> None:
    given = mosaic()
    restored = build_denoiser().restore(given)
    is_white = given.samples >= 15000
    np.testing.assert_array_equal(restored.samples[is_white], given.samples[is_white])
    assert restored.samples[~is_white].max() <= 15000
    assert (restored.samples[~is_white] != given.samples[~is_white]).mean() > 0.9


def test_the_pedestal_below_black_is_kept() -> None:
    dark = np.random.default_rng(0).normal(512, 30, (60, 60)).round().astype(np.uint16)
    given = Mosaic(dark, ("RG", "GB"), 512.0, 16383.0, noise=NoiseLevel(1e-4, (30 / 15871) ** 2))
    restored = build_denoiser().restore(given).samples
    assert (restored < 512).mean() > 0.3


def test_the_stated_noise_is_used_for_all_mosaics() -> None:
    domain = build_restorer("dncnn.raw", **RAW, noise=(2e-3, 1e-6)).recipe.domain
    accepted = domain.accept(mosaic())
    assert isinstance(accepted, Mosaic) and accepted.noise == NoiseLevel(2e-3, 1e-6)


def test_the_strength_blends_the_mosaic_with_the_result() -> None:
    restorer, given = build_denoiser(), mosaic()
    none, half, full = (restorer.restore(given, strength=part).samples.astype(int) for part in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(none, given.samples)
    is_changed = abs(full - none) > 20
    share = ((half - none) / np.where(is_changed, full - none, 1))[is_changed]
    assert is_changed.mean() > 0.5
    assert np.quantile(share, (0.05, 0.5, 0.95)) == pytest.approx([0.5] * 3, abs=0.12)  # others are at white


def test_what_a_mosaic_does_not_allow_is_one_line() -> None:
    restorer = build_denoiser()
    with pytest.raises(PictureError) as error:
        restorer.restore(mosaic(), ensemble=True)
    assert "ensemble" in one_line(error)
    with pytest.raises(PictureError) as error:
        restorer.restore(mosaic(40, 40), mask=np.zeros((40, 40), np.uint8))
    assert "without a mask" in one_line(error)
    with pytest.raises(PictureError) as error:
        restorer.restore(Picture(np.zeros((9, 9, 3), np.uint8)))
    assert "developed picture" in one_line(error)
    with pytest.raises(WeightsError) as chain_error:
        Restorer.chain([restorer, build_restorer("dncnn.gaussian", depth=3, width=4)])
    assert "cannot be part of a chain" in one_line(chain_error)


def write_camera_dng(path: Path, *, noise_profile: bool = True) -> Mosaic:
    """A DNG as of a camera: masked borders, two matrices, a default crop, corrections, EXIF, GPS and XMP."""
    samples = np.random.default_rng(0).integers(400, 15000, (64, 82)).astype(np.uint16)
    matrix = [part for value in (9, -3, -1, -5, 13, 1, -1, 2, 6) for part in (value, 10)]
    other = [part for value in (8, -2, -1, -4, 12, 1, -1, 3, 7) for part in (value, 10)]
    types = tifffile.DATATYPE
    tags: list[tuple[str | int, Any, int, Any]] = [
        ("DNGVersion", types.BYTE, 4, (1, 4, 0, 0)),
        ("Make", types.ASCII, 0, "ACME"),
        ("Model", types.ASCII, 0, "Night 1"),
        ("Orientation", types.SHORT, 1, 8),
        ("UniqueCameraModel", types.ASCII, 0, "ACME Night 1 (EU)"),
        ("ColorMatrix1", types.SRATIONAL, 9, matrix),
        ("ColorMatrix2", types.SRATIONAL, 9, other),
        ("CalibrationIlluminant1", types.SHORT, 1, 17),
        ("CalibrationIlluminant2", types.SHORT, 1, 21),
        ("AsShotNeutral", types.RATIONAL, 3, (1, 2, 1, 1, 2, 3)),
        ("BaselineExposure", types.SRATIONAL, 1, (1, 4)),
        ("CFARepeatPatternDim", types.SHORT, 2, (2, 2)),
        ("CFAPattern", types.BYTE, 4, bytes((1, 0, 2, 1))),
        ("ActiveArea", types.LONG, 4, (2, 4, 62, 80)),
        ("BlackLevelRepeatDim", types.SHORT, 2, (2, 2)),
        ("BlackLevel", types.RATIONAL, 4, (500, 1, 502, 1, 503, 1, 501, 1)),
        ("WhiteLevel", types.LONG, 1, 15300),
        ("DefaultCropOrigin", types.LONG, 2, (6, 4)),
        ("DefaultCropSize", types.LONG, 2, (60, 50)),
        ("OpcodeList3", types.UNDEFINED, 8, struct.pack(">II", 0, 0)),
    ]
    if noise_profile:
        tags.append((0xC761, types.DOUBLE, 6, (1e-3, 1e-5, 2e-3, 2e-5, 3e-3, 3e-5)))
    content = io.BytesIO()
    extra = [(*tag, True) for tag in tags]
    tifffile.imwrite(content, samples, photometric=32803, metadata=None, extratags=extra)
    path.write_bytes(content.getvalue())
    exiftool.write_tags(
        path,
        *("-ExposureTime=1/50", "-FNumber=2.8", "-ISO=3200", "-Artist=Zoe", "-LensModel=Planar"),
        *("-GPSLatitude=47.5", "-GPSLatitudeRef=N", "-XMP-dc:Title=Night", "-XMP-crs:Exposure2012=+0.50"),
    )
    return raw.read(path)


OF_FILE = {"IFD0:StripOffsets", "IFD0:StripByteCounts", "IFD0:ImageWidth", "IFD0:ImageHeight", "IFD0:RowsPerStrip"}
OF_FILE |= {"IFD0:Software", "IFD0:ActiveArea", "IFD0:DNGBackwardVersion", "IFD0:CFAPlaneColor", "IFD0:CFALayout"}
OF_FILE |= {"IFD0:XResolution", "IFD0:YResolution", "IFD0:ResolutionUnit", "IFD0:NoiseProfile"}  # 1 without a unit
OF_FILE |= {"IFD0:CFAPattern", "IFD0:BlackLevel", "IFD0:SubfileType"}
"""Tags that differ because the borders are gone and the pattern starts elsewhere; LibRaw compares them below."""


@exiftool.needed
def test_a_camera_dng_keeps_all_that_describes_it(tmp_path: Path) -> None:
    given = write_camera_dng(tmp_path / "night.dng")
    assert given.noise == NoiseLevel(2e-3, 2e-5) and (given.width, given.height) == (76, 60)
    (outcome,) = restore(tmp_path / "night.dng", build_denoiser())
    outcome.raise_error()
    result = tmp_path / "night-restored.dng"
    before, after = exiftool.read_tags(tmp_path / "night.dng", result)
    for tags in (before, after):
        for name in OF_FILE & tags.keys():
            del tags[name]
    assert after == before
    assert after["IFD0:DefaultCropSize"] == "60 50" and after["IFD0:UniqueCameraModel"] == "ACME Night 1 (EU)"
    assert after["XMP-crs:Exposure2012"] == "+0.50" and after["IFD0:Orientation"] == "Rotate 270 CW"
    with rawpy.imread(str(tmp_path / "night.dng")) as old, rawpy.imread(str(result)) as new:
        area = slice(2, 62), slice(4, 80)
        assert new.raw_image_visible.shape == old.raw_image_visible.shape == (60, 76)
        np.testing.assert_array_equal(new.raw_pattern, old.raw_pattern)
        assert new.black_level_per_channel == old.black_level_per_channel
        assert new.white_level == old.white_level == 15300
        assert new.camera_whitebalance == pytest.approx(old.camera_whitebalance)
        assert new.sizes.flip == old.sizes.flip
        assert (new.raw_colors_visible == old.raw_colors_visible).all()
        assert (new.raw_image_visible != old.raw_image[area]).mean() > 0.9


@exiftool.needed
def test_an_untrained_network_copies_the_samples_of_a_file(tmp_path: Path) -> None:
    given = write_camera_dng(tmp_path / "night.dng")
    restore(tmp_path / "night.dng", build_denoiser(trained=False))[0].raise_error()
    copy = tmp_path / "night-restored.dng"
    np.testing.assert_array_equal(raw.read(copy).samples, given.samples)
    # LibRaw develops it with the same matrix, white balance, levels and orientation.
    np.testing.assert_array_equal(raw.develop(copy).samples, raw.develop(tmp_path / "night.dng").samples)


@exiftool.needed
def test_the_noise_and_its_origin_are_reported(tmp_path: Path) -> None:
    domain = build_denoiser().recipe.domain
    write_camera_dng(tmp_path / "a.dng")
    assert (
        "ISO 3200, noise of 0.002 (shot) and 2e-05 (read), from the file"
        in read_degraded(tmp_path / "a.dng", domain)[1]
    )
    write_camera_dng(tmp_path / "b.dng", noise_profile=False)
    assert "estimated from the samples" in read_degraded(tmp_path / "b.dng", domain)[1][-1]
    exiftool.write_tags(tmp_path / "b.dng", "-Model=Canon EOS 70D")
    assert "measured for Canon EOS 70D" in read_degraded(tmp_path / "b.dng", domain)[1][-1]


def test_the_matrix_of_a_camera_without_dng_tags_is_written(tmp_path: Path) -> None:
    matrix = (0.7, -0.2, -0.1, -0.4, 1.2, 0.2, -0.1, 0.2, 0.6)
    plain = raw.read(_written(mosaic(), tmp_path / "a.dng"))
    assert plain.camera is not None
    known = replace(plain, camera=replace(plain.camera, color_matrix=matrix, tags={}))
    with tifffile.TiffFile(_written(known, tmp_path / "b.dng")) as file:
        tags = file.pages.first.tags
        found = np.array(tags["ColorMatrix1"].value).reshape(9, 2)
        np.testing.assert_allclose(found[:, 0] / found[:, 1], matrix, atol=1e-4)
        assert tags["CalibrationIlluminant1"].value == 21  # D65


def _written(given: Mosaic, path: Path) -> Path:
    dng.write(given, path)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """In a folder with night.dng and a model `rd`."""
    dng.write(mosaic(), tmp_path / "night.dng")
    (tmp_path / "models").mkdir()
    save_weights(tmp_path / "models", "dncnn.raw", **RAW).rename(tmp_path / "models" / "rd.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal(monkeypatch, capsys)


def test_the_command_writes_a_dng_next_to_the_file(run: Terminal) -> None:
    result = run("restore night.dng --model rd --set noise=1e-3,1e-5")
    assert result.code == 0 and "noise of 0.001 (shot) and 1e-05 (read), as stated" in flat(result.err)
    assert raw.read(Path("night-restored.dng")).white_level == 15000
    assert run("restore night.dng --model rd --compare --out folder/").code == 0
    assert Path("folder/night-compare.png").exists() and Path("folder/night.dng").exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("--format tiff", "returns mosaics, and TIFF cannot store them"),
        ("--crop 0,0,8,8", "neither cropped nor resized"),
        ("--scale 2", "neither cropped nor resized"),
        ("--preview", "of which no parts are drawn"),
        ("--ensemble", "cannot be rotated"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(run: Terminal, arguments: str, fault: str) -> None:
    result = run(f"restore night.dng --model rd {arguments}")
    assert result.code == 1 and fault in flat(result.err) and "Traceback" not in result.err
    assert not list(Path().glob("night-*"))


def test_a_mosaic_needs_the_suffix_of_a_mosaic(run: Terminal) -> None:
    result = run("restore night.dng --model rd --out a.tif")
    assert result.code == 2 and "the format is dng; name it a.dng" in flat(result.err)


def test_other_filters_are_refused(run: Terminal) -> None:
    pattern = ("RBGBRG", "GGRGGB", "GGBGGR", "BRGRBG", "GGBGGR", "GGRGGB")
    samples = np.random.default_rng(0).integers(600, 9000, (60, 60)).astype(np.uint16)
    dng.write(Mosaic(samples, pattern, 512.0, 16383.0), "fuji.dng")
    result = run("restore fuji.dng --model rd")
    assert result.code == 1 and "this recipe needs RG/GB" in flat(result.err)
    assert not Path("fuji-restored.dng").exists()


def test_scores_are_those_of_developed_mosaics(tmp_path: Path) -> None:
    """An untrained network scores like its input, which has the noise of the protocol; other data are refused."""
    rng = np.random.default_rng(0)
    flat = np.repeat(np.repeat(rng.integers(60, 200, (5, 6, 3)), 9, 0), 9, 1).astype(np.uint8)
    images.write(Picture(flat), tmp_path / "clean" / "a.png")
    report = evaluate(build_denoiser(trained=False), tmp_path / "clean")
    (found,) = report.scores
    assert found.degraded_psnr_db == pytest.approx(found.psnr_db, abs=0.01) and 25 < found.psnr_db < 45
    with pytest.raises(DataError) as error:
        evaluate(build_denoiser(), tmp_path / "clean", target=tmp_path / "clean")
    assert "is scored on clean pictures" in one_line(error)


def test_only_mosaics_are_written_as_dng(tmp_path: Path) -> None:
    assert images.write(mosaic(), tmp_path / "a.dng") == ()
    for picture, name in ((Picture(np.zeros((9, 9, 3), np.uint16)), "b.dng"), (mosaic(), "b.png")):
        with pytest.raises(Exception, match=r"DNG stores mosaics|PNG cannot store a mosaic"):
            images.write(picture, tmp_path / name)
    (outcome,) = restore(mosaic(), build_denoiser(), settings=Settings())
    assert isinstance(outcome.restored, Mosaic)
