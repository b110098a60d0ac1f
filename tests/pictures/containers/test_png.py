"""PNG chunks that libvips does not keep, checked by Pillow."""

import io
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import format_matrix
from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.containers import png
from pellucid.pictures.geometry import Change
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import iptc
from pellucid.pictures.structures import chunks

CONVERT = shutil.which("convert")
GAMMA = format_matrix.png_chunk(b"gAMA", (45455).to_bytes(4, "big"))
HDR = format_matrix.png_chunk(b"cICP", bytes([9, 16, 0, 1]))
TEXTS = (
    format_matrix.png_chunk(b"tEXt", b"Creation Time\0yesterday"),
    format_matrix.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"packed")),
    format_matrix.png_chunk(b"iTXt", "Author\0\0\0\0\0Zoë".encode()),
)


def test_texts_and_color_chunks_are_inserted_before_the_samples(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(format_matrix.png(format_matrix.noise(3), 8, 2, GAMMA, HDR, *TEXTS))
    images.write(images.read(tmp_path / "a.png"), tmp_path / "b.png")
    content = (tmp_path / "b.png").read_bytes()
    for chunk in (GAMMA, HDR, *TEXTS):
        assert content.count(chunk) == 1
        assert content.index(chunk) < content.index(b"IDAT")
    with PIL.Image.open(tmp_path / "b.png") as file:
        assert (file.info["Creation Time"], file.info["Comment"], file.info["Author"]) == (
            "yesterday",
            "packed",
            "Zoë",
        )


def test_compressed_captions_are_read() -> None:
    text = iptc.build_png_text(format_matrix.IPTC).encode()
    chunk = format_matrix.png_chunk(b"zTXt", f"{iptc.PNG_KEY}\0\0".encode() + zlib.compress(text))
    assert png.read(io.BytesIO(bytes(33) + chunk))[0] == {"iptc-data": format_matrix.IPTC}


def test_a_text_without_content_is_kept() -> None:
    chunk = format_matrix.png_chunk(b"tEXt", iptc.PNG_KEY.encode())
    assert png.read(io.BytesIO(bytes(33) + chunk))[0] == {"png-chunks": chunk}


def test_other_photoshop_resources_are_kept() -> None:
    other, preview = b"8BIM\x03\xed\0\0\0\0\0\x02ab", b"8BIM\x04\x0c\0\0\0\0\0\x02xy"
    content = iptc.build_resources(format_matrix.IPTC, other)
    expected = iptc.Resources(format_matrix.IPTC, others=other)
    assert iptc.parse_resources(content) == iptc.parse_resources(content + preview) == expected


@given(content=st.binary(max_size=80), cut=st.integers(0, 60))
def test_damaged_captions_are_ignored(content: bytes, cut: int) -> None:
    iptc.parse_resources(b"8BIM" + content)
    iptc.parse_resources(iptc.build_resources(format_matrix.IPTC)[:cut])
    png.read(io.BytesIO(bytes(33) + content))
    png.read(io.BytesIO(bytes(33) + format_matrix.png_chunk(b"tEXt", b"Raw profile type exif\0" + content)))


def test_without_metadata_nothing_is_added(tmp_path: Path) -> None:
    images.write(Picture(format_matrix.noise(3)), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert not any(kind in content for kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf"))


def rewritten(folder: Path, *chunks: bytes, **options: Any) -> tuple[bytes, tuple[str, ...]]:
    """(the content of a PNG with these chunks, read and written again, all notes)."""
    content = format_matrix.png(format_matrix.noise(3), 8, 2, *chunks)
    (folder / "a.png").write_bytes(content)
    picture = images.read(folder / "a.png")
    assert picture.encoding is not None
    notes = images.write(picture, folder / "b.png", overwrite=True, **options)
    return (folder / "b.png").read_bytes(), (*picture.encoding.notes, *notes)


def raw_profile(name: str, content: bytes, kind: bytes = b"zTXt") -> bytes:
    """As ImageMagick writes it: lines of 72 digits."""
    lines = [content[start : start + 36].hex() for start in range(0, len(content), 36)]
    text = "\n".join(["", name, f"{len(content):8}", *lines, ""]).encode()
    key = f"Raw profile type {name}".encode()
    if kind == b"tEXt":
        return format_matrix.png_chunk(kind, key + b"\0" + text)
    if kind == b"iTXt":
        return format_matrix.png_chunk(kind, key + b"\0\1\0en\0key\0" + zlib.compress(text))
    return format_matrix.png_chunk(kind, key + b"\0\0" + zlib.compress(text))


def plain(*chunks: bytes, behind: tuple[bytes, ...] = ()) -> bytes:
    """A PNG of two pixels, one above the other, with these chunks and nothing else."""
    parts = [
        format_matrix.png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 2, 8, 0, 0, 0, 0)),
        *chunks,
        format_matrix.png_chunk(b"IDAT", zlib.compress(b"\0\1\0\2")),
        *behind,
        format_matrix.png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif_block(orientation: int) -> bytes:
    tags = format_matrix.exif()
    tags[0x0112] = orientation
    return tags.tobytes()


BARE = exif_block(6).removeprefix(b"Exif\0\0")
PLACES = {
    "eXIf": format_matrix.png_chunk(b"eXIf", BARE),
    "eXIf with a header": format_matrix.png_chunk(b"eXIf", exif_block(6)),
    "exif": raw_profile("exif", exif_block(6)),
    "exif in tEXt": raw_profile("exif", exif_block(6), b"tEXt"),
    "exif in iTXt": raw_profile("exif", exif_block(6), b"iTXt"),
    "APP1": raw_profile("APP1", exif_block(6)),
}


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("name", PLACES)
def test_exif_is_read_wherever_it_is(name: str, is_behind: bool, tmp_path: Path) -> None:
    chunk = (PLACES[name],)
    (tmp_path / "a.png").write_bytes(plain(behind=chunk) if is_behind else plain(*chunk))
    picture = images.read(tmp_path / "a.png")
    assert picture.samples[..., 0].tolist() == [[2, 1]]
    images.write(picture, tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as file:
        tags = file.getexif()
    assert (tags[0x010F], tags[0x0112]) == ("Canon", 1)


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize(
    "chunk",
    [
        format_matrix.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + format_matrix.XMP),
        format_matrix.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(format_matrix.XMP)),
        raw_profile("xmp", format_matrix.XMP),
        raw_profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + format_matrix.XMP),
    ],
)
def test_xmp_is_read_wherever_it_is(chunk: bytes, is_behind: bool, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(plain(behind=(chunk,)) if is_behind else plain(chunk))
    images.write(images.read(tmp_path / "a.png"), tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as file:
        assert file.info["xmp"] == format_matrix.XMP


@pytest.mark.parametrize("name", ["icc", "icm"])
def test_a_profile_in_a_text_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(plain(behind=(raw_profile(name, format_matrix.GRAY_PROFILE),)))
    images.write(images.read(tmp_path / "a.png"), tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as file:
        assert file.info["icc_profile"] == format_matrix.GRAY_PROFILE


def test_captions_are_read_with_and_without_resources(tmp_path: Path) -> None:
    for content in (format_matrix.IPTC, iptc.build_resources(format_matrix.IPTC)):
        for name in ("iptc", "8bim"):
            (tmp_path / "a.png").write_bytes(plain(raw_profile(name, content)))
            assert images.read(tmp_path / "a.png").metadata["iptc-data"] == format_matrix.IPTC


@pytest.mark.skipif(CONVERT is None, reason="ImageMagick is not installed")
def test_profiles_by_imagemagick_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(format_matrix.jpeg(format_matrix.photo()))
    assert CONVERT is not None
    subprocess.run([CONVERT, tmp_path / "a.jpg", tmp_path / "a.png"], check=True, timeout=60)
    found, expected = (images.read(tmp_path / f"a.{suffix}").metadata for suffix in ("png", "jpg"))
    for key in ("exif-data", "icc-profile-data", "iptc-data", "xmp-data"):
        assert found[key] == expected[key], key


BITS = format_matrix.png_chunk(b"sBIT", b"\5\6\5")
ALL_BITS = format_matrix.png_chunk(b"sBIT", b"\x08\x08\x08")
BACKGROUND = format_matrix.png_chunk(b"bKGD", struct.pack(">3H", 1, 2, 3))
SAFE = format_matrix.png_chunk(b"prVt", b"private")
TIME = format_matrix.png_chunk(b"tIME", b"\7\xe8\1\2\3\4\5")


def test_other_chunks_are_copied_if_that_is_safe(tmp_path: Path) -> None:
    unsafe = format_matrix.png_chunk(b"prVT", b"depends on samples")
    content, notes = rewritten(tmp_path, ALL_BITS, BACKGROUND, SAFE, TIME, unsafe)
    assert all(content.count(chunk) == 1 for chunk in (ALL_BITS, BACKGROUND, SAFE, TIME))
    assert notes == ("not kept: PNG chunk prVT",)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_chunks_for_the_same_channels_are_kept(channels: int, tmp_path: Path) -> None:
    samples = format_matrix.noise(channels)
    colors, alpha = (samples[..., :-1], samples[..., -1:]) if channels in (2, 4) else (samples, None)
    bits = format_matrix.png_chunk(b"sBIT", bytes([8] * channels))
    background = format_matrix.png_chunk(b"bKGD", bytes([0, 7] * colors.shape[2]))
    picture = Picture(colors, alpha, metadata={"png-chunks": bits + background})
    assert images.write(picture, tmp_path / "a.png") == ()
    assert bits + background in (tmp_path / "a.png").read_bytes()


def test_restored_samples_have_more_significant_bits(tmp_path: Path) -> None:
    """A picture of 5, 6 and 5 bits: readers may cut the samples to so many bits."""
    (tmp_path / "a.png").write_bytes(plain(BITS))
    assert images.write(images.read(tmp_path / "a.png"), tmp_path / "b.png") == (
        "not kept in PNG: the number of significant bits (sBIT)",
    )
    assert b"sBIT" not in (tmp_path / "b.png").read_bytes()


def test_chunks_that_depend_on_the_channels_are_named(tmp_path: Path) -> None:
    picture = Picture(format_matrix.noise(1), metadata={"png-chunks": BITS + BACKGROUND + SAFE})
    (note,) = images.write(picture, tmp_path / "a.png")
    assert note == "not kept in PNG: the number of significant bits (sBIT), the background color (bKGD)"
    assert SAFE in (tmp_path / "a.png").read_bytes()


def test_the_physical_size_of_pixels_is_scaled(tmp_path: Path) -> None:
    scale = format_matrix.png_chunk(b"sCAL", b"\x010.5\x000.25")
    picture = Picture(format_matrix.noise(3), metadata={"png-chunks": scale, "size-px": (15, 7)})
    images.write(picture, tmp_path / "a.png")
    assert format_matrix.png_chunk(b"sCAL", b"\x010.25\x000.0833333333333333") in (tmp_path / "a.png").read_bytes()


def test_what_other_formats_cannot_store_is_named(tmp_path: Path) -> None:
    srgb = format_matrix.png_chunk(b"sRGB", b"\0")
    (tmp_path / "a.png").write_bytes(plain(GAMMA, srgb, *TEXTS, SAFE))
    assert images.write(images.read(tmp_path / "a.png"), tmp_path / "b.tif") == (
        "not kept in TIFF: texts (Creation Time, Comment, Author), PNG chunks prVt",
    )
    (tmp_path / "a.png").write_bytes(plain(HDR))
    assert images.write(images.read(tmp_path / "a.png"), tmp_path / "b.jpg") == (
        "not kept in JPEG: the color description (cICP)",
    )


def test_comments_are_those_of_jpeg(tmp_path: Path) -> None:
    for comment in ("hi", "hällo"):
        PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "a.jpg", comment=comment.encode())
        assert images.write(images.read(tmp_path / "a.jpg"), tmp_path / "b.png", overwrite=True) == ()
        with PIL.Image.open(tmp_path / "b.png") as file:
            assert file.info["Comment"] == comment
        images.write(images.read(tmp_path / "b.png"), tmp_path / "c.jpg", overwrite=True)
        with PIL.Image.open(tmp_path / "c.jpg") as file:
            assert file.info["comment"] == comment.encode()


def test_a_profile_for_other_channels_is_named(tmp_path: Path) -> None:
    picture = Picture(format_matrix.noise(1), metadata={"icc-profile-data": format_matrix.PROFILE})
    (note,) = images.write(picture, tmp_path / "a.png")
    assert note == "not kept in PNG: the ICC profile, which is not for gray"
    picture = Picture(format_matrix.noise(1), metadata={"icc-profile-data": b"no profile"})
    (note,) = images.write(picture, tmp_path / "b.png")
    assert note == "not kept in PNG: the ICC profile, which is damaged"


@pytest.mark.parametrize("unit", [0, 1])
def test_the_pixel_density_stays(unit: int, tmp_path: Path) -> None:
    chunk = format_matrix.png_chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, unit))
    (tmp_path / "a.png").write_bytes(plain(chunk))
    images.write(images.read(tmp_path / "a.png"), tmp_path / "b.png")
    assert chunk in (tmp_path / "b.png").read_bytes()
    (tmp_path / "a.png").write_bytes(plain())
    images.write(images.read(tmp_path / "a.png"), tmp_path / "b.png", overwrite=True)
    assert b"pHYs" not in (tmp_path / "b.png").read_bytes()


PALETTE_HEADER = struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([(b"XXXX", b"abc")], "its chunk XXXX, which is marked as critical, is not known"),
        ([(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 3, 3, 0, 0, 0))], "its header is invalid (00 00 00 02 00"),
        ([(b"IHDR", PALETTE_HEADER), (b"IDAT", zlib.compress(bytes(6)))], "its palette (PLTE) is missing"),
        ([(b"IHDR", PALETTE_HEADER), (b"PLTE", bytes(4))], "its palette (PLTE) is invalid"),
        ([(b"IHDR", PALETTE_HEADER), (b"PLTE", bytes(771))], "its palette (PLTE) is invalid"),
        ([(b"IHDR", PALETTE_HEADER), (b"PLTE", bytes(768))], "its samples (IDAT) are missing"),
        ([(b"IHDR", PALETTE_HEADER), (b"tx.t", b"")], "'tx.t' is not a type of chunk"),
        ([(b"IHDR", PALETTE_HEADER), (b"IEND", b"")], "its samples (IDAT) are missing"),
        ([(b"tEXt", b"a\0b")], "its header (IHDR) is missing"),
    ],
)
def test_what_is_wrong_with_chunks_is_named(parts: list[tuple[bytes, bytes]], found: str, tmp_path: Path) -> None:
    first = [] if parts[0][0] in (b"IHDR", b"tEXt") else [format_matrix.png_chunk(b"IHDR", PALETTE_HEADER)]
    content = b"\x89PNG\r\n\x1a\n" + b"".join([*first, *(format_matrix.png_chunk(*part) for part in parts)])
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(PictureError, match=re.escape(found)):
        images.read(tmp_path / "x.png")


def test_any_cut_before_the_end_of_the_samples_is_found() -> None:
    content = plain()
    end = len(content) - 12  # of the samples; an empty chunk follows
    assert [png.find_damage(io.BytesIO(content[:length])) for length in (end, len(content))] == ["", ""]
    assert all(png.find_damage(io.BytesIO(content[:length])) for length in range(8, end))
    assert png.find_damage(io.BytesIO(content[: end - 1])) == "it ends within its chunk 'IDAT'"


def test_two_blocks_of_exif_and_of_xmp(tmp_path: Path) -> None:
    """A second EXIF block is noted; the second XMP adds the properties that the first one does not have."""
    head = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    packets = [
        head + b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" ' + tags + b"/></rdf:RDF></x:xmpmeta>"
        for tags in (b'xmp:Rating="3"', b'xmp:Rating="5" xmp:Label="red"')
    ]
    texts = (format_matrix.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet) for packet in packets)
    blocks = (format_matrix.png_chunk(b"eXIf", exif_block(orientation)) for orientation in (1, 3))
    (tmp_path / "x.png").write_bytes(plain(*texts, *blocks))
    picture = images.read(tmp_path / "x.png")
    packet = picture.metadata["xmp-data"]
    assert b'xmp:Rating="3"' in packet and b'xmp:Rating="5"' not in packet and b'xmp:Label="red"' in packet
    assert picture.encoding is not None and picture.encoding.notes == (
        "not kept: other values of xmp:Rating in a second XMP packet, a second EXIF block",
    )


@pytest.mark.skipif(shutil.which("convert") is None, reason="ImageMagick is not installed")
@pytest.mark.parametrize("orientation", [1, 2, 3, 6])
def test_the_canvas_of_imagemagick_is_turned_and_scaled(orientation: int, tmp_path: Path) -> None:
    """It turns and scales the canvas itself for comparison."""
    turns: dict[int, list[str]] = {1: [], 2: ["-flop"], 3: ["-rotate", "180"], 6: ["-rotate", "90"]}
    start = ["convert", "-size", "40x20", "xc:red", "-repage", "100x70+10+5"]
    subprocess.run([*start, str(tmp_path / "a.png")], check=True)
    subprocess.run([*start, *turns[orientation], "-scale", "200%", str(tmp_path / "b.png")], check=True)
    chunk = next(content for kind, content in chunks_of(tmp_path / "a.png") if kind == b"caNv")
    size = (20, 40) if orientation > 4 else (40, 20)
    doubled = (2 * size[0], 2 * size[1])
    joined = png.adapt(format_matrix.png_chunk(b"caNv", chunk), Change(orientation, (40, 20), doubled))
    found = struct.unpack(">IIii", joined[8:24])
    expected = next(content for kind, content in chunks_of(tmp_path / "b.png") if kind == b"caNv")
    assert found == struct.unpack(">IIii", expected)


def chunks_of(path: Path) -> list[tuple[bytes, bytes]]:
    content = path.read_bytes()
    return [*chunks.split_chunks(content[8:])]
