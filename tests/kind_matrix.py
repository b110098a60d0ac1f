"""What happens to odd files: for each kind and format, whether it is kept, noted or refused, as a table.

Each cell restores a file made by another program with a network that enlarges twice, at strength 0, and checks the
result with another program. `python tests/format_matrix.py` prints the table as a part of docs/formats.md.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL.Image
import tifffile

import exiftool
from pellucid.backends.eager import TorchBackend
from pellucid.pictures.samples import Samples
from pellucid.recipes import registry
from pellucid.restoration import restore
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings

FORMATS = (".png", ".jpg", ".tif", ".webp", ".avif", ".gif")
HEADINGS = ("PNG", "JPEG", "TIFF", "WebP", "AVIF", "GIF")
PROGRAMS = ("exiftool", "convert")

_HEIGHT, _WIDTH = 48, 64
_ROTATED = 6  # an EXIF orientation: rotate by 90 degrees clockwise
_REGION = "RegionInfo={AppliedToDimensions={W=64,H=48,Unit=pixel},RegionList=[{Area={X=0.25,Y=0.2,W=0.1,H=0.1,Unit=normalized}}]}"  # fmt: skip  # noqa: E501  # one argument of ExifTool


@dataclass(frozen=True)
class Kind:
    """A kind of odd file. cells: suffix -> (what writes it, whether a result has kept everything; None: never)."""

    name: str
    cells: dict[str, tuple[Callable[[Path], object], Callable[[Path], object] | None]]


@cache
def _restorer() -> Restorer:
    recipe = registry.find("srcnn.paper")
    return Restorer("twice", recipe, TorchBackend(recipe.network(), "cpu"))


def run(kind: Kind, suffix: str, folder: Path) -> str:
    """kept, noted or refused; otherwise "lost"."""
    make, is_kept = kind.cells[suffix]
    source, out = folder / f"source{suffix}", folder / "out"
    make(source)
    (outcome,) = restore.restore(source, _restorer(), out, Settings(strength=0))
    if outcome.error is not None:
        return "refused"
    assert isinstance(outcome.target, Path)
    if is_kept is not None and is_kept(outcome.target):
        return "kept"
    return "noted" if outcome.info or outcome.warnings else "lost"


def table() -> str:
    lines = [f"| file | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
    for kind in KINDS:
        lines.append(f"| {kind.name} | {' | '.join(_cell(kind, suffix) for suffix in FORMATS)} |")
    return "\n".join(lines)


def _cell(kind: Kind, suffix: str) -> str:
    if suffix not in kind.cells:
        return "-"
    with TemporaryDirectory() as folder:
        return run(kind, suffix, Path(folder))


# --- writers


def photo(channels: int = 3, peak: int = 255) -> Samples:
    """Smooth, so that JPEG changes little."""
    rows, cols = np.mgrid[:_HEIGHT, :_WIDTH]
    planes = [(0.5 + 0.4 * np.sin(rows / 17 + k) * np.cos(cols / 23 - k)) * peak for k in range(channels)]
    return np.stack(planes, axis=2).astype(np.uint8 if peak < 256 else np.uint16).squeeze()


def _save(path: Path, samples: Samples | None = None, **options: Any) -> None:
    lossless: dict[str, Any] = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    PIL.Image.fromarray(photo() if samples is None else samples).save(path, **lossless, **options)


def _with_tags(*arguments: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        _save(path)
        exiftool.write_tags(path, *arguments)

    return make


def _keeps_exif(path: Path) -> bool:
    """Whether ExifTool finds the same EXIF as in the source, but for what depends on the size."""
    before, after = (_read_exif(each) for each in (_source_of(path), path))
    return len(before) >= len(_NEW_TAGS) and before == after


def _read_exif(path: Path) -> dict[str, Any]:
    (found,) = exiftool.read_tags(path)
    return {name: value for name, value in found.items() if name.startswith("ExifIFD:")}


def _source_of(target: Path) -> Path:
    return target.parent.parent / f"source{target.suffix}"


def _animate(path: Path) -> None:
    frames = [PIL.Image.fromarray(np.roll(photo(), shift, axis=1)) for shift in (9, 20)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _write_stereo(path: Path) -> None:
    PIL.Image.fromarray(photo()).save(path, "MPO", save_all=True, append_images=[PIL.Image.fromarray(photo())])


def _append_video(path: Path) -> None:
    _save(path)
    with path.open("ab") as file:
        file.write(b"\0\0\0\x18ftypmp42" + bytes(12) + b"\0\0\1\0mdat" + bytes(248))


def _write_infrared(path: Path) -> None:
    tifffile.imwrite(path, photo(4), photometric="rgb", extrasamples=["unspecified"])


def _write_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for samples in (photo(), photo(1)):
            file.write(samples, photometric="rgb" if samples.ndim == 3 else "minisblack", metadata=None)


def _write_12_bits(path: Path, *, stated: bool) -> None:
    samples = photo(1, 4095)
    if path.suffix == ".tif":
        tags = [(281, "H", 1, 4095, True)] if stated else []
        tifffile.imwrite(path, samples, photometric="minisblack", metadata=None, extratags=tags)
        return
    PIL.Image.fromarray(samples).save(path)
    if stated:
        content = path.read_bytes()
        path.write_bytes(content[:33] + _chunk(b"sBIT", b"\x0c") + content[33:])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _write_hidden_colors(path: Path) -> None:
    samples = np.dstack([photo(), np.full((_HEIGHT, _WIDTH), 255, np.uint8)])
    samples[:20, :20] = (200, 30, 90, 0)
    if path.suffix == ".tif":
        tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["unassalpha"])
    else:
        _save(path, samples)


def _write_geotiff(path: Path) -> None:
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0, 0, 0, 5e5, 5.5e6, 0), True),
        (34735, "H", 4, (1, 1, 0, 0), True),
        (42113, "s", 0, "0", True),
    ]
    tifffile.imwrite(path, photo(), photometric="rgb", metadata=None, extratags=tags)


def _write_odd_orientation(path: Path) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, photo(), photometric="rgb", metadata=None, extratags=[(274, "H", 1, 9, True)])
        return
    exif = PIL.Image.Exif()
    exif[0x0112] = 9
    _save(path, exif=exif.tobytes())


def _write_cicp(path: Path) -> None:
    _save(path)
    content = path.read_bytes()
    path.write_bytes(content[:33] + _chunk(b"cICP", bytes([9, 16, 0, 1])) + content[33:])


def _write_gray_profile(path: Path) -> None:
    from format_matrix import GRAY_PROFILE

    if path.suffix == ".tif":
        tifffile.imwrite(path, photo(1), photometric="minisblack", iccprofile=GRAY_PROFILE)
    else:
        _save(path, photo(1), icc_profile=GRAY_PROFILE)


def _misname(path: Path) -> None:
    """A WebP or PNG with the suffix of another format."""
    content = io.BytesIO()
    PIL.Image.fromarray(photo()).save(content, "WEBP" if path.suffix == ".png" else "PNG", lossless=True)
    path.write_bytes(content.getvalue())


def _truncate(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 3), np.uint8)
    _save(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


# --- checks


def _has_infrared(path: Path) -> bool:
    with tifffile.TiffFile(path) as file:
        return file.pages.first.extrasamples == (0,) and file.pages.first.shape == (2 * _HEIGHT, 2 * _WIDTH, 4)


def _has_pages(path: Path) -> bool:
    with tifffile.TiffFile(path) as file:
        return [page.shape for page in file.pages] == [(2 * _HEIGHT, 2 * _WIDTH, 3), (2 * _HEIGHT, 2 * _WIDTH)]


def _read(path: Path) -> Samples:
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path))
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def _is_12_bits(path: Path) -> bool:
    samples = _read(path)
    return bool(abs(int(samples.max()) - int(photo(1, 4095).max())) < 40)


def _has_hidden_colors(path: Path) -> bool:
    return bool((_read(path)[2:20, 2:20] == (200, 30, 90, 0)).all())


def _is_wide(path: Path) -> bool:
    return _read(path).shape[:2] == (2 * _HEIGHT, 2 * _WIDTH)


def _has_moved_region(path: Path) -> bool:
    (found,) = exiftool.read_tags(path)
    (info,) = (value for name, value in found.items() if name.endswith(":RegionInfo"))
    area, size = info["RegionList"][0]["Area"], info["AppliedToDimensions"]
    is_tall = _read(path).shape[:2] == (2 * _WIDTH, 2 * _HEIGHT)
    return is_tall and [float(each) for each in (area["X"], area["Y"], size["W"])] == [0.8, 0.25, 2 * _HEIGHT]


def _has_half_the_pixel_scale(path: Path) -> bool:
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        return tags[33550].value[:2] == (0.25, 0.25) and tags[42113].value == "0"


def _is_really_named(path: Path) -> bool:
    with PIL.Image.open(path) as image:
        return image.format == {".png": "PNG", ".webp": "WEBP"}.get(path.suffix)


def _has_gray_profile(path: Path) -> bool:
    with PIL.Image.open(path) as image:
        profile = image.info.get("icc_profile", b"")
        return bool(profile) and profile[16:20] == (b"GRAY" if image.mode == "L" else b"RGB ")


_NEW_TAGS = ("-OffsetTimeOriginal=+02:00", "-CameraFirmware=1.2", "-Acceleration=3", "-ColorSpace=Uncalibrated")
_META = (".png", ".jpg", ".tif", ".webp")


def _all(suffixes: tuple[str, ...], make: Any, check: Any) -> dict[str, tuple[Any, Any]]:
    return dict.fromkeys(suffixes, (make, check))


KINDS = [
    Kind("a channel that is not transparency", {".tif": (_write_infrared, _has_infrared)}),
    Kind(
        "colors under full transparency", _all((".png", ".tif", ".webp"), _write_hidden_colors, _has_hidden_colors)
    ),
    Kind(
        "12 bits in 16, stated in the file",
        _all((".png", ".tif"), partial(_write_12_bits, stated=True), _is_12_bits),
    ),
    Kind("12 bits in 16, not stated", _all((".png", ".tif"), partial(_write_12_bits, stated=False), None)),
    Kind(
        "several pictures",
        {
            ".tif": (_write_pages, _has_pages),
            ".jpg": (_write_stereo, None),
            **_all((".png", ".webp", ".gif", ".avif"), _animate, None),
        },
    ),
    Kind("appended video", _all((".jpg", ".png"), _append_video, None)),
    Kind("EXIF 2.31 and 3.0", _all(_META, _with_tags(*_NEW_TAGS), _keeps_exif)),
    Kind(
        "turned, with face regions",
        _all(_META, _with_tags(f"-Orientation#={_ROTATED}", f"-{_REGION}"), _has_moved_region),
    ),
    Kind("an orientation that does not exist", _all(_META, _write_odd_orientation, _is_wide)),
    Kind("GeoTIFF", {".tif": (_write_geotiff, _has_half_the_pixel_scale)}),
    Kind("profile for gray", _all((".png", ".jpg", ".tif"), _write_gray_profile, _has_gray_profile)),
    Kind("HDR colors (cICP)", {".png": (_write_cicp, lambda path: b"cICP" in path.read_bytes())}),
    Kind("another format than its name says", _all((".png", ".jpg", ".tif", ".webp"), _misname, _is_really_named)),
    Kind("truncated", _all((".png", ".jpg", ".tif", ".webp", ".avif"), _truncate, None)),
]
