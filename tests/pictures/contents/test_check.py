"""Several pictures in a file are refused, and lost parts are named: files of Pillow, and some made by hand."""

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL.Image import Image

from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.contents.check import check_contents

XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(range(200))


def frames(count: int, size: int = 48) -> list[Image]:
    rng = np.random.default_rng(0)
    return [PIL.Image.fromarray(rng.integers(0, 256, (size, 64, 3), dtype=np.uint8)) for _ in range(count)]


def saved(kind: str, count: int = 1, **options: Any) -> bytes:
    first, *others = frames(count)
    content = io.BytesIO()
    first.save(content, kind, **({"save_all": True, "append_images": others} if others else {}), **options)
    return content.getvalue()


def jpeg(*segments: tuple[int, bytes], size: int = 48) -> bytes:
    content = io.BytesIO()
    frames(1, size)[0].save(content, "jpeg")
    added = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
    return content.getvalue()[:2] + added + content.getvalue()[2:]


def notes(content: bytes, folder: Path) -> tuple[str, ...]:
    (folder / "x").write_bytes(content)
    encoding = images.read(folder / "x").encoding
    assert encoding is not None
    return encoding.notes


def refusal(content: bytes, folder: Path) -> str:
    (folder / "x").write_bytes(content)
    with pytest.raises(PictureError) as caught:
        images.read(folder / "x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("png", "an animated PNG"), ("webp", "an animated WebP"), ("gif", "a GIF"), ("avif", "an image sequence")],
)
def test_animations_are_refused_with_the_number_of_frames(kind: str, name: str, tmp_path: Path) -> None:
    assert f"is {name} of 3 frames; " in refusal(saved(kind, 3), tmp_path)
    assert notes(saved(kind), tmp_path) == ()


def test_the_picture_that_other_programs_show_of_an_animated_png_counts(tmp_path: Path) -> None:
    assert "of 3 frames" in refusal(saved("png", 3, default_image=True), tmp_path)
    first = frames(1)[0]
    content = io.BytesIO()
    first.save(content, "png", save_all=True)
    assert notes(content.getvalue(), tmp_path) == ()


def test_a_png_that_declares_frames_after_its_samples_is_an_animation(tmp_path: Path) -> None:
    content = saved("png", 2)
    chunks, offset = [], 8
    while offset < len(content):
        (length,) = struct.unpack_from(">I", content, offset)
        chunks.append(content[offset : offset + length + 12])
        offset += length + 12
    control = next(chunk for chunk in chunks if chunk[4:8] == b"acTL")
    chunks.remove(control)
    moved = content[:8] + b"".join([*chunks[:-1], control, chunks[-1]])
    (tmp_path / "x").write_bytes(moved)
    with pytest.raises(PictureError, match="of 2 frames"):
        check_contents(tmp_path / "x", "png")


def test_stereo_pictures_are_refused(tmp_path: Path) -> None:
    assert "is an MPO (e.g. a stereo pair) of 2 pictures; " in refusal(saved("mpo", 2), tmp_path)


GAIN_MAPS = [
    XMP_HEAD + b'<rdf:Description hdrgm:Version="1.0"/>',
    b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0",
    XMP_HEAD + b"<HDRGainMap:HDRGainMapVersion>65536</HDRGainMap:HDRGainMapVersion>",
]


@pytest.mark.parametrize("mark", GAIN_MAPS, ids=["Ultra HDR", "ISO 21496-1", "Apple"])
@pytest.mark.parametrize("size", [12, 48])
def test_a_gain_map_is_not_a_second_picture(mark: bytes, size: int, tmp_path: Path) -> None:
    marker = 0xE2 if mark.startswith(b"urn") else 0xE1
    content = jpeg() + jpeg((marker, mark), size=size)
    assert notes(content, tmp_path) == ("not kept: the HDR gain map",)


def test_a_gain_map_can_be_named_by_the_picture_alone(tmp_path: Path) -> None:
    xmp = XMP_HEAD + b'<rdf:li Item:Mime="image/jpeg" Item:Semantic="GainMap" Item:Length="9"/>'
    (tmp_path / "gray").mkdir()
    PIL.Image.fromarray(np.zeros((12, 12), np.uint8)).save(tmp_path / "gray" / "x.jpg")
    gray = (tmp_path / "gray" / "x.jpg").read_bytes()
    assert notes(jpeg((0xE1, xmp)) + gray, tmp_path) == ("not kept: the HDR gain map",)
    assert notes(jpeg() + gray, tmp_path) == ("not kept: the depth map",)


def test_missing_scans_of_a_progressive_jpeg_are_named(tmp_path: Path) -> None:
    """Each file ends after one of the scans, and has an end marker nevertheless."""
    content = saved("jpeg", progressive=True)
    scans = [match.start() for match in re.finditer(b"\xff\xda", content)]
    assert len(scans) > 3
    for start in scans[1:]:
        found = notes(content[:start] + b"\xff\xd9", tmp_path)
        assert found == ("not kept: details, because scans of the progressive JPEG are missing",)
    assert notes(content, tmp_path) == ()


def test_a_smaller_jpeg_after_the_picture_is_a_preview(tmp_path: Path) -> None:
    assert notes(jpeg() + bytes(70) + jpeg(size=12), tmp_path) == ("not kept: the preview",)


@pytest.mark.parametrize(
    ("appended", "expected"),
    [
        (b"", ()),
        (bytes(500), ()),
        (VIDEO, ("not kept: the video of a motion photo",)),
        (b"hello world", ("not kept: 11 bytes appended to the picture",)),
        (
            b"\0\0\x30\x0aMotionPhoto_Data" + VIDEO + b"SEFHxxxxSEFT",
            ("not kept: the video of a motion photo, data that Samsung's camera appended",),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "avif", "jpeg2000", "jpeg2000 codestream", "bmp"])
def test_appended_data_are_named(kind: str, appended: bytes, expected: tuple[str, ...], tmp_path: Path) -> None:
    options = {"no_jp2": True} if kind.endswith("codestream") else {}
    assert notes(saved(kind.partition(" ")[0], **options) + appended, tmp_path) == expected


def test_truncated_and_random_files_raise_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, loader in (("png", "png"), ("webp", "webp"), ("gif", "gif"), ("mpo", "jpeg"), ("avif", "heif")):
        whole = saved(kind, 2)
        for _ in range(40):
            content = bytearray(whole[: int(rng.integers(1, len(whole)))])
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
            (tmp_path / "x").write_bytes(content)
            try:
                check_contents(tmp_path / "x", loader)
            except PictureError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("damaged", [b"MPF\0XX", b"MPF\0II*\0\xff\xff\xff\xff"])
def test_a_damaged_index_of_pictures_hides_none_of_them(damaged: bytes, tmp_path: Path) -> None:
    content = saved("mpo", 2)
    place = content.index(b"MPF\0")
    (tmp_path / "x").write_bytes(content[:place] + damaged + content[place + len(damaged) :])
    with pytest.raises(PictureError, match="MPO .* of 2 pictures"):
        check_contents(tmp_path / "x", "jpeg")


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([(b"jbrd", b"abc")], ("the data from which the JPEG that it was made of can be rebuilt",)),
        (
            [(b"brob", b"jumbabc"), (b"brob", b"xml abc"), (b"free", b"")],
            ("content credentials (C2PA) or other JUMBF data",),
        ),
        ([(b"abc\xe9", b"")], ("the box 'abc\\xe9'",)),
        ([], ()),
    ],
)
def test_boxes_that_are_neither_kept_nor_part_of_the_picture_are_named(
    added: list[tuple[bytes, bytes]], expected: tuple[str, ...], tmp_path: Path
) -> None:
    boxes = b"".join(struct.pack(">I4s", 8 + len(content), kind) + content for kind, content in added)
    for loader, signature in (("jxl", b"JXL \r\n\x87\n"), ("jp2", b"jP  \r\n\x87\n")):
        (tmp_path / "x").write_bytes(b"\0\0\0\x0c" + signature + boxes)
        assert check_contents(tmp_path / "x", loader) == expected
        (tmp_path / "x").write_bytes(b"\0\0\0\x0c" + signature + boxes + b"appended")
        assert check_contents(tmp_path / "x", loader) == (*expected, "8 bytes appended to the picture")


def test_the_frames_of_an_appended_video_are_not_pictures(tmp_path: Path) -> None:
    content = struct.pack(">III", 0, 1, 5)
    for kind in (b"stsz", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        content = struct.pack(">I4s", 8 + len(content), kind) + content
    video = b"\0\0\0\x10ftypmp42\0\0\0\0" + content
    (tmp_path / "x").write_bytes(saved("avif") + video)
    assert check_contents(tmp_path / "x", "heif") == ("the video of a motion photo",)
    assert "of 5 frames" in refusal(saved("avif") + content, tmp_path)
    (tmp_path / "x").write_bytes(saved("jpeg2000") + video)
    assert check_contents(tmp_path / "x", "jp2") == ("the video of a motion photo",)


def test_data_after_a_jp2_whose_last_box_has_no_length_are_named(tmp_path: Path) -> None:
    content = saved("jpeg2000")
    place = content.index(b"jp2c") - 4
    assert notes(content[:place] + bytes(4) + content[place + 4 :] + VIDEO, tmp_path) == (
        "not kept: the video of a motion photo",
    )


def test_joined_jpegs_are_not_an_mpo(tmp_path: Path) -> None:
    assert "is a file of 3 JPEGs, one after the other; " in refusal(3 * jpeg(), tmp_path)


def test_the_png_of_ios_is_named(tmp_path: Path) -> None:
    content = saved("png")
    chunk = b"\0\0\0\4CgBI" + bytes.fromhex("50002002 2bd5b37f")
    assert "is in PNG for iOS (CgBI) format, which is not supported; " in refusal(
        content[:8] + chunk + content[8:], tmp_path
    )


def test_unknown_boxes_of_heif_are_named(tmp_path: Path) -> None:
    assert notes(saved("avif") + b"\0\0\0\x0csefdabcd", tmp_path) == ("not kept: the box 'sefd'",)
