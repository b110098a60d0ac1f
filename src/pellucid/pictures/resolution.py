"""Resolution: dots per length, which every format stores in its own unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any

_MM = {"inch": 25.4, "cm": 10.0, "m": 1000.0}
"""Millimeters of each unit."""

_MAX = 2**31


@dataclass(frozen=True)
class Resolution:
    """Dots per unit: inch, cm or m; or "none": only the ratio of both numbers means something."""

    x: float
    y: float
    unit: str

    def to(self, unit: str) -> tuple[float, float]:
        """Dots per another unit. Numbers without a unit stay the same."""
        factor = _MM[unit] / _MM[self.unit] if self.unit in _MM else 1.0
        return self.x * factor, self.y * factor


def to_metadata(x: float, y: float, unit: str) -> dict[str, Any]:
    """`xres` and `yres` in dots per mm (without unit: as in the file), and the unit of the file.

    {} for numbers that are not above 0.
    """
    if not all(isfinite(value) and 0 < value < _MAX for value in (x, y)):
        return {}
    factor = 1 / _MM[unit] if unit in _MM else 1.0
    return {"xres": x * factor, "yres": y * factor, "resolution-unit": unit}


def from_metadata(metadata: Mapping[str, Any]) -> Resolution | None:
    """The resolution in the unit of the file (inches by default), or None if there is none."""
    x, y = metadata.get("xres"), metadata.get("yres")
    numbers = [value for value in (x, y) if isinstance(value, int | float) and isfinite(value) and value > 0]
    if len(numbers) < 2:
        return None
    unit = metadata.get("resolution-unit", "inch")
    factor = _MM.get(unit, 1.0)
    # 12 digits: conversion and back gives the number of the file.
    x, y = (float(f"{value * factor:.12g}") for value in numbers)
    return Resolution(x, y, unit) if max(x, y) < _MAX else None


def to_ratio(value: float) -> tuple[int, int]:
    """Numerator and denominator of 32 bits."""
    fraction = Fraction(value).limit_denominator(max(1, min(10**6, int((2**32 - 1) / max(value, 1)))))
    return fraction.numerator, fraction.denominator
