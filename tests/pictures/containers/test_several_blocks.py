"""Metadata that a file contains twice, or in unusual places, written by ExifTool and ImageMagick."""

import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

import exiftool
import format_matrix
from pellucid.pictures import images
from pellucid.pictures.records import xmp

CONVERT, CJXL = shutil.which("convert"), shutil.which("cjxl")
pytestmark = exiftool.needed

_FIRST = ("-XMP-xmp:Rating=3", "-XMP-dc:Title=first", "-XMP-xmp:Label=red")
_SECOND = ("-XMP-xmp:Rating=5", "-XMP-dc:Title=second", "-XMP-xmp:Label=red", "-XMP-dc:Source=scan")
_NOTE = "other values of dc:title, xmp:Rating in a second XMP packet"
_IN_JP2 = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def _make_packet(folder: Path, *tags: str) -> bytes:
    """A sidecar file by ExifTool."""
    path = folder / "made.xmp"
    path.unlink(missing_ok=True)
    assert exiftool.PROGRAM is not None
    subprocess.run([exiftool.PROGRAM, "-q", *tags, str(path)], check=True)
    return path.read_bytes()


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _append_to_webp(content: bytes, kind: bytes, chunk: bytes) -> bytes:
    longer = content + kind + struct.pack("<I", len(chunk)) + chunk + bytes(len(chunk) % 2)
    return longer[:4] + struct.pack("<I", len(longer) - 8) + longer[8:]


def _insert_png_chunk(content: bytes, kind: bytes, chunk: bytes) -> bytes:
    place = content.index(b"IDAT") - 4
    return content[:place] + format_matrix.png_chunk(kind, chunk) + content[place:]


def _append_to_jpeg_head(content: bytes, packet: bytes) -> bytes:
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    place = content.index(b"\xff\xdb")
    return content[:place] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[place:]


def _append_to_gif(content: bytes, packet: bytes) -> bytes:
    trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    return content[:-1] + b"\x21\xff\x0bXMP DataXMP" + packet + trailer + b"\x3b"


_ADDERS: dict[str, Callable[[bytes, bytes], bytes]] = {
    ".jpg": _append_to_jpeg_head,
    ".png": lambda content, packet: _insert_png_chunk(content, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
    ".webp": lambda content, packet: _append_to_webp(content, b"XMP ", packet),
    ".gif": _append_to_gif,
    ".jxl": lambda content, packet: content + _box(b"xml ", packet),
    ".jp2": lambda content, packet: content + _box(b"uuid", _IN_JP2 + packet),
}


def _make(path: Path, *tags: str) -> None:
    """A picture with tags by ExifTool."""
    if path.suffix in (".jxl", ".jp2"):
        pytest.importorskip("pyjpegxl", reason="needs the extra formats")
    image = PIL.Image.fromarray(format_matrix.photo())
    if path.suffix == ".jxl":
        if CJXL is None:
            pytest.skip("needs cjxl")
        image.save(path.with_suffix(".ppm"))
        call = [CJXL, "--quiet", "--container=1", str(path.with_suffix(".ppm")), str(path)]
        subprocess.run(call, check=True, capture_output=True)
    else:
        image.save(path)
    exiftool.write_tags(path, *tags)


@pytest.mark.parametrize("suffix", _ADDERS)
def test_what_a_second_packet_adds_is_kept_and_what_it_contradicts_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    _make(path, *_FIRST)
    path.write_bytes(_ADDERS[suffix](path.read_bytes(), _make_packet(tmp_path, *_SECOND)))
    picture = images.read(path)
    assert picture.encoding is not None and any(_NOTE in note for note in picture.encoding.notes)
    images.write(picture, tmp_path / "y.png")
    (found,) = exiftool.read_tags(tmp_path / "y.png")
    values = [found[name] for name in ("XMP-xmp:Rating", "XMP-dc:Title", "XMP-xmp:Label", "XMP-dc:Source")]
    assert values == [3, "first", "red", "scan"]


@pytest.mark.parametrize("suffix", _ADDERS)
def test_a_second_packet_that_agrees_is_not_named(suffix: str, tmp_path: Path) -> None:
    """ExifTool writes elements; here, the same values are attributes."""
    path = tmp_path / f"x{suffix}"
    _make(path, *_FIRST)
    before = images.read(path).metadata["xmp-data"]
    same = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    same += b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="3" xmp:Label="red"/>'
    path.write_bytes(_ADDERS[suffix](path.read_bytes(), same + b"</rdf:RDF></x:xmpmeta>"))
    picture = images.read(path)
    assert picture.metadata["xmp-data"] == before
    assert picture.encoding is not None and not any("XMP" in note for note in picture.encoding.notes)


def test_a_damaged_packet_is_named_wherever_it_is() -> None:
    intact, damaged = format_matrix.XMP, format_matrix.XMP[:-5]
    for packets in ((intact, damaged), (damaged, intact)):
        assert xmp.join(packets) == (intact, ("one of several XMP packets, which is damaged",))
    assert xmp.join([damaged]) == (damaged, ())


def _png_with_two_blocks(content: bytes, second: bytes) -> bytes:
    text = b"\nexif\n%8d\n%s\n" % (len(second) + 6, (b"Exif\0\0" + second).hex().encode())
    return _insert_png_chunk(content, b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


_EXIF_ADDERS: dict[str, Callable[[bytes, bytes], bytes]] = {
    ".png": _png_with_two_blocks,
    ".webp": lambda content, block: _append_to_webp(content, b"EXIF", block),
    ".jxl": lambda content, block: content + _box(b"Exif", bytes(4) + block),
}


@pytest.mark.parametrize("suffix", _EXIF_ADDERS)
def test_a_second_exif_block_is_named(suffix: str, tmp_path: Path) -> None:
    path, second = tmp_path / f"x{suffix}", format_matrix.exif().tobytes().removeprefix(b"Exif\0\0")
    _make(path, "-EXIF:Artist=Zoe")
    path.write_bytes(_EXIF_ADDERS[suffix](path.read_bytes(), second))
    picture = images.read(path)
    assert picture.encoding is not None and "not kept: a second EXIF block" in picture.encoding.notes
    images.write(picture, tmp_path / "y.png")
    (found,) = exiftool.read_tags(tmp_path / "y.png")
    assert found["IFD0:Artist"] == "Zoe" and "IFD0:Make" not in found


@pytest.mark.parametrize("suffix", [".jxl", ".jp2"])
def test_metadata_before_and_after_an_appended_video_are_kept(suffix: str, tmp_path: Path) -> None:
    """ExifTool puts the boxes that it adds to JPEG 2000 after everything else."""
    path = tmp_path / f"x{suffix}"
    _make(path, "-XMP-xmp:Label=red")
    path.write_bytes(path.read_bytes() + _box(b"ftyp", b"mp42\0\0\0\0isommp42") + _box(b"mdat", bytes(9)))
    exiftool.write_tags(path, "-EXIF:Artist=Zoe")
    picture = images.read(path)
    assert picture.encoding is not None and picture.encoding.notes == ("not kept: the video of a motion photo",)
    images.write(picture, tmp_path / "y.png")
    (found,) = exiftool.read_tags(tmp_path / "y.png")
    assert (found["XMP-xmp:Label"], found["IFD0:Artist"]) == ("red", "Zoe")


@pytest.mark.skipif(CONVERT is None, reason="needs ImageMagick")
def test_captions_in_a_gif_by_imagemagick_are_kept(tmp_path: Path) -> None:
    content = io.BytesIO()
    PIL.Image.fromarray(format_matrix.photo()).save(content, "JPEG")
    (tmp_path / "x.jpg").write_bytes(content.getvalue())
    exiftool.write_tags(tmp_path / "x.jpg", "-IPTC:Keywords=sea", "-IPTC:City=Ostende")
    assert CONVERT is not None
    subprocess.run([CONVERT, str(tmp_path / "x.jpg"), str(tmp_path / "x.gif")], check=True)
    images.write(images.read(tmp_path / "x.gif"), tmp_path / "y.png")
    (found,) = exiftool.read_tags(tmp_path / "y.png")
    assert (found["IPTC:Keywords"], found["IPTC:City"]) == ("sea", "Ostende")


@pytest.mark.skipif(CONVERT is None, reason="needs ImageMagick")
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
def test_copies_in_the_resources_of_photoshop_are_joined_with_the_others(suffix: str, tmp_path: Path) -> None:
    """ImageMagick copies all resources of a PSD, with EXIF and XMP, and writes XMP once more."""
    assert CONVERT is not None
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.png")
    subprocess.run([CONVERT, str(tmp_path / "x.png"), str(tmp_path / "x.psd")], check=True)
    tags = ("-n", "-XMP-dc:Title=sea", "-XMP-tiff:Orientation=6", "-EXIF:Orientation=6", "-EXIF:Artist=Zoe")
    exiftool.write_tags(tmp_path / "x.psd", *tags, "-Photoshop:URL=http://a.b", "-IPTC:City=Ostende")
    path = tmp_path / f"a{suffix}"
    subprocess.run([CONVERT, f"{tmp_path / 'x.psd'}[0]", str(path)], check=True)
    assert path.read_bytes().count(b"8BIM") or suffix == ".png"
    picture = images.read(path)
    assert (picture.width, picture.height) == format_matrix.photo().shape[:2]
    images.write(picture, tmp_path / "b.jpg")
    (found,) = exiftool.read_tags(tmp_path / "b.jpg")
    names = ("XMP-dc:Title", "Photoshop:URL", "IPTC:City")
    assert [found.get(name) for name in names] == ["sea", "http://a.b", "Ostende"]
    written, notes = (tmp_path / "b.jpg").read_bytes(), picture.encoding.notes if picture.encoding else ()
    assert written.count(b"<x:xmpmeta") == 1
    assert any("a second EXIF block" in note for note in notes)  # ImageMagick changes the orientation in one
    if suffix != ".tif":  # whose own tags come first
        assert found["IFD0:Artist"] == "Zoe" and written.count(b"Zoe\0") == 1
    assert found["IFD0:Orientation"] == "Horizontal (normal)" == found["XMP-tiff:Orientation"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_xmp_within_exif_is_true_for_a_turned_picture(suffix: str, tmp_path: Path) -> None:
    """As a tag, which TIFF has for it; written by Pillow."""
    start = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    )
    packet = start + b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/'
    packet += b'elements/1.1/" tiff:Orientation="6" tiff:ImageWidth="60" dc:source="s"/></rdf:RDF></x:xmpmeta>'
    block = PIL.Image.Exif()
    block[0x0112], block[0x02BC], block[0x013B] = 6, packet, "Zoe"
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / f"x{suffix}", exif=block)
    images.write(images.read(tmp_path / f"x{suffix}"), tmp_path / f"y{suffix}")
    (found,) = exiftool.read_tags(tmp_path / f"y{suffix}")
    names = ("XMP-tiff:Orientation", "XMP-tiff:ImageWidth", "XMP-dc:Source", "IFD0:Artist", "IFD0:Orientation")
    upright = "Horizontal (normal)"
    assert [found[name] for name in names] == [upright, format_matrix.photo().shape[0], "s", "Zoe", upright]


def test_another_resolution_than_that_in_exif_is_named(tmp_path: Path) -> None:
    """ExifTool states 72 dpi in every new EXIF block."""
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.png", dpi=(300, 300))
    exiftool.write_tags(tmp_path / "x.png", "-EXIF:Artist=Zoe")
    picture = images.read(tmp_path / "x.png")
    note = "not kept in WebP: the resolution, because EXIF states another one"
    assert images.write(picture, tmp_path / "y.webp") == (note,)
    assert images.write(picture, tmp_path / "y.tif") == ()
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.png", dpi=(72, 72))
    exiftool.write_tags(tmp_path / "x.png", "-EXIF:Artist=Zoe")
    assert images.write(images.read(tmp_path / "x.png"), tmp_path / "z.webp") == ()


def test_the_same_exif_in_another_order_is_no_second_block(tmp_path: Path) -> None:
    """Written twice by ExifTool: in both byte orders."""
    blocks = []
    for order in ("II", "MM"):
        PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.jpg")
        exiftool.write_tags(tmp_path / "x.jpg", f"-ExifByteOrder={order}", "-EXIF:Artist=Zoe", "-EXIF:ISO=200")
        blocks.append(images.read(tmp_path / "x.jpg").metadata["exif-data"].removeprefix(b"Exif\0\0"))
    assert blocks[0] != blocks[1]
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.png", exif=blocks[0])
    (tmp_path / "x.png").write_bytes(_png_with_two_blocks((tmp_path / "x.png").read_bytes(), blocks[1]))
    picture = images.read(tmp_path / "x.png")
    assert picture.encoding is not None and picture.encoding.notes == ()
