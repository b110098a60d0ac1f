"""Cameras as numbers: how they see color, and how noisy they are."""

from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor

from pellucid.degradations.rng import Range, log_uniform

NUM_LEVELS = 16383 - 512
"""From black to white of the camera that See in the Dark was taken with, 14 bit."""

BLACK_LEVEL = 512

XYZ_TO_CAMERA = torch.tensor(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.613, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.838, -0.263, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.097, 0.1581, 0.5181]],
    ],
    dtype=torch.float64,
)
"""Of four cameras, as in the released code of Brooks et al., CVPR 2019."""

RGB_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)
"""Of linear sRGB, D65."""


@dataclass(frozen=True)
class ShotDependentVariance:
    """A variance of noise that grows with the shot noise: log variance = slope * log shot + offset.

    deviation: of a normal draw around it, on that logarithmic scale.
    """

    slope: float
    offset: float
    deviation: float = 0.0

    def draw(self, shot: Tensor, generator: torch.Generator) -> Tensor:
        """One for each of the given."""
        around = self.deviation * torch.randn(shot.shape, generator=generator, device=generator.device).to(shot)
        return (self.slope * shot.log() + self.offset + around).exp()


@dataclass(frozen=True)
class Sensor:
    """How noisy a sensor is over a span of sensitivities; black is 0 and white is 1.

    shot: the light of one electron, so that the variance of shot noise is shot * light; or the (lowest, highest)
        of a draw that is even on a logarithmic scale, as sensitivities are.
    read: the variance that each sample has without light. row: of the offset that all of a row has.
    name: of one that is published, which says enough.
    """

    shot: Range
    read: float | ShotDependentVariance
    row: float | ShotDependentVariance = 0.0
    name: str = ""

    def __repr__(self) -> str:
        return self.name or f"Sensor(shot={self.shot}, read={self.read}, row={self.row})"

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(count,) shot, read and row, for a picture each."""
        shot = log_uniform(self.shot, count, generator)
        read, row = (
            part.draw(shot, generator) if isinstance(part, ShotDependentVariance) else torch.full_like(shot, part)
            for part in (self.read, self.row)
        )
        return shot, read, row


def _of_levels(slope: float, offset: float, deviation: float) -> ShotDependentVariance:
    """Of a published fit, log(deviation in levels) = slope * log(levels of an electron) + offset."""
    return ShotDependentVariance(
        2 * slope, 2 * (slope * log(NUM_LEVELS) + offset - log(NUM_LEVELS)), 2 * deviation
    )


def _measured(
    name: str, log_gain: tuple[float, float], read: tuple[float, float, float], row: tuple[float, float, float]
) -> Sensor:
    lowest, highest = (exp(gain) / NUM_LEVELS for gain in log_gain)
    return Sensor((lowest, highest), _of_levels(*read), _of_levels(*row), name)


PHONES = Sensor((1e-4, 0.012), ShotDependentVariance(2.18, 1.20, 0.26), name="PHONES")
"""As the phones of the Darmstadt Noise Dataset and others: Brooks et al., CVPR 2019, and its released code."""

# The noise model is that of Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light Raw
# Denoising", CVPR 2020; the numbers are the fits that Feng et al., "Learnability Enhancement for Low-light Raw
# Denoising", ACM MM 2022, publish with their code, of 14-bit levels: the log of levels an electron; then slope,
# offset and deviation for the Gaussian read noise, and for the rows.
SONY_A7S2_LOW = _measured(
    "SONY_A7S2_LOW", (-1.67214, 0.42228), (0.82966, 1.49343, 0.00359), (0.78782, -0.34227, 0.02832)
)
"""ISO 200 to 1600; above, the sensor reads in another way."""
SONY_A7S2_HIGH = _measured(
    "SONY_A7S2_HIGH", (0.64567, 2.51606), (0.82878, 0.44162, 0.00153), (0.62945, -1.51040, 0.02609)
)
"""ISO 2000 to 12800."""
NIKON_D850 = _measured("NIKON_D850", (1.2, 2.4828), (0.8322, -0.1754, 0.035165), (0.8322, -2.3326, 0.301333))
"""ISO 800 to 3200."""
