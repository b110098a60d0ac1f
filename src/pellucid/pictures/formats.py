"""Which picture formats there are, and what each can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.errors import OutputError
from pellucid.pictures.picture import Picture

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".avif"})
"""What is taken for a picture. HEIC and JPEG 2000 are missing: pyvips' own libvips cannot decode them."""

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos"}
    | {".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Camera RAW files, of which many start like a TIFF but hold a mosaic."""

OTHER_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".jp2", ".j2k", ".jxl", ".gif", ".psd", ".exr", ".hdr"})
"""Pictures that cannot be read here: named when a folder holds them, not passed over in silence."""

DEPTHS = {8: "uint8", 16: "uint16", 32: "float32"}
"""The type of samples, by how many bits a person asks for."""

_DEPTH_NAMES = {"uint8": "8-bit", "uint16": "16-bit", "float32": "floating-point"}


@dataclass(frozen=True)
class FileFormat:
    """What a file format can hold, least depth first, and the libvips operation that writes it."""

    name: str
    suffixes: tuple[str, ...]
    depths: tuple[str, ...]
    alpha: bool
    saver: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, dtype: str, alpha: bool) -> bool:
        return dtype in self.depths and (self.alpha or not alpha)


PNG = FileFormat("PNG", (".png",), ("uint8", "uint16"), True, "pngsave_target")
TIFF = FileFormat("TIFF", (".tif", ".tiff"), ("uint8", "uint16", "float32"), True, "tiffsave_target")
JPEG = FileFormat("JPEG", (".jpg", ".jpeg"), ("uint8",), False, "jpegsave_target")
# `exact` keeps the colors below alpha = 0.
WEBP = FileFormat("WebP", (".webp",), ("uint8",), True, "webpsave_target", {"exact": True})
BMP = FileFormat("BMP", (".bmp",), ("uint8",), False)
WRITTEN = (PNG, TIFF, JPEG, WEBP, BMP)

_BY_SUFFIX = {suffix: target for target in WRITTEN for suffix in target.suffixes}


def named(name: str) -> FileFormat:
    """The format of a name as people give it: png, tiff or tif, jpeg or jpg, webp, bmp."""
    found = _BY_SUFFIX.get(f".{name.lower()}")
    if found is None:
        raise OutputError(
            f"no format {name} to write; known: {', '.join(target.name.lower() for target in WRITTEN)}"
        )
    return found


def of(path: Path) -> FileFormat:
    """The format that a suffix stands for. Raises OutputError when there is none to write."""
    found = _BY_SUFFIX.get(path.suffix.lower())
    if found is None:
        what = f"{path} ends in {path.suffix}, which" if path.suffix else f"{path} has no suffix and"
        raise OutputError(f"{what} cannot be written; name it {', '.join(_BY_SUFFIX)}")
    return found


def written_name(name: str, target: FileFormat | None) -> str:
    """The name for a result of a file of this name, in another format where one is given or needed."""
    path = Path(name)
    other = TIFF if path.suffix.lower() in RAW_SUFFIXES else PNG
    target = target or _BY_SUFFIX.get(path.suffix.lower(), other)
    return name if path.suffix.lower() in target.suffixes else path.with_suffix(target.suffixes[0]).name


def check_holds(target: FileFormat, picture: Picture, path: Path, bit_depth: int | None) -> str:
    """The type of the samples to write. Raises OutputError when the format cannot hold it, or alpha."""
    if bit_depth is not None and bit_depth not in DEPTHS:
        raise OutputError(f"a bit depth of {bit_depth}; {', '.join(map(str, DEPTHS))} can be written")
    dtype = picture.dtype if bit_depth is None else DEPTHS[bit_depth]
    alpha = picture.alpha is not None
    if target.holds(dtype, alpha):
        return dtype
    what = "alpha" if dtype in target.depths else f"{_DEPTH_NAMES[dtype]} samples"
    others = " or ".join(other.name for other in WRITTEN if other.holds(dtype, alpha))
    bits = next(bits for bits, depth in DEPTHS.items() if depth == target.depths[-1])
    hint = f", or make it {target.name} with --bit-depth {bits}" if target.holds(DEPTHS[bits], alpha) else ""
    known = picture.encoding
    origin = f" of the {known.format} file it comes from" if known and known.format != target.name else ""
    raise OutputError(f"{path}: {target.name} cannot hold {what}{origin}; write {others}{hint}")
