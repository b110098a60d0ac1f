"""DNG files, checked by other readers: LibRaw and tifffile."""

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import rawpy
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from pellucid.errors import OutputError
from pellucid.pictures.camera import dng
from pellucid.pictures.camera.packing import BAYER, XTRANS
from pellucid.pictures.picture import Exposure, Mosaic, Picture

EXIF_TAGS = {
    Base.DateTimeOriginal: "2018:06:21 23:45:01",
    Base.FocalLength: IFDRational(35, 1),
    Base.LensModel: "Planar 35mm",
}


def roll(pattern: tuple[str, ...], down: int, right: int) -> tuple[str, ...]:
    rows = pattern[down:] + pattern[:down]
    return tuple(row[right:] + row[:right] for row in rows)


def camera() -> dict[str, Any]:
    exif = PIL.Image.Exif()
    exif[Base.Make], exif[Base.Model], exif[IFD.Exif] = "ACME", "Dark 1", EXIF_TAGS
    return {"exif-data": exif.tobytes()}


def mosaic(**changes: Any) -> Mosaic:
    samples = np.random.default_rng(0).integers(0, 16384, (23, 26)).astype(np.uint16)
    known: dict[str, Any] = {
        "samples": samples,
        "pattern": ("GR", "BG"),
        "black_level": ((512.0, 513.0), (514.0, 515.0)),
        "white_level": 16383,
        "white_balance": (2.0, 1.0, 1.5),
        "exposure": Exposure(1 / 30, 3200, 2.8),
        "orientation": 6,
        "metadata": camera(),
    }
    return Mosaic(**{**known, **changes})


def read_by_libraw(content: bytes) -> rawpy.RawPy:
    raw = rawpy.RawPy()
    raw.open_buffer(io.BytesIO(content))
    raw.unpack()
    return raw


@st.composite
def mosaics(draw: st.DrawFn) -> Mosaic:
    pattern = draw(st.sampled_from([BAYER, XTRANS]))
    period = len(pattern)
    phases = st.integers(0, period - 1)
    levels = st.integers(0, 4000)
    site_levels = st.tuples(*[st.tuples(*[levels] * 2)] * 2)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    gains = st.floats(0.2, 10)  # LibRaw ignores ratios of red and blue from 100 on
    return Mosaic(
        rng.integers(0, 65536, (draw(st.integers(22, 60)), draw(st.integers(22, 60))), np.uint16),
        roll(pattern, draw(phases), draw(phases)),
        draw(levels if period == 6 else site_levels),
        draw(st.integers(4001, 65535)),
        white_balance=draw(st.none() | st.tuples(gains, st.just(1.0), gains)),
        exposure=Exposure(
            draw(st.none() | st.floats(1e-5, 1e4)),
            draw(st.none() | st.integers(1, 65534)),
            draw(st.none() | st.floats(0.5, 100)),
        ),
        orientation=draw(st.integers(1, 8)),
    )


@given(mosaics())
def test_libraw_reads_what_was_written(given_mosaic: Mosaic) -> None:
    with read_by_libraw(dng.encode(given_mosaic)) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, given_mosaic.samples)
        names = raw.color_desc.decode()
        period = given_mosaic.period
        for row in range(period):
            for col in range(period):
                color = raw.raw_color(row, col)
                assert names[color] == given_mosaic.pattern[row][col]
                assert raw.black_level_per_channel[color] == given_mosaic.site_black_levels[row, col]
        assert raw.white_level == given_mosaic.white_level
        if given_mosaic.white_balance is None:
            assert raw.camera_whitebalance == [0, 1, 0, 0]
        else:
            assert raw.camera_whitebalance[:3] == pytest.approx(given_mosaic.white_balance, rel=1e-5)
        exposure = given_mosaic.exposure
        assert raw.other.shutter_speed == pytest.approx(exposure.time_s or 0, rel=1e-5)
        assert raw.other.iso_speed == (exposure.iso or 0)
        assert raw.other.aperture == pytest.approx(exposure.f_number or 0, rel=1e-5)
        # LibRaw's numbering, from its manual: 3 rotates by 180 degrees, 5 by 90 to the left, 6 by 90 to the right.
        flips = {1: 0, 3: 3, 8: 5, 6: 6}
        if given_mosaic.orientation in flips:
            assert raw.sizes.flip == flips[given_mosaic.orientation]


def test_tifffile_reads_the_tags_of_the_standard(tmp_path: Path) -> None:
    given_mosaic = mosaic()
    dng.write(given_mosaic, tmp_path / "a.dng")
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        page = file.pages.first
        tags = {tag.name: tag.value for tag in page.tags}
        np.testing.assert_array_equal(page.asarray(), given_mosaic.samples)
    assert tags["PhotometricInterpretation"] == tifffile.PHOTOMETRIC.CFA
    assert tags["Compression"] == tifffile.COMPRESSION.NONE
    assert (tags["ImageWidth"], tags["ImageLength"], tags["BitsPerSample"]) == (26, 23, 16)
    assert (tags["Make"], tags["Model"], tags["UniqueCameraModel"]) == ("ACME", "Dark 1", "ACME Dark 1")
    assert bytes(tags["DNGVersion"]) == b"\1\4\0\0"
    assert tags["CFARepeatPatternDim"] == (2, 2)
    assert bytes(tags["CFAPattern"]) == bytes([1, 0, 2, 1])  # 0 red, 1 green, 2 blue
    assert bytes(tags["CFAPlaneColor"]) == bytes([0, 1, 2])
    assert tags["BlackLevelRepeatDim"] == (2, 2)
    assert np.divide(tags["BlackLevel"][::2], tags["BlackLevel"][1::2]).tolist() == [512, 513, 514, 515]
    assert tags["WhiteLevel"] == 16383
    neutral = np.divide(tags["AsShotNeutral"][::2], tags["AsShotNeutral"][1::2])
    assert neutral.tolist() == pytest.approx([1 / 2, 1, 1 / 1.5])
    assert tags["Orientation"] == 6
    assert tags["ExifTag"] == {
        "ExposureTime": (1, 30),
        "FNumber": (14, 5),
        "ISOSpeedRatings": 3200,
        "DateTimeOriginal": "2018:06:21 23:45:01",
        "FocalLength": (35, 1),
        "LensModel": "Planar 35mm",
    }


def test_the_white_balance_makes_a_gray_card_gray() -> None:
    # A gray card without white balance: more green than red and blue.
    light = {"R": 6000 / 2.0, "G": 6000.0, "B": 6000 / 1.5}
    colors = np.array([["R", "G"], ["G", "B"]])
    samples = np.tile(np.vectorize(light.get)(colors), (20, 20)).astype(np.uint16) + 512
    given_mosaic = mosaic(samples=samples, pattern=BAYER, black_level=512, orientation=1)
    with read_by_libraw(dng.encode(given_mosaic)) as raw:
        card = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(1, 1))
    # 6000 of 16383 - 512; LibRaw's matrices keep gray to a thousandth.
    np.testing.assert_allclose(card / 65535, 6000 / 15871, rtol=2e-3)


def test_a_linear_picture_keeps_its_samples(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (31, 25, 3)).astype(np.uint16)
    exif = PIL.Image.Exif()
    exif[IFD.Exif] = {Base.ExposureTime: IFDRational(1, 8)}
    dng.write_linear(Picture(samples, metadata={"exif-data": exif.tobytes()}), tmp_path / "a.dng")
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        assert raw.raw_type is rawpy.RawType.Stack
        np.testing.assert_array_equal(raw.raw_image_visible[..., :3], samples)
        assert raw.white_level == 65535
        assert raw.other.shutter_speed == 0.125
        linear = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(1, 1))
    # The matrix of the standard and that of LibRaw agree to 4 digits.
    np.testing.assert_allclose(linear, samples, rtol=1e-3, atol=20)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"samples": np.ones((24, 24), np.float32)}, "float32.*uint16 is needed"),
        ({"pattern": ("RR", "GB")}, "RR/GB.*Bayer or X-Trans"),
        ({"pattern": ("R",), "black_level": 0}, "filters R cannot"),
        ({"black_level": -3}, "levels from -3 to 16383 cannot"),
        ({"white_level": 65536}, "to 65536 cannot"),
        ({"pattern": XTRANS, "black_level": (*[(0,) * 6] * 5, (0, 0, 0, 0, 0, 9))}, "from 0 to 9"),
    ],
)
def test_mosaics_that_dng_cannot_store_are_refused(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(OutputError, match=fault):
        dng.write(mosaic(**changes), tmp_path / "a.dng")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "picture",
    [
        Picture(np.zeros((24, 24, 3), np.uint8)),
        Picture(np.zeros((24, 24, 3), np.float32)),
        Picture(np.zeros((24, 24, 1), np.uint16)),
        Picture(np.zeros((24, 24, 3), np.uint16), np.zeros((24, 24, 1), np.uint16)),
    ],
    ids=repr,
)
def test_only_16_bit_rgb_is_written_as_linear_dng(tmp_path: Path, picture: Picture) -> None:
    with pytest.raises(OutputError, match="16-bit RGB without alpha"):
        dng.write_linear(picture, tmp_path / "a.dng")
    assert list(tmp_path.iterdir()) == []


def test_existing_files_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    picture = Picture(np.zeros((24, 24, 3), np.uint16))
    (tmp_path / "a.dng").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        dng.write(mosaic(), tmp_path / "a.dng")
    with pytest.raises(OutputError, match="exists"):
        dng.write_linear(picture, tmp_path / "a.dng")
    assert (tmp_path / "a.dng").read_bytes() == b"mine"
    for name in ("a.tif", "a", "dng"):
        with pytest.raises(OutputError, match="does not end in .dng"):
            dng.write(mosaic(), tmp_path / name)
    dng.write(mosaic(), tmp_path / "a.dng", overwrite=True)
    assert (tmp_path / "a.dng").read_bytes() == dng.encode(mosaic())


def test_unknown_values_are_not_written() -> None:
    bare = replace(mosaic(), white_balance=None, exposure=Exposure(), metadata={})
    with tifffile.TiffFile(io.BytesIO(dng.encode(bare))) as file:
        tags = file.pages.first.tags
        assert not {"Make", "Model", "AsShotNeutral"} & {tag.name for tag in tags}
        assert tags["ExifTag"].value == {}
        assert tags["UniqueCameraModel"].value == "pellucid"


def test_damaged_exif_is_ignored() -> None:
    whole, refused = camera()["exif-data"], 0
    for seed in range(300):
        draw = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            damaged[draw.randrange(len(damaged))] = draw.choice((0, 1, 2, 5, 7, 255, draw.randrange(256)))
        content = dng.encode(mosaic(metadata={"exif-data": bytes(damaged)}))
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            tags = file.pages.first.tags
            refused += "Make" not in tags
            assert tags["ExifTag"].value["ISOSpeedRatings"] == 3200, seed
    assert refused > 50


@pytest.mark.parametrize(
    ("iso", "expected"),
    [
        (65534, {"ISOSpeedRatings": 65534}),
        (102400, {"ISOSpeedRatings": 65535, "SensitivityType": 2, "RecommendedExposureIndex": 102400}),
        (1e30, {"ISOSpeedRatings": 65535, "SensitivityType": 2, "RecommendedExposureIndex": 2**32 - 1}),
    ],
)
def test_an_iso_beyond_16_bit_is_in_another_tag(iso: float, expected: dict[str, int]) -> None:
    content = dng.encode(replace(mosaic(), exposure=Exposure(iso=iso), metadata={}))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert file.pages.first.tags["ExifTag"].value == expected


@given(st.floats(1e-9, 2**31))
def test_ratios_are_close_and_fit_32_bit(value: float) -> None:
    numerator, denominator = dng.as_ratio(value)
    assert 0 < denominator < 2**32
    assert 0 <= numerator < 2**32
    assert numerator / denominator == pytest.approx(value, rel=1e-6)
