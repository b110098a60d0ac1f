"""Camera RAW files: synthetic ones built by tifffile, and one real frame."""

import io
import os
import random
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import rawpy
import tifffile
from hypothesis import given
from numpy.typing import NDArray
from PIL.ExifTags import IFD, Base
from test_dng import mosaic, mosaics

from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.camera import dng, raw
from pellucid.pictures.camera.packing import BAYER, XTRANS, align, pack_bayer
from pellucid.pictures.picture import Exposure, Mosaic, Picture

Samples = NDArray[np.uint16]
CFA = 32803
LINEAR_RAW = 34892


def noise(*shape: int) -> Samples:
    return np.random.default_rng(0).integers(0, 16384, shape).astype(np.uint16)


def dng_file(samples: Samples, photometric: int = CFA, **tags: tuple[str, Any]) -> bytes:
    """A DNG file built by tifffile. tags: (type, values) by name."""
    known: dict[str, tuple[str, Any]] = {
        "DNGVersion": ("1B", (1, 4, 0, 0)),
        "UniqueCameraModel": ("1s", "Builder"),
        "ColorMatrix1": ("2i", (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)),
        "WhiteLevel": ("1I", (16383,)),
        "CFARepeatPatternDim": ("1H", (2, 2)),
        "CFAPattern": ("1B", (0, 1, 1, 2)),
        **tags,
    }
    types = {
        "1B": tifffile.DATATYPE.BYTE,
        "1s": tifffile.DATATYPE.ASCII,
        "1H": tifffile.DATATYPE.SHORT,
        "1I": tifffile.DATATYPE.LONG,
        "2i": tifffile.DATATYPE.SRATIONAL,
        "2I": tifffile.DATATYPE.RATIONAL,
    }
    content = io.BytesIO()
    tifffile.imwrite(
        content,
        samples,
        photometric=photometric,
        metadata=None,
        rowsperstrip=len(samples),
        extratags=[
            (name, types[kind], len(values) // int(kind[0]), values, True)
            for name, (kind, values) in known.items()
        ],
    )
    return content.getvalue()


def replace_short(content: bytes, tag: int, value: int) -> bytes:
    """The same file with another number in a 16-bit or 32-bit tag."""
    for kind in (3, 4):
        place = content.find(struct.pack("<HHI", tag, kind, 1))
        if place >= 0:
            return content[: place + 8] + struct.pack("<I", value) + content[place + 12 :]
    raise AssertionError(f"no tag {tag}")


def written(folder: Path, content: bytes, name: str = "a.dng") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@given(given_mosaic=mosaics())
def test_a_written_dng_is_read(tmp_path_factory: pytest.TempPathFactory, given_mosaic: Mosaic) -> None:
    path = tmp_path_factory.mktemp("dng") / "a.dng"
    dng.write(given_mosaic, path)
    found = raw.read(path)
    np.testing.assert_array_equal(found.samples, given_mosaic.samples)
    assert found.samples.dtype == np.uint16
    assert found.pattern == given_mosaic.pattern
    np.testing.assert_array_equal(found.site_black_levels, given_mosaic.site_black_levels)
    assert found.white_level == given_mosaic.white_level
    assert found.orientation == given_mosaic.orientation
    assert (found.white_balance is None) == (given_mosaic.white_balance is None)
    if found.white_balance is not None:
        assert found.white_balance == pytest.approx(given_mosaic.white_balance, rel=1e-5)
    for name, value in vars(given_mosaic.exposure).items():
        expected = None if value is None else pytest.approx(value, rel=1e-5)
        assert getattr(found.exposure, name) == expected


def test_the_metadata_is_exif_without_orientation(tmp_path: Path) -> None:
    dng.write(mosaic(orientation=8), tmp_path / "a.dng")
    for metadata in (raw.read(tmp_path / "a.dng").metadata, raw.develop(tmp_path / "a.dng").metadata):
        # Through a PNG file and Pillow, like a viewer.
        images.write(
            Picture(np.zeros((2, 2, 3), np.uint16), metadata=metadata), tmp_path / "a.png", overwrite=True
        )
        with PIL.Image.open(tmp_path / "a.png") as file:
            exif = file.getexif()
        assert (exif[Base.Make], exif[Base.Model]) == ("ACME", "Dark 1")
        assert exif.get(Base.Orientation, 1) == 1  # written by libvips
        taken = exif.get_ifd(IFD.Exif)
        assert taken[Base.DateTimeOriginal] == "2018:06:21 23:45:01"
        assert taken[Base.ExposureTime] == pytest.approx(1 / 30)
        assert taken[Base.FNumber] == pytest.approx(2.8)
        assert taken[Base.ISOSpeedRatings] == 3200
        assert taken[Base.FocalLength] == 35
        assert taken[Base.LensModel] == "Planar 35mm"
        assert taken[Base.ColorSpace] == 1  # sRGB


def test_missing_metadata_stays_missing(tmp_path: Path) -> None:
    found = raw.read(written(tmp_path, dng_file(noise(24, 24))))
    assert (found.white_balance, found.exposure, found.orientation) == (None, Exposure(), 1)
    exif = PIL.Image.Exif()
    exif.load(found.metadata["exif-data"])
    assert exif.get_ifd(IFD.Exif) == {Base.ColorSpace: 1}
    assert not {Base.Make, Base.Model, Base.DateTime} & exif.keys()


@pytest.mark.parametrize("top", [0, 3, 4, 13])
@pytest.mark.parametrize("left", [0, 5, 8])
@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_only_the_active_area_is_read_with_its_phase(
    tmp_path: Path, top: int, left: int, pattern: tuple[str, ...]
) -> None:
    """DNG 1.4: the pattern starts at the ActiveArea. Here, every sample is the number of its color."""
    height, width, period = 60, 70, len(pattern)
    rows, cols = np.mgrid[-top : height - top, -left : width - left] % period
    codes = np.array([["RGB".index(color) for color in row] for row in pattern])
    samples = (1000 * codes[rows, cols] + np.arange(height * width).reshape(height, width) % 997).astype(np.uint16)
    content = dng_file(
        samples,
        CFARepeatPatternDim=("1H", (period, period)),
        CFAPattern=("1B", tuple(codes.ravel().tolist())),
        ActiveArea=("1I", (top, left, height - 2, width - 3)),
    )
    found = raw.read(written(tmp_path, content))
    # LibRaw skips another row or column of a Bayer sensor if the area starts at an odd one.
    assert height - top - 4 < found.height <= height - top - 2
    assert width - left - 5 < found.width <= width - left - 3
    colors = np.array([["RGB".index(color) for color in row] for row in found.pattern])
    repeated = np.tile(colors, (30, 35))[: found.height, : found.width]
    np.testing.assert_array_equal(found.samples // 1000, repeated)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_agrees_with_libraw(tmp_path: Path, orientation: int) -> None:
    level = Mosaic(noise(30, 40), BAYER, 0, 16383)
    dng.write(replace(level, orientation=orientation), tmp_path / "a.dng")
    found = raw.read(tmp_path / "a.dng")
    as_is = raw.develop_mosaic(level)
    upright = raw.develop(tmp_path / "a.dng")
    np.testing.assert_array_equal(as_is.apply_orientation(found.orientation).samples, upright.samples)
    if orientation > 1:
        assert upright.samples.shape != as_is.samples.shape or (upright.samples != as_is.samples).any()


def test_development_agrees_with_the_paper(tmp_path: Path) -> None:
    dng.write(mosaic(), tmp_path / "a.dng")
    developed = raw.develop(tmp_path / "a.dng")
    with rawpy.imread(str(tmp_path / "a.dng")) as file:
        expected = file.postprocess(use_camera_wb=True, half_size=False, no_auto_bright=True, output_bps=16)
    assert developed.dtype == "uint16"
    np.testing.assert_array_equal(developed.samples, expected)
    np.testing.assert_array_equal(raw.develop_mosaic(mosaic()).samples, expected)


def test_linear_dng_is_developed(tmp_path: Path) -> None:
    gray = noise(24, 30)
    linear = raw.develop(written(tmp_path, dng_file(np.dstack([gray] * 3), LINEAR_RAW)))
    assert linear.samples.shape == (24, 30, 3)
    without_filters = replace_short(dng_file(gray, photometric=1), 262, LINEAR_RAW)
    assert raw.develop(written(tmp_path, without_filters)).samples.shape == (24, 30, 1)


@pytest.mark.parametrize(
    ("given_mosaic", "fault"),
    [
        (mosaic(samples=np.ones((24, 24), np.float32)), "uint16 is needed"),
        (Mosaic(noise(21, 30), BAYER, 0, 16383), "30 x 21 px; LibRaw needs at least 22 x 22"),
        (Mosaic(noise(512, 511), XTRANS, 0, 16383), "511 x 512 px; LibRaw needs at least 512 x 512"),
    ],
)
def test_mosaics_that_libraw_cannot_develop_are_refused(given_mosaic: Mosaic, fault: str) -> None:
    with pytest.raises(PictureError, match=fault):
        raw.develop_mosaic(given_mosaic)


@pytest.mark.parametrize("size", [22, 512])
def test_the_smallest_mosaics_are_developed(size: int) -> None:
    pattern = BAYER if size == 22 else XTRANS
    assert raw.develop_mosaic(Mosaic(noise(size, size), pattern, 0, 16383)).samples.shape == (size, size, 3)


OTHER_SENSORS = {
    "three colors a pixel": (dng_file(noise(24, 24, 3), LINEAR_RAW), "several colors at every pixel.*pictures"),
    "four colors a pixel": (dng_file(noise(24, 24, 4), LINEAR_RAW), "several colors at every pixel.*pictures"),
    "no filters": (
        replace_short(dng_file(noise(24, 24), photometric=1), 262, LINEAR_RAW),
        "without color filters",
    ),
    "CMYG": (
        dng_file(noise(24, 24), CFAPattern=("1B", (0, 1, 2, 3)), CFAPlaneColor=("1B", (3, 4, 5, 1))),
        "other filters than R, G and B",
    ),
    "RGBW": (
        dng_file(noise(24, 24), CFAPattern=("1B", (0, 1, 2, 3)), CFAPlaneColor=("1B", (0, 1, 2, 6))),
        "other filters than R, G and B",
    ),
    "two reds": (dng_file(noise(24, 24), CFAPattern=("1B", (0, 0, 1, 2))), "another arrangement"),
    "four by four": (
        dng_file(
            noise(24, 24),
            CFARepeatPatternDim=("1H", (4, 4)),
            CFAPattern=("1B", (0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2)),
        ),
        "another arrangement",
    ),
}


@pytest.mark.parametrize("kind", OTHER_SENSORS)
def test_other_sensors_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    content, fault = OTHER_SENSORS[kind]
    path = written(tmp_path, content)
    with pytest.raises(PictureError, match=fault) as caught:
        raw.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("call", [raw.read, raw.develop])
def test_a_huge_size_is_refused_before_anything_is_decoded(tmp_path: Path, call: Any) -> None:
    # LibRaw would report missing samples, or not enough memory.
    content = replace_short(replace_short(dng_file(noise(24, 24)), 256, 60000), 257, 50000)
    with pytest.raises(PictureError, match="60000 x 50000 = 3,000,000,000 pixels; at most 500,000,000"):
        call(written(tmp_path, content))
    small = written(tmp_path, dng_file(noise(24, 30)))
    assert call(small, max_pixels=720).width == 30
    with pytest.raises(PictureError, match="30 x 24 = 720 pixels; at most 719"):
        call(small, max_pixels=719)


def test_impossible_levels_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, dng_file(noise(24, 24), BlackLevel=("1I", (20000,))))
    with pytest.raises(PictureError, match="a.dng: black level 20000 is not below the white level 16383"):
        raw.read(path)


@pytest.mark.parametrize("call", [raw.read, raw.develop, lambda path: raw.read_frame(path, 1, 1, **LEVELS)])
def test_other_files_give_a_one_line_error(tmp_path: Path, call: Any) -> None:
    (tmp_path / "empty.dng").touch()
    os.mkfifo(tmp_path / "pipe.dng")
    for name, fault in (
        ("missing.dng", "does not exist"),
        ("", "is a folder"),
        ("empty.dng", "is empty"),
        ("pipe.dng", "is a pipe"),
        ("nul\0.dng", "cannot be read"),
        ("long" * 100, "cannot be read"),
    ):
        with pytest.raises(PictureError, match=fault) as caught:
            call(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes exist on Linux only")
def test_a_name_that_is_not_utf8_gives_a_one_line_error(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.dng"))
    path.write_bytes(dng_file(noise(24, 24)))
    with pytest.raises(PictureError, match="not a file name in UTF-8; rename it"):
        raw.read(path)


@pytest.mark.parametrize("call", [raw.read, raw.develop])
def test_truncated_files_give_a_one_line_error(tmp_path: Path, call: Any) -> None:
    content = dng.encode(mosaic())
    end_of_samples = content.index(mosaic().samples.tobytes()) + mosaic().samples.nbytes
    for length in [*range(1, 600, 37), end_of_samples // 2, end_of_samples - 1]:
        with pytest.raises(PictureError, match="damaged|no camera RAW") as caught:
            call(written(tmp_path, content[:length]))
        assert "\n" not in str(caught.value)


MAGICS = (
    *(b"II*\0", b"MM\0*", b"IIRO", b"IIU\0", b"FUJIFILMCCD-RAW ", b"FOVb", b"\0MRM", b"IIII"),
    *(b"\0\0\0\x18ftypcrx ", b"II\x1a\0\0\0HEAPCCDR", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b""),
)


@pytest.mark.parametrize("magic", MAGICS)
@pytest.mark.parametrize("suffix", [".dng", ".arw", ".raf"])
def test_random_bytes_give_a_one_line_error(tmp_path: Path, magic: bytes, suffix: str) -> None:
    draw = random.Random(zlib.crc32(magic))
    for length in (100, 3000, 40000):
        path = written(tmp_path, magic + draw.randbytes(length), f"a{suffix}")
        for call in (raw.read, raw.develop):
            with pytest.raises(PictureError) as caught:
                call(path)
            assert "\n" not in str(caught.value)


def mutate(content: bytes, seed: int) -> bytes:
    """A file with a few changed bytes before its samples, sometimes truncated."""
    draw = random.Random(seed)
    changed = bytearray(content)
    end_of_head = content.index(mosaic().samples.tobytes())
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        changed[draw.randrange(end_of_head)] = draw.choice((0, 1, 2, 127, 128, 255, draw.randrange(256)))
    return bytes(changed[: draw.randrange(len(changed))] if draw.random() < 0.1 else changed)


@pytest.mark.parametrize("call", [raw.read, raw.develop])
def test_mutated_files_are_read_or_give_a_one_line_error(tmp_path: Path, call: Any) -> None:
    content, outcomes = dng.encode(mosaic()), {"read": 0, "refused": 0}
    for seed in range(400):
        try:
            found = call(written(tmp_path, mutate(content, seed)), max_pixels=10_000_000)
        except PictureError as error:
            assert "\n" not in str(error), seed
            outcomes["refused"] += 1
        else:
            assert found.width * found.height <= 10_000_000, seed
            outcomes["read"] += 1
    assert min(outcomes.values()) > 50


LEVELS: dict[str, Any] = {"black_level": 600, "white_level": 15520}


def test_a_frame_is_read_little_endian_row_by_row(tmp_path: Path) -> None:
    path = written(tmp_path, bytes(range(12)), "frame.raw")
    frame = raw.read_frame(path, 3, 2, pattern=("GB", "RG"), **LEVELS, white_balance=(2, 1, 3))
    assert frame.samples.tolist() == [[0x0100, 0x0302, 0x0504], [0x0706, 0x0908, 0x0B0A]]
    assert frame.samples.dtype == np.uint16
    assert (frame.pattern, frame.black_level, frame.white_level) == (("GB", "RG"), 600, 15520)
    assert (frame.white_balance, frame.exposure) == ((2, 1, 3), Exposure())


@pytest.mark.parametrize(
    ("width", "height", "fault"),
    [
        (3, 3, "has 12 bytes; 3 x 3 samples of 16 bit take 18"),
        (2, 2, "has 12 bytes; 2 x 2 samples of 16 bit take 8"),
        (0, 2, "0 x 2 px"),
        (-3, -2, "-3 x -2 px"),
    ],
)
def test_frames_of_another_size_are_refused(tmp_path: Path, width: int, height: int, fault: str) -> None:
    with pytest.raises(PictureError, match=fault):
        raw.read_frame(written(tmp_path, bytes(12), "frame.raw"), width, height, **LEVELS)


PHASES = {"rggb": ("RG", "GB"), "bggr": ("BG", "GR"), "grbg": ("GR", "BG"), "gbrg": ("GB", "RG")}


def real_frame(data: Path, phase: str = "rggb") -> Mosaic:
    """14 bit of a real camera, daylight; the four phases have the same samples at other positions of a block."""
    return raw.read_frame(
        data / "raw" / "bayer_frames" / f"DSC_1339_768x512_{phase}.raw",
        768,
        512,
        pattern=PHASES[phase],
        white_balance=(1.949, 1, 1.344),
        **LEVELS,
    )


@pytest.mark.parametrize(
    ("phase", "planes"),
    # The plane of the RGGB file for each plane, and its offset in blocks: the samples have other positions in
    # their block, so cropping to the grid takes some from this block and some from the next.
    [
        ("rggb", [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]),
        ("grbg", [(0, 0, 0), (1, 0, 1), (2, 0, 1), (3, 0, 0)]),
        ("gbrg", [(0, 0, 0), (3, 0, 0), (2, 1, 0), (1, 1, 0)]),
        ("bggr", [(0, 0, 0), (3, 0, 1), (2, 1, 1), (1, 1, 0)]),
    ],
)
def test_the_phases_of_a_real_frame_pack_to_the_same_samples(
    data: Path, phase: str, planes: list[tuple[int, int, int]]
) -> None:
    wanted = pack_bayer(real_frame(data).to_tensor())[0]
    packed = pack_bayer(align(real_frame(data, phase), BAYER).to_tensor())[0]
    for plane, (source, down, right) in zip(packed, planes, strict=True):
        height, width = plane.shape
        expected = wanted[source, down : down + height, right : right + width]
        np.testing.assert_array_equal(plane[: len(expected), : expected.shape[1]], expected)
        assert height >= 255
        assert width >= 383


@pytest.mark.parametrize("phase", ["bggr", "grbg", "gbrg"])
def test_the_phases_of_a_real_frame_develop_to_the_same_picture(data: Path, phase: str) -> None:
    def seen(phase: str) -> NDArray[np.float64]:
        developed = raw.develop_mosaic(real_frame(data, phase)).samples[16:-16, 16:-16] / 65535
        return developed.reshape(60, 8, 92, 8, 3).mean(axis=(1, 3))

    # No shift makes the files equal: within each block, each color moved by at most one pixel down and right.
    # A whole picture moved so far differs by 0.0095 in these means, the phases by 0.0035 to 0.0066, and a wrong
    # phase by 0.12.
    found, expected = seen(phase), seen("rggb")
    assert abs(found - expected).mean() < 0.0095
    assert abs(found.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 0.002
