"""Colors of AVIF files made by libavif's encoder."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import format_matrix
from pellucid.pictures import images, levels
from pellucid.pictures.containers import heif
from pellucid.pictures.contents.heif import find_records

AVIFENC = shutil.which("avifenc")
needs_avifenc = pytest.mark.skipif(AVIFENC is None, reason="avifenc is not installed")


def encode(folder: Path, *options: str) -> Path:
    PIL.Image.fromarray(format_matrix.photo()).save(folder / "a.png")
    assert AVIFENC is not None
    command = [AVIFENC, *options, str(folder / "a.png"), str(folder / "a.avif")]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    return folder / "a.avif"


@needs_avifenc
@pytest.mark.parametrize(
    ("cicp", "depth"), [("9/16/9", "10"), ("9/18/9", "12"), ("12/13/6", "8"), ("1/8/1", "8"), ("9/16/0", "10")]
)
def test_cicp_becomes_a_chunk_of_png(cicp: str, depth: str, tmp_path: Path) -> None:
    extra = ("--yuv", "444") if cicp.endswith("/0") else ()
    picture = images.read(encode(tmp_path, "--cicp", cicp, "-d", depth, *extra))
    assert images.write(picture, tmp_path / "b.png") == ()
    primaries, transfer, _ = map(int, cicp.split("/"))
    content = (tmp_path / "b.png").read_bytes()
    place = content.index(b"cICP")
    assert content[place + 4 : place + 8] == bytes([primaries, transfer, 0, 1])
    assert place < content.index(b"IDAT")
    (note,) = images.write(picture, tmp_path / "b.tif")
    assert note == "not kept in TIFF: the color description (cICP)"


@needs_avifenc
def test_srgb_is_what_other_formats_assume(tmp_path: Path) -> None:
    picture = images.read(encode(tmp_path, "--cicp", "1/13/6"))
    assert images.write(picture, tmp_path / "b.tif") == ()


@needs_avifenc
def test_colors_that_are_multiplied_by_alpha_are_divided(tmp_path: Path) -> None:
    values = np.dstack([format_matrix.photo(), np.full(format_matrix.photo().shape[:2], 128, np.uint8)])
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    for name, option in (("a.avif", ["--premultiply"]), ("b.avif", [])):
        command = [str(AVIFENC), "--lossless", *option, str(tmp_path / "a.png"), str(tmp_path / name)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        picture = images.read(tmp_path / name)
        np.testing.assert_allclose(picture.samples.astype(int), values[..., :3], atol=3 if option else 0)
        assert (picture.alpha == 128).all()  # type: ignore[union-attr]


@needs_avifenc
def test_the_shape_of_pixels_is_named(tmp_path: Path) -> None:
    picture = images.read(encode(tmp_path, "--pasp", "2,1"))
    assert picture.encoding is not None
    assert picture.encoding.notes == ("not kept: the shape of the pixels (2:1)",)
    square = images.read(encode(tmp_path, "--pasp", "1,1")).encoding
    assert square is not None and not square.notes


@needs_avifenc
@pytest.mark.parametrize(
    ("width", "options", "is_named"),
    [
        (17, ("-y", "420", "--irot", "1"), True),
        (17, ("-y", "422", "--imir", "0"), True),
        (17, ("-y", "444", "--irot", "1"), False),
        (17, ("-y", "420"), False),
        (16, ("-y", "420", "--irot", "1"), False),
    ],
)
def test_colors_that_libheif_turns_inexactly_are_named(
    width: int, options: tuple[str, ...], is_named: bool, tmp_path: Path
) -> None:
    """They differ from libavif's by up to 79 of 255 in noise."""
    PIL.Image.new("RGB", (width, 12), "orange").save(tmp_path / "a.png")
    command = [str(AVIFENC), *options, str(tmp_path / "a.png"), str(tmp_path / "a.avif")]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    encoding = images.read(tmp_path / "a.avif").encoding
    assert encoding is not None
    assert any("outermost pixels" in note for note in encoding.notes) == is_named


def test_a_profile_comes_before_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(format_matrix.avif(format_matrix.photo()))
    metadata = images.read(tmp_path / "a.avif").metadata
    assert metadata["icc-profile-data"] == format_matrix.PROFILE
    assert "png-chunks" not in metadata


def box(kind: bytes, *content: bytes) -> bytes:
    joined = b"".join(content)
    return struct.pack(">I4s", len(joined) + 8, kind) + joined


def container(*properties: bytes, is_long: bool = False) -> bytes:
    """The boxes of a file whose item 1 has the properties. is_long: numbers of properties have 16 bits."""
    indices = b"".join(number.to_bytes(2 if is_long else 1, "big") for number in range(1, len(properties) + 1))
    flags = bytes([0, 0, 0, is_long])
    associations = box(b"ipma", flags, struct.pack(">IHB", 1, 1, len(properties)), indices)
    properties_box = box(b"iprp", box(b"ipco", *properties), associations)
    return box(b"ftyp", b"avif") + box(b"meta", bytes(4), box(b"pitm", bytes(4), b"\0\1"), properties_box)


@pytest.mark.parametrize("is_long", [False, True])
def test_brightness_is_converted(is_long: bool) -> None:
    mastering = struct.pack(">8H", 1, 2, 3, 4, 5, 6, 7, 8) + struct.pack(">II", 9, 10)
    found = heif.read_colors(
        io.BytesIO(
            container(box(b"clli", struct.pack(">HH", 1000, 400)), box(b"mdcv", mastering), is_long=is_long)
        )
    )
    light = format_matrix.png_chunk(b"cLLI", struct.pack(">II", 10_000_000, 4_000_000))
    # HEIF has green, blue, red; PNG has red, green, blue.
    display = format_matrix.png_chunk(b"mDCV", struct.pack(">8HII", 5, 6, 1, 2, 3, 4, 7, 8, 9, 10))
    assert found == light + display


@given(place=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 200))
def test_damaged_boxes_never_raise(place: int, byte: int, cut: int) -> None:
    content = bytearray(container(box(b"colr", b"nclx", bytes([0, 9, 0, 16, 0, 9, 128]))))
    content[place % len(content)] = byte
    heif.read_colors(io.BytesIO(content))
    heif.read_colors(io.BytesIO(content[:cut]))


@pytest.mark.parametrize("range_", ["limited", "full"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_gray_agrees_with_libavif(range_: str, has_alpha: bool, tmp_path: Path) -> None:
    """libheif returns three channels for gray, without expanding 16 to 235."""
    samples = format_matrix.photo(2 if has_alpha else 1)
    image = PIL.Image.fromarray(samples.squeeze())
    path = tmp_path / "x.avif"
    image.save(path, quality=90, subsampling="4:0:0", range=range_, icc_profile=format_matrix.GRAY_PROFILE)
    picture = images.read(path)
    with PIL.Image.open(path) as file:
        expected = np.asarray(file.convert("LA" if has_alpha else "L")).reshape(samples.shape)
    assert picture.channels == 1
    found = np.concatenate(picture.planes, axis=2).astype(int)
    assert np.abs(found - expected).max() <= 1  # rounding
    assert np.abs(expected.astype(int) - samples).max() < 8
    assert picture.metadata["icc-profile-data"] == format_matrix.GRAY_PROFILE


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_video_range_is_expanded(bits: int) -> None:
    """The values of ITU-R BT.2100, table 9: black is 16 and white is 235, times 4 with 10 and 16 with 12 bits."""
    steps = 2 ** (bits - 8)
    stored = np.array([0, 16 * steps, 235 * steps, 2**bits - 1])
    peak = 255 if bits == 8 else 65535
    stretched = np.rint(stored * (peak / (2**bits - 1))).astype(np.uint8 if bits == 8 else np.uint16)
    expanded = levels.expand_limited(stretched, bits).astype(int)
    assert np.abs(expanded - [0, 0, peak, peak]).max() <= 1


@needs_avifenc
@pytest.mark.parametrize("matrix", [0, 1, 9])
@pytest.mark.parametrize("depth", [8, 10])
def test_video_range_of_colors_is_expanded(matrix: int, depth: int, tmp_path: Path) -> None:
    """Matrix 0 is RGB, whose red and blue libheif expands as if they were chroma."""
    options = ("--min", "0", "--max", "0", "--yuv", "444", "-r", "limited", "-d", str(depth))
    path = encode(tmp_path, *options, "--cicp", f"1/13/{matrix}")
    found = images.read(path).samples / (1 if depth == 8 else 257)
    assert np.abs((found - format_matrix.photo()).mean(axis=(0, 1))).max() < 1  # 2 without it


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("is_limited", [False, True])
def test_heic_with_red_green_and_blue_as_planes(is_limited: bool, bits: int, tmp_path: Path) -> None:
    """Lossless by libheif, whose planes are those of ITU-T H.273 (8.3) for the full range.

    No encoder writes the values of video range: libheif's own leaves 16 to 240 to red and blue, and libheif's
    older ones expand nothing. So they are stored as if they were of the full range, whose mark is then changed.
    """
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra formats")
    source, peak = format_matrix.photo(), 2**bits - 1
    levels = source * (219 * 2 ** (bits - 8) / 255) + 16 * 2 ** (bits - 8) if is_limited else source * (peak / 255)
    stored = np.rint(levels).astype(np.uint16)
    if bits == 8:
        file = pillow_heif.from_pillow(PIL.Image.fromarray(stored.astype(np.uint8)))
    else:
        shifted = (stored << (16 - bits)).tobytes()
        file = pillow_heif.from_bytes(mode="RGB;16", size=stored.shape[1::-1], data=shifted)
    colors = {"matrix_coefficients": 0, "color_primaries": 1, "transfer_characteristics": 13}
    file.save(tmp_path / "x.heic", quality=-1, chroma=444, full_range_flag=1, **colors)
    content = bytearray((tmp_path / "x.heic").read_bytes())
    place = content.index(b"nclx") + 10
    assert content[place - 2 : place + 1] == b"\0\0\x80"  # RGB, full range
    content[place] = 0 if is_limited else 0x80
    (tmp_path / "x.heic").write_bytes(content)
    picture = images.read(tmp_path / "x.heic")
    assert picture.encoding is not None and picture.encoding.bits == bits
    found = picture.samples / (1 if bits == 8 else 257)
    largest = {(8, False): 0, (8, True): 2, (10, False): 0.2, (10, True): 0.8}[bits, is_limited]
    assert np.abs(found - source).max() <= largest
    assert np.abs((found - source).mean(axis=(0, 1))).max() < 0.7


def xmp_packet(name: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'dc:{name}="its {name}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.mark.parametrize("is_linked", [True, False])
def test_all_items_with_metadata_are_kept_or_named(is_linked: bool, tmp_path: Path) -> None:
    """Without links (cdsc), libheif finds none; pillow-heif takes the first one, even if it is a text."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra formats")
    tags = PIL.Image.Exif()
    tags[0x0110] = "a camera"
    first = tags.tobytes().removeprefix(b"Exif\0\0")
    tags[0x0110] = "another one"
    others = [
        ("mime", "text/plain", b"a text"),
        ("mime", "application/rdf+xml", xmp_packet("source")),
        ("mime", "application/rdf+xml", xmp_packet("format")),
        ("Exif", "", bytes(4) + first),
        ("Exif", "", bytes(4) + tags.tobytes().removeprefix(b"Exif\0\0")),
    ]
    content = io.BytesIO()
    pillow_heif.from_pillow(PIL.Image.fromarray(format_matrix.photo())).save(
        content, metadata=[{"type": a, "content_type": b, "data": c} for a, b, c in others]
    )
    links = b"cdsc" if is_linked else b"xdsc"
    (tmp_path / "a.heic").write_bytes(content.getvalue().replace(b"cdsc", links))
    picture = images.read(tmp_path / "a.heic")
    assert picture.encoding is not None
    assert picture.encoding.notes == ("not kept: an item of type text/plain, a second EXIF block",)
    images.write(picture, tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as file:
        packet = file.info["xmp"]
        assert file.getexif()[0x0110] == "a camera"
    assert b"its source" in packet and b"its format" in packet


@pytest.mark.parametrize(
    ("uuid", "name"),
    [
        ("d8fec3d61b0e483c92975828877ec481", "content credentials (C2PA)"),
        ("00112233445566778899aabbccddeeff", "the box of UUID 00112233445566778899aabbccddeeff"),
    ],
)
def test_boxes_of_other_programs_are_named(uuid: str, name: str, tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "a.avif")
    with (tmp_path / "a.avif").open("ab") as file:
        file.write(box(b"uuid", bytes.fromhex(uuid), b"content"))
    encoding = images.read(tmp_path / "a.avif").encoding
    assert encoding is not None and encoding.notes == (f"not kept: {name}",)


def test_metadata_of_a_depth_map_are_not_those_of_the_picture() -> None:
    """Items 1 (the picture), 2 (its depth map) and 3 (XMP of the depth map, inside of the box with the items)."""
    packet = xmp_packet("source")
    picture = b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"av01\0"
    record = b"\2\0\0\0" + struct.pack(">HH", 3, 0) + b"mime\0application/rdf+xml\0\0"
    items = box(b"iinf", struct.pack(">4xH", 2), box(b"infe", picture), box(b"infe", record))
    places = box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">HHHHHII", 1, 3, 1, 0, 1, 0, len(packet)))
    for target, expected in ((2, []), (1, [packet])):
        links = box(b"iref", bytes(4), box(b"cdsc", struct.pack(">HHH", 3, 1, target)))
        main = box(b"pitm", bytes(4), b"\0\1")
        file = box(b"ftyp", b"avif") + box(b"meta", bytes(4), main, items, places, links, box(b"idat", packet))
        assert find_records(io.BytesIO(file)).packets == expected


def test_hostile_items_take_little_time_and_memory() -> None:
    """Thousands of items with the same text, each of 65,535 parts that have no bytes or all of them."""
    text, count = bytes(2**22), 3000
    record = box(b"infe", b"\2\0\0\0", struct.pack(">HH", 3, 0), b"mime\0application/rdf+xml\0\0")
    entries = b"".join(record[:12] + struct.pack(">H", number) + record[14:] for number in range(count))
    items = box(b"iinf", struct.pack(">4xH", count), entries)
    main = box(b"pitm", bytes(4), b"\xff\xff")
    whole = b"".join(struct.pack(">HHHHII", number, 1, 0, 1, 0, len(text)) for number in range(count))
    empty = b"".join(struct.pack(">HHHH", number, 1, 0, 0xFFFF) for number in range(count))
    for sizes, places in ((b"\x44\0", whole), (b"\0\0", empty)):
        located = box(b"iloc", b"\1\0\0\0", sizes, struct.pack(">H", count), places)
        meta = box(b"meta", bytes(4), main, items, located, box(b"idat", text))
        found = find_records(io.BytesIO(box(b"ftyp", b"avif") + meta))
        assert sum(map(len, found.packets)) <= 2**26
