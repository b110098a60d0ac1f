"""Damaged camera RAW files that LibRaw decodes silently: DNG by tifffile and imagecodecs, others by hand."""

import io
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from test_dng import mosaic
from test_raw import CFA, LINEAR_RAW, dng_file, replace_short, written

from pellucid.errors import PictureError
from pellucid.pictures.camera import dng, raw, raw_data
from raw_structures import box
from sample_files import build_dng

Samples = NDArray[Any]

HEIGHT, WIDTH = 70, 90
LOSSLESS: dict[str, Any] = {
    "compression": "jpeg",
    "compressionargs": {"lossless": True, "bitspersample": 16, "predictor": 1},
}


def scene() -> NDArray[np.uint16]:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(1).normal(0, 60, (HEIGHT, WIDTH))
    return np.clip(4000 + 1000 * np.sin(cols / 9) * np.cos(rows / 7) + noise, 700, 16383).astype(np.uint16)


def packed_12_bits() -> bytes:
    """Two samples in three bytes, the high bits first, as DNG requires."""
    values = (scene() >> 2).reshape(HEIGHT, -1, 2)
    packed = np.stack(
        [values[..., 0] >> 4, (values[..., 0] & 15) << 4 | values[..., 1] >> 8, values[..., 1] & 255], -1
    )
    content = dng_file(packed.reshape(HEIGHT, -1).astype(np.uint8), WhiteLevel=("1I", (4095,)))
    return replace_short(replace_short(content, 256, WIDTH), 258, 12)


COLOR = np.dstack([scene()] * 3)
UNCOMPRESSED: dict[str, Callable[[], bytes]] = {
    "strips": lambda: build_dng(scene(), rowsperstrip=16),
    "tiles": lambda: build_dng(scene(), tile=(32, 48)),
    "big-endian strips": lambda: build_dng(scene(), byteorder=">", rowsperstrip=16),
    "big-endian tiles": lambda: build_dng(scene(), byteorder=">", tile=(32, 48)),
    "12 bits": packed_12_bits,
    "linear": lambda: build_dng(COLOR, LINEAR_RAW),
    "floating point": lambda: build_dng((scene() / 16383).astype("f4"), white=1),
    "by pellucid": lambda: dng.encode(mosaic()),
}
COMPRESSED: dict[str, Callable[[], bytes]] = {
    "lossless JPEG strip": lambda: build_dng(scene(), **LOSSLESS),
    "lossless JPEG tiles": lambda: build_dng(scene(), tile=(32, 48), **LOSSLESS),
    "linear lossless JPEG": lambda: build_dng(COLOR, LINEAR_RAW, **LOSSLESS),
    "lossy JPEG tiles": lambda: build_dng(
        (COLOR >> 6).astype("u1"), LINEAR_RAW, white=255, compression=34892, tile=(32, 48)
    ),
}
needs_imagecodecs = pytest.mark.skipif(
    find_spec("imagecodecs") is None, reason="imagecodecs writes compressed DNG"
)
KINDS = [*UNCOMPRESSED, *(pytest.param(kind, marks=needs_imagecodecs) for kind in COMPRESSED)]


def build(kind: str) -> bytes:
    return (UNCOMPRESSED | COMPRESSED)[kind]()


def place_of_samples(content: bytes) -> tuple[int, int]:
    """(first byte, end) of the strips or tiles."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        ends = [offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
        return min(page.dataoffsets), max(ends)


@pytest.mark.parametrize("kind", KINDS)
def test_intact_files_pass_and_are_decoded_exactly(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, build(kind))
    raw_data.check_complete(path)
    assert raw.develop(path).samples.any()
    if "linear" not in kind and "lossy" not in kind and "pellucid" not in kind:
        found = raw.read(path)
        expected = scene() >> 2 if kind == "12 bits" else scene()
        np.testing.assert_allclose(found.samples, expected, atol=1 if "float" in kind else 0)
        assert not found.notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", [raw.read, raw.develop])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, kind: str, call: Callable[[Path], object]) -> None:
    content = build(kind)
    start, end = place_of_samples(content)
    for part in (0, 0.1, 0.5, 0.9):
        path = written(tmp_path, content[: start + int(part * (end - start - 1))])
        with pytest.raises(PictureError, match=r"damaged(,| or) truncated .*; copy it") as caught:
            call(path)
        assert "\n" not in str(caught.value)


@needs_imagecodecs
@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("value", [0, 0xFF])
def test_compressed_samples_that_are_blanked_are_refused(tmp_path: Path, kind: str, value: int) -> None:
    content = build(kind)
    start, end = place_of_samples(content)
    for first, last in ((0, 1), (0.5, 1), (0.3, 0.6), (0, 0.2)):
        low, high = start + int(first * (end - start)), start + int(last * (end - start))
        damaged = content[:low] + bytes([value]) * (high - low) + content[high:]
        with pytest.raises(PictureError, match="damaged or truncated"):
            raw.develop(written(tmp_path, damaged))


@pytest.mark.parametrize("kind", ["strips", "big-endian tiles", "12 bits"])
def test_zeros_below_black_give_a_warning(tmp_path: Path, kind: str) -> None:
    content = build(kind)
    start, end = place_of_samples(content)
    middle = (start + end) // 2
    path = written(tmp_path, content[:middle] + bytes(end - middle) + content[end:])
    developed = raw.develop(path)
    assert developed.encoding is not None
    for warnings in (raw.read(path).warnings, developed.encoding.warnings):
        if kind == "12 bits":  # its black level is 0, which dark rows may be
            assert not warnings
        else:
            assert (
                "% of the samples are 0 like their neighbors, less than black; the file may be damaged"
                in warnings[-1]
            )


@needs_imagecodecs
def test_strips_of_which_libraw_reads_only_the_first_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, build_dng(scene(), rowsperstrip=16, **LOSSLESS))
    with pytest.raises(
        PictureError, match="samples are in 5 separate strips, which LibRaw does not read correctly"
    ):
        raw.develop(path)


def test_strips_in_another_order_are_refused(tmp_path: Path) -> None:
    content = build_dng(scene(), rowsperstrip=HEIGHT // 2)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tag = file.pages.first.tags["StripOffsets"]
        start, offsets = tag.valueoffset, struct.pack("<2I", *tag.value)
        swapped = struct.pack("<2I", *reversed(tag.value))
    assert content[start : start + 8] == offsets
    path = written(tmp_path, content[:start] + swapped + content[start + 8 :])
    with pytest.raises(PictureError, match=r"a.dng: its samples are in 2 separate strips, .*; convert it"):
        raw.develop(path)


def tiff(tags: dict[int, tuple[int, int, int]], *, magic: bytes = b"II*\0", size: int = 4096) -> bytes:
    """A file with one directory; tags: (type, count, value)."""
    rows = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    content = magic + struct.pack("<IH", 8, len(tags)) + rows + bytes(4)
    return content.ljust(size, b"\1")


def strip_at(offset: int, length: int, **more: int) -> dict[int, tuple[int, int, int]]:
    return {
        0x0103: (3, 1, more.get("compression", 34713)),
        0x0106: (3, 1, CFA),
        0x0111: (4, 1, offset),
        0x0117: (4, 1, length),
    }


def fuji(length: int) -> bytes:
    places = struct.pack(">6I", 200, 300, 500, 100, 600, length)
    return b"FUJIFILMCCD-RAW ".ljust(84, b"0") + places + bytes(600 + 1000 - 108)


CR3 = box(b"ftyp", b"crx ") + box(b"moov", bytes(50)) + struct.pack(">I4sQ", 1, b"mdat", 16 + 500) + bytes(500)
RW2 = {0x0111: (4, 1, 0xFFFFFFFF), 0x0117: (4, 1, 3000), 0x0118: (4, 1, 1000)}

OTHER_MAKERS = {
    "NEF": tiff(strip_at(1000, 3000)),
    "ARW": tiff(strip_at(1000, 3000, compression=32767)),
    "PEF": tiff(strip_at(1000, 3000, compression=65535)),
    "ORF": tiff(strip_at(1000, 3000, compression=1), magic=b"IIRO"),
    "RW2": tiff(RW2, magic=b"IIU\0"),
    "RAF": fuji(1000),
    "CR3": CR3,
    "CR3 with an empty box": box(b"ftyp", b"crx ") + box(b"free", b"") + CR3[12:],
}


@pytest.mark.parametrize("kind", OTHER_MAKERS)
def test_files_of_other_makers_must_contain_what_they_announce(tmp_path: Path, kind: str) -> None:
    content = OTHER_MAKERS[kind]
    used = 4000 if content.startswith(b"II") else len(content)
    raw_data.check_complete(written(tmp_path, content[:used]))
    raw_data.check_complete(written(tmp_path, content[:used] + bytes(100)))
    for length in (used - 1, used // 2):
        with pytest.raises(PictureError, match="damaged or truncated"):
            raw_data.check_complete(written(tmp_path, content[:length]))


@pytest.mark.parametrize(
    "content", [b"", b"FOVb" + bytes(100), b"\0MRM" + bytes(100), tiff({}), b"II\x1a\0\0\0HEAPCCDR"]
)
def test_files_of_unknown_structure_pass(tmp_path: Path, content: bytes) -> None:
    raw_data.check_complete(written(tmp_path, content))


def test_the_directory_of_samples_in_cr2_is_the_fourth(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="the directory of the samples is missing"):
        raw_data.check_complete(written(tmp_path, b"II*\0\x10\0\0\0CR\2\0" + bytes(100)))


@needs_imagecodecs
def test_the_lossless_jpeg_of_cr2_is_checked(tmp_path: Path) -> None:
    import imagecodecs

    stream = imagecodecs.jpeg8_encode(scene(), lossless=True, bitspersample=16)
    start = 16 + 3 * 6 + 2 + 2 * 12 + 4
    entries = struct.pack("<HHII", 0x0111, 4, 1, start) + struct.pack("<HHII", 0x0117, 4, 1, len(stream))
    empty = b"".join(struct.pack("<HI", 0, 16 + 6 * (i + 1)) for i in range(3))
    head = struct.pack("<2sHI4sI", b"II", 42, 16, b"CR\2\0", 0) + empty + struct.pack("<H", 2) + entries + bytes(4)
    raw_data.check_complete(written(tmp_path, head + stream, "a.cr2"))
    middle = len(stream) // 2
    for damaged in (stream[:middle], stream[:middle] + bytes(len(stream) - middle), b"\0" + stream[1:]):
        with pytest.raises(PictureError, match="damaged or truncated"):
            raw_data.check_complete(written(tmp_path, head + damaged, "a.cr2"))


def test_a_real_frame_passes(data: Path) -> None:
    raw_data.check_complete(data / "raw" / "emubayer_1024.dng")


def test_one_blank_tile_gives_a_warning(tmp_path: Path) -> None:
    content = build("tiles")
    start, _ = place_of_samples(content)
    blank = content[:start] + bytes(32 * 48 * 2) + content[start + 32 * 48 * 2 :]
    (warning,) = raw.read(written(tmp_path, blank)).warnings
    assert warning.startswith("25 % of the samples are 0")


@pytest.mark.parametrize("photometric", ["cfa", "linear_raw"])
@pytest.mark.parametrize(
    ("dtype", "white"), [("float16", None), ("float32", 11), ("float32", 4), ("float32", None)]
)
def test_floating_point_is_not_read_as_black(
    dtype: str, white: int | None, photometric: str, tmp_path: Path
) -> None:
    values = (scene() / 65535).astype(dtype)
    tags: Any = [(50706, 1, 4, (1, 4, 0, 0), True), (50708, 2, 0, "X", True)]
    tags += [(50717, white, 1, 1, True)] if white else []
    if photometric == "cfa":
        tags += [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)]
    else:
        values = np.dstack([values] * 3)
    tifffile.imwrite(tmp_path / "x.dng", values, photometric=photometric, extratags=tags, metadata=None)
    if dtype == "float32" and white != 11:
        assert raw.develop(tmp_path / "x.dng").samples.any()
    else:
        with pytest.raises(PictureError, match="which (LibRaw does not read correctly|DNG does not allow)"):
            raw.develop(tmp_path / "x.dng")
