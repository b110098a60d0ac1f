"""Sizes and values in the text descriptions of scientific TIFF files: OME-XML, ImageJ, tifffile and Aperio."""

import json
import re
import sys
from collections.abc import Callable

from pellucid.pictures.geometry import Change

_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_REGIONS = re.compile(
    r"<((?:\w+:)?ROI)\b(?:[^>]*/>|.*?</\1>)|<(?:\w+:)?ROIRef\b[^>]*?(?:/>|>\s*</[^>]*>)", re.DOTALL
)
_OME_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_BITS = {"uint8": 8, "uint16": 16, "float32": 32}

_DISPLAYED = re.compile(r"^((?:min|max)=)(\S+)$", re.MULTILINE)
_CALIBRATION = re.compile(r"^(?:cf|c[0-4]|vunit)=.*\n?", re.MULTILINE)
"""Lines of ImageJ: the range of values that is shown, and a function from values to physical ones."""

_MICROMETERS_PER_PIXEL = re.compile(r"(\|\s*MPP\s*=\s*)([\d.]+)")


def adapt(text: str, change: Change) -> tuple[str, tuple[str, ...]]:
    """(the description of a turned and scaled picture, what was removed); other texts stay the same."""
    if is_ome(text):
        text = _PIXELS.sub(lambda match: _adapt_samples(_adapt_pixels(match[0], change), change), text)
        without = _REGIONS.sub("", text) if change.is_turned or change.is_scaled else text
        return without, (() if without == text else ("the regions of OME",))
    if text.startswith('{"shape":'):
        return _adapt_shape(text, change), ()
    if text.startswith("ImageJ="):
        return _adapt_values(text, change.value_scale)
    if text.startswith("Aperio"):
        factor = min(change.scale)
        return _MICROMETERS_PER_PIXEL.sub(lambda match: match[1] + _divide(match[2], factor), text), ()
    return text, ()


def interleave(text: str, num_channels: int) -> str:
    """The description of tifffile for channels that are next to each other, not one after the other, in a file."""
    try:
        content = json.loads(text) if text.startswith('{"shape":') else {}
        shape, axes = content["shape"], content.get("axes")
        is_planar = len(shape) > 2 and shape[-3] == num_channels
    except (ValueError, TypeError, KeyError):
        return text
    if not is_planar:
        return text
    content["shape"] = [*shape[:-3], *shape[-2:], num_channels]
    if isinstance(axes, str) and len(axes) == len(shape):
        content["axes"] = axes[:-3] + axes[-2:] + axes[-3]
    return json.dumps(content)


def is_ome(text: str) -> bool:
    """Whether it is OME-XML."""
    return re.search(r"<(\w+:)?OME\b", text[:4096]) is not None


def is_of_stack(text: str) -> bool:
    """Whether it is about a stack of pages, by ImageJ, OME or tifffile."""
    return text.startswith(("ImageJ=", '{"shape"')) or is_ome(text)


def has_own_unit(text: str) -> bool:
    """Whether the resolution is in pixels per unit of this description, e.g. micrometers, as in ImageJ's files."""
    return text.startswith("ImageJ=") and re.search(r"^unit=(?!inch|cm|pixel)", text, re.MULTILINE) is not None


def find_significant_bits(text: str) -> int:
    """The most bits of a sample that OME-XML states, e.g. 12 of the 16 that are stored; 0 if none does."""
    elements = _PIXELS.findall(text) if is_ome(text) else []
    found = [re.search(r"""\sSignificantBits\s*=\s*["'](\d{1,3})["']""", element) for element in elements]
    return max((int(match[1]) for match in found if match), default=0)


def _adapt_pixels(element: str, change: Change) -> str:
    """The element of OME-XML that contains the sizes in pixels and the physical size of a pixel."""
    if change.swaps_axes:
        element = _exchange(element, "SizeX", "SizeY")
        for name in ("PhysicalSizeX", "PhysicalSizeXUnit"):
            element = _exchange(element, name, name.replace("X", "Y"))
    across, down = change.scale
    element = _replace(element, "SizeX", lambda _: str(change.after[0]))
    element = _replace(element, "SizeY", lambda _: str(change.after[1]))
    element = _replace(element, "PhysicalSizeX", lambda value: _divide(value, across))
    return _replace(element, "PhysicalSizeY", lambda value: _divide(value, down))


def _adapt_samples(element: str, change: Change) -> str:
    """The element of OME-XML with the type of the stored samples."""
    if not change.dtype:
        return element
    bits = _BITS[change.dtype]

    def adapt_bits(text: str) -> str:
        keeps = change.value_scale == 1 and text.isdigit() and int(text) <= bits
        return text if keeps else str(bits)

    element = _replace(element, "Type", lambda _: _OME_TYPES[change.dtype])
    element = _replace(element, "BigEndian", lambda _: "true" if sys.byteorder == "big" else "false")
    return _replace(element, "SignificantBits", adapt_bits)


def _adapt_values(text: str, factor: float) -> tuple[str, tuple[str, ...]]:
    """Lines of ImageJ about values that were multiplied by a factor."""
    if factor == 1:
        return text, ()
    scaled = _DISPLAYED.sub(lambda match: match[1] + _divide(match[2], 1 / factor), text)
    without = _CALIBRATION.sub("", scaled)
    return without, (() if without == scaled else ("the calibration of values by ImageJ",))


def _replace(element: str, name: str, change: Callable[[str], str]) -> str:
    return re.sub(rf'(\s{name}\s*=\s*)(["\'])(.*?)\2', lambda m: f"{m[1]}{m[2]}{change(m[3])}{m[2]}", element)


def _exchange(element: str, one: str, other: str) -> str:
    """Exchange the names of two attributes."""
    names = {one: other, other: one}
    return re.sub(rf"(\s)({one}|{other})(\s*=)", lambda m: m[1] + names[m[2]] + m[3], element)


def _divide(value: str, factor: float) -> str:
    try:
        return value if factor == 1 else repr(float(value) / factor)
    except ValueError:
        return value


def _adapt_shape(text: str, change: Change) -> str:
    """The shape that tifffile writes: (..., height, width) or (..., height, width, channels).

    Channels change e.g. if CMYK or a palette becomes RGB.
    """
    try:
        content = json.loads(text)
        shape = content["shape"]
        place = next(
            i for i in (len(shape) - 3, len(shape) - 2) if [*shape[i : i + 2]] == [*change.before[::-1]] and i >= 0
        )
    except (ValueError, TypeError, KeyError, StopIteration):
        return text
    shape[place : place + 2] = change.after[::-1]
    axes, has_channels = content.get("axes"), len(shape) > place + 2
    if change.channels and (has_channels or change.channels > 1):
        if isinstance(axes, str) and len(axes) == len(shape):
            content["axes"] = axes[: place + 2] + "S"
        shape[place + 2 :] = [change.channels]
    return json.dumps(content)
