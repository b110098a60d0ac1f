"""camera.json: the measured noise of a camera, as `pellucid calibrate` writes it and recipes read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from pellucid.degradations.cameras import Sensor, ShotDependentVariance
from pellucid.errors import DataError, PellucidError
from pellucid.system.arguments import check_fields, check_number, checks_methods
from pellucid.system.files import read_small, write_atomic
from pellucid.system.keywords import describe_invalid

Numbers = tuple[float, float, float, float, float, float, float, float]
"""See `make_sensor`."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class IsoNoise:
    """Noise at one sensitivity, in levels of the file.

    gain: levels per electron. read, row: standard deviations of each sample and of the offset of a row, without
    light. black: mean level without light. num_flats, num_darks: frames that were used. misfit: largest relative
    deviation of the measured variance from the model.
    """

    iso: Positive
    gain: Positive
    read: Positive
    row: Positive
    black: float
    num_flats: int
    num_darks: int
    misfit: float

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("iso", "gain", "read", "row"):
            check_number(name, getattr(self, name), 0, is_whole=False, is_above=True)


@checks_methods()
@dataclass(frozen=True)
class CameraProfile:
    """The noise of one camera over its sensitivities.

    camera: its model. black, white: levels, as its files state them. isos: ascending.
    """

    camera: str
    black: float
    white: float
    isos: Annotated[tuple[IsoNoise, ...], Field(min_length=1)]
    format: Literal["pellucid camera"] = "pellucid camera"
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.isos:
            raise DataError("a camera profile without the noise of any ISO")
        object.__setattr__(self, "isos", tuple(sorted(self.isos, key=lambda noise: noise.iso)))
        if not self.black < self.white:
            raise DataError(f"black level {self.black:g} is not below the white level {self.white:g}")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The profile in a file. Raises DataError if it is missing, or not such a file."""
        try:
            profile: Self = _ADAPTER.validate_json(read_small(Path(path)))
        except PellucidError as error:
            raise DataError(error.facts, hint=error.hint).about(path) from error
        except ValidationError as error:
            raise DataError(
                f"{path} is not a camera file: {describe_invalid(error.errors()[0])}",
                hint="'pellucid calibrate' writes one",
            ) from error
        return profile

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as JSON, completely or not at all. Raises OutputError, also if the file exists."""
        write_atomic(Path(path), _ADAPTER.dump_json(self, indent=2) + b"\n", overwrite=overwrite)

    @property
    def num_levels(self) -> float:
        """Number of levels from black to white."""
        return self.white - self.black

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        content: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return content

    def to_numbers(self) -> Numbers:
        """The numbers that recipes take; black is 0 and white is 1, see `make_sensor`."""
        gains = np.array([one.gain for one in self.isos]) / self.num_levels
        read = _fit(gains, np.array([one.read for one in self.isos]) / self.num_levels)
        row = _fit(gains, np.array([one.row for one in self.isos]) / self.num_levels)
        return float(gains.min()), float(gains.max()), *read, *row


def make_sensor(numbers: Numbers) -> Sensor:
    """The sensor of eight numbers: lowest and highest gain; slope, offset and deviation of the read variance.

    The variance is a function of the gain, both on a logarithmic scale. The last three are those of the row
    variance.
    """
    low, high, *others = numbers
    return Sensor((low, high), ShotDependentVariance(*others[:3]), ShotDependentVariance(*others[3:]))


def _read_numbers(value: Any) -> Any:
    """The numbers of a profile that is given by the name of its file."""
    return CameraProfile.read(value).to_numbers() if isinstance(value, str | Path) else value


SensorNumbers = Annotated[
    Numbers,
    BeforeValidator(_read_numbers),
    Field(description="noise of your own camera: the file of 'pellucid calibrate', or its eight numbers"),
]
"""Type of the keyword `camera` of recipes: a file, or its numbers, which weights store in place of the file."""


def _fit(gains: np.ndarray[Any, Any], deviations: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Slope, offset and deviation of log variance over log gain; with a single gain, the variance is constant."""
    variances = 2 * np.log(deviations)
    if np.ptp(gains) == 0:
        return 0.0, float(variances.mean()), float(variances.std())
    slope, offset = np.polyfit(np.log(gains), variances, 1)
    residuals = variances - (slope * np.log(gains) + offset)
    return float(slope), float(offset), float(np.sqrt((residuals**2).sum() / max(1, len(gains) - 2)))


_ADAPTER: TypeAdapter[Any] = TypeAdapter(CameraProfile)
