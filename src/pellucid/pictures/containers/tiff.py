"""Metadata in TIFF files: tags of the directory that also describes the samples."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any

from pellucid.pictures import resolution
from pellucid.pictures.records import descriptions, exif, iptc, xmp
from pellucid.pictures.structures import ifd
from pellucid.pictures.structures.ifd import BINARY, FRACTION, SHORT, Value

STORED = frozenset(
    {"exif-data", "xmp-data", "iptc-data", "photoshop-data", "icc-profile-data", "tiff-tags", "xres", "yres"}
)
"""Metadata that `write` stores."""

_XMP, _IPTC, _PHOTOSHOP, _ICC, _LAYERS = 0x02BC, 0x83BB, 0x8649, 0x8773, 0x935C
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x011A, 0x011B, 0x0128
_UNITS = {1: "none", 2: "inch", 3: "cm"}
_OWN = frozenset({_XMP, _IPTC, _PHOTOSHOP, _ICC, _LAYERS, 0x014A})
_CURVES = (0x012D, 0x0123)
"""Tables with a number for each value of a sample: TransferFunction, GrayResponseCurve."""

_RGB, _YCBCR = 2, 6
_DESCRIPTION, _SAMPLES_PER_PIXEL, _PLANAR, _SEPARATE = 0x010E, 0x0115, 0x011C, 2
_GRAY_UNIT, _GRAY_CURVE, _REFERENCE, _PHOTOMETRIC, _BITS = 0x0122, 0x0123, 0x0214, 0x0106, 0x0102

_NOT_KEPT = {
    _LAYERS: "layers of Photoshop",
    0x014D: "the names of inks",
    0x0190: "global parameters",
    0xC634: "private data of DNG",
}
# These contain places in the file, where something else would be.
_NOT_KEPT |= {
    0x866C: "the description by a microscope (ZEISS LSM)",
    0x8318: "the description by a microscope (Olympus)",
}


def read(file: IO[bytes]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(metadata, what is not kept) of the first page of a TIFF; without damaged values."""
    try:
        layout, offset = ifd.parse_header(file)
    except (struct.error, ValueError):
        return {}, ()
    values = ifd.parse_directory(file, layout, offset)
    tags = _interleave(exif.parse_tiff(file, offset), values)
    resources = iptc.parse_resources(_bytes(values, _PHOTOSHOP))
    others = {tag: value for tag, value in tags.main.items() if tag not in exif.IN_BLOCKS | _OWN}
    dropped = [name for tag, name in _NOT_KEPT.items() if tag in values]
    dropped += _drop_levels(values, others)
    others = {tag: value for tag, value in others.items() if tag not in _NOT_KEPT}
    for tag in [tag for tag, (kind, *_) in others.items() if kind in (ifd.IFD, ifd.IFD8)]:
        del others[tag]
        dropped.append(f"TIFF tag {ifd.name(tag)}")
    records = [*filter(None, (_read_records(values), resources.records))]
    block, packet = _build_block(values, tags), _bytes(values, _XMP).rstrip(b"\0")
    packet, conflicts = xmp.join([packet, resources.packet])
    dropped += [*conflicts, *(["a second IPTC block"] if len({one.rstrip(b"\0") for one in records}) > 1 else [])]
    dropped += ["a second EXIF block"] if block and not exif.contains(block, resources.exif) else []
    dropped += _find_unread(file, layout, offset, values)
    metadata = {
        "exif-data": block or (exif.HEADER + resources.exif if resources.exif else b""),
        "xmp-data": packet,
        "iptc-data": max(records, key=len, default=b""),
        "photoshop-data": resources.others,
        "icc-profile-data": _bytes(values, _ICC),
        "tiff-tags": others,
        **_read_resolution(values),
    }
    return metadata, tuple(dropped)


def _interleave(tags: exif.Tags, values: dict[int, Value]) -> exif.Tags:
    """The tags of a result, whose channels are next to each other."""
    num_channels = ifd.number(values, _SAMPLES_PER_PIXEL) or 1
    if ifd.number(values, _PLANAR) != _SEPARATE or num_channels == 1 or _DESCRIPTION not in tags.main:
        return tags
    kind, _, content = tags.main[_DESCRIPTION]
    text = content.split(b"\0")[0].decode("utf-8", "replace")
    interleaved = descriptions.interleave(text, num_channels)
    if interleaved == text:
        return tags
    changed = interleaved.encode() + b"\0"
    return replace(tags, main={**tags.main, _DESCRIPTION: (kind, len(changed), changed)})


def _drop_levels(values: Mapping[int, Value], others: dict[int, Value]) -> list[str]:
    """Remove what describes the levels of stored samples, but not those of the decoded picture."""
    color, bits = (ifd.number(dict(values), tag) for tag in (_PHOTOMETRIC, _BITS))
    dropped = []
    if color == 0 and _GRAY_CURVE in others:  # white is 0, but not any more
        others.pop(_GRAY_UNIT, None)
        del others[_GRAY_CURVE]
        dropped.append(f"TIFF tag {ifd.name(_GRAY_CURVE)}")
    if color in (_RGB, _YCBCR) and _REFERENCE in values:
        content, white = values[_REFERENCE][2], 2 ** (bits or 8) - 1
        levels = struct.unpack(f"<{len(content) // 4}I", content[: len(content) // 4 * 4])
        chroma = (0, 1) if color == _RGB else ((white + 1) // 2, 1)
        if levels != (0, 1, white, 1, *chroma, white, 1, *chroma, white, 1):
            dropped.append(f"TIFF tag {ifd.name(_REFERENCE)}")
    return dropped


def _build_block(values: dict[int, Value], tags: exif.Tags) -> bytes:
    """The tags that EXIF has in other formats too; b"" if they only describe how samples are shown."""
    shown = (exif.ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT)
    main = {tag: value for tag, value in tags.main.items() if tag in exif.IN_BLOCKS and tag not in shown}
    if not replace(tags, main=main):
        return b""
    main |= {tag: values[tag] for tag in shown if tag in values}
    return exif.build_block(replace(tags, main=main))


def _find_unread(file: IO[bytes], layout: ifd.Layout, offset: int, values: Mapping[int, Value]) -> list[str]:
    """Tags of unknown types, or with values outside of the file or too long."""
    tags = [entry.tag for entry in ifd.iterate_entries(file, layout, offset)]
    unread = [tag for tag in tags if tag not in values and tag not in exif.STORAGE]
    return [f"unreadable TIFF tag {ifd.name(tag)}" for tag in unread]


def _bytes(values: Mapping[int, Value], tag: int) -> bytes:
    return values.get(tag, (0, 0, b""))[2]


def _read_records(values: Mapping[int, Value]) -> bytes:
    """IPTC records. Some programs store them as numbers of 4 bytes, in one byte order or the other."""
    kind, _, content = values.get(_IPTC, (0, 0, b""))
    if kind == ifd.LONG and not content.startswith(b"\x1c"):
        content = ifd.reorder(content, ifd.LONG, ">")
    return content if content.startswith(b"\x1c") else b""


def _read_resolution(values: dict[int, Value]) -> dict[str, Any]:
    x, y = ifd.fraction(values, _X_RESOLUTION), ifd.fraction(values, _Y_RESOLUTION)
    unit = ifd.number(values, _UNIT)
    return resolution.to_metadata(x, y, _UNITS.get(2 if unit is None else unit, "none"))


def write(file: IO[bytes], metadata: Mapping[str, Any], of_samples: Mapping[int, Value]) -> list[str]:
    """Add the metadata to a TIFF with one page: a new directory at the end. Returns what does not fit.

    of_samples: tags that say what the stored samples mean.
    """
    missing: list[str] = []
    layout, offset = ifd.parse_header(file)
    entries = [*ifd.iterate_entries(file, layout, offset)]
    samples = {
        entry.tag: (entry.kind, entry.count, entry.raw)
        for entry in entries
        if entry.tag not in (_X_RESOLUTION, _Y_RESOLUTION, _UNIT)
    }
    tags = exif.parse_block(metadata.get("exif-data", b""))
    bits = ifd.number(ifd.parse_directory(file, layout, offset), 0x0102) or 1
    main = {**tags.main, **_select_tags(metadata.get("tiff-tags", {}), bits, missing), **_build_own(metadata)}
    for tag in (_X_RESOLUTION, _Y_RESOLUTION, _UNIT):
        main.pop(tag, None)
    main |= _build_resolution(metadata) | dict(of_samples)
    end = file.seek(0, 2)
    start = end + end % 2
    content, place, is_readable = exif.build_directories(layout, replace(tags, main=main), start, samples)
    if not is_readable:
        missing.append("parts of the maker note")
    file.write(bytes(end % 2) + content)
    file.seek(layout.first_pointer)
    file.write(struct.pack(layout.offset, place))
    return missing


def _select_tags(tags: Mapping[int, Value], bits: int, missing: list[str]) -> dict[int, Value]:
    """The tags without tables for another depth."""
    unfit = [tag for tag in _CURVES if tag in tags and tags[tag][1] % 2**bits]
    missing += [f"TIFF tag {ifd.name(tag)}, which is for another depth" for tag in unfit]
    return {tag: value for tag, value in tags.items() if tag not in unfit}


def _build_own(metadata: Mapping[str, Any]) -> dict[int, Value]:
    records, others = metadata.get("iptc-data", b""), metadata.get("photoshop-data", b"")
    contents = {
        _XMP: (1, metadata.get("xmp-data", b"")),
        _IPTC: (BINARY, records),
        _PHOTOSHOP: (1, others),
        _ICC: (BINARY, metadata.get("icc-profile-data", b"")),
    }
    return {tag: (kind, len(raw), raw) for tag, (kind, raw) in contents.items() if raw}


def _build_resolution(metadata: Mapping[str, Any]) -> dict[int, Value]:
    dots = resolution.from_metadata(metadata)
    if dots is None:
        return {}
    unit = "inch" if dots.unit == "m" else dots.unit
    number = {name: number for number, name in _UNITS.items()}[unit]
    x, y = (struct.pack("<II", *resolution.to_ratio(value)) for value in dots.to(unit))
    return {
        _X_RESOLUTION: (FRACTION, 1, x),
        _Y_RESOLUTION: (FRACTION, 1, y),
        _UNIT: (SHORT, 1, struct.pack("<H", number)),
    }


def describe(tags: Mapping[int, Value]) -> str:
    """The names of tags, for people whose format cannot store them."""
    return f"TIFF tags ({', '.join(ifd.name(tag) for tag in sorted(tags))})"
