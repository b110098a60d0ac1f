"""What the samples of a TIFF mean, for files by tifffile, libtiff, ImageMagick and Pillow."""

import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import images
from pellucid.pictures.samples import Samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def run(*command: str | Path) -> str:
    """The output of another program; skips the test if it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def extra_samples(path: Path) -> list[int]:
    with tifffile.TiffFile(path) as file:
        return [int(kind) for kind in file.pages.first.extrasamples]


def write_packed(path: Path, rows: Samples, width: int, bits: int, channels: int = 1) -> None:
    """A gray TIFF, perhaps with alpha, from the bytes of its rows."""
    tags = [(338, 3, 1, 2, True)] if channels == 2 else []
    tifffile.imwrite(path, rows, photometric="minisblack", metadata=None, extratags=tags)
    with tifffile.TiffFile(path, mode="r+") as file:
        stored = file.pages.first.tags
        stored["ImageWidth"].overwrite(width)
        stored["BitsPerSample"].overwrite((bits,) * channels)
        stored["SamplesPerPixel"].overwrite(channels)


def rewrite(path: Path) -> Path:
    """The file, read and written again."""
    images.write(images.read(path), path.with_name("again.tif"), overwrite=True)
    return path.with_name("again.tif")


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([0, 0, 1, 2]), max_size=9),
    colors=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    byteorder=st.sampled_from("<>"),
    planarconfig=st.sampled_from(["contig", "separate"]),
    tile=st.sampled_from([None, (16, 32)]),
    compression=st.sampled_from([None, "zlib", "lzw"]),
)
def test_channels_are_what_the_file_says(
    kinds: list[int],
    colors: int,
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    **options: Any,
) -> None:
    if sum(kind > 0 for kind in kinds) > 1:
        kinds = [kind if i == next(j for j, k in enumerate(kinds) if k) else 0 for i, kind in enumerate(kinds)]
    path = tmp_path_factory.getbasetemp() / "x.tif"
    samples = noise(20, 37, colors + len(kinds), dtype=dtype)
    alpha = next((i for i, kind in enumerate(kinds) if kind), None)
    if alpha is not None and kinds[alpha] == 1:  # colors multiplied by alpha are not brighter than alpha
        samples[..., :colors] = np.minimum(samples[..., :colors], samples[..., colors + alpha, None])
    stored = samples if options["planarconfig"] == "contig" else np.moveaxis(samples, 2, 0)
    if samples.shape[2] == 1:
        stored = samples[..., 0]
        options["planarconfig"] = None
    photometric = "rgb" if colors == 3 else "minisblack"
    tifffile.imwrite(path, stored, photometric=photometric, extrasamples=kinds, metadata=None, **options)
    picture = images.read(path)
    assert (picture.alpha is None) == (alpha is None)
    others = [colors + i for i in range(len(kinds)) if i != alpha]
    assert (picture.extra is None) == (not others)
    if picture.extra is not None:
        assert np.array_equal(picture.extra, samples[..., others])
    if alpha is None or kinds[alpha] == 2:
        assert np.array_equal(picture.samples, samples[..., :colors])
    again = rewrite(path)
    assert extra_samples(again) == kinds
    tolerance = 1e-6 if dtype == "float32" else 0
    assert np.allclose(tifffile.imread(again).reshape(samples.shape), samples, rtol=0, atol=tolerance)


def test_missing_extra_samples_are_plain_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(6, 7, 4), photometric="rgb", extrasamples=[0], metadata=None)
    run("tiffset", "-u", "338", tmp_path / "x.tif")
    picture = images.read(tmp_path / "x.tif")
    assert picture.alpha is None and picture.extra is not None
    assert extra_samples(rewrite(tmp_path / "x.tif")) == [0]
    assert "Extra Samples: 1<unspecified>" in run("tiffinfo", tmp_path / "again.tif")


@pytest.mark.parametrize(("count", "what"), [(1, "1 channel that is"), (2, "2 channels that are")])
def test_other_channels_are_counted(count: int, what: str, tmp_path: Path) -> None:
    samples = noise(6, 7, 3 + count)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", extrasamples=[0] * count, metadata=None)
    encoding = images.read(tmp_path / "x.tif").encoding
    assert encoding is not None
    assert encoding.notes == (f"{what} neither color nor alpha: kept, but not restored",)


def test_twelve_channels_come_back(tmp_path: Path) -> None:
    samples = noise(6, 7, 12, dtype="uint16")
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="minisblack", planarconfig="contig")
    picture = images.read(tmp_path / "x.tif")
    assert picture.channels == 1 and picture.extra is not None and picture.extra.shape == (6, 7, 11)
    assert picture.encoding is not None
    assert picture.encoding.notes == ("11 channels that are neither color nor alpha: kept, but not restored",)
    assert np.array_equal(tifffile.imread(rewrite(tmp_path / "x.tif")), samples)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_only_tiff_stores_other_channels(suffix: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(6, 7, 5), photometric="rgb", extrasamples=[0, 0])
    picture = images.read(tmp_path / "x.tif")
    with pytest.raises(OutputError, match=r"cannot store 2 extra channels .*; write TIFF"):
        images.write(picture, tmp_path / f"x.{suffix}")


@pytest.mark.parametrize("bits", [9, 10, 11, 12, 14, 15])
@pytest.mark.parametrize(("channels", "tile"), [(1, None), (3, None), (3, (16, 32))])
def test_packed_samples_become_16_bits(bits: int, channels: int, tile: Any, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="tifffile packs samples by imagecodecs")
    values = noise(20, 37, channels, dtype="uint16") >> (16 - bits)
    tifffile.imwrite(tmp_path / "x.tif", values.squeeze(), bitspersample=bits, tile=tile, byteorder="<")
    expected = np.floor(values * (65535 / (2**bits - 1)) + 0.5)
    assert np.array_equal(images.read(tmp_path / "x.tif").samples, expected)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_and_alpha_of_few_bits_become_8_bits(bits: int, tmp_path: Path) -> None:
    values = noise(20, 37, 2) >> (8 - bits)
    ones = np.unpackbits(values.view(np.uint8)[..., None], axis=3)[..., 8 - bits :]
    write_packed(tmp_path / "x.tif", np.packbits(ones.reshape(20, -1), axis=1), 37, bits, channels=2)
    picture = images.read(tmp_path / "x.tif")
    assert np.array_equal(np.concatenate(picture.planes, axis=2), values * (255 // (2**bits - 1)))


@pytest.mark.parametrize(("bits", "row_bytes"), [(1, 38), (8, 301), (12, 452), (16, 602)])
def test_a_file_shorter_than_its_samples_is_refused(bits: int, row_bytes: int, tmp_path: Path) -> None:
    """Rows of 301 px end at whole bytes."""
    write_packed(tmp_path / "x.tif", noise(60, row_bytes), 301, bits)
    assert images.read(tmp_path / "x.tif").width == 301
    content = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(content[: 60 * row_bytes - 1])
    with pytest.raises(PictureError, match=f"is truncated: its samples need {60 * row_bytes} bytes"):
        images.read(tmp_path / "x.tif")


def test_compressed_packed_samples_agree_with_imagemagick(tmp_path: Path) -> None:
    run("convert", "-size", "37x20", "plasma:red-blue", "-depth", "12", "-compress", "LZW",
        "-define", "tiff:predictor=1", tmp_path / "x.tif")  # fmt: skip
    assert "Bits/Sample: 12" in run("tiffinfo", tmp_path / "x.tif")
    run("convert", tmp_path / "x.tif", "-depth", "16", f"rgb:{tmp_path / 'x.raw'}")
    expected = np.fromfile(tmp_path / "x.raw", np.uint16).reshape(20, 37, 3)
    assert np.abs(images.read(tmp_path / "x.tif").samples.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_other_floating_point_types_become_32_bits(dtype: str, byteorder: Any, tile: Any, tmp_path: Path) -> None:
    samples = noise(20, 37, 3, dtype=dtype)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", byteorder=byteorder, tile=tile)
    picture = images.read(tmp_path / "x.tif")
    assert np.array_equal(picture.samples, samples.astype(np.float32))
    assert picture.encoding is not None and "become 32-bit" in picture.encoding.notes[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_white_at_0_is_inverted(dtype: str, tmp_path: Path) -> None:
    samples = noise(6, 7, dtype=dtype)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="miniswhite")
    peak = 1 if dtype == "float32" else np.iinfo(dtype).max
    assert np.array_equal(images.read(tmp_path / "x.tif").samples[..., 0], peak - samples)


@pytest.mark.parametrize("compression", ["Group4", "Fax", "LZW", "None"])
def test_bilevel_agrees_with_pillow(compression: str, tmp_path: Path) -> None:
    run("convert", "-size", "41x30", "gradient:", "-monochrome", "-compress", compression, tmp_path / "x.tif")
    with PIL.Image.open(tmp_path / "x.tif") as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(images.read(tmp_path / "x.tif").samples[..., 0], expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_agree_with_pillow(bits: int, tmp_path: Path) -> None:
    run("convert", "-size", "41x30", "plasma:red-blue", "-colors", str(2**bits), "-type", "Palette",
        "-compress", "LZW", tmp_path / "x.tif")  # fmt: skip
    with PIL.Image.open(tmp_path / "x.tif") as image:
        expected = np.asarray(image.convert("RGB"))
    found = images.read(tmp_path / "x.tif").as_depth("uint8").samples
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_palettes_of_16_bits_keep_16_bits(tmp_path: Path) -> None:
    indices, colors = noise(20, 37), noise(3, 256, dtype="uint16")
    tifffile.imwrite(tmp_path / "x.tif", indices, photometric="palette", colormap=colors)
    assert np.array_equal(images.read(tmp_path / "x.tif").samples, colors.T[indices])


def test_cmyk_keeps_alpha_and_other_channels(tmp_path: Path) -> None:
    samples = noise(6, 7, 6)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="separated", extrasamples=[0, 2])
    tifffile.imwrite(tmp_path / "cmyk.tif", samples[..., :4], photometric="separated")
    picture = images.read(tmp_path / "x.tif")
    assert picture.alpha is not None and picture.extra is not None
    assert np.array_equal(picture.extra, samples[..., 4:5]) and np.array_equal(picture.alpha, samples[..., 5:])
    assert np.array_equal(picture.samples, images.read(tmp_path / "cmyk.tif").samples)


def test_inks_other_than_cmyk_are_refused(tmp_path: Path) -> None:
    tags = [(332, "H", 1, 2, True), (334, "H", 1, 5, True)]
    tifffile.imwrite(tmp_path / "x.tif", noise(6, 7, 5), photometric="separated", extrasamples=[0], extratags=tags)
    with pytest.raises(PictureError, match="contains 5 inks that are not CMYK"):
        images.read(tmp_path / "x.tif")


@pytest.mark.parametrize("compression", ["zip", "lzw", "packbits", "jpeg", "none"])
def test_damaged_tiles_are_an_error(compression: str, tmp_path: Path) -> None:
    """libvips 8.18 reports nothing."""
    rows, cols = np.mgrid[:200, :300]
    PIL.Image.fromarray(np.stack([rows, cols, rows + cols], axis=2).astype(np.uint8)).save(tmp_path / "whole.tif")
    run("tiffcp", "-t", "-w", "64", "-l", "64", "-c", compression, tmp_path / "whole.tif", tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        start, length = file.pages.first.dataoffsets[7], file.pages.first.databytecounts[7]
        place = file.pages.first.tags["TileOffsets"].valueoffset + 4 * 7
    content = bytearray((tmp_path / "x.tif").read_bytes())
    if compression == "none":  # any bytes are samples
        content[place : place + 4] = (10**9).to_bytes(4, "little")
    else:
        content[start : start + length] = bytes(length)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(PictureError, match=r"x\.tif is damaged"):
        images.read(tmp_path / "x.tif")


def test_a_predictor_that_programs_disagree_about_is_refused(tmp_path: Path) -> None:
    PIL.Image.fromarray(noise(6, 7, 3)).save(tmp_path / "whole.tif")
    run("tiffcp", "-c", "lzw:2", tmp_path / "whole.tif", tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages.first.tags["Compression"].overwrite(32773)  # PackBits
    with pytest.raises(PictureError, match="a predictor with a compression that has none"):
        images.read(tmp_path / "x.tif")


@pytest.mark.parametrize("tile_height", [2**24, 2**19])
def test_a_damaged_size_of_tiles_takes_neither_memory_nor_time(tile_height: int, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (23, 31, 3), np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", samples, tile=(16, 16), photometric="rgb")
    assert np.array_equal(images.read(tmp_path / "x.tif").samples, samples)
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages.first.tags["TileLength"].overwrite(tile_height)
    with pytest.raises(PictureError, match=f"tiles of 16 x {tile_height} px for a picture of 31 x 23 px"):
        images.read(tmp_path / "x.tif")


@pytest.mark.parametrize("side", [1024, 4096])
def test_tiles_may_be_larger_than_the_picture(side: int, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (23, 31), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", samples, tile=(side, side), photometric="minisblack", compression="zlib")
    assert np.array_equal(images.read(tmp_path / "x.tif").to_array(), samples)


@pytest.mark.parametrize(("smallest", "notes"), [(0, ()), (16, ("MinSampleValue is not kept: black is 0",))])
def test_a_smallest_value_is_noted(smallest: int, notes: tuple[str, ...], tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(16, 200, (9, 11), np.uint8)
    tags = [(280, "H", 1, smallest, True)]
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="minisblack", metadata=None, extratags=tags)
    encoding = images.read(tmp_path / "x.tif").encoding
    assert encoding is not None and encoding.notes == notes


def test_a_value_for_no_data_is_noted(tmp_path: Path) -> None:
    tags = [(42113, "s", 0, "-9999", True)]  # as GDAL writes it
    samples = np.full((9, 11), 100, np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="minisblack", metadata=None, extratags=tags)
    encoding = images.read(tmp_path / "x.tif").encoding
    assert encoding is not None
    assert encoding.notes == ("pixels without data (-9999, says GDAL_NODATA) are restored like the others",)


@pytest.mark.parametrize(
    ("compression", "name"), [("png", "PNG"), ("jpegxr", "JPEG XR"), ("jpegxl", "JPEG XL"), ("lzma", "LZMA")]
)
def test_compressions_that_are_not_decoded_are_named(compression: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    samples = np.zeros((16, 16, 3), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", compression=compression)
    with pytest.raises(PictureError, match=f"is compressed by {name}, which is not supported in TIFF"):
        images.read(tmp_path / "x.tif")
