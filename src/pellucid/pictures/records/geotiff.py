"""Tags of a TIFF that depend on the size and the values of its picture: places, regions of ImageJ, microscopes."""

import re
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction

from pellucid.pictures.geometry import Change
from pellucid.pictures.structures.ifd import FRACTION, Value

PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, KEYS = 33550, 33922, 34264, 34735
_INTERGRAPH, _RPC = 33920, 50844
_PLACES = (PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, _INTERGRAPH, _RPC)
_IMAGEJ_SIZES, _IMAGEJ = 50838, 50839
_PARTS = {
    "regions": frozenset({b"roi ", b" ior"}),
    "overlays": frozenset({b"over", b"revo"}),
    "labels": frozenset({b"labl", b"lbal"}),
    "colors": frozenset({b"luts", b"stul"}),
    "display ranges": frozenset({b"rang", b"gnar"}),
    "notes": frozenset({b"info", b"ofni", b"prop", b"porp"}),
}
"""What the data of ImageJ contain -> types of these parts, in both byte orders."""

_REGIONS = _PARTS["regions"] | _PARTS["overlays"]
_MICROSCOPES = {
    **dict.fromkeys((34118, 34412), "ZEISS"),
    **dict.fromkeys((34680, 34682), "FEI"),
    **dict.fromkeys((33471, 33560, 34361, 34362), "Olympus"),
    37706: "TVIPS",
    51123: "Micro-Manager",
}
"""Descriptions by microscopes with the size of a pixel or of the picture."""

_X_POSITION, _Y_POSITION, _FULL_WIDTH, _FULL_HEIGHT = 286, 287, 33300, 33301
_ON_PAGE = (_X_POSITION, _Y_POSITION, _FULL_WIDTH, _FULL_HEIGHT)
"""Where the picture is on a larger page, and the size of the page in pixels."""

_GDAL_ITEMS, _GDAL_NO_DATA = 42112, 42113
_ABOUT_VALUES = re.compile(rb"<Item\b[^>]*(?:name=\"STATISTICS_|role=\"(?:scale|offset)\")[^>]*>[^<]*</Item>\s*")
"""Items of GDAL: statistics of the samples, and what to multiply them by and to add for physical values."""

_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2


def adapt(tags: dict[int, Value], change: Change) -> tuple[dict[int, Value], tuple[str, ...]]:
    """(the tags, true for a turned and scaled picture, what was removed)."""
    removed = []
    if (change.is_turned or change.is_scaled) and _has_regions(tags):
        others = _without_regions(tags)
        removed += _name_removed(tags, is_all=not others)
        tags = {tag: value for tag, value in tags.items() if tag not in (_IMAGEJ_SIZES, _IMAGEJ)} | others
    if change.value_scale != 1:
        tags, gone = _adapt_values(tags, change.value_scale)
        removed += gone
    if change.is_turned and any(tag in tags for tag in _ON_PAGE):
        tags = {tag: value for tag, value in tags.items() if tag not in _ON_PAGE}
        removed.append("the place on the page, because the picture was turned")
    if change.is_turned or change.is_scaled:
        makers = {maker for tag, maker in _MICROSCOPES.items() if tag in tags}
        tags = {tag: value for tag, value in tags.items() if tag not in _MICROSCOPES}
        removed += [f"the description by a microscope ({maker})" for maker in sorted(makers)]
    if change.is_turned and any(tag in tags for tag in _PLACES):
        tags = {tag: value for tag, value in tags.items() if tag not in _PLACES}
        return tags, (*removed, "the place on the Earth (GeoTIFF), because the picture was turned")
    if not change.is_scaled:
        return tags, tuple(removed)
    # Coordinates are of corners of pixels, or of centers of pixels: half a pixel further.
    center = 0.5 if _is_point(tags) else 0.0
    adapted = dict(tags)
    across, down = change.scale
    converters: tuple[tuple[int, Callable[[list[float]], list[float]]], ...] = (
        (PIXEL_SCALE, lambda numbers: _scale_pixels(numbers, across, down)),
        (TIE_POINTS, lambda numbers: _move_tie_points(numbers, across, down, center)),
        (TRANSFORMATION, lambda numbers: _scale_matrix(numbers, across, down, center)),
        (_INTERGRAPH, lambda numbers: _scale_matrix(numbers, across, down, center)),
        (_RPC, lambda numbers: _scale_polynomials(numbers, across, down)),
    )
    for tag, convert in converters:
        numbers = _doubles(tags, tag)
        if numbers:
            changed = convert(numbers)
            adapted[tag] = 12, len(changed), struct.pack(f"<{len(changed)}d", *changed)
    adapted |= _move_on_page(tags, across, down)
    return adapted, tuple(removed)


def _adapt_values(tags: dict[int, Value], factor: float) -> tuple[dict[int, Value], list[str]]:
    """The tags of a picture whose samples were multiplied by a factor."""
    adapted, removed = dict(tags), list[str]()
    if _IMAGEJ in tags:
        adapted |= _scale_ranges(tags, factor)
    kind, _, items = tags.get(_GDAL_ITEMS, (0, 0, b""))
    kept = _ABOUT_VALUES.sub(b"", items)
    if kept != items:
        adapted[_GDAL_ITEMS] = kind, len(kept), kept
        removed.append("statistics and scales of values by GDAL")
    if adapted.pop(_GDAL_NO_DATA, None) is not None:
        removed.append("the value for no data (GDAL_NODATA)")
    return adapted, removed


def _move_on_page(tags: dict[int, Value], across: float, down: float) -> dict[int, Value]:
    """The same place for a larger picture with the same resolution."""
    factors = dict(zip(_ON_PAGE, (across, down, across, down), strict=True))
    moved = dict[int, Value]()
    for tag, factor in factors.items():
        kind, count, content = tags.get(tag, (0, 0, b""))
        if (kind, count) == (FRACTION, 1):
            numerator, denominator = struct.unpack("<II", content)
            scaled = Fraction(numerator, denominator or 1) * Fraction(factor).limit_denominator(1000)
            scaled = scaled.limit_denominator(100_000)
            moved[tag] = kind, count, struct.pack("<II", min(scaled.numerator, 2**32 - 1), scaled.denominator)
        elif kind in (3, 4) and count == 1:
            number = int.from_bytes(content, "little")
            moved[tag] = 4, 1, struct.pack("<I", min(round(number * factor), 2**32 - 1))
    return moved


def _doubles(tags: dict[int, Value], tag: int) -> list[float]:
    kind, count, content = tags.get(tag, (0, 0, b""))
    return [*struct.unpack(f"<{count}d", content)] if kind == 12 else []


def _is_point(tags: dict[int, Value]) -> bool:
    kind, count, content = tags.get(KEYS, (0, 0, b""))
    keys = struct.unpack(f"<{count}H", content) if kind == 3 else ()
    entries = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    return entries.get(_RASTER_TYPE) == _PIXEL_IS_POINT


def _scale_pixels(numbers: Sequence[float], across: float, down: float) -> list[float]:
    return [number / factor for number, factor in zip(numbers, (across, down), strict=False)] + [*numbers[2:]]


def _move_tie_points(numbers: Sequence[float], across: float, down: float, center: float) -> list[float]:
    moved = [*numbers]
    for i in range(0, len(moved) - 5, 6):
        moved[i] = (moved[i] + center) * across - center
        moved[i + 1] = (moved[i + 1] + center) * down - center
    return moved


def _scale_matrix(numbers: Sequence[float], across: float, down: float, center: float) -> list[float]:
    """A 4 x 4 matrix from (column, row, 0, 1) to the place, row by row."""
    scaled = [*numbers]
    for row in range(0, len(scaled) - 3, 4):
        x, y = numbers[row] / across, numbers[row + 1] / down
        scaled[row], scaled[row + 1] = x, y
        scaled[row + 3] += center * (x - numbers[row]) + center * (y - numbers[row + 1])
    return scaled


def _scale_polynomials(numbers: Sequence[float], across: float, down: float) -> list[float]:
    """RPC: error bias and random error, offsets of line and sample, of the place, scales in the same order."""
    scaled = [*numbers]
    if len(scaled) >= 12:
        scaled[2], scaled[3] = (scaled[2] + 0.5) * down - 0.5, (scaled[3] + 0.5) * across - 0.5
        scaled[7], scaled[8] = scaled[7] * down, scaled[8] * across
    return scaled


def _has_regions(tags: dict[int, Value]) -> bool:
    head = tags.get(_IMAGEJ, (0, 0, b""))[2][:256]
    return any(kind in head for kind in _REGIONS)


def _name_removed(tags: dict[int, Value], *, is_all: bool) -> list[str]:
    """What is in the data of ImageJ and is removed: regions and overlays, or everything."""
    head = tags[_IMAGEJ][2][:256]
    names = [name for name, kinds in _PARTS.items() if any(kind in head for kind in kinds)]
    removed = [name for name in names if is_all or _REGIONS & _PARTS[name]]
    return [f"the {' and '.join(removed) if len(removed) < 3 else ', '.join(removed)} of ImageJ"]


def _without_regions(tags: dict[int, Value]) -> dict[int, Value]:
    """The data of ImageJ without regions and overlays; {} if nothing else remains, or it is damaged."""
    return _change_parts(tags, lambda name, parts: [] if name in _REGIONS else parts)


def _scale_ranges(tags: dict[int, Value], factor: float) -> dict[int, Value]:
    """The data of ImageJ with the shown ranges of values multiplied by a factor; {} if they are damaged."""

    def scale(name: bytes, parts: list[bytes]) -> list[bytes]:
        if name not in _PARTS["display ranges"] or not parts:
            return parts
        code = f"{'>' if name == b'rang' else '<'}{len(parts[0]) // 8}d"
        values = [value * factor for value in struct.unpack(code, parts[0][: struct.calcsize(code)])]
        return [struct.pack(code, *values), *parts[1:]]

    return _change_parts(tags, scale)


def _change_parts(tags: dict[int, Value], change: Callable[[bytes, list[bytes]], list[bytes]]) -> dict[int, Value]:
    """The data of ImageJ with other parts; {} if none remains, or they are damaged.

    change: from the type of some parts, and these parts. A header with the type and number of parts of each type
    is followed by the parts; their sizes are in a tag of their own. Source: ij.io.TiffEncoder of ImageJ.
    """
    content = tags[_IMAGEJ][2]
    kind, count, numbers = tags.get(_IMAGEJ_SIZES, (0, 0, b""))
    order = {b"IJIJ": ">", b"JIJI": "<"}.get(content[:4])
    if kind != 4 or count < 1 or order is None:
        return {}
    sizes = struct.unpack(f"<{count}I", numbers)
    head, kept = content[:4], list[bytes]()
    offset, number = sizes[0], 1
    for start in range(4, sizes[0] - 7, 8):
        name, num_parts = content[start : start + 4], int(struct.unpack_from(f"{order}I", content, start + 4)[0])
        own = list[bytes]()
        for size in sizes[number : number + num_parts]:
            own.append(content[offset : offset + size])
            offset += size
        number += num_parts
        changed = change(name, own)
        head += name + struct.pack(f"{order}I", len(changed)) if changed else b""
        kept += changed
    if number != count or offset != len(content) or not kept:
        return {}
    lengths = [len(head), *map(len, kept)]
    joined = head + b"".join(kept)
    return {
        _IMAGEJ_SIZES: (4, len(lengths), struct.pack(f"<{len(lengths)}I", *lengths)),
        _IMAGEJ: (tags[_IMAGEJ][0], len(joined), joined),
    }
