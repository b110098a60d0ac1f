"""Everything that a picture file contains next to its samples: read, kept true, and written into another file.

`Picture.metadata` has the same keys for every format. Texts and numbers are stored as in the file; the modules of
`containers` know where.
"""

from collections.abc import Callable, Mapping
from typing import IO, Any

from pellucid.pictures.containers import bmff, bmp, gif, heif, jpeg, png, tiff, webp
from pellucid.pictures.geometry import Change, Size
from pellucid.pictures.picture import Picture
from pellucid.pictures.records import descriptions, exif, geotiff, iptc, xmp
from pellucid.pictures.tiff import channels

SIZE = "size-px"
"""The key of the size (width, height) of the picture that the metadata describes."""

OWN_UNIT = "has-own-unit"
"""The key of True if a resolution is in pixels per unit of the object, as the first page of the file says."""

_READERS: dict[str, Callable[[IO[bytes]], tuple[dict[str, Any], tuple[str, ...]]]] = {
    "bmp": bmp.read,
    "gif": gif.read,
    "heic": heif.read,
    "heif": heif.read,
    "jp2": bmff.read,
    "jpeg": jpeg.read,
    "jxl": bmff.read,
    "png": png.read,
    "tiff": tiff.read,
    "webp": webp.read,
}
_STORED = {
    "BMP": bmp.STORED,
    "JPEG": jpeg.STORED,
    "JPEG 2000": bmff.JP2_STORED,
    "JPEG XL": bmff.JXL_STORED,
    "PNG": png.STORED,
    "PNM": frozenset({"jpeg-comments"}),
    "TIFF": tiff.STORED,
    "WebP": webp.STORED,
}
_NAMES = {
    "exif-data": "EXIF",
    "xmp-data": "XMP",
    "iptc-data": "IPTC",
    "photoshop-data": "Photoshop's image resources",
    "icc-profile-data": "the ICC profile",
    "jpeg-comments": "comments",
    "xres": "the resolution",
    "bmp-colors": "the calibrated colors of BMP",
}
"""Metadata that not every format can store, and what it is called."""


def read(file: IO[bytes], loader: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of a file that a loader of `headers.find_loader` decodes."""
    found, dropped = _READERS[loader](file) if loader in _READERS else ({}, ())
    return {name: value for name, value in found.items() if value}, dropped


def adapt(
    metadata: Mapping[str, Any],
    *,
    orientation: int = 1,
    before: Size,
    after: Size,
    channels: int = 0,
    dtype: str = "",
    value_scale: float = 1.0,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata of a picture that was turned and then scaled, what was removed).

    orientation: EXIF's name of the turn. before, after: (width, height) before and after both.
    channels, dtype, value_scale: see `Change`.
    """
    change = Change(orientation, before, after, channels, dtype, value_scale)
    adapted, removed = dict(metadata), list[str]()
    is_oriented = orientation != 1 or exif.find_orientation(adapted.get("exif-data", b"")) != 0
    is_scientific = OWN_UNIT in adapted or descriptions.has_own_unit(
        exif.description(adapted.get("exif-data", b""))
    )
    for key, convert in _ADAPTED.items():
        if key in adapted:
            adapted[key], gone = convert(adapted[key], change)
            removed += gone
    if is_oriented and "xmp-data" in adapted:
        adapted["xmp-data"] = xmp.reset_orientation(adapted["xmp-data"])
    _adapt_resolution(adapted, change, is_scientific=is_scientific)
    adapted[SIZE] = after
    return {key: value for key, value in adapted.items() if value}, tuple(dict.fromkeys(removed))


def _adapt_chunks(chunks: bytes, change: Change) -> tuple[bytes, tuple[str, ...]]:
    return png.adapt(chunks, change), ()


_ADAPTED: dict[str, Callable[[Any, Change], tuple[Any, tuple[str, ...]]]] = {
    "exif-data": exif.adapt,
    "xmp-data": xmp.adapt,
    "photoshop-data": iptc.adapt_resources,
    "tiff-tags": geotiff.adapt,
    "png-chunks": _adapt_chunks,
}
"""What each key of the metadata becomes."""


def _adapt_resolution(metadata: dict[str, Any], change: Change, *, is_scientific: bool) -> None:
    """Exchange both axes. Dots per inch stay when a picture is enlarged, but pixels per micrometer do not."""
    if change.swaps_axes and "xres" in metadata and "yres" in metadata:
        metadata["xres"], metadata["yres"] = metadata["yres"], metadata["xres"]
    if change.swaps_axes and "jfif" in metadata:
        metadata["jfif"] = jpeg.swap_density(metadata["jfif"])
    if is_scientific and change.is_scaled:
        for key, factor in zip(("xres", "yres"), change.scale, strict=True):
            if key in metadata:
                metadata[key] *= factor


def write(file: IO[bytes], picture: Picture, format: str) -> tuple[str, ...]:
    """Put the metadata of a picture into its finished file. Returns what the format cannot store.

    file: open for reading and writing, without metadata. format: PNG, JPEG, TIFF or WebP.
    """
    metadata = _share_comments(picture.metadata, format)
    if format == "PNG":
        has_white = picture.encoding is not None and picture.encoding.white is not None
        missing = png.write(file, metadata, picture.channels, uses_all_bits=not has_white)
    elif format == "JPEG":
        missing = jpeg.write(file, metadata)
    elif format == "TIFF":
        missing = tiff.write(file, metadata, channels.describe(picture))
    else:
        missing = webp.write(file, metadata, picture.width, picture.height)
    return (*missing, *list_missing(metadata, format))


def list_missing(metadata: Mapping[str, Any], format: str) -> tuple[str, ...]:
    """What of the metadata a format cannot store."""
    others = {key: value for key, value in metadata.items() if key not in _STORED[format]}
    missing = [name for key, name in _NAMES.items() if key in others]
    missing += png.describe(others.get("png-chunks", b""))
    if "tiff-tags" in others:
        missing.append(tiff.describe(others["tiff-tags"]))
    if "jpeg-segments" in others:
        missing.append(jpeg.describe(others["jpeg-segments"]))
    return (*missing, *(["unknown WebP chunks"] if "webp-chunks" in others else []))


def _share_comments(metadata: Mapping[str, Any], format: str) -> Mapping[str, Any]:
    """Comments of JPEG as texts of PNG, and the other way round."""
    if format == "PNG" and "jpeg-comments" in metadata:
        texts = b"".join(map(png.build_comment, metadata["jpeg-comments"]))
        shared = {**metadata, "png-chunks": metadata.get("png-chunks", b"") + texts}
        del shared["jpeg-comments"]
        return shared
    if format == "JPEG" and "png-chunks" in metadata:
        comments, others = png.split_comments(metadata["png-chunks"])
        return {**metadata, "jpeg-comments": (*metadata.get("jpeg-comments", ()), *comments), "png-chunks": others}
    return metadata
