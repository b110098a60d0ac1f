"""What a picture file keeps when it is read and written again, checked by other programs.

Each case is a file made by Pillow, by tifffile or by code in this module. It goes through `images.read` and
`images.write`, and the result is checked with Pillow, tifffile and a small PNG decoder. `test_format_matrix.py`
runs the cases, and

    python tests/format_matrix.py > docs/formats.md

writes the documentation.
"""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageCms, IptcImagePlugin
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from pellucid.pictures import images
from pellucid.pictures.headers import ijg_quality

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile

Samples = NDArray[Any]

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _icc_tag(kind: bytes, content: bytes) -> bytes:
    return kind + bytes(4) + content


def _gray_profile() -> bytes:
    """A minimal ICC profile for gray: D50 white and a gamma of 2.2."""
    tags = {
        b"desc": _icc_tag(b"desc", struct.pack(">I", 5) + b"gray\0" + bytes(78)),
        b"cprt": _icc_tag(b"text", b"none\0"),
        b"wtpt": _icc_tag(b"XYZ ", struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)),
        b"kTRC": _icc_tag(b"curv", struct.pack(">IH", 1, 0x0233)),
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp"
    )
    return (head.ljust(68, b"\0") + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)).ljust(128, b"\0") + table + body


GRAY_PROFILE = _gray_profile()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x78\x00\x05a cap\x1c\x02\x19\x00\x03sea\x1c\x02\x19\x00\x03sky"
CAPTIONS = {(2, 120): b"a cap", (2, 25): [b"sea", b"sky"]}
DPI = 240

MAKE, MODEL, ARTIST, COPYRIGHT, DATE, ORIENTATION = 0x010F, 0x0110, 0x013B, 0x8298, 0x0132, 0x0112
MAIN = {MAKE: "Canon", MODEL: "EOS 5D", ARTIST: "A. Painter", COPYRIGHT: "(c) 2024", DATE: "2024:05:06 07:08:09"}
TAKEN = {0x829A: (1, 250), 0x829D: (28, 10), 0x8827: 800, 0x9003: "2024:05:06 07:08:09", 0xA434: "EF 50mm"}
PLACE = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 36.0)}


def noise(channels: int, dtype: str = "uint8", seed: int = 0, height: int = 21, width: int = 30) -> Samples:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random((height, width, channels), np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


def premultiplied() -> Samples:
    """Colors multiplied by alpha, with alpha."""
    samples = noise(4, "uint16")
    samples[..., :3] = np.minimum(samples[..., :3], samples[..., 3:])
    return samples


def photo(channels: int = 3) -> Samples:
    """Smooth, so that JPEG changes little."""
    rows, cols = np.mgrid[:42, :60]
    planes = [128 + 100 * np.sin(rows / 17 + k) * np.cos(cols / 23 - k) for k in range(channels)]
    return np.stack(planes, axis=2).astype(np.uint8)


def exif() -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags.update(MAIN)
    tags[ORIENTATION] = 1
    tags.get_ifd(0x8769).update({tag: _fraction(value) for tag, value in TAKEN.items()})
    tags.get_ifd(0x8825).update(PLACE)
    return tags


def _fraction(value: Any) -> Any:
    return IFDRational(*value) if isinstance(value, tuple) else value


def _profile(samples: Samples) -> bytes:
    return GRAY_PROFILE if samples.shape[2] < 3 else PROFILE


# --- writers


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: Samples, bits: int, color_type: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG with all kinds of metadata. values: (H, W, C), with the given number of bits."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlaced)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(
        b"\0" + _pack_bits(row, bits)
        for top, left, down, right in passes
        for row in values[top::down, left::right]
        if row.size
    )
    records = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    captions = f"\niptc\n{len(records):8}\n{records.hex()}\n".encode()
    parts = [
        png_chunk(b"IHDR", header),
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(PROFILE if color_type & 2 else GRAY_PROFILE)),
        png_chunk(b"pHYs", struct.pack(">IIB", round(DPI / 0.0254), round(DPI / 0.0254), 1)),
        png_chunk(b"eXIf", exif().tobytes().removeprefix(b"Exif\0\0")),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        png_chunk(b"tEXt", b"Raw profile type iptc\0" + captions),
        *chunks,
        png_chunk(b"IDAT", zlib.compress(rows)),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


_ADAM7 = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
)  # fmt: skip


def _pack_bits(row: Samples, bits: int) -> bytes:
    if bits >= 8:
        return row.astype(f">u{bits // 8}").tobytes()
    ones = (row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(-1).astype(np.uint8)).tobytes()


def jpeg(samples: Samples, **options: Any) -> bytes:
    """By Pillow; the captions are added here."""
    content = io.BytesIO()
    image = PIL.Image.fromarray(samples.squeeze())
    if options.pop("cmyk", False):
        image = image.convert("CMYK")
    options = {"exif": exif(), "icc_profile": _profile(samples), "xmp": XMP, "dpi": (DPI, DPI)} | options
    image.save(content, "jpeg", **options)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    segment = b"Photoshop 3.0\0" + resource
    app13 = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    return content.getvalue()[:2] + app13 + content.getvalue()[2:]


def pillow_tiff(samples: Samples, **options: Any) -> bytes:
    """By Pillow, with EXIF directories, which tifffile does not write."""
    content, tags = io.BytesIO(), ImageFileDirectory_v2()
    for tag, value in (MAIN | {0x02BC: XMP, 0x83BB: IPTC}).items():
        tags[tag] = value
    if "compression" not in options:  # with compression, Pillow writes by libtiff, without directories
        tags[0x8769] = {tag: _fraction(value) for tag, value in TAKEN.items()}
        tags[0x8825] = PLACE
    image = PIL.Image.fromarray(samples.squeeze())
    image.save(content, "tiff", tiffinfo=tags, icc_profile=_profile(samples), dpi=(DPI, DPI), **options)
    return content.getvalue()


def tiff(samples: Samples, **options: Any) -> bytes:
    """By tifffile, with the EXIF tags of the first directory."""
    content = io.BytesIO()
    extra: list[tuple[Any, ...]] = [(tag, "s", 0, text, True) for tag, text in MAIN.items() if tag != DATE]
    extra += [(0x02BC, "B", len(XMP), XMP, True), (0x83BB, "B", len(IPTC), IPTC, True)]
    color: dict[str, Any] = {
        "photometric": "rgb" if samples.shape[2] > 2 else "minisblack",
        "planarconfig": "contig",
    }
    alpha: dict[str, Any] = {} if samples.shape[2] % 2 else {"extrasamples": ["unassalpha"]}
    extra += options.pop("extratags", [])
    planes = samples
    if options.get("planarconfig") == "separate":
        planes = samples.transpose(2, 0, 1)
    tifffile.imwrite(
        content,
        planes if samples.shape[2] > 1 else planes[..., 0],
        iccprofile=_profile(samples),
        datetime=MAIN[DATE],
        extratags=extra,
        resolution=(DPI, DPI),
        resolutionunit="inch",
        metadata=None,
        **(color | alpha | options),
    )
    return content.getvalue()


def webp(samples: Samples, **options: Any) -> bytes:
    content, tags = io.BytesIO(), exif()
    tags[0x011A] = tags[0x011B] = _fraction((DPI, 1))
    tags[0x0128] = 2
    image = PIL.Image.fromarray(samples)
    image.save(content, "webp", exif=tags.tobytes(), icc_profile=PROFILE, xmp=XMP, exact=True, **options)
    return content.getvalue()


def pnm(samples: Samples) -> bytes:
    content = io.BytesIO()
    PIL.Image.fromarray(samples.squeeze()).save(content, "PPM")
    return content.getvalue()


def heic(samples: Samples) -> bytes:
    """By libheif's encoder, in the package pillow-heif."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    content = io.BytesIO()
    options = {"exif": exif().tobytes(), "icc_profile": PROFILE, "xmp": XMP, "quality": 100, "chroma": 444}
    PIL.Image.fromarray(samples).save(content, "HEIF", **options)
    return content.getvalue()


def by_program(suffix: str, values: Samples, bits: int, color_type: int) -> bytes:
    """By cjxl or opj_compress, from a PNG, with metadata by ExifTool."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "source.png"), Path(folder, f"target{suffix}")
        source.write_bytes(png(values, bits, color_type))
        commands = {
            ".jxl": ("cjxl", "-q", "100", "--keep_invisible=1", "--container=1", source, target),
            ".jp2": ("opj_compress", "-i", source, "-o", target),
        }
        _call(*commands[suffix])
        kinds = ("-EXIF:all", "-XMP:all", *(["-IPTC:all"] if suffix == ".jp2" else []))
        _call("exiftool", "-overwrite_original", "-tagsFromFile", source, *kinds, target)
        return target.read_bytes()


def avif(samples: Samples) -> bytes:
    content = io.BytesIO()
    image = PIL.Image.fromarray(samples)
    image.save(
        content, "avif", exif=exif().tobytes(), icc_profile=PROFILE, xmp=XMP, quality=100, subsampling="4:4:4"
    )
    return content.getvalue()


def bmp(values: Samples, bits: int, *, top_down: bool = False, rle: bool = False) -> bytes:
    """A BMP. values: (H, W, 1) indices into a palette of warm grays, or (H, W, 3 or 4) colors."""
    height, width, _ = values.shape
    palette = b"".join(bytes(gray) + b"\0" for gray in bmp_palette(bits)[:, ::-1].tolist()) if bits <= 8 else b""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) if bits == 32 else b""
    size = 108 if masks else 40
    rows = values if top_down else values[::-1]
    if rle:
        body = b"".join(b"".join(b"\1" + bytes([v]) for v in row) + b"\0\0" for row in rows[..., 0]) + b"\0\1"
    else:
        body = b"".join(_bmp_row(row, bits) for row in rows)
    start, dots = 14 + size + len(palette), round(DPI / 0.0254)
    header = struct.pack(
        "<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits,
        3 if masks else int(rle), len(body), dots, dots, 0, 0,
    )  # fmt: skip
    head = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
    return head + header + masks + bytes(size - 40 - len(masks)) + palette + body


def bmp_palette(bits: int) -> Samples:
    gray = np.linspace(0, 255, 2**bits).astype(np.uint8)
    return np.stack([gray, gray // 2, gray // 3], axis=1)


def _bmp_row(row: Samples, bits: int) -> bytes:
    content = (
        _pack_bits(row, bits)
        if bits < 8
        else row[:, [2, 1, 0, *range(3, row.shape[1])]].tobytes()
        if bits > 8
        else row.tobytes()
    )
    return content + bytes(-len(content) % 4)


# --- the cases


@dataclass(frozen=True)
class Case:
    """A file, its expected samples, and the suffix of the result if it is another one."""

    name: str
    suffix: str
    content: Callable[[], bytes]
    expected: Callable[[], Samples] | None = None
    result_suffix: str = ""

    @property
    def target(self) -> str:
        return self.result_suffix or self.suffix


def _png_cases() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 16):
        values = noise(1, "uint16") >> (16 - bits)
        full = (values.astype(np.uint32) * (255 if bits < 8 else 2**bits - 1) // (2**bits - 1)).astype(
            np.uint16 if bits == 16 else np.uint8
        )
        yield _case(f"PNG, gray, {bits} bit", ".png", partial(png, values, bits, 0), full)
    indices = noise(1) >> 4
    palette = noise(3, seed=3, height=16, width=1)[:, 0]
    chunk, clear = png_chunk(b"PLTE", palette.tobytes()), noise(1, seed=4, height=16, width=1)[:, 0]
    opaque = palette[indices[..., 0]]
    yield _case("PNG, palette, 4 bit", ".png", lambda: png(indices, 4, 3, chunk), opaque)
    shown = np.concatenate([opaque, clear[indices[..., 0]]], axis=2)
    transparent = png_chunk(b"tRNS", clear.tobytes())
    yield _case("PNG, palette, transparent", ".png", lambda: png(indices, 4, 3, chunk, transparent), shown)
    for channels, kind, name in ((2, 4, "gray + alpha"), (3, 2, "RGB"), (4, 6, "RGB + alpha")):
        for bits in (8, 16):
            values = noise(channels, f"uint{bits}")
            yield _case(f"PNG, {name}, {bits} bit", ".png", partial(png, values, bits, kind), values)
    values = noise(3)
    yield _case("PNG, RGB, interlaced", ".png", lambda: png(values, 8, 2, interlaced=True), values)


def _case(
    name: str, suffix: str, content: Callable[[], bytes], expected: Samples, result_suffix: str = ""
) -> Case:
    return Case(name, suffix, content, lambda: expected, result_suffix)


def _jpeg_cases() -> Iterator[Case]:
    for quality, ratio in ((95, "4:4:4"), (75, "4:2:0"), (85, "4:2:2")):
        yield Case(
            f"JPEG, quality {quality}, {ratio}",
            ".jpg",
            partial(jpeg, photo(), quality=quality, subsampling=ratio),
        )
    yield Case("JPEG, gray", ".jpg", lambda: jpeg(photo(1), quality=90))
    yield Case("JPEG, progressive", ".jpg", lambda: jpeg(photo(), quality=90, progressive=True))
    yield Case("JPEG, CMYK", ".jpg", lambda: jpeg(photo(), quality=90, cmyk=True, icc_profile=None))


def _tiff_cases() -> Iterator[Case]:
    by_pillow: list[tuple[str, Samples, dict[str, Any]]] = [
        ("gray, 8 bit, LZW", noise(1), {"compression": "tiff_lzw"}),
        ("RGB, 8 bit", noise(3), {}),
        ("RGB + alpha, 8 bit, deflate", noise(4), {"compression": "tiff_adobe_deflate"}),
        ("RGB, 8 bit, PackBits", noise(3), {"compression": "packbits"}),
        ("RGB, 8 bit, BigTIFF", noise(3), {"big_tiff": True}),
        ("gray, 16 bit", noise(1, "uint16"), {}),
    ]
    for name, samples, options in by_pillow:
        yield _case(f"TIFF, {name}", ".tif", partial(pillow_tiff, samples, **options), samples)
    by_tifffile: list[tuple[str, Samples, dict[str, Any]]] = [
        ("RGB, 16 bit", noise(3, "uint16"), {}),
        ("gray + alpha, 16 bit", noise(2, "uint16"), {}),
        ("RGB + alpha, 16 bit, big-endian", noise(4, "uint16"), {"byteorder": ">"}),
        ("RGB, 16 bit, planes", noise(3, "uint16"), {"planarconfig": "separate"}),
        ("RGB, 16 bit, tiles, deflate", noise(3, "uint16"), {"tile": (16, 16), "compression": "zlib"}),
        (
            "RGB, 16 bit, strips of 5, predictor",
            noise(3, "uint16"),
            {"rowsperstrip": 5, "compression": "zlib", "predictor": True},
        ),
        ("RGB, 16 bit, BigTIFF", noise(3, "uint16"), {"bigtiff": True}),
        ("gray, 32 bit float", noise(1, "float32"), {}),
        ("RGB, 32 bit float", noise(3, "float32"), {}),
        ("RGB + alpha, 32 bit float", noise(4, "float32"), {}),
        ("RGB + alpha, multiplied, 16 bit", premultiplied(), {"extrasamples": ["assocalpha"]}),
        ("RGB + infrared, 16 bit", noise(4, "uint16"), {"extrasamples": ["unspecified"]}),
        ("RGB + infrared + alpha, 16 bit", noise(5, "uint16"), {"extrasamples": ["unspecified", "unassalpha"]}),
        ("gray + 7 channels, 16 bit", noise(8, "uint16"), {"photometric": "minisblack", "extrasamples": [0] * 7}),
        ("gray, white at 4095", noise(1, "uint16") >> 4, {"extratags": [(281, "H", 1, 4095, True)]}),
    ]
    for name, samples, options in by_tifffile:
        yield _case(f"TIFF, {name}", ".tif", partial(tiff, samples, **options), samples)


def _other_cases() -> Iterator[Case]:
    yield _case("WebP, lossless", ".webp", lambda: webp(noise(3), lossless=True), noise(3))
    yield _case("WebP, lossless, alpha", ".webp", lambda: webp(noise(4), lossless=True), noise(4))
    yield Case("WebP, lossy", ".webp", lambda: webp(photo(), quality=80))
    for bits in (1, 4, 8):
        values = noise(1) >> (8 - bits)
        shown = bmp_palette(bits)[values[..., 0]]
        yield _case(f"BMP, palette, {bits} bit", ".bmp", partial(bmp, values, bits), shown)
    values = noise(1)
    yield _case("BMP, palette, RLE", ".bmp", lambda: bmp(values, 8, rle=True), bmp_palette(8)[values[..., 0]])
    yield _case("BMP, RGB", ".bmp", lambda: bmp(noise(3), 24), noise(3))
    yield _case("BMP, RGB, top down", ".bmp", lambda: bmp(noise(3), 24, top_down=True), noise(3))
    yield _case("BMP, RGB + alpha, as PNG", ".bmp", lambda: bmp(noise(4), 32), noise(4), ".png")
    yield Case("AVIF, as PNG", ".avif", lambda: avif(photo()), None, ".png")


def _optional_cases() -> Iterator[Case]:
    """Formats that libvips does not have."""
    yield _case("PNM, gray, 8 bit", ".pgm", partial(pnm, noise(1)), noise(1))
    yield _case("PNM, RGB, 8 bit", ".ppm", partial(pnm, noise(3)), noise(3))
    for kind, name in ((0, "gray"), (2, "RGB"), (6, "RGB + alpha")):
        for bits in (8, 16):
            values = noise({0: 1, 2: 3, 6: 4}[kind], f"uint{bits}", height=40, width=50)
            for suffix, title in ((".jxl", "JPEG XL"), (".jp2", "JPEG 2000")):
                if (suffix, kind, bits) != (".jxl", 6, 16):  # older versions of cjxl store an alpha of 8 bits
                    content = partial(by_program, suffix, values, bits, kind)
                    yield _case(f"{title}, {name}, {bits} bit", suffix, content, values)
    yield Case("HEIC, as PNG", ".heic", lambda: heic(photo()), None, ".png")


def _conversions() -> Iterator[Case]:
    for suffix, target in ((".png", "PNG"), (".tif", "TIFF"), (".webp", "WebP"), (".bmp", "BMP")):
        yield Case(f"JPEG to {target}", ".jpg", lambda: jpeg(photo(), quality=90), None, suffix)
    for suffix, target in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WebP"), (".bmp", "BMP")):
        samples = photo()
        yield Case(f"TIFF to {target}", ".tif", partial(pillow_tiff, samples), lambda: photo(), suffix)
    samples = noise(3, "uint16")
    yield _case("PNG, 16 bit, to TIFF", ".png", lambda: png(samples, 16, 2), samples, ".tif")
    yield _case("WebP, alpha, to TIFF", ".webp", lambda: webp(noise(4), lossless=True), noise(4), ".tif")


SAME = [*_png_cases(), *_jpeg_cases(), *_tiff_cases(), *_other_cases(), *_optional_cases()]
CONVERSIONS = [*_conversions()]


# --- readers


def png_samples(content: bytes) -> Samples:
    """Samples of a PNG of 8 or 16 bits without interlacing. Pillow would convert 16 bits to 8."""
    width, height, bits, color_type = struct.unpack_from(">IIBB", content, 16)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    offset, compressed = 8, b""
    while offset < len(content):
        length, kind = struct.unpack_from(">I4s", content, offset)
        compressed += content[offset + 8 : offset + 8 + length] if kind == b"IDAT" else b""
        offset += length + 12
    step = channels * bits // 8
    rows = np.frombuffer(zlib.decompress(compressed), np.uint8).reshape(height, 1 + width * step)
    above = np.zeros(width * step, np.uint8)
    decoded = [above := _undo_filter(int(row[0]), row[1:], above, step) for row in rows]
    return np.frombuffer(b"".join(row.tobytes() for row in decoded), f">u{bits // 8}").reshape(
        height, width, channels
    )


def _undo_filter(kind: int, row: Samples, above: Samples, step: int) -> Samples:
    out = np.zeros(len(row) + step, np.int64)
    up = np.concatenate([np.zeros(step, np.int64), above])
    for i, value in enumerate(row.tolist(), start=step):
        left, over, corner = int(out[i - step]), int(up[i]), int(up[i - step])
        guess = left + over - corner
        nearest = min((left, over, corner), key=lambda known: abs(known - guess))
        out[i] = (value + (0, left, over, (left + over) // 2, nearest)[kind]) % 256
    return out[step:].astype(np.uint8)


def _call(*command: object) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


def _convert(path: Path) -> tuple[object, ...]:
    """By ImageMagick; opj_decompress would apply the profile."""
    channels, bits = _call("identify", "-format", "%[channels] %z", path).split()
    kind = {"gray": 0, "srgb": 2, "srgba": 6}[channels]
    return ("convert", path, "-define", f"png:color-type={kind}", "-define", f"png:bit-depth={bits}")


_DECODERS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    ".jxl": lambda path: ("djxl", path),
    ".jp2": _convert,
    ".heic": lambda path: ("heif-convert", path),
}
"""Commands that take a PNG to write as their last argument."""

PROGRAMS = ("cjxl", "djxl", "opj_compress", "heif-convert", "exiftool", "convert")
"""What the rows of HEIC, JPEG XL and JPEG 2000 need."""


def samples_of(path: Path) -> Samples:
    """(H, W, C), by a reader that is not part of pellucid."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            page = file.asarray() if file.pages[0].dtype != np.uint8 else _read_by_pillow(path)
        return page.reshape(*page.shape[:2], -1)
    if path.suffix == ".png":
        return png_samples(path.read_bytes())
    if path.suffix in _DECODERS:
        with TemporaryDirectory() as folder:
            decoded = Path(folder, "decoded.png")
            _call(*_DECODERS[path.suffix](path), decoded)
            return png_samples(decoded.read_bytes())
    values = _read_by_pillow(path)
    return values.reshape(*values.shape[:2], -1)


def _read_by_pillow(path: Path) -> Samples:
    with PIL.Image.open(path) as file:
        return np.asarray(file.convert({"P": "RGB", "1": "L"}.get(file.mode, file.mode)))


def metadata_of(path: Path) -> dict[str, Any]:
    """ICC, EXIF, XMP, IPTC and resolution, by Pillow."""
    if path.suffix == ".tif":
        return _metadata_of_tiff(path)
    if path.suffix in _DECODERS:
        return _metadata_by_exiftool(path)
    profile = _profile_of_bmp(path.read_bytes()) if path.suffix == ".bmp" else None
    with PIL.Image.open(path) as file:
        file.load()
        tags, info = file.getexif(), file.info
        text = info.get("Raw profile type iptc")
        return {
            "ICC": profile or info.get("icc_profile"),
            "EXIF": _select_tags(dict(tags) | tags.get_ifd(0x8769) | tags.get_ifd(0x8825)),
            "XMP": info.get("xmp"),
            "IPTC": bool(IPTC.hex() in text if text else IptcImagePlugin.getiptcinfo(file) == CAPTIONS),
            "resolution": info.get("dpi", (tags.get(0x011A, 0), tags.get(0x011B, 0))),
        }


def _profile_of_bmp(content: bytes) -> bytes | None:
    """By bV5ProfileData and bV5ProfileSize of Microsoft's BITMAPV5HEADER, which Pillow does not read."""
    if struct.unpack_from("<I", content, 14)[0] < 124:
        return None
    start, num_bytes = struct.unpack_from("<II", content, 14 + 112)
    return content[14 + start : 14 + start + num_bytes] or None


def _metadata_by_exiftool(path: Path) -> dict[str, Any]:
    def extract(tag: str) -> bytes:
        return subprocess.run(["exiftool", "-b", f"-{tag}", path], capture_output=True, check=True).stdout

    tags = PIL.Image.Exif()
    tags.load(extract("Exif"))
    return {
        "ICC": extract("ICC_Profile") or None,
        "EXIF": _select_tags(dict(tags) | tags.get_ifd(0x8769) | tags.get_ifd(0x8825)),
        "XMP": extract("XMP") or None,
        "IPTC": b"sky" in extract("IPTC:Keywords"),
        "resolution": (0, 0),
    }


def _metadata_of_tiff(path: Path) -> dict[str, Any]:
    """By Pillow's parser of directories, because Pillow does not open every TIFF."""
    with path.open("rb") as file:
        head = file.read(16)
        tags = _directory(file, head, ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8]).next)
        every = tags | _directory(file, head, tags.get(0x8769, 0)) | _directory(file, head, tags.get(0x8825, 0))
    return {
        "ICC": tags.get(0x8773),
        "EXIF": _select_tags(every),
        "XMP": tags.get(0x02BC),
        "IPTC": tags.get(0x83BB, b"").rstrip(b"\0") == IPTC,
        "resolution": (tags[0x011A], tags[0x011B]),
    }


def _directory(file: IO[bytes], head: bytes, offset: int) -> dict[int, Any]:
    if not offset:
        return {}
    directory = ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
    file.seek(offset)
    directory.load(file)
    return dict(directory)


def _select_tags(tags: dict[int, Any]) -> dict[int, str]:
    return {tag: str(value) for tag, value in tags.items() if tag in MAIN | TAKEN | PLACE}


# --- verdicts

COLUMNS = ("samples", "ICC", "EXIF", "XMP", "IPTC", "resolution")


def run(case: Case, folder: Path) -> dict[str, str]:
    """The row of a case: column -> verdict."""
    source, target = folder / f"source{case.suffix}", folder / f"target{case.target}"
    source.write_bytes(case.content())
    picture = images.read(source)
    images.write(picture, target)
    before, after = metadata_of(source), metadata_of(target)
    assert len(before["EXIF"]) in (0, len(MAIN), len(MAIN | TAKEN | PLACE)), (
        "the other program did not write all tags"
    )
    row = {name: _verdict(name, before[name], after[name], case.target) for name in COLUMNS[1:]}
    return {"samples": _samples_verdict(case, source, target)} | row


_NOT_SUPPORTED = {
    ".bmp": {"EXIF", "XMP", "IPTC"},
    ".pgm": {"ICC", "EXIF", "XMP", "IPTC"},
    ".ppm": {"ICC", "EXIF", "XMP", "IPTC"},
    ".webp": {"IPTC"},
}


def _verdict(name: str, before: Any, after: Any, target: str) -> str:
    if name == "resolution":
        before, after = (tuple(float(dots or 0) for dots in pair) for pair in (before, after))
        if not before[0]:
            return "none"
        return "kept" if np.allclose(before, after, rtol=2e-3) else f"lost: {after}"
    if not before:
        return "new: sRGB" if after and name == "ICC" else "none"
    if before == after:
        return "kept"
    return "not supported" if not after and name in _NOT_SUPPORTED.get(target, ()) else "lost"


def _samples_verdict(case: Case, source: Path, target: Path) -> str:
    after = samples_of(target)
    if case.target == ".jpg":
        return _jpeg_verdict(case, source, target)
    expected = case.expected() if case.expected else samples_of(source)
    if case.target == ".webp" and case.suffix == ".webp" and case.expected is None:
        return "lossy" if np.abs(after.astype(int) - expected).mean() < 3 else "lost"
    gray = after.shape[2] == 3 and expected.shape[2] == 1
    same = np.array_equal(after, np.repeat(expected, 3, 2) if gray else expected)
    if not same and case.suffix in (".avif", ".heic"):
        return "lost" if np.abs(after.astype(int) - expected).max() > 2 else "kept (decoders differ by 1)"
    if not same and case.suffix == ".jpg":
        return "lost" if np.abs(after.astype(int) - expected).max() > 2 else "kept"
    bits = "32 bit" if after.dtype.kind == "f" else f"{8 * after.dtype.itemsize} bit"
    return f"kept, {bits}" if same and after.dtype.itemsize == expected.dtype.itemsize else "lost"


def _jpeg_verdict(case: Case, source: Path, target: Path) -> str:
    settings = _jpeg_settings(target)
    return settings + (", kept" if case.suffix == ".jpg" and _jpeg_settings(source) == settings else "")


def _jpeg_settings(path: Path) -> str:
    with JpegImageFile(path) as file:
        layer = file.layer
        content = path.read_bytes()
    offset = content.index(b"\xff\xdb")
    quality = ijg_quality({0: list(content[offset + 5 : offset + 69])})
    if len(layer) == 1:
        return f"quality {quality}, gray"
    factors = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
    return f"quality {quality}, {factors[layer[0][1] // layer[1][1], layer[0][2] // layer[1][2]]}"


# --- docs/formats.md

TEXT = """\
# Picture files: what is kept

A restored picture is written in the format, depth and colors of its input file, with the metadata of the camera
and your own. The tables are measured: each row is a file written by other programs, read and written by pellucid,
and checked with other programs again. `python tests/format_matrix.py` runs all cases and prints this page; a test
keeps it up to date.

## Colors and metadata

Restoration uses the colors of the file as they are. The numbers in the file go into the network, and the result is
written as the same type of numbers, without conversion to another color space and without rounding to 8 bits. The
ICC profile is not applied but kept, so that the result looks like the original in every program. Pictures in Adobe
RGB, Display P3 or ProPhoto stay in their color space.

- **CMYK** is the exception: it is converted to sRGB, by the profile of the file or by a general one if it has
  none, and the result has an sRGB profile.
- **Orientation**: the EXIF orientation is applied and reset, so that no program applies it again.
- **Alpha** is kept, but not restored by the networks. A channel is alpha only if the file says so (ExtraSamples
  1 or 2 in TIFF). Colors under full transparency do not affect visible ones, and are written as they were
  (enlarged bicubically, if the picture is enlarged), so that textures keep them. Associated alpha, by which the
  colors in a TIFF are multiplied, is divided out for the network and written back in the same way.
- **Other channels** of TIFF, e.g. infrared or saved selections (ExtraSamples 0, or no tag), are kept in their
  order, and enlarged bicubically. Other formats cannot store them, and refuse them.
- **White** is, in this order: what `--white` states (`white=` in Python), what the file specifies
  (MaxSampleValue and SMaxSampleValue of TIFF; sBIT of PNG, if samples use only these bits), or that of the
  type: 255, 65535, or 1 for floating point. The picture is scaled for the network, and the result has the same
  white as the file, with the tag. Integer samples above white are clipped, with a warning; floating-point ones
  are kept. If no 16-bit sample is above 32768, or no floating-point sample above 0.25, you get a warning,
  because the file may contain e.g. 12 bits in 16. Floating-point samples above 2 or below -1 are an error until
  white is stated: `--white 1` takes them as they are.
- **Pages** of a TIFF are restored one after the other, each with its own size, depth, channels, orientation and
  tags, and written as pages; stacks of ImageJ and single-file OME-TIFF stay such stacks. `--page 2` restores
  only the second page, which any format can store. Smaller copies (pyramids, thumbnails) and masks are dropped,
  with a note; OME-TIFF of several files, volumes in one page and MetaMorph stacks are refused. `evaluate` and
  `prepare` take files with one picture.
- **1, 2 and 4 bits and palettes** become 8 bits, because restored colors are usually not in the palette.
- **10 and 12 bits** (AVIF, HEIC) become 16-bit PNG; packed samples of 9 to 15 bits in TIFF become 16-bit TIFF, and
  16-bit and 64-bit floating point becomes 32-bit. Signed and 32-bit integers, CIELab, LogLuv, YCbCr without
  JPEG compression and inks other than CMYK are refused.
- **Halved chroma** of AVIF and HEIC (4:2:0 and 4:2:2) is interpolated, as by libavif: on average, samples differ
  by less than one step of the file, by more near clipped colors.
- **JPEG** is written with the quality and chroma subsampling of the original, if that is 4:4:4 or 4:2:0; 4:2:2,
  4:4:0 and 4:1:1 become 4:4:4, and 4:1:0 becomes 4:2:0. The quality is
  estimated from the tables in the file: exact for most programs, the nearest value for cameras, which have their
  own tables. A JPEG made from another format gets quality 95 and full color resolution. A deblocked JPEG
  gets quality 95, too: its old quality would cause new blocks.
- **TIFF** is written with the compression of the original (none, LZW, deflate, PackBits; deflate
  replaces others), in strips, and as BigTIFF if necessary. CCITT and JPEG are read, too, but no other
  compressions, e.g. LZMA, Zstandard, JPEG 2000 and WebP.
- **WebP** is written lossless if the original is lossless, and with quality 95 if it is lossy, because WebP does
  not store its quality. WebP has no gray: gray becomes three equal channels.
- **EXIF** is copied byte for byte, except that the orientation, the size, places (the subject area) and the
  resolution of the sensor are updated, and the preview of the original is removed. Unknown tags and maker notes,
  the private data of camera makers, stay as they are; where a TIFF moves a maker note, its offsets are updated.
- **XMP and IPTC** are copied. Several XMP packets in one file are joined; where they contradict each other, the
  first one is kept, and a note names the properties. EXIF and XMP among Photoshop's image resources count as
  further ones. In XMP, the size and orientation, regions of faces and objects (MWG, Microsoft,
  IPTC, ACDSee), and the sizes of panoramas follow the pixels. Entries that announce parts that are not kept
  are removed: gain maps, motion photos, previews, depth maps of turned pictures.
- **TIFF tags**: all tags that do not describe how samples are stored are copied from TIFF to TIFF, e.g. those of
  GDAL and private ones. GeoTIFF tags, OME-XML, and ImageJ's and tifffile's descriptions get the scale of the
  result, OME-XML the type of its samples, and ImageJ's ranges of values its white.
- **Color descriptions**: cICP (also of AVIF and HEIC), gAMA, cHRM, sRGB, mDCV and cLLI of PNG, tables and
  primaries of TIFF, calibrated colors of BMP. A profile for gray becomes an equal one for RGB in WebP and BMP.
- **sBIT** of PNG, the number of bits that the original had, is only kept if it specifies white, because restored
  samples use all bits.
- **PNG and JPEG**: texts, comments, and segments and chunks of other programs are copied, unless they depend on
  the samples of the original.
- **Resolution** (dpi) is kept, also if the picture is enlarged; without one, the result has none.
- **Notes**: one line (`info` of an outcome) names everything that is not kept: in the result's format ("not kept
  in JPEG: ..."), or because it describes parts or samples of the original, e.g. previews, layers, clipping paths
  of turned pictures, content credentials (C2PA). EXIF of more than 64 KB is shortened in JPEG.
- **Not kept**: additional frames (such files are refused), and gain maps for HDR screens.
- **JPEG XL** is written lossless, unless the original is lossy or `--quality` is given, and the colors are sRGB:
  other colors are kept by the ICC profile of a lossless file. A lossy file with an ICC profile is read as sRGB,
  and a note counts the pixels whose colors sRGB does not have. JPEG XL has no IPTC captions, and no
  resolution other than in EXIF.
- **JPEG 2000** is always written lossless, as a JP2 file with the ICC profile, resolution, EXIF, XMP and IPTC.
  Gray with transparency becomes RGB with transparency. Palettes, subsampled and signed samples, and color spaces
  other than gray and sRGB are refused.
- **PNM** is written as the suffix says: `.pgm` is gray, `.ppm` is RGB (of gray, three equal channels), `.pam` is
  PAM, with or without alpha, and `.pnm` the first of them that fits. A `.pbm` becomes a `.pgm`.

## What a file is, and what else it contains

A file is what its content says, whatever its suffix: `x.jfif`, a PNG named `.jpg`, a DNG named `.tif`, or a file
without a suffix. The result has the suffix of its real format, and a note says if the name of the input is wrong.
In folders, files that are not pictures are counted by suffix; `--include` and `--exclude` take patterns.

| file | other pictures | what is not kept, with a note |
|---|---|---|
| PNG | animated: refused | appended data |
| JPEG | MPO (stereo, panorama parts): refused | gain maps (Ultra HDR, ISO 21496-1, Apple), previews, depth maps, \
videos of motion photos, content credentials, appended data |
| WebP | animated: refused | appended data |
| GIF | several frames: refused; a still one becomes PNG | a canvas around the picture, appended data |
| AVIF, HEIC | several pictures: refused | gain maps, depth maps, mattes, videos, unknown boxes, appended data |
| JPEG XL | animated: refused | gain maps, extra channels, JUMBF, parts of a JPEG, unknown boxes, appended data |
| JPEG 2000 | several codestreams: refused | geographic data, unknown boxes, appended data |
| PNM | several pictures: refused | - |

HEIC, JPEG XL and JPEG 2000 need the extra `formats`: `pip install 'pellucid[formats]'`.
Not read: Photoshop, OpenEXR, Radiance HDR, PFM, QOI, icons; the error says what to convert them to.
Not written: AVIF and HEIC, which become PNG.

"""

_LEGEND = """\
In the tables, *none* means that the original has none, because of its format or the program that wrote it.
*not supported* means that the format of the result cannot store it.

"""

MEMORY = """
## Camera RAW

LibRaw decodes the samples; most recipes get the developed picture, recipes for RAW files the mosaic. The result is
TIFF by default, or DNG if it is a mosaic itself (`raw-denoise`).

- **DNG**: only for mosaics. It contains the samples with 16 bits, the filters, the levels of the file, and its
  white balance, orientation, EXIF, GPS, XMP and IPTC, unchanged. From a DNG also, byte by byte: color matrices
  and profile, names of the camera, baseline exposure, `OpcodeList2` and `OpcodeList3`, and the default crop.
  From other files: the matrix that LibRaw has for the camera. Settings of RAW programs in XMP are kept, because
  it is still a RAW file. A test compares the file with its input by ExifTool and by LibRaw.
- **Metadata**: EXIF, GPS, XMP and IPTC are those of the file itself, also of results of low-light recipes: from
  the directories of TIFF-based files (DNG, NEF, CR2, ARW, PEF, ORF, RW2, ...), the blocks of CR3 and MRW, and
  the JPEG of the camera in RAF, RW2 and others. What LibRaw knows about the exposure is only used for files
  without EXIF. Not kept: tags about the mosaic, previews, private data of DNG, and settings of RAW developers
  (Camera Raw, darktable), which programs would apply a second time.
- **Sidecar files**: `--sidecars` adds the XMP of NAME.EXT.xmp and NAME.xmp to the result; it takes precedence
  over that in the picture. NAME.xmp belongs to the RAW file if there is a JPEG of the same name. The XMP is
  inside of the result, where Lightroom, darktable and digiKam read it; no new sidecar is written, because
  settings for the RAW file would be wrong for the result. After a sidecar has changed, `--overwrite` restores
  the picture again.
- **Levels**: black (for each filter color) and white are those of the file, also for linearized and
  floating-point DNG. `BaselineExposure` and `DefaultCrop` of DNG, wishes for the rendering, are not applied.
- **Ignored, with a note**: corrections of distortion, shading and bad pixels, which a DNG contains as opcodes;
  masks, depth maps, enhanced pictures, and other exposures in the same DNG or CR3.
- **Damage**: a file that is shorter than it states is refused, as are lossless and lossy JPEG and deflate data
  in DNG, and lossless JPEG in CR2, that do not end where they must. Samples of 0 below the black level are
  reported. Other changes of single bytes cannot be recognized, because RAW files contain no checksums.
- **Refused**: DNG with JPEG XL, with several strips of lossless JPEG, or with 16-bit floating point without
  compression, which LibRaw does not read correctly.

## Memory for large pictures

PNG, TIFF and JPEG are read and written strip by strip: a picture of 100 megapixels takes 50 to 80 MB in addition
to the 230 MB of the program, at any depth. Some formats can only be decoded or encoded as a whole. Measured with
`python benchmarks/files.py` (peak resident memory, Linux; AVIF and BMP at 40
megapixels, HEIC, JPEG XL and JPEG 2000 at 12, the others at 100):

| file | bytes per pixel to read | to write |
|---|--:|--:|
| TIFF, PNG, JPEG | 0 | 0 (JPEG below 22 megapixels: 6) |
| progressive JPEG, 4:2:0 and 4:4:4 | 3 and 6 | - |
| interlaced PNG, RGB of 8 and 16 bits | 3 and 6 | - |
| WebP, lossy and lossless | 8 and 9 | 16 and 32 |
| AVIF, 8 and 12 bits | 15 and 19 | - |
| BMP | 4 | 0 |
| HEIC, 8 and 10 bits | 22 | - |
| JPEG XL, 8 and 16 bits | 4 and 9 | 36 (lossless), 40 (lossy) |
| JPEG 2000, 8 and 16 bits | 18 and 23 | 39 |
"""


ODD = """
## Odd files

Each cell is a file of this kind, enlarged twice and checked with another program: *kept*, *noted* (a line names
what is not kept or may be wrong) or *refused* (a line says why, and there is no result). "-": the format has no
such files.
"""


def table(cases: list[Case], heading: str) -> str:
    lines = [f"| {heading} | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for case in cases:
        with TemporaryDirectory() as folder:
            row = run(case, Path(folder))
        lines.append(f"| {case.name} | {' | '.join(row[name] for name in COLUMNS)} |")
    return "\n".join(lines)


def document() -> str:
    import kind_matrix  # which uses the profiles of this module

    parts = ["## The same format\n", table(SAME, "file"), "\n## Another format\n", table(CONVERSIONS, "file")]
    parts += [ODD, kind_matrix.table()]
    return TEXT + _LEGEND + "\n".join(parts) + "\n" + MEMORY


if __name__ == "__main__":
    sys.stdout.write(document())
