"""Scores of pictures, their means, and how a report of them is written: JSON and CSV."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

from pellucid.errors import OutputError, PellucidError
from pellucid.recipes.recipe import Recipe
from pellucid.system.arguments import checks_types
from pellucid.system.files import is_json, write_atomic
from pellucid.system.wording import describe_left_out

# fmt: off
_STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
)
# fmt: on
"""97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom."""

MAX_SEEDS = len(_STUDENT_T) + 1

_FACT_WIDTH = 60
"""Width of a fact of a protocol in a message, in characters; reports contain the whole fact."""


@dataclass(frozen=True)
class Score:
    """The scores of one picture.

    psnr_db: infinite if the result equals the target. ssim: None if the picture is smaller than the window.
    degraded_psnr_db: of the network's input, as a baseline; None if results were given. For a mosaic, of LibRaw's
        development, scaled to the mean of the target; None if the mosaic is too small for LibRaw.
    """

    name: str
    psnr_db: float
    ssim: float | None
    degraded_psnr_db: float | None


@dataclass(frozen=True)
class Report:
    """Scores of a folder or store, and everything that is needed to compare them with others.

    model: name of the restorer, or of the folder of results. recipe: None for results.
    protocol: how scores were computed, see `statement`.
    seeds: of the noise; one unless more were asked for, and None if nothing is drawn.
    by_seed: for each of them the scores of all pictures, sorted by path.
    num_resumed: scores that an interrupted evaluation had computed already, see `record` of `evaluate`.
    failures: pictures that could not be scored, and why.
    overrides: see `Restorer.overrides`. warnings: why scores may be wrong, e.g. because white is not known.
    """

    model: str
    recipe: Recipe | None
    protocol: dict[str, Any]
    seeds: tuple[int | None, ...]
    by_seed: tuple[tuple[Score, ...], ...]
    num_resumed: int = 0
    failures: tuple[tuple[Path, PellucidError], ...] = ()
    overrides: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[Score, ...]:
        """Of each picture the mean over the seeds."""
        return tuple(map(_average, zip(*self.by_seed, strict=True)))

    @property
    def mean_psnr_db(self) -> float:
        """The mean over the pictures of their PSNR in dB, as in papers; NaN if there are none."""
        return _mean([score.psnr_db for score in self.scores])

    @property
    def mean_ssim(self) -> float | None:
        """The mean over the pictures that have an SSIM; None if there are none."""
        return _mean_of_known([score.ssim for score in self.scores])

    @property
    def mean_degraded_psnr_db(self) -> float | None:
        """The mean over the pictures that have a baseline; None if there are none."""
        return _mean_of_known([score.degraded_psnr_db for score in self.scores])

    @property
    def psnr_db_by_seed(self) -> tuple[float, ...]:
        """The mean PSNR in dB of each noise seed."""
        return tuple(_mean([score.psnr_db for score in scores]) for scores in self.by_seed)

    @property
    def psnr_db_confidence(self) -> float | None:
        """Half the width in dB of the 95 % confidence interval of the mean PSNR over noise seeds, by Student's t.

        It covers the noise, not the choice of pictures. None for a single seed.
        """
        return _half_width(self.psnr_db_by_seed)

    @property
    def ssim_confidence(self) -> float | None:
        """The same for the mean SSIM."""
        means = [_mean_of_known([score.ssim for score in scores]) for scores in self.by_seed]
        return _half_width([mean for mean in means if mean is not None])

    def statement(self) -> Iterator[str]:
        """The protocol as text, one fact per line."""
        for fact, value in self.protocol.items():
            if value is not None:
                yield f"{fact.replace('_', ' ')}: {value}"

    def to_json(self) -> dict[str, Any]:
        """What `write_json` writes. An infinite PSNR is null."""
        recipe = self.recipe
        return {
            "model": self.model,
            "recipe": None if recipe is None else {"name": recipe.name, "parameters": dict(recipe.parameters)},
            "changes": list(self.overrides),
            "warnings": list(self.warnings),
            "protocol": self.protocol,
            "mean": {
                "psnr_db": _finite(self.mean_psnr_db),
                "ssim": self.mean_ssim,
                "degraded_psnr_db": _finite(self.mean_degraded_psnr_db),
            },
            **({} if len(self.by_seed) == 1 else {"seeds": self._seeds_to_json()}),
            "pictures": [
                {
                    "name": score.name,
                    "psnr_db": _finite(score.psnr_db),
                    "ssim": score.ssim,
                    "degraded_psnr_db": _finite(score.degraded_psnr_db),
                }
                for score in self.scores
            ],
            "failures": [{"name": str(path), "reason": str(error)} for path, error in self.failures],
        }

    def _seeds_to_json(self) -> dict[str, Any]:
        return {
            "psnr_db": [_finite(value) for value in self.psnr_db_by_seed],
            "psnr_db_confidence_95": _finite(self.psnr_db_confidence),
            "ssim_confidence_95": _finite(self.ssim_confidence),
        }

    @checks_types()
    def write_json(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the report as JSON, completely or not at all.

        Raises OutputError if the file exists; with `overwrite`, if it is not JSON, so that its name is a mistake.
        """
        if overwrite and Path(path).is_file() and not is_json(Path(path)):
            raise OutputError(f"{path} is a file, but not a report", hint="choose another name for the report")
        content = json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"
        write_atomic(Path(path), content.encode(), overwrite=overwrite)


def to_csv(reports: Iterable[Report]) -> str:
    """A line for each picture of each model and noise seed; an infinite PSNR is `inf`, a missing value empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "picture", "seed", "degraded_psnr_db", "psnr_db", "ssim"])
    for report in reports:
        for seed, scores in zip(report.seeds, report.by_seed, strict=True):
            for score in scores:
                values = (seed, score.degraded_psnr_db, score.psnr_db, score.ssim)
                writer.writerow([report.model, score.name, *("" if value is None else value for value in values)])
    return text.getvalue()


def describe_failures(report: Report) -> str | None:
    """How many pictures could not be scored, and why the first one; None if all could."""
    if not report.failures:
        return None
    failures = [(path.name, str(error)) for path, error in report.failures]
    return describe_left_out(failures, len(report.scores) + len(failures), "picture")


def describe_differences(reports: Sequence[Report]) -> str | None:
    """Which facts of the protocols differ, so that scores cannot be compared; None if none does."""
    facts = dict.fromkeys(fact for report in reports for fact in report.protocol if fact != "num_pictures")
    differences = []
    for fact in facts:
        values = dict.fromkeys(str(report.protocol.get(fact)) for report in reports)
        if len(values) > 1:
            shown = (value if len(value) <= _FACT_WIDTH else f"{value[:_FACT_WIDTH]}..." for value in values)
            differences.append(f"{fact.replace('_', ' ')}: {' against '.join(shown)}")
    return "; ".join(differences) or None


def _average(scores: Sequence[Score]) -> Score:
    """The mean of the scores of one picture with several seeds."""
    if len(scores) == 1:
        return scores[0]
    return Score(
        scores[0].name,
        _mean([score.psnr_db for score in scores]),
        _mean_of_known([score.ssim for score in scores]),
        _mean_of_known([score.degraded_psnr_db for score in scores]),
    )


def _half_width(means: Sequence[float]) -> float | None:
    """Half the width of the 95 % confidence interval of the mean; None for less than two finite values."""
    if len(means) < 2 or not all(map(math.isfinite, means)):
        return None
    return _STUDENT_T[len(means) - 2] * stdev(means) / math.sqrt(len(means))


def _mean(values: Sequence[float]) -> float:
    if not values:  # a shard without pictures
        return math.nan
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
