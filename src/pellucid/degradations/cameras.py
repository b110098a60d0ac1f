"""Measured properties of cameras: their color matrices, and the noise of their sensors."""

from dataclasses import dataclass, replace
from math import exp, log

import torch
from torch import Tensor

from pellucid.degradations.rng import Generator, Range, accepts_shards, draw_normal, log_uniform

NUM_LEVELS = 16383 - 512
"""Number of levels from black to white in 14-bit mosaics of the Sony camera of See in the Dark."""

BLACK_LEVEL = 512
"""Black level of the same mosaics."""

XYZ_TO_CAMERA = torch.tensor(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.613, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.838, -0.263, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.097, 0.1581, 0.5181]],
    ],
    dtype=torch.float64,
)
"""Color matrices of four cameras, (4, 3, 3), from the released code of Brooks et al., CVPR 2019."""

RGB_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)
"""Color matrix of linear sRGB with white point D65."""


@dataclass(frozen=True)
class ShotDependentVariance:
    """A noise variance that grows with the gain, as shot noise does: log variance = slope * log gain + offset.

    deviation: standard deviation of a normal draw around it, on the logarithmic scale.
    """

    slope: float
    offset: float
    deviation: float = 0.0

    accepts_shards = True

    def typical(self, gain: float) -> float:
        """The variance for a gain, without a draw."""
        return exp(self.slope * log(gain) + self.offset)

    def draw(self, gain: Tensor, generator: Generator) -> Tensor:
        """A variance for each gain."""
        noise = self.deviation * draw_normal(gain.shape, generator).to(gain)
        return (self.slope * gain.log() + self.offset + noise).exp()


@dataclass(frozen=True)
class Sensor:
    """The noise of a sensor over a range of sensitivities. Black is 0 and white is 1.

    gain: signal per electron, so that the variance of shot noise is gain * signal; or the (lowest, highest) of a
        uniform draw on a logarithmic scale, as sensitivities are spaced.
    read: variance of each sample without light. row: variance of the offset that all samples of a row share.
    name: of a published sensor, which replaces the numbers in its repr.
    """

    gain: Range
    read: float | ShotDependentVariance
    row: float | ShotDependentVariance = 0.0
    name: str = ""

    @property
    def accepts_shards(self) -> bool:
        parts = (part for part in (self.read, self.row) if isinstance(part, ShotDependentVariance))
        return all(map(accepts_shards, parts))

    def __repr__(self) -> str:
        return self.name or f"Sensor(gain={self.gain}, read={self.read}, row={self.row})"

    def draw(self, count: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(count,) gains, read variances and row variances, one of each for each picture."""
        gain = log_uniform(self.gain, count, generator)
        read, row = (
            part.draw(gain, generator) if isinstance(part, ShotDependentVariance) else torch.full_like(gain, part)
            for part in (self.read, self.row)
        )
        return gain, read, row


def _from_levels(slope: float, offset: float, deviation: float) -> ShotDependentVariance:
    """The variance of a published fit: log(deviation in levels) = slope * log(levels per electron) + offset."""
    return ShotDependentVariance(
        2 * slope, 2 * (slope * log(NUM_LEVELS) + offset - log(NUM_LEVELS)), 2 * deviation
    )


def _make_sensor(
    name: str, log_gain: tuple[float, float], read: tuple[float, float, float], row: tuple[float, float, float]
) -> Sensor:
    """log_gain: log(levels per electron), (lowest, highest). read, row: see `_from_levels`."""
    lowest, highest = (exp(gain) / NUM_LEVELS for gain in log_gain)
    return Sensor((lowest, highest), _from_levels(*read), _from_levels(*row), name)


PHONES = Sensor((1e-4, 0.012), ShotDependentVariance(2.18, 1.20, 0.26), name="PHONES")
"""Phones, fitted to the Darmstadt Noise Dataset and others by Brooks et al., CVPR 2019, and its released code."""

# The noise model is that of Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light Raw
# Denoising", CVPR 2020. The numbers are fits of 14-bit levels that Feng et al., "Learnability Enhancement for
# Low-light Raw Denoising", ACM MM 2022, publish with their code: log(levels per electron); then slope, offset and
# deviation of the Gaussian read noise, and of the row noise.
SONY_A7S2_LOW = _make_sensor(
    "SONY_A7S2_LOW", (-1.67214, 0.42228), (0.82966, 1.49343, 0.00359), (0.78782, -0.34227, 0.02832)
)
"""ISO 200 to 1600; above, the sensor switches to its second gain."""
SONY_A7S2_HIGH = _make_sensor(
    "SONY_A7S2_HIGH", (0.64567, 2.51606), (0.82878, 0.44162, 0.00153), (0.62945, -1.51040, 0.02609)
)
"""ISO 2000 to 12800."""
NIKON_D850 = _make_sensor("NIKON_D850", (1.2, 2.4828), (0.8322, -0.1754, 0.035165), (0.8322, -2.3326, 0.301333))
"""ISO 800 to 3200."""
RAW_CAMERAS = Sensor((1e-5, 1e-2), ShotDependentVariance(1.281, -4.5, 1.072), name="RAW_CAMERAS")
"""Cameras of all kinds, in their RAW files, from ISO 100 to 25600. The read noise is that of `CAMERAS` at a
quarter of the gain, because darktable's gains are several times lower than those of Wei et al. for the same
cameras. It is then 1 to 2 electrons at high sensitivities."""

# Wei et al. 2020, from the parameters released with their code. They are those of 14-bit levels, like the above.
# The lowest gain is that of ISO 100, the highest that of ISO 6400.
CANON_5D4 = _make_sensor(
    "CANON_5D4", (-1.52239, 2.63649), (0.67713, 1.51219, 0.24641), (0.47128, -0.80790, 0.24362)
)
CANON_70D = _make_sensor(
    "CANON_70D", (-0.89772, 3.26116), (0.56812, 1.99827, 0.24870), (0.72922, -0.93706, 0.25022)
)
CANON_700D = _make_sensor(
    "CANON_700D", (-0.80379, 3.35509), (0.65246, 2.07986, 0.25782), (0.62206, -0.77565, 0.24848)
)
NIKON_D850_ELD = _make_sensor(
    "NIKON_D850_ELD", (-0.87938, 3.27950), (0.56346, 0.79941, 0.21408), (0.44829, -1.79771, 0.23218)
)


def at_iso(sensor: Sensor, iso: float) -> Sensor:
    """One of the sensors of Wei et al. at this sensitivity; beyond ISO 6400 its gain is extrapolated."""
    assert isinstance(sensor.gain, tuple)
    gain = sensor.gain[0] * iso / 100
    return replace(sensor, gain=gain, name=f"{sensor.name} at ISO {iso:g}")


_PROFILES = {
    "Canon EOS 5D Mark IV": (CANON_5D4, 100),
    "Canon EOS 70D": (CANON_70D, 100),
    "Canon EOS 700D": (CANON_700D, 100),
    "NIKON D850": (NIKON_D850_ELD, 100),
    "ILCE-7SM2": (SONY_A7S2_LOW, 200),
}
"""Model in EXIF -> its sensor, and the ISO of the lowest gain."""

_SECOND_GAIN = {"ILCE-7SM2": (SONY_A7S2_HIGH, 2000)}
"""Sensors of the same cameras from this ISO on."""


def find_noise(model: str, iso: float) -> tuple[float, float] | None:
    """Shot and read part of the noise of a camera, see `NoiseLevel`; None if it was not measured.

    model: as in EXIF. The levels of its files are assumed to be those of 14 bits. The offset of rows counts as
    read noise.
    """
    sensor, lowest = _PROFILES.get(model, (None, 0))
    if model in _SECOND_GAIN and iso >= _SECOND_GAIN[model][1]:
        sensor, lowest = _SECOND_GAIN[model]
    if sensor is None:
        return None
    assert isinstance(sensor.gain, tuple)
    shot = sensor.gain[0] * iso / lowest
    parts = (part for part in (sensor.read, sensor.row) if isinstance(part, ShotDependentVariance))
    return shot, sum(part.typical(shot) for part in parts)


CAMERAS = Sensor((1e-5, 4e-3), ShotDependentVariance(1.281, -2.713, 1.072), name="CAMERAS")
"""Cameras of all kinds: a fit of read against shot noise to 4,100 profiles of 374 cameras, ISO 100 to 12800, that
users of darktable measured. They have gains of 3e-6 to 9e-4; those here are higher, because pictures are also
brightened after they were taken."""
