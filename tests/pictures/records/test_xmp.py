"""XMP after turning and scaling, compared with where Pillow puts the pixels."""

import re
from pathlib import Path
from xml.dom import minidom
from xml.etree.ElementTree import canonicalize

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exiftool
import format_matrix
from pellucid.pictures import images
from pellucid.pictures.geometry import Change
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import exif, xmp

NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
}
WIDTH, HEIGHT = 40, 20
LEFT, TOP, RIGHT, BOTTOM = 4, 5, 12, 15
ANN = f'stArea:x="{(LEFT + RIGHT) / 2 / WIDTH}" stArea:y="{(TOP + BOTTOM) / 2 / HEIGHT}"'


def packet(attributes: str = "", elements: str = "") -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items() if prefix != "rdf")
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}"><rdf:Description rdf:about="" {declared} {attributes}>'
        f'{elements}</rdf:Description></rdf:RDF></x:xmpmeta>{" " * 100}<?xpacket end="w"?>'
    ).encode()


def attribute(content: bytes, name: str) -> float:
    found = re.search(rf'{name}="(.*?)"', content.decode())
    assert found is not None, name
    return float(found[1])


REGIONS = packet(
    'tiff:ImageWidth="40" tiff:ImageLength="20"',
    f'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="40" stDim:h="20"/>'
    f'<mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description><mwg-rs:Area {ANN} stArea:w="0.2" stArea:h="0.5"/>'
    f"</rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    f"<MPReg:Rectangle>{LEFT / WIDTH}, {TOP / HEIGHT}, 0.2, 0.5</MPReg:Rectangle>"
    f'<Iptc4xmpExt:RegionBoundary Iptc4xmpExt:rbUnit="pixel" Iptc4xmpExt:rbX="{LEFT}" Iptc4xmpExt:rbY="{TOP}" '
    f'Iptc4xmpExt:rbW="{RIGHT - LEFT}" Iptc4xmpExt:rbH="{BOTTOM - TOP}"/>'
    f"<exif:SubjectArea><rdf:Seq><rdf:li>8</rdf:li><rdf:li>10</rdf:li><rdf:li>8</rdf:li><rdf:li>10</rdf:li>"
    f"</rdf:Seq></exif:SubjectArea>",
)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_follow_the_pixels(orientation: int, scale: int) -> None:
    marked = np.zeros((HEIGHT, WIDTH), np.uint8)
    marked[TOP:BOTTOM, LEFT:RIGHT] = 1
    image = PIL.Image.fromarray(marked)
    image.getexif()[0x0112] = orientation
    turned = np.asarray(PIL.ImageOps.exif_transpose(image)).repeat(scale, 0).repeat(scale, 1)
    (rows, cols), (height, width) = turned.nonzero(), turned.shape
    box = left, top, right, bottom = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
    adapted, removed = xmp.adapt(REGIONS, Change(orientation, (WIDTH, HEIGHT), (width, height)))
    assert removed == ()

    center = ((left + right) / 2 / width, (top + bottom) / 2 / height)
    sides = ((right - left) / width, (bottom - top) / height)
    assert [attribute(adapted, f"stArea:{name}") for name in "xywh"] == pytest.approx([*center, *sides])
    assert (attribute(adapted, "stDim:w"), attribute(adapted, "stDim:h")) == (width, height)
    assert (attribute(adapted, "tiff:ImageWidth"), attribute(adapted, "tiff:ImageLength")) == (width, height)
    text = minidom.parseString(adapted).getElementsByTagName("MPReg:Rectangle")[0].firstChild
    assert text is not None and text.nodeValue is not None
    corner = (left / width, top / height)
    assert [*map(float, text.nodeValue.split(","))] == pytest.approx([*corner, *sides])
    boundary = [attribute(adapted, f"Iptc4xmpExt:rb{name}") for name in "XYWH"]
    assert boundary == pytest.approx([left, top, right - left, bottom - top])
    area = [float(item) for item in re.findall(r"<rdf:li>(\d+)</rdf:li>", adapted.decode())]
    assert area == [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    assert len(box) == 4


def test_a_packet_without_places_stays_byte_for_byte() -> None:
    content = packet('xmp:Rating="4"', "<dc:title>a &amp; b</dc:title>") + b"\0\0"
    assert xmp.adapt(content, Change(6, (40, 20), (60, 120))) == (content, ())


def test_the_rest_of_a_changed_packet_stays() -> None:
    adapted, _ = xmp.adapt(packet('tiff:ImageWidth="40"', "<dc:title>a &amp; b</dc:title>"), scaled(2))
    expected = packet('tiff:ImageWidth="80"', "<dc:title>a &amp; b</dc:title>")
    assert canonicalize(adapted) == canonicalize(expected)
    assert adapted.startswith(expected[: expected.index(b"<x:")])
    assert adapted.endswith(expected[expected.index(b"</x:") :])


def scaled(factor: int) -> Change:
    return Change(1, (40, 20), (40 * factor, 20 * factor))


def test_a_panorama_is_scaled_but_not_turned() -> None:
    content = packet('GPano:FullPanoWidthPixels="80" GPano:CroppedAreaTopPixels="7" GPano:PoseHeadingDegrees="9"')
    adapted, removed = xmp.adapt(content, scaled(2))
    assert (attribute(adapted, "FullPanoWidthPixels"), attribute(adapted, "CroppedAreaTopPixels")) == (160, 14)
    assert (attribute(adapted, "PoseHeadingDegrees"), removed) == (9, ())
    adapted, removed = xmp.adapt(content, Change(6, (40, 20), (20, 40)))
    assert b"GPano" not in adapted
    assert removed == ("the description as a panorama, because the picture was turned",)


def test_what_announces_missing_parts_is_removed() -> None:
    adapted, removed = xmp.adapt(
        packet(
            'hdrgm:Version="1.0" GCamera:MotionPhoto="1" GCamera:SpecialTypeID="x" xmp:Rating="4"',
            '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
            'Item:Mime="image/jpeg" Item:Semantic="GainMap"/></rdf:li></rdf:Seq></Container:Directory>'
            "<xmp:Thumbnails>x</xmp:Thumbnails>",
        ),
        scaled(1),
    )
    assert not re.search(rb"hdrgm|Container|Item:|Motion|Thumbnails", adapted)
    assert b"SpecialTypeID" in adapted and b'xmp:Rating="4"' in adapted
    assert removed == (
        "the HDR gain map",
        "appended pictures or videos",
        "the video of a motion photo",
        "the preview in XMP",
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not XML",
        b"<x:xmpmeta><broken",
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + REGIONS,
        b"<RDF>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</RDF>",
    ],
)
def test_what_is_not_xmp_stays_the_same(content: bytes) -> None:
    assert xmp.adapt(content, Change(6, (40, 20), (20, 40))) == (content, ())
    assert xmp.split(content, 1) in ((content, b""), (b"", b""))


@given(place=st.integers(0, len(REGIONS) - 1), byte=st.integers(0, 255))
def test_damaged_packets_never_raise(place: int, byte: int) -> None:
    damaged = REGIONS[:place] + bytes([byte]) + REGIONS[place + 1 :]
    xmp.adapt(damaged, Change(7, (40, 20), (60, 120)))
    xmp.reset_orientation(damaged)
    xmp.merge(damaged, REGIONS)


LONG = packet('xmp:Rating="4" GImage:Mime="image/jpeg"', f"<GImage:Data>{'QUJD' * 40_000}</GImage:Data>")


@pytest.mark.parametrize("excess", range(1, 1200, 150))
def test_only_the_longest_properties_leave_a_packet_that_is_too_long(excess: int) -> None:
    """The first packet is what programs read that do not know the second."""
    content = packet(
        'xmp:Rating="4"', f"<GImage:Data>{'QUJD' * 400}</GImage:Data><dc:title>{'a' * 900}</dc:title>"
    )
    whole, _ = xmp.split(content, len(content))
    short, rest = xmp.split(content, len(whole) - excess)
    assert len(short) <= len(whole) - excess
    assert b"GImage:Data>" in rest and b"GImage:Data>" not in short
    for kept in (b"xmp:Rating", b"dc:title>"):
        assert kept in short and kept not in rest


@exiftool.needed
def test_a_long_packet_is_split_in_jpeg_and_joined_again(tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "a.webp", xmp=LONG)
    for source, target in (("a.webp", "b.jpg"), ("b.jpg", "c.jpg"), ("c.jpg", "d.png")):
        assert images.write(images.read(tmp_path / source), tmp_path / target) == ()
    before, *others = exiftool.read_tags(*(tmp_path / name for name in ("a.webp", "b.jpg", "c.jpg", "d.png")))
    expected = {name: value for name, value in before.items() if name.startswith("XMP-")}
    assert expected["XMP-GImage:ImageData"].startswith("(Binary data 120000 bytes")
    for tags in others:
        found = {name: value for name, value in tags.items() if name.startswith("XMP-")}
        found.pop("XMP-xmpNote:HasExtendedXMP", None)
        assert found == expected


def test_the_orientation_in_xmp_stays_if_there_is_no_other(tmp_path: Path) -> None:
    content = packet('tiff:Orientation="6"')
    picture = Picture(format_matrix.photo(), metadata={"xmp-data": content})
    images.write(picture, tmp_path / "a.png")
    assert images.read(tmp_path / "a.png").metadata["xmp-data"] == content
    tags = format_matrix.exif()
    tags[exif.ORIENTATION] = 6
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "b.webp", exif=tags.tobytes(), xmp=content)
    assert attribute(images.read(tmp_path / "b.webp").metadata["xmp-data"], "tiff:Orientation") == 1
