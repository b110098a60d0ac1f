"""HEIC, JPEG XL and JPEG 2000, in files of libheif, libjxl and OpenJPEG's own programs, and read by them again."""

import io
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

import format_matrix
from pellucid.errors import MissingExtraError, OutputError, PictureError
from pellucid.pictures import images
from pellucid.pictures.codecs import jpeg_xl
from pellucid.pictures.picture import Picture
from signalling import deliver

pytest.importorskip("pillow_heif", reason="needs the extra formats")
pytest.importorskip("openjpeg", reason="needs the extra formats")
pytest.importorskip("pyjpegxl", reason="needs the extra formats")


def _build_wide_profile() -> bytes:
    """The primaries of Adobe RGB (1998) and a gamma of 2.2."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63189, 65536, 54060),
        b"rXYZ": b"XYZ " + bytes(4) + struct.pack(">3i", 39960, 20389, 1276),
        b"gXYZ": b"XYZ " + bytes(4) + struct.pack(">3i", 13453, 41004, 3989),
        b"bXYZ": b"XYZ " + bytes(4) + struct.pack(">3i", 9777, 4143, 48796),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + bytes(4) + struct.pack(">IH", 1, 563)),
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = (head + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp").ljust(68, b"\0")
    return (head + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)).ljust(128, b"\0") + table + body


WIDE = _build_wide_profile()


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


def call(*command: object) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


def png_of(channels: int, bits: int, folder: Path) -> tuple[Path, Any]:
    values = format_matrix.noise(channels, f"uint{bits}", height=40, width=50)
    path = folder / "source.png"
    path.write_bytes(format_matrix.png(values, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels]))
    return path, values


ENCODERS: dict[str, tuple[str, Callable[[Path, Path], tuple[object, ...]]]] = {
    ".jxl": ("cjxl", lambda source, out: ("cjxl", "-q", "100", "--keep_invisible=1", source, out)),
    ".jp2": ("opj_compress", lambda source, out: ("opj_compress", "-i", source, "-o", out)),
    ".j2k": ("opj_compress", lambda source, out: ("opj_compress", "-i", source, "-o", out)),
}
DECODERS: dict[str, Callable[[Path, Path], tuple[Any, ...]]] = {
    ".jxl": lambda path, out: ("djxl", path, out),
    ".jp2": lambda path, out: ("opj_decompress", "-i", path, "-o", out),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ENCODERS)
def test_files_of_other_programs_are_read_exactly(suffix: str, channels: int, bits: int, tmp_path: Path) -> None:
    program, command = ENCODERS[suffix]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    if (suffix, channels) == (".j2k", 4):
        pytest.skip("a codestream alone does not say what the fourth channel is")
    if (suffix, channels, bits) == (".jxl", 4, 16):
        pytest.skip("older versions of cjxl store an alpha of 8 bits")
    source, values = png_of(channels, bits, tmp_path)
    call(*command(source, tmp_path / f"x{suffix}"))
    picture = images.read(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(np.concatenate(picture.planes, axis=2), values)
    assert picture.encoding is not None and (picture.encoding.bits, picture.encoding.lossless) == (bits, True)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", DECODERS)
def test_other_programs_read_what_is_written(suffix: str, channels: int, bits: int, tmp_path: Path) -> None:
    path, decoded = tmp_path / f"x{suffix}", tmp_path / "decoded.png"
    command = DECODERS[suffix](path, decoded)
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    source, values = png_of(channels, bits, tmp_path)
    picture = images.read(source)
    images.write(replace(picture, metadata={}), path)  # opj_decompress would apply a profile
    call(*command)
    after = format_matrix.png_samples(decoded.read_bytes())
    if (suffix, channels) == (".jp2", 2):  # becomes RGB with alpha
        values = values[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(after, values)


@needs("exiftool")
@pytest.mark.parametrize("suffix", [".jxl", ".jp2"])
def test_exiftool_reads_the_metadata(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(format_matrix.jpeg(format_matrix.photo(), quality=90))
    picture = images.read(tmp_path / "x.jpg")
    images.write(picture, tmp_path / f"x{suffix}")
    found = call("exiftool", "-s", "-Make", "-FNumber", "-IPTC:Keywords", tmp_path / f"x{suffix}").split()
    assert {"Canon", "2.8"} <= set(found)
    assert ("sky" in found) == (suffix == ".jp2")
    again = images.read(tmp_path / f"x{suffix}")
    for name in ("icc-profile-data", "xmp-data"):
        assert again.metadata[name] == picture.metadata[name]


def test_floating_point_and_quality_of_jpeg_xl(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((40, 50, 3), np.float32) * 1.4 - 0.2
    images.write(Picture(values), tmp_path / "x.jxl")
    np.testing.assert_array_equal(images.read(tmp_path / "x.jxl").samples, values)
    images.write(Picture((values.clip(0, 1) * 255).astype(np.uint8)), tmp_path / "q.jxl", quality=80)
    lossy = images.read(tmp_path / "q.jxl")
    assert lossy.encoding is not None and not lossy.encoding.lossless
    images.write(lossy, tmp_path / "again.jxl")  # stays lossy
    again = images.read(tmp_path / "again.jxl").encoding
    assert again is not None and not again.lossless


@needs("cjxl")
@pytest.mark.parametrize("bits", [8, 16])
def test_lossy_jpeg_xl_with_a_profile_becomes_srgb(bits: int, tmp_path: Path) -> None:
    """The colors are those of LittleCMS, also the dark ones, which linear light of 8 bits does not have."""
    samples = format_matrix.photo()
    image = PIL.Image.fromarray(samples)
    image.save(tmp_path / "x.png", icc_profile=WIDE)
    call(
        "cjxl",
        "-q",
        "95",
        *(["--override_bitdepth=16"] if bits == 16 else []),
        tmp_path / "x.png",
        tmp_path / "x.jxl",
    )
    wide, srgb = (ImageCms.ImageCmsProfile(io.BytesIO(profile)) for profile in (WIDE, format_matrix.PROFILE))
    expected = np.asarray(ImageCms.profileToProfile(image, wide, srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC))
    picture = images.read(tmp_path / "x.jxl")
    assert picture.dtype == f"uint{bits}"
    found = picture.samples / (1 if bits == 8 else 257)
    assert np.abs(found - expected).mean() < 1.5
    assert picture.encoding is not None and "icc-profile-data" not in picture.metadata
    (note,) = picture.encoding.notes
    num_outside = int(((expected == 0) | (expected == 255)).any(axis=2).sum())
    assert note.startswith("colors converted from an ICC profile to sRGB") and ("clipped" in note) == (
        num_outside > 0
    )


@needs("cjxl")
def test_an_animated_jpeg_xl_is_refused(tmp_path: Path) -> None:
    frames = [PIL.Image.fromarray(format_matrix.noise(3, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    call("cjxl", tmp_path / "x.gif", tmp_path / "x.jxl")
    with pytest.raises(PictureError, match="is an animated JPEG XL; "):
        images.read(tmp_path / "x.jxl")


@needs("exiftool")
def test_the_orientation_of_jpeg_2000_is_applied_once(tmp_path: Path) -> None:
    picture = Picture(format_matrix.photo())
    images.write(picture, tmp_path / "x.jp2")
    call("exiftool", "-n", "-Orientation=6", "-overwrite_original", tmp_path / "x.jp2")
    upright = images.read(tmp_path / "x.jp2")
    np.testing.assert_array_equal(upright.samples, picture.apply_orientation(6).samples)
    images.write(upright, tmp_path / "y.jp2")
    np.testing.assert_array_equal(images.read(tmp_path / "y.jp2").samples, upright.samples)


def test_small_pictures_cannot_be_jpeg_2000(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="31 x 50 px; at least 32 x 32 are needed"):
        images.write(Picture(np.zeros((50, 31, 1), np.uint8)), tmp_path / "x.jp2")
    assert not any(tmp_path.iterdir())
    smallest = Picture(format_matrix.noise(1, height=32, width=32))
    images.write(smallest, tmp_path / "x.jp2")
    np.testing.assert_array_equal(images.read(tmp_path / "x.jp2").samples, smallest.samples)


@needs("exiftool")
@pytest.mark.parametrize("bits", [8, 16])
def test_the_header_of_jpeg_2000_states_the_depth(bits: int, tmp_path: Path) -> None:
    images.write(Picture(np.zeros((40, 50, 3), f"uint{bits}")), tmp_path / "x.jp2")
    assert f"{bits} Bits, Unsigned" in call("exiftool", "-s", "-BitsPerComponent", tmp_path / "x.jp2")


@pytest.mark.parametrize(
    ("suffix", "function"), [("jxl", "pyjpegxl.encode_from_numpy"), ("jp2", "openjpeg.utils.encode_array")]
)
def test_an_error_of_an_encoder_becomes_one_line(
    suffix: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory for frames\nat line 7")

    monkeypatch.setattr(function, fail)
    with pytest.raises(OutputError, match=r"cannot be written as JPEG .*: no memory for frames$"):
        images.write(Picture(np.zeros((40, 50, 3), np.uint8)), tmp_path / f"x.{suffix}")


@pytest.mark.parametrize(("quality", "distance"), [(90, 1.0), (30, 6.4), (20, 9.067), (10, 15.267), (1, 23.868)])
def test_quality_of_jpeg_xl_is_the_distance_of_libjxl(quality: int, distance: float) -> None:
    """Values of JxlEncoderDistanceFromQuality; older versions of cjxl have others below 30."""
    assert jpeg_xl._to_distance(quality) == pytest.approx(distance, abs=1e-3)


# HEIC


def heic(image: PIL.Image.Image, **options: Any) -> bytes:
    """By libheif, lossless but for the conversion to YCbCr."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    content = io.BytesIO()
    image.save(content, "HEIF", quality=-1, chroma=444, **options)
    return content.getvalue()


def read_heic(content: bytes, folder: Path) -> Picture:
    (folder / "x.heic").write_bytes(content)
    return images.read(folder / "x.heic")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation: int, tmp_path: Path) -> None:
    tags = format_matrix.exif()
    tags[0x0112] = orientation
    content = heic(PIL.Image.fromarray(format_matrix.photo()), exif=tags.tobytes())
    picture = read_heic(content, tmp_path)
    expected = Picture(format_matrix.photo()).apply_orientation(orientation).samples
    assert np.abs(picture.samples.astype(int) - expected).max() <= 1
    images.write(picture, tmp_path / "x.png")
    with PIL.Image.open(tmp_path / "x.png") as file:
        assert file.getexif().get(0x0112, 1) == 1 and file.getexif()[0x010F] == "Canon"
    if shutil.which("heif-convert"):
        call("heif-convert", tmp_path / "x.heic", tmp_path / "y.png")
        with PIL.Image.open(tmp_path / "y.png") as file:
            assert np.abs(picture.samples.astype(int) - np.asarray(file)).max() <= 1


@needs("heif-enc")
@pytest.mark.parametrize("channels", [3, 4])
def test_heic_of_10_bits(channels: int, tmp_path: Path) -> None:
    photo = np.repeat(format_matrix.photo(1).astype(np.uint16) * 257, 3, 2)
    values = np.concatenate([photo, photo[..., :1]], 2)[..., :channels]
    source = tmp_path / "source.png"
    source.write_bytes(format_matrix.png(values, 16, {3: 2, 4: 6}[channels]))
    call("heif-enc", "-q", "95", "-b", "10", source, "-o", tmp_path / "x.heic")
    picture = images.read(tmp_path / "x.heic")
    assert picture.dtype == "uint16" and (picture.alpha is not None) == (channels == 4)
    assert picture.encoding is not None and picture.encoding.bits == 10
    assert np.abs(picture.samples.astype(int) - photo).max() < 1200
    white = np.full((64, 64, 3), 65535, np.uint16)
    source.write_bytes(format_matrix.png(white, 16, 2))
    call("heif-enc", "-q", "95", "-b", "10", source, "-o", tmp_path / "x.heic")
    assert images.read(tmp_path / "x.heic").samples.min() == 65535


def test_gray_heic_is_gray(tmp_path: Path) -> None:
    gray = format_matrix.photo(1)
    picture = read_heic(heic(PIL.Image.fromarray(gray.squeeze())), tmp_path)
    assert picture.alpha is None
    assert np.abs(picture.samples.astype(int) - gray).max() <= 1


def test_heic_metadata_and_colors(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(format_matrix.photo())
    content = heic(
        image, exif=format_matrix.exif().tobytes(), icc_profile=format_matrix.PROFILE, xmp=format_matrix.XMP
    )
    picture = read_heic(content, tmp_path)
    assert picture.metadata["icc-profile-data"] == format_matrix.PROFILE
    assert picture.metadata["xmp-data"].rstrip(b"\0") == format_matrix.XMP
    hdr = heic(
        image, save_nclx_profile=True, color_primaries=9, transfer_characteristics=16, matrix_coefficients=9
    )
    images.write(read_heic(hdr, tmp_path), tmp_path / "x.png")
    assert b"cICP\x09\x10\0\1" in (tmp_path / "x.png").read_bytes()
    images.write(read_heic(heic(image), tmp_path), tmp_path / "y.png")
    assert b"cICP\x01\x0d\0\1" in (tmp_path / "y.png").read_bytes()  # sRGB, as libheif writes


def test_several_pictures_in_a_heic(tmp_path: Path) -> None:
    import pillow_heif

    file = pillow_heif.from_pillow(PIL.Image.fromarray(format_matrix.photo()))
    file.add_from_pillow(PIL.Image.fromarray(format_matrix.photo()))
    content = io.BytesIO()
    file.save(content)
    with pytest.raises(PictureError, match="is a HEIF file of 2 pictures; "):
        read_heic(content.getvalue(), tmp_path)


# Damage, sizes and missing packages


def written(suffix: str, folder: Path) -> bytes:
    if suffix == ".heic":
        return heic(PIL.Image.fromarray(format_matrix.photo()))
    images.write(Picture(format_matrix.photo()), folder / f"whole{suffix}")
    return (folder / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".heic", ".jxl", ".jp2"])
def test_damaged_files_give_one_line(suffix: str, tmp_path: Path) -> None:
    whole = written(suffix, tmp_path)
    rng = np.random.default_rng(0)
    for step in range(60):
        content = bytearray(whole if step % 2 else whole[: int(rng.integers(len(whole)))])
        for at in rng.integers(0, max(1, len(content)), 3) if content else ():
            content[at] = int(rng.integers(256))
        (tmp_path / f"x{suffix}").write_bytes(content)
        try:
            images.read(tmp_path / f"x{suffix}")
            images.decoding_cost(tmp_path / f"x{suffix}")
        except PictureError as error:
            assert "\n" not in str(error) and f"x{suffix}" in str(error)
    for length in (len(whole) // 2, len(whole) - 30):
        (tmp_path / f"x{suffix}").write_bytes(whole[:length])
        with pytest.raises(PictureError):
            images.read(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", [".heic", ".jxl", ".jp2"])
def test_large_pictures_are_refused_before_decoding(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x{suffix}").write_bytes(written(suffix, tmp_path))
    num_pixels, num_bytes = images.decoding_cost(tmp_path / f"x{suffix}")
    assert num_pixels == 60 * 42 and num_bytes >= 20 * num_pixels
    with pytest.raises(PictureError, match="at most 100 are allowed"):
        images.read(tmp_path / f"x{suffix}", max_pixels=100)


@pytest.mark.parametrize(
    ("suffix", "package"), [(".heic", "pillow_heif"), (".jxl", "pyjpegxl"), (".jp2", "openjpeg.utils")]
)
def test_missing_packages_are_named(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"x{suffix}").write_bytes(written(suffix, tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PictureError, match=r"needs an optional package; pip install 'pellucid\[formats\]'"):
        images.read(tmp_path / f"x{suffix}")
    if suffix != ".heic":
        with pytest.raises(
            MissingExtraError, match=r"needs an optional package; pip install 'pellucid\[formats\]'"
        ):
            images.write(Picture(format_matrix.photo()), tmp_path / f"y{suffix}")


@needs("exiftool")
def test_jpeg_xl_has_the_resolution_in_exif(tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.noise(3)).save(tmp_path / "x.png", dpi=(300, 200))
    images.write(images.read(tmp_path / "x.png"), tmp_path / "x.jxl")
    found = call("exiftool", "-n", "-s3", "-XResolution", "-YResolution", tmp_path / "x.jxl").split()
    assert [*map(float, found)] == pytest.approx([300, 200], abs=0.01)
    images.write(images.read(tmp_path / "x.jxl"), tmp_path / "y.png")
    with PIL.Image.open(tmp_path / "y.png") as file:
        assert file.info["dpi"] == pytest.approx((300, 200), abs=0.1)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (b"uuid", bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03") + b"II*\0", "geographic data"),
        (b"uuid", bytes(range(16)), "the box of UUID 000102"),
        (b"xml ", b"<gml:FeatureCollection/>", "XML other than XMP"),
    ],
)
@pytest.mark.parametrize("suffix", [".jxl", ".jp2"])
def test_boxes_that_are_not_kept_are_named(
    suffix: str, kind: bytes, content: bytes, expected: str, tmp_path: Path
) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    metadata = {"xmp-data": xmp}  # so that JPEG XL is in boxes
    images.write(Picture(format_matrix.noise(3, height=40, width=50), metadata=metadata), tmp_path / f"x{suffix}")
    stored = (tmp_path / f"x{suffix}").read_bytes()
    added = (8 + len(content)).to_bytes(4, "big") + kind + content
    place = 12 + int.from_bytes(stored[12:16], "big")  # after the signature and the type
    (tmp_path / f"x{suffix}").write_bytes(stored[:place] + added + stored[place:])
    picture = images.read(tmp_path / f"x{suffix}")
    assert picture.encoding is not None and any(expected in note for note in picture.encoding.notes)
    assert picture.metadata["xmp-data"] == xmp


def test_pnm_has_no_resolution(tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.noise(3)).save(tmp_path / "x.png", dpi=(300, 300))
    assert images.write(images.read(tmp_path / "x.png"), tmp_path / "x.ppm") == (
        "not kept in PNM: the resolution",
    )


@needs("opj_decompress")
@pytest.mark.parametrize("places", [(2, 1, 0), (1, 2, 3, 0), (0, 1, 3, 2)], ids=["BGR", "ARGB", "RGAB"])
def test_channels_of_jpeg_2000_in_another_order(places: tuple[int, ...], tmp_path: Path) -> None:
    """places: where red, green, blue and alpha are."""
    stored = format_matrix.noise(len(places), height=40, width=50)
    images.write(Picture(stored[..., :3], stored[..., 3:] if len(places) > 3 else None), tmp_path / "x.jp2")
    content = (tmp_path / "x.jp2").read_bytes()
    start = content.index(b"jp2h") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    header = content[start + 4 : start + length]
    if b"cdef" in header:
        header = header[: header.index(b"cdef") - 4]
    rows = [(place, int(color == 3), 0 if color == 3 else color + 1) for color, place in enumerate(places)]
    cdef = struct.pack(">H", len(rows)) + b"".join(struct.pack(">HHH", *row) for row in sorted(rows))
    header += struct.pack(">I4s", 8 + len(cdef), b"cdef") + cdef
    swapped = content[:start] + struct.pack(">I", 4 + len(header)) + header + content[start + length :]
    (tmp_path / "x.jp2").write_bytes(swapped)
    call("opj_decompress", "-i", tmp_path / "x.jp2", "-o", tmp_path / "x.png")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "x.png")), stored[..., places])
    found = images.read(tmp_path / "x.jp2")
    np.testing.assert_array_equal(np.concatenate(found.planes, axis=2), stored[..., places])


@needs("opj_compress")
def test_jpeg_2000_that_does_not_start_at_the_origin(tmp_path: Path) -> None:
    source, values = png_of(3, 8, tmp_path)
    call("opj_compress", "-i", source, "-o", tmp_path / "x.jp2", "-d", "5,3")
    np.testing.assert_array_equal(images.read(tmp_path / "x.jp2").samples, values)


@needs("cjxl")
@needs("exiftool")
def test_exif_in_compressed_boxes_is_kept(tmp_path: Path) -> None:
    """cjxl compresses the boxes of a JPEG."""
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.jpg")
    call("exiftool", "-q", "-n", "-Orientation=6", "-GPSLatitude=12.5", "-Make=Maker", tmp_path / "x.jpg")
    call("cjxl", tmp_path / "x.jpg", tmp_path / "x.jxl")
    assert b"brob" in (tmp_path / "x.jxl").read_bytes()
    images.write(images.read(tmp_path / "x.jxl"), tmp_path / "y.jxl")
    found = call("exiftool", "-n", "-s3", "-Orientation", "-GPSLatitude", "-Make", "-Warning", tmp_path / "y.jxl")
    assert found.split() == ["1", "12.5", "Maker"]


def test_a_second_resolution_of_jpeg_2000_is_named(tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.jp2")
    content = (tmp_path / "x.jp2").read_bytes()
    numbers = struct.pack(">HHHHbb", 2835, 1, 2835, 1, 0, 0)
    inner = b"".join(struct.pack(">I4s", 18, kind) + numbers for kind in (b"resc", b"resd"))
    box = struct.pack(">I4s", 8 + len(inner), b"res ") + inner
    start = content.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", content, start)
    header = struct.pack(">I", length + len(box)) + content[start + 4 : start + length] + box
    (tmp_path / "y.jp2").write_bytes(content[:start] + header + content[start + length :])
    encoding = images.read(tmp_path / "y.jp2").encoding
    assert encoding is not None and encoding.notes == ("not kept: the resolution of display (resd)",)


@needs("cjxl")
@pytest.mark.parametrize(("space", "nits"), [("RGB_D65_202_Rel_HLG", 1000), ("RGB_D65_SRG_Rel_SRG", None)])
def test_the_brightness_of_hdr_jpeg_xl_is_named(space: str, nits: int | None, tmp_path: Path) -> None:
    PIL.Image.fromarray(format_matrix.photo()).save(tmp_path / "x.png")
    call("cjxl", "-q", "100", "-x", f"color_space={space}", tmp_path / "x.png", tmp_path / "x.jxl")
    encoding = images.read(tmp_path / "x.jxl").encoding
    assert encoding is not None
    assert encoding.notes == ((f"not kept: the intensity target of {nits} nits",) if nits else ())


@needs("cjxl")
@pytest.mark.parametrize(("space", "numbers"), [("202_Rel_PeQ", "09100001"), ("202_Rel_HLG", "09120001")])
def test_png_has_the_numbers_of_an_hdr_profile(space: str, numbers: str, tmp_path: Path) -> None:
    """libjxl describes PQ and HLG by an ICC profile; programs that show HDR look for cICP (H.273 numbers)."""
    PIL.Image.new("RGB", (40, 40), (50, 90, 200)).save(tmp_path / "x.png")
    call("cjxl", "-q", "100", "-x", f"color_space=RGB_D65_{space}", tmp_path / "x.png", tmp_path / "x.jxl")
    assert images.write(images.read(tmp_path / "x.jxl"), tmp_path / "y.png") == ()
    content = (tmp_path / "y.png").read_bytes()
    place = content.index(b"cICP")
    assert content[place - 4 : place + 8] == bytes.fromhex("00000004") + b"cICP" + bytes.fromhex(numbers)
    assert content.count(b"cICP") == 1 and b"iCCP" in content
    images.write(images.read(tmp_path / "y.png"), tmp_path / "z.png")
    assert (tmp_path / "z.png").read_bytes().count(b"cICP") == 1


@needs("opj_compress")
@pytest.mark.parametrize("comment", ["taken by Zoe", ""])
def test_comments_in_a_codestream_are_kept(comment: str, tmp_path: Path) -> None:
    """Except for the name of the encoder, which OpenJPEG writes by default."""
    source, _ = png_of(3, 8, tmp_path)
    call("opj_compress", "-i", source, "-o", tmp_path / "x.jp2", *(["-C", comment] if comment else []))
    picture = images.read(tmp_path / "x.jp2")
    images.write(picture, tmp_path / "y.png")
    with PIL.Image.open(tmp_path / "y.png") as file:
        assert file.info.get("Comment", "") == comment
    notes = ("not kept in JPEG 2000: comments",) if comment else ()
    assert images.write(picture, tmp_path / "y.jp2") == notes


def test_an_interruption_waits_for_the_encoder_of_jpeg_2000(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its callbacks, an exception would end in a segmentation fault."""
    utils = pytest.importorskip("openjpeg.utils")
    encode, steps = utils.encode_array, []

    def encode_interrupted(*given: Any, **how: Any) -> Any:
        deliver()
        steps.append("encoded")
        return encode(*given, **how)

    monkeypatch.setattr(utils, "encode_array", encode_interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.write(Picture(np.zeros((40, 50, 3), np.uint8)), tmp_path / "a.jp2")
    assert steps == ["encoded"] and not [*tmp_path.iterdir()]
