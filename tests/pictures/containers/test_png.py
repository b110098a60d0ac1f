"""PNG chunks that libvips does not keep, checked by Pillow."""

import io
import zlib
from pathlib import Path

import PIL.Image
from hypothesis import given
from hypothesis import strategies as st

import format_matrix
from pellucid.pictures import images, iptc
from pellucid.pictures.containers import png
from pellucid.pictures.picture import Picture

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
    assert iptc.parse_resources(content) == (format_matrix.IPTC, other)
    assert iptc.parse_resources(content + preview) == (format_matrix.IPTC, other)


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
