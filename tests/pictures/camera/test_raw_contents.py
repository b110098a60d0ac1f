"""DNG files by tifffile; the numbers are those of the DNG specification."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from test_raw import CFA, LINEAR_RAW, dng_file

from pellucid.pictures.camera import raw
from pellucid.pictures.camera.raw_contents import describe_raw_contents

SAMPLES = np.full((64, 96), 3000, np.uint16)


def opcodes(*numbers: int) -> bytes:
    return struct.pack(">I", len(numbers)) + b"".join(
        struct.pack(">4I", n, 0x01030000, 0, 8) + bytes(8) for n in numbers
    )


def tiff(tag: int, content: bytes, compression: int = 1) -> io.BytesIO:
    file = io.BytesIO()
    tags = [(50706, "B", 4, b"\1\4\0\0", True), (tag, "B", len(content), content, True)]
    tifffile.imwrite(file, SAMPLES, photometric="minisblack", extratags=tags, metadata=None)
    content = file.getvalue().replace(
        struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIHH", 259, 3, 1, compression, 0)
    )
    return io.BytesIO(content)


@pytest.mark.parametrize(
    ("tag", "numbers", "names"),
    [
        (51008, (4, 5), "bad pixels"),
        (51009, (9, 13), "shading, differences of rows and columns"),
        (51022, (1, 3, 99), "distortion, shading, opcode 99"),
    ],
)
def test_corrections_are_named(tag: int, numbers: tuple[int, ...], names: str) -> None:
    found = describe_raw_contents(tiff(tag, opcodes(*numbers)))
    assert found == (f"corrections that the DNG contains are not applied: {names}",)


def test_a_polynomial_is_applied_in_lossy_jpeg() -> None:
    assert describe_raw_contents(tiff(51009, opcodes(8), 34892)) == ()
    assert describe_raw_contents(tiff(51009, opcodes(8)))


@pytest.mark.parametrize("name", ["OpcodeList1", "OpcodeList2", "OpcodeList3"])
def test_results_have_the_note(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    tags: dict[str, tuple[str, Any]] = {name: ("1B", tuple(opcodes(1)))}
    path.write_bytes(dng_file(SAMPLES, CFA, **tags))
    note = "corrections that the DNG contains are not applied: distortion"
    encoding = raw.develop(path).encoding
    assert encoding is not None and note in encoding.notes
    assert note in raw.read(path).notes


@given(place=st.integers(0, 60), byte=st.integers(0, 255), cut=st.integers(0, 60))
def test_damaged_lists_never_raise(place: int, byte: int, cut: int) -> None:
    content = bytearray(opcodes(1, 9))
    content[place % len(content)] = byte
    describe_raw_contents(tiff(51022, bytes(content)[: max(1, cut)]))


@pytest.mark.parametrize(
    ("kind", "photometric", "note"),
    [
        (4, 4, "not kept: the mask of transparency"),
        (8, 51177, "not kept: the depth map"),
        (16, LINEAR_RAW, "not kept: the enhanced picture (LibRaw develops the original one)"),
        (0x10004, 52527, "not kept: masks of parts of the picture"),
        (0, CFA, "one of 2 RAW pictures in the file; the others are not kept"),
        (1, 1, None),
    ],
)
def test_other_pictures_in_a_dng_are_named(kind: int, photometric: int, note: str | None, tmp_path: Path) -> None:
    """A second directory, whose type and colors are changed to those that tifffile does not write."""
    with tifffile.TiffWriter(tmp_path / "a.dng") as writer:
        version: list[Any] = [(50706, "B", 4, b"\1\4\0\0", True)]
        pattern: list[Any] = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, b"\0\1\1\2", True)]
        writer.write(SAMPLES, photometric=CFA, extratags=version + pattern, metadata=None)
        writer.write(SAMPLES, photometric="minisblack", subfiletype=1, metadata=None)
    content = bytearray((tmp_path / "a.dng").read_bytes())
    for entry, value in (("<HHII", (254, 4, 1, 1)), kind), (("<HHII", (262, 3, 1, 1)), photometric):
        place = content.rindex(struct.pack(entry[0], *entry[1]))
        content[place + 8 : place + 12] = struct.pack("<I", value)
    (tmp_path / "a.dng").write_bytes(content)
    notes = raw.read(tmp_path / "a.dng").notes
    assert notes == (() if note is None else (note,))


def test_exposures_of_a_burst_are_named() -> None:
    """The structure of ISO/IEC 14496-12, which CR3 has."""

    def box(kind: bytes, *content: bytes) -> bytes:
        joined = b"".join(content)
        return struct.pack(">I4s", len(joined) + 8, kind) + joined

    for count in (1, 30):
        sizes = box(b"stsz", struct.pack(">III", 0, 1, count))
        track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", sizes))))
        file = box(b"ftyp", b"crx ") + box(b"moov", track)
        notes = ("the first of 30 exposures in the file; the others are not kept",) if count > 1 else ()
        assert describe_raw_contents(io.BytesIO(file)) == notes


def test_pixels_of_a_mosaic_that_are_not_square_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng_file(SAMPLES, DefaultScale=("2I", (2, 1, 1, 1))))
    assert raw.read(path).notes == ("not kept: the shape of the pixels (2:1)",)
    assert (raw.develop(path).width, raw.develop(path).height) == (192, 64)
