"""What is white: by what the user states, else by what the file states, else by the type of the samples.

Many cameras and scanners store 10, 12 or 14 bits in 16-bit samples, and scientific programs store floating-point
samples from 0 to 255 or 65535. Networks need to know what is white, so such pictures are scaled before they are
restored, and scaled back when they are written.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from pellucid.errors import ArgumentError, PictureError
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.samples import PEAKS, Samples
from pellucid.system import memory

LOWEST, HIGHEST = -1.0, 2.0
"""Limits of floating-point values, if white is not stated. Strong noise that is not clipped exceeds 0..1, but not
this much."""

_DARK = {"uint16": 2**15, "float32": 0.25}
"""If no sample is above this, white may be lower than that of the type. 2**15 is white in some image editors."""

_NEGATIVE = -0.25
"""Noise is rarely below this; samples from -1 to 1 are."""


_OVERSHOOT = 0.1
"""How far results of networks may be outside of 0 to 1."""


@dataclass(frozen=True)
class _Range:
    low: float
    high: float


def check_white(white: float | None) -> None:
    """Raise ArgumentError for a value that white cannot have."""
    if white is not None and not 0 < float(white) < inf:
        raise ArgumentError(f"{white!r} is not possible", hint="{white} can be a number above 0")


def apply_white(
    picture: Picture, path: object, *, white: float | None = None, origin: str = "", significant_bits: int = 0
) -> Picture:
    """A picture as it was decoded, scaled so that white is that of its type.

    white: as the user states it, in units of the file; by default `Encoding.white`, which comes from a part of the
        file called `origin`. significant_bits: as a PNG states them, 0 if it does not.
    Raises PictureError if white is not possible, or is needed. A picture that may need it gets a warning in its
    encoding. Changes the arrays in place.
    """
    encoding = picture.encoding
    assert encoding is not None
    if encoding.palette and white is None:
        return picture
    found, peak = _measure(picture.samples), PEAKS[picture.dtype]
    units = 1.0 if picture.dtype == "float32" else peak / (2**encoding.bits - 1)
    if white is not None:
        _check(white, encoding, peak / units, path)
    elif encoding.white is None and _is_unscaled(picture, significant_bits, found):
        encoding, origin = replace(encoding, white=2.0**significant_bits - 1), "sBIT"
    stated = encoding.white if white is None else white
    if white is None:
        if stated is not None:
            note = f"white is {stated:g}, as {origin} specifies; --white changes it"
            encoding = replace(encoding, notes=(*encoding.notes, note))
        _check_range(found, path, stated or 1.0, picture.dtype)
    if stated is None:
        encoding = replace(encoding, warnings=(*encoding.warnings, *_find_doubts(found, picture.dtype)))
    scaled = peak if stated is None else stated * units
    if scaled == peak:
        return replace(picture, encoding=replace(encoding, white=None))
    return _scale_planes(replace(picture, encoding=replace(encoding, white=scaled)), found)


def scale_back(picture: Picture) -> Picture:
    """A picture in the units of the file that it comes from. Copies the samples if they change."""
    encoding = picture.encoding
    if encoding is None or encoding.white is None:
        return picture
    factor, unscaled = encoding.white / PEAKS[picture.dtype], encoding.unscaled
    return replace(
        picture,
        samples=_scaled(picture.samples, factor),
        alpha=picture.alpha if picture.alpha is None or "alpha" in unscaled else _scaled(picture.alpha, factor),
        extra=picture.extra if picture.extra is None or "extra" in unscaled else _scaled(picture.extra, factor),
    )


def describe_clipped(picture: Picture, dtype: str) -> tuple[str, ...]:
    """What integers cannot store of a floating-point picture: values that are far outside of 0 to 1.

    Networks leave this range a little, which is no loss.
    """
    if picture.dtype != "float32" or dtype == "float32":
        return ()
    planes = {"samples": picture.samples, "alpha": picture.alpha, "other channels": picture.extra}
    ranges = {name: _measure(plane) for name, plane in planes.items() if plane is not None}
    return tuple(
        f"{name} outside of 0 to 1 (from {found.low:.3g} to {found.high:.3g})"
        for name, found in ranges.items()
        if found.low < -_OVERSHOOT or found.high > 1 + _OVERSHOOT
    )


def change_samples(samples: Samples, change: Callable[[Samples], Samples]) -> None:
    """Change an array in place, strip by strip."""
    for rows in memory.strips(samples):
        samples[rows] = change(samples[rows])


def _scale_planes(picture: Picture, found: _Range) -> Picture:
    encoding = picture.encoding
    assert encoding is not None and encoding.white is not None
    white, peak = encoding.white, PEAKS[picture.dtype]
    others = {"alpha": picture.alpha, "extra": picture.extra}
    planes = {name: plane for name, plane in others.items() if plane is not None}
    unscaled = {name for name, plane in planes.items() if _has_own_units(name, plane, white)}
    for plane in (picture.samples, *(plane for name, plane in planes.items() if name not in unscaled)):
        change_samples(plane, lambda strip: _scale(strip, peak / white))
    if found.high > white and picture.dtype != "float32":
        text = f"samples above white, {white:g}, were clipped"
        encoding = replace(encoding, warnings=(*encoding.warnings, text))
    return replace(picture, encoding=replace(encoding, unscaled=tuple(sorted(unscaled))))


def _has_own_units(name: str, plane: Samples, white: float) -> bool:
    """Whether alpha or extra channels are obviously not in the units of the colors."""
    highest = _measure(plane).high
    if plane.dtype.kind == "f":  # extra channels may be anything, e.g. distances
        return name == "extra" or highest <= 1 < white
    return highest > white


def _measure(samples: Samples) -> _Range:
    low, high = inf, -inf
    for rows in memory.strips(samples):
        low, high = min(low, float(samples[rows].min())), max(high, float(samples[rows].max()))
    return _Range(low, high)


def _scaled(samples: Samples, factor: float) -> Samples:
    result = memory.allocate(samples.shape, samples.dtype.name)
    for rows in memory.strips(samples, result):
        result[rows] = _scale(samples[rows], factor)
    return result


def _scale(strip: Samples, factor: float) -> Samples:
    scaled = strip * np.float64(factor)
    if strip.dtype.kind == "f":
        return scaled.astype(strip.dtype)
    return np.minimum(np.floor(scaled + 0.5), PEAKS[strip.dtype.name]).astype(strip.dtype)


def _check(white: float, encoding: Encoding, largest: float, path: object) -> None:
    if encoding.palette:
        raise PictureError(f"{path} has a palette, for which white cannot be set", hint="omit {white}")
    if encoding.dtype != "float32" and white > largest:
        raise PictureError(
            f"white of {white:g} for samples of {encoding.bits} bits; it is at most {largest:g}",
            hint="omit {white}",
        )


def _is_unscaled(picture: Picture, bits: int, found: _Range) -> bool:
    """Whether samples of a PNG use only the lower bits, although the format scales them to the full range."""
    encoding = picture.encoding
    assert encoding is not None
    missing = encoding.bits - bits
    if not 0 < bits < encoding.bits or encoding.bits < 8 or not 0 < found.high < 2**bits:
        return False
    # Scaled samples have zeros or copies of the upper bits in the lower bits.
    return any(
        bool((strip & (2**missing - 1)).any() and (strip != (strip >> missing << missing) + (strip >> bits)).any())
        for strip in (picture.samples[rows] for rows in memory.strips(picture.samples))
    )


def _check_range(found: _Range, path: object, white: float, dtype: str) -> None:
    if dtype != "float32":
        return
    low, high = found.low / white, found.high / white
    if low < LOWEST:
        raise PictureError(
            f"{path} has floating-point samples from {found.low:.5g} to {found.high:.5g}; black is 0",
            hint="shift them, after replacing values that mean missing data",
        )
    if high > HIGHEST:
        likely = (value for value in (255, 1023, 4095, 16383, 65535) if value / 4 < found.high <= value)
        guess = next(likely, None)
        raise PictureError(
            f"{path} has floating-point samples from {found.low:.5g} to {found.high:.5g}, but white is {white:g} "
            f"unless another value is stated",
            hint="state the value of white by {white}" + ("" if guess is None else ", if it is this"),
            white=guess,
        )


def _find_doubts(found: _Range, dtype: str) -> list[str]:
    """Why white or black may not be what they should be."""
    if dtype == "float32" and found.low < _NEGATIVE:
        return [f"samples are negative, down to {found.low:.3g}; black is 0 and white is 1"]
    if not 0 < found.high <= _DARK.get(dtype, 0):
        return []
    if dtype == "float32":
        return ["no sample is above 0.25, and white is 1: the picture is dark, or white is lower (--white VALUE)"]
    white = 2**15 if found.high == 2**15 else 2 ** max(8, int(found.high).bit_length()) - 1
    return [f"no sample is above {white} of 65535: the picture is dark, or white is lower (--white {white})"]
