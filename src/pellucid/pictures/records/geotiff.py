"""Tags of a TIFF that depend on the size of its picture: places on the Earth, regions of ImageJ, microscopes."""

import struct
from collections.abc import Callable, Sequence

from pellucid.pictures.geometry import Change
from pellucid.pictures.structures.ifd import Value

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
_MICROSCOPES = {34118: "ZEISS", 34680: "FEI", 34682: "FEI", 33471: "Olympus"}
"""Texts of microscopes with the size of a pixel."""

_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2


def adapt(tags: dict[int, Value], change: Change) -> tuple[dict[int, Value], tuple[str, ...]]:
    """(the tags, true for a turned and scaled picture, what was removed)."""
    removed = []
    if (change.is_turned or change.is_scaled) and _has_regions(tags):
        others = _without_regions(tags)
        removed += _name_removed(tags, is_all=not others)
        tags = {tag: value for tag, value in tags.items() if tag not in (_IMAGEJ_SIZES, _IMAGEJ)} | others
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
    return adapted, tuple(removed)


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
    """The data of ImageJ without regions and overlays; {} if nothing else remains, or it is damaged.

    A header with the type and number of parts of each kind, and then the parts; their sizes are in a tag of their
    own. Source: ij.io.TiffEncoder of ImageJ.
    """
    content = tags[_IMAGEJ][2]
    kind, count, numbers = tags.get(_IMAGEJ_SIZES, (0, 0, b""))
    order = {b"IJIJ": ">", b"JIJI": "<"}.get(content[:4])
    if kind != 4 or count < 1 or order is None:
        return {}
    sizes = struct.unpack(f"<{count}I", numbers)
    head, parts, kept_sizes = content[:4], b"", list[int]()
    offset, number = sizes[0], 1
    for start in range(4, sizes[0] - 7, 8):
        name, num_parts = content[start : start + 4], int(struct.unpack_from(f"{order}I", content, start + 4)[0])
        own = sizes[number : number + num_parts]
        if name not in _REGIONS:
            head += content[start : start + 8]
            parts += content[offset : offset + sum(own)]
            kept_sizes += own
        offset, number = offset + sum(own), number + num_parts
    if number != count or offset != len(content) or not kept_sizes:
        return {}
    kept = [len(head), *kept_sizes]
    return {
        _IMAGEJ_SIZES: (4, len(kept), struct.pack(f"<{len(kept)}I", *kept)),
        _IMAGEJ: (tags[_IMAGEJ][0], len(head + parts), head + parts),
    }
