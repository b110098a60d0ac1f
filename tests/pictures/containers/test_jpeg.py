"""Segments of JPEG files, written and read by ExifTool and Pillow."""

import hashlib
import io
import struct
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.JpegImagePlugin import JpegImageFile

import exiftool
import format_matrix
from pellucid.pictures import images, resolution
from pellucid.pictures.containers import jpeg
from pellucid.pictures.picture import Picture


def encoded(*segments: tuple[int, bytes], **options: object) -> bytes:
    """By Pillow, with more segments in front."""
    content = io.BytesIO()
    PIL.Image.fromarray(format_matrix.photo()).save(content, "jpeg", **options)
    built = b"".join(bytes([0xFF, marker]) + (len(raw) + 2).to_bytes(2, "big") + raw for marker, raw in segments)
    return content.getvalue()[:2] + built + content.getvalue()[2:]


def rewritten(content: bytes, folder: Path) -> tuple[Path, Path, tuple[str, ...]]:
    """(the file, what became of it, all notes)."""
    source, target = folder / "a.jpg", folder / "b.jpg"
    source.write_bytes(content)
    picture = images.read(source)
    assert picture.encoding is not None
    return source, target, (*picture.encoding.notes, *images.write(picture, target))


@exiftool.needed
@pytest.mark.parametrize(
    "tags",
    [
        (
            "-AmbientTemperature=21",
            "-Humidity=60",
            "-CameraFirmware=1.0",
            "-SerialNumber=7",
            "-LensSerialNumber=9",
        ),
        ("-ColorSpace=Uncalibrated", "-Gamma=2.2", "-CompositeImage=2", "-OffsetTimeOriginal=+02:00"),
        ("-Artist=Zoë", "-XPTitle=ttl", "-UserComment=hällo", "-Comment=wörld", "-IFD0:Rating=3"),
        ("-GPSLatitude=48.1", "-GPSLatitudeRef=N", "-GPSHPositioningError=5", "-GPSDateStamp=2025:01:02"),
        ("-IPTC:Keywords=k1", "-IPTC:Caption-Abstract=Café", "-XMP:Title=t", "-Photoshop:URL=http://a.b"),
        (
            "-XResolution=300",
            "-YResolution=200",
            "-ResolutionUnit=cm",
            "-JFIF:XResolution=7",
            "-JFIF:YResolution=8",
        ),
        ("-Ducky:Quality=7", "-Ducky:Comment=c"),
        ("-ExifByteOrder=II", "-Make=Acme"),
    ],
)
def test_nothing_is_lost_and_nothing_is_invented(tags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded())
    exiftool.write_tags(tmp_path / "x.jpg", *tags)
    source, target, notes = rewritten((tmp_path / "x.jpg").read_bytes(), tmp_path)
    before, after = exiftool.read_tags(source, target)
    assert len(before) >= len(tags)
    assert (after, notes) == (before, ())


@pytest.mark.parametrize(("unit", "x", "y"), [(0, 1, 1), (0, 3, 2), (1, 300, 200), (2, 118, 117)])
def test_the_density_stays(unit: int, x: int, y: int, tmp_path: Path) -> None:
    content = bytearray(encoded())
    content[13:18] = bytes([unit, 0, x % 256, 0, y]) if x < 256 else bytes([unit, x // 256, x % 256, 0, y])
    _, target, _ = rewritten(bytes(content), tmp_path)
    with JpegImageFile(target) as file:
        assert (file.info["jfif_unit"], file.info["jfif_density"]) == (unit, (x, y))


@pytest.mark.parametrize(
    ("x", "y", "density"),
    [(1, 2, (1, 2)), (2, 1, (2, 1)), (131_070, 65_535, (65_535, 32_768)), (70_000, 1, (65_535, 1))],
)
def test_the_shape_of_pixels_of_other_formats_is_kept(
    x: int, y: int, density: tuple[int, int], tmp_path: Path
) -> None:
    """JFIF stores a ratio of at most 65,535; PNG stores 32 bits."""
    picture = Picture(format_matrix.noise(3), metadata=resolution.to_metadata(x, y, "none"))
    assert images.write(picture, tmp_path / "x.jpg") == ()
    with JpegImageFile(tmp_path / "x.jpg") as file:
        assert (file.info["jfif_unit"], file.info["jfif_density"]) == (0, density)


def test_a_camera_file_without_jfif_gets_none(tmp_path: Path) -> None:
    content = encoded(exif=format_matrix.exif().tobytes())
    content = content[:2] + content[20:]
    assert content[2:4] == b"\xff\xe1"
    _, target, _ = rewritten(content, tmp_path)
    assert b"JFIF" not in target.read_bytes()


@pytest.mark.parametrize(
    ("segment", "note"),
    [
        ((0xE0, b"JFXX\0\x10" + b"x" * 50), "not kept: the preview in JFIF"),
        ((0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), "not kept: the HDR gain map"),
        ((0xEB, b"HDR_RI ver=11 ln0=1.2"), "not kept: the HDR gain map"),
        ((0xEB, b"JP\0\1\0\0\0\1jumb"), "not kept: content credentials (C2PA)"),
    ],
)
def test_segments_about_other_parts_are_dropped_with_a_note(
    segment: tuple[int, bytes], note: str, tmp_path: Path
) -> None:
    _, target, notes = rewritten(encoded(segment), tmp_path)
    assert notes == (note,)
    assert segment[1] not in target.read_bytes()


def test_unknown_segments_are_copied_and_named_if_they_cannot_be(tmp_path: Path) -> None:
    _, target, notes = rewritten(encoded((0xE1, b"FLIR\0\1\0\0raw"), (0xE5, b"RMETA")), tmp_path)
    assert notes == ()
    assert b"FLIR\0\1\0\0raw" in target.read_bytes()
    assert images.write(images.read(target), tmp_path / "c.png") == (
        "not kept in PNG: JPEG segments (APP1, APP5)",
    )


@exiftool.needed
def test_long_profiles_and_captions_are_stored_in_several_segments(tmp_path: Path) -> None:
    profile = format_matrix.PROFILE[:128] + bytes(150_000)
    records = b"".join(b"\x1c\x02\x19\x7f\xff" + letter * 32_767 for letter in (b"a", b"b", b"c", b"d", b"e"))
    (tmp_path / "a.jpg").write_bytes(encoded(icc_profile=profile))
    picture = images.read(tmp_path / "a.jpg")
    images.write(
        type(picture)(picture.samples, metadata={**picture.metadata, "iptc-data": records}), tmp_path / "b.jpg"
    )
    with PIL.Image.open(tmp_path / "b.jpg") as file:
        assert file.info["icc_profile"] == profile
    (tags,) = exiftool.read_tags(tmp_path / "b.jpg")
    assert tags["IPTC:Keywords"] == [letter * 32_767 for letter in "abcde"]
    assert images.read(tmp_path / "b.jpg").metadata["iptc-data"] == records


def test_exif_in_several_segments_is_joined(tmp_path: Path) -> None:
    block = format_matrix.exif().tobytes()
    first, second = block[:100], b"Exif\0\0" + block[100:]
    (tmp_path / "a.jpg").write_bytes(encoded((0xE1, first), (0xE1, second)))
    assert jpeg.read(io.BytesIO(encoded((0xE1, first), (0xE1, second))))[0]["exif-data"] == block


def test_incomplete_profiles_and_second_blocks_are_named(tmp_path: Path) -> None:
    block, part = format_matrix.exif().tobytes(), b"ICC_PROFILE\0\2\2" + format_matrix.PROFILE
    _, target, notes = rewritten(encoded((0xE1, block), (0xE1, block), (0xE2, part)), tmp_path)
    assert notes == ("not kept: a second EXIF block, the ICC profile, which is incomplete",)
    assert b"ICC_PROFILE" not in target.read_bytes()
    assert target.read_bytes().count(b"Exif\0\0") == 1


def test_two_packets_of_xmp_become_one(tmp_path: Path) -> None:
    start = b"http://ns.adobe.com/xap/1.0/\0"
    packets = [format_matrix.XMP.replace(b"></rdf:RDF>", b">" + text + b"</rdf:RDF>") for text in (b"%1", b"%2")]
    packets = [
        packet.replace(b"%1", b'<rdf:Description xmlns:a="b:" a:one="1"/>').replace(
            b"%2", b'<rdf:Description xmlns:a="b:" a:two="2"/>'
        )
        for packet in packets
    ]
    rewritten(encoded(*((0xE1, start + packet) for packet in packets)), tmp_path)
    found = images.read(tmp_path / "b.jpg").metadata["xmp-data"]
    assert b'a:one="1"' in found and b'a:two="2"' in found


@given(content=st.binary(max_size=60), cut=st.integers(2, 400))
def test_damaged_segments_never_raise(content: bytes, cut: int) -> None:
    whole = encoded(
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + content), (0xED, b"Photoshop 3.0\0" + content)
    )
    jpeg.read(io.BytesIO(whole[:cut]))


@pytest.mark.parametrize("fault", ["", "a part is missing", "another digest"])
def test_extended_xmp_is_kept_or_named(fault: str, tmp_path: Path) -> None:
    head = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    head += '<rdf:Description rdf:about="" xmlns:n="http://ns.adobe.com/xmp/note/" xmlns:dc="http://purl.org/dc/'
    head += 'elements/1.1/"'
    tail = "</rdf:Description></rdf:RDF></x:xmpmeta>"
    extension = f"{head}><dc:source>{'Z9' * 60_000}</dc:source>{tail}".encode()
    digest = hashlib.md5(extension).hexdigest().upper()
    noted = "0" * 32 if fault == "another digest" else digest
    packet = f'{head} n:HasExtendedXMP="{noted}">{tail}'.encode()
    segments = [b"http://ns.adobe.com/xap/1.0/\0" + packet]
    for offset in range(0, 60_000 if fault == "a part is missing" else len(extension), 60_000):
        where = digest.encode() + struct.pack(">II", len(extension), offset)
        part = extension[offset : offset + 60_000]
        segments.append(b"http://ns.adobe.com/xmp/extension/\0" + where + part)
    stored = b"".join(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments)
    content = io.BytesIO()
    PIL.Image.new("RGB", (20, 20)).save(content, "JPEG")
    (tmp_path / "a.jpg").write_bytes(content.getvalue()[:2] + stored + content.getvalue()[2:])
    picture = images.read(tmp_path / "a.jpg")
    assert picture.encoding is not None
    expected = ("not kept: extended XMP, which is incomplete or belongs to other XMP",)
    assert picture.encoding.notes == (expected if fault else ())
    assert (b"Z9" * 60_000 in picture.metadata["xmp-data"]) is not bool(fault)
