"""The form of the samples that a whole graph takes and returns: those of files, not those of the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import ArgumentError

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16}

LAYOUTS = ("nchw", "nhwc")

NUM_CHANNELS = {"gray": 1, "rgb": 3, "mosaic": 1}


@dataclass(frozen=True)
class SampleForm:
    """samples: uint8 or uint16. layout: nchw, (N, C, H, W), or nhwc, (N, H, W, C).

    colors: gray, rgb, or mosaic if the result is still to be developed.
    """

    samples: str = "uint8"
    layout: str = "nchw"
    colors: str = "rgb"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("samples", self.samples, DTYPES),
            ("layout", self.layout, LAYOUTS),
            ("colors", self.colors, NUM_CHANNELS),
        ):
            if value not in known:
                names = ", ".join(one for one in known if one != "mosaic")  # that is never chosen
                raise ArgumentError(f"{name} {str(value)[:40]!r}; possible are {names}")

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "SampleForm":
        """The inverse of `vars`. Raises TypeError, KeyError or ArgumentError."""
        return cls(value["samples"], value["layout"], value["colors"])

    @property
    def peak(self) -> int:
        """The white of the samples."""
        return torch.iinfo(DTYPES[self.samples]).max

    def size_of(self, shape: tuple[int, int, int, int]) -> tuple[int, int]:
        """Height and width of samples of this shape."""
        return shape[2:] if self.layout == "nchw" else shape[1:3]

    def to_planes(self, samples: Tensor) -> Tensor:
        """Samples as (N, C, H, W) float32, not scaled."""
        return (samples if self.layout == "nchw" else samples.movedim(-1, 1)).float()

    def from_planes(self, planes: Tensor) -> Tensor:
        """(N, C, H, W) with white at 1 as samples, see `from_levels`."""
        return self.from_levels(planes * self.peak)

    def from_levels(self, levels: Tensor) -> Tensor:
        """(N, C, H, W) in units of the samples as samples: clamped and rounded half up, as everywhere else."""
        rounded = (levels.clamp(0, self.peak) + 0.5).floor().to(DTYPES[self.samples])
        return rounded if self.layout == "nchw" else rounded.movedim(1, -1)

    def name_dimensions(self, prefix: str = "") -> tuple[str | None, ...]:
        """Names of the free dimensions; None for the channels."""
        height, width = f"{prefix}height", f"{prefix}width"
        return ("count", None, height, width) if self.layout == "nchw" else ("count", height, width, None)
