"""Maker notes that move to another place, read by ExifTool."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import exiftool
import format_matrix
import maker_notes as notes
from pellucid.pictures import images
from pellucid.pictures.geometry import Change
from pellucid.pictures.records import exif, maker_notes
from pellucid.pictures.structures import ifd

CHAINS = [(".png",), (".webp",), (".tif", ".tif", ".jpg")]


def without_size(tags: dict[str, Any]) -> dict[str, Any]:
    """All but the tags that are about the size and the kind of the file."""
    groups = ("IFD0", "IFD1", "ExifIFD", "PNG", "RIFF", "JFIF")
    return {name: value for name, value in tags.items() if name.split(":")[0] not in groups}


@exiftool.needed
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", notes.MAKERS)
def test_maker_notes_are_read_in_every_format(make: str, order: str, tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    PIL.Image.fromarray(format_matrix.photo()).save(source, exif=notes.block(make, order))
    written = [source]
    for chain in CHAINS:
        current = source
        for i, suffix in enumerate(chain):
            target = tmp_path / f"{len(chain)}{i}{suffix}"
            assert images.write(images.read(current), target) == ()
            current = target
        written.append(current)
    expected, *found = map(without_size, exiftool.read_tags(*written))
    assert len(expected) >= len(notes.MAKERS[make][1])
    for chain, tags in zip(CHAINS, found, strict=True):
        assert tags == expected, chain


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", notes.MAKERS)
def test_a_block_is_only_changed_where_the_size_and_the_preview_are(make: str, order: str) -> None:
    block = notes.block(make, order)
    adapted, removed = exif.adapt(block, Change(1, (64, 48), (128, 96)))
    assert removed == ("the preview in EXIF",)
    assert b"TTTT" in block and b"TTTT" not in adapted
    changed = {i for i in range(len(adapted)) if adapted[i] != block[i]}
    # The low bytes of both sizes, and the offset of the preview's directory.
    assert len(changed) <= 2 + 2
    assert len(block) - len(adapted) == 2 + 3 * 12 + 4 + 206
    tags, before = exif.parse_block(adapted).exif, exif.parse_block(block).exif
    assert (ifd.number(tags, 0xA002), ifd.number(tags, 0xA003)) == (128, 96)
    assert tags[exif.MAKER_NOTE] == before[exif.MAKER_NOTE]


def test_notes_with_offsets_from_their_own_start_stay_the_same() -> None:
    for make, (_, _, base) in notes.MAKERS.items():
        content = notes.note(make, 100)
        moved, is_readable = maker_notes.move(content, 100, 5000, "<")
        assert is_readable
        assert moved == (content if base else notes.note(make, 5000))


def test_a_directory_at_the_very_end_of_a_note_moves() -> None:
    """Of an older Olympus camera: its value comes before it, and no offset of a next directory follows."""

    def olympus(start: int) -> bytes:
        place_of_text = start + 8 + 2 + 2 * 12 + 4
        nested = struct.pack("<HHHII", 1, 0x0100, 2, 10, place_of_text)
        entries = [notes.text(0x207, "SX0123456"), notes.Entry(0x2010, 7, len(nested), nested)]
        return b"OLYMP\0\1\0" + notes.directory(entries, "<", start + 8)

    assert maker_notes.move(olympus(100), 100, 5000, "<") == (olympus(5000), True)


def test_values_outside_of_the_note_are_reported(tmp_path: Path) -> None:
    content = notes.directory([notes.text(6, "Canon EOS test")], "<", 10_000)
    outside = notes.directory([notes.text(6, "Canon EOS test"), notes.text(7, "a long text")], "<", 100)
    outside = outside.replace((100 + 30).to_bytes(4, "little"), (70_000).to_bytes(4, "little"))
    assert not maker_notes.move(outside, 100, 200, "<")[1]
    assert maker_notes.move(content, 100, 200, "<") == (content, False)


def test_exif_longer_than_a_segment_is_shortened_with_a_note(tmp_path: Path) -> None:
    comment = notes.Entry(0x9286, 7, 70_008, b"ASCII\0\0\0" + b"x" * 70_000)
    block = notes.block("Canon", "<", comment)
    content = io.BytesIO()
    PIL.Image.fromarray(format_matrix.photo()).save(content, "png", exif=block)
    (tmp_path / "a.png").write_bytes(content.getvalue())
    picture = images.read(tmp_path / "a.png")
    assert images.write(picture, tmp_path / "b.tif") == ()
    (note,) = images.write(picture, tmp_path / "b.jpg")
    assert note == "not kept in JPEG: UserComment of EXIF, which is longer than 64 KB"
    with PIL.Image.open(tmp_path / "b.jpg") as file:
        assert exif.MAKER_NOTE in file.getexif().get_ifd(0x8769)
    assert np.array_equal(picture.samples, images.read(tmp_path / "b.tif").samples)
