"""Netpbm files, made by netpbm's own programs and Pillow, and read by Pillow again."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import format_matrix
from pellucid.errors import ArgumentError, OutputError, PictureError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

PAMTOPNM = shutil.which("pamtopnm")


def read(content: bytes, folder: Path) -> Picture:
    (folder / "x.pnm").write_bytes(content)
    return images.read(folder / "x.pnm")


@pytest.mark.skipif(shutil.which("pngtopnm") is None, reason="needs netpbm")
@pytest.mark.parametrize("plain", [[], ["-plain"]])
@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_netpbm(channels: int, bits: int, plain: list[str], tmp_path: Path) -> None:
    values = format_matrix.noise(channels, "uint16") >> (16 - bits)
    if (bits, channels) == (1, 3):
        pytest.skip("PNG has no RGB of 1 bit")
    content = format_matrix.png(values, bits, {1: 0, 3: 2}[channels])
    (tmp_path / "x.png").write_bytes(content)
    made = subprocess.run(["pngtopnm", *plain, tmp_path / "x.png"], capture_output=True, check=True).stdout
    assert made[:2] == {(1, False): b"P4", (1, True): b"P1"}.get((bits, bool(plain)), made[:2])
    np.testing.assert_array_equal(read(made, tmp_path).samples, values * (255 if bits == 1 else 1))


def test_largest_values_comments_and_pam(tmp_path: Path) -> None:
    assert read(b"P2 # a comment\n3 1\n# 7\n10\n0 5 10\n", tmp_path).samples.ravel().tolist() == [0, 128, 255]
    assert read(b"P5\n2 1\n1023\n\x03\xff\x00\x00", tmp_path).samples.ravel().tolist() == [65535, 0]
    assert read(b"P1 3 1 101", tmp_path).samples.ravel().tolist() == [0, 255, 0]
    pam = b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n\1\2\3\4"
    picture = read(pam, tmp_path)
    assert (
        picture.samples.ravel().tolist() == [1, 2, 3] and picture.alpha is not None and picture.alpha.item() == 4
    )


_KINDS = {
    ".ppm": {1: b"P6", 3: b"P6"},
    ".pgm": {1: b"P5"},
    ".pam": dict.fromkeys((1, 2, 3, 4), b"P7"),
    ".pnm": {1: b"P5", 2: b"P7", 3: b"P6", 4: b"P7"},
}
"""Suffix and number of channels -> how files start."""


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("suffix", "channels"), [(suffix, n) for suffix, kinds in _KINDS.items() for n in kinds])
def test_files_are_what_their_suffix_says(suffix: str, channels: int, dtype: str, tmp_path: Path) -> None:
    values, path = format_matrix.noise(channels, dtype).squeeze(), tmp_path / f"x{suffix}"
    images.write(Picture.from_array(values), path)
    assert path.read_bytes()[:2] == _KINDS[suffix][channels]
    if suffix == ".ppm" and channels == 1:  # gray
        values = np.stack([values] * 3, axis=2)
    np.testing.assert_array_equal(images.read(path).to_array(), values)
    if PAMTOPNM is not None:  # the values as text, by netpbm
        text = subprocess.run([PAMTOPNM, "-plain", str(path)], capture_output=True, check=True).stdout
        if channels in (1, 3):
            assert [*map(int, text.split()[4:])] == values.reshape(-1).tolist()
    if suffix != ".pam" and channels in (1, 3) and (values.ndim, dtype) != (3, "uint16"):
        with PIL.Image.open(path) as file:
            np.testing.assert_array_equal(np.asarray(file), values)


@pytest.mark.parametrize(
    ("name", "channels", "reason"),
    [
        ("x.pbm", 1, "the suffix .pbm is not supported; PBM has only black and white; write .pgm for gray"),
        ("x.pgm", 3, "PGM cannot store colors; write .ppm"),
        ("x.pgm", 2, "PGM cannot store alpha; write .pam or PNG"),
        ("x.ppm", 4, "PPM cannot store alpha; write .pam or PNG"),
    ],
)
def test_what_a_kind_cannot_store_is_refused(name: str, channels: int, reason: str, tmp_path: Path) -> None:
    with pytest.raises((ArgumentError, OutputError), match=re.escape(reason)):
        images.write(Picture.from_array(format_matrix.noise(channels)), tmp_path / name)
    assert not [*tmp_path.iterdir()]


def test_names_of_results(tmp_path: Path) -> None:
    for format in ("ppm", "pgm", "pam", "pnm"):
        assert [images.result_name(name, format) for name in ("x.png", "x.pbm", "x.ppm")] == [f"x.{format}"] * 3
    with pytest.raises(ArgumentError, match="the format pbm cannot be written; PBM .* write .pgm for gray"):
        images.result_name("x.png", "pbm")
    (tmp_path / "x.pbm").write_bytes(b"P4\n8 1\n\x0f")
    assert images.result_name("x.pbm", source=tmp_path / "x.pbm") == "x.pgm"


DAMAGED = {
    "short": b"P6\n2 2\n255\n\0\0",
    "no width": b"P5\n0 1\n255\n",
    "17 bits": b"P5\n1 1\n70000\n\0\0",
    "above white": b"P5\n1 1\n10\n\x0b",
    "not a number": b"P2 1 1 255 x",
    "short text": b"P2 2 1 255 1",
    "no depth": b"P7\nWIDTH 1\nENDHDR\n",
    "no size": b"P5\n",
    "two pictures": b"P6\n1 1\n255\n\1\2\3P6\n1 1\n255\n\1\2\3",
    "not a bit": b"P1 1 1 2",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_and_several_pictures(kind: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="x.pnm (is damaged|has more data after its first picture)"):
        read(DAMAGED[kind], tmp_path)


@pytest.mark.parametrize(
    "head",
    [b"P6\n# one\n50 # two\n40\n255\n", b"P7\n# one\nWIDTH 50\nHEIGHT 40\n#two\nDEPTH 3\nMAXVAL 255\nENDHDR\n"],
)
def test_comments_are_kept(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(head + bytes(6000))
    picture = images.read(tmp_path / "a.ppm")
    assert images.write(picture, tmp_path / "b.ppm") == ()
    assert (tmp_path / "b.ppm").read_bytes() == b"P6\n# one\n# two\n50 40\n255\n" + bytes(6000)
    assert images.write(picture, tmp_path / "b.png") == ()
    with PIL.Image.open(tmp_path / "b.png") as written:
        assert written.info["Comment"] == "one\ntwo"
