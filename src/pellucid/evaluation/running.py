"""Scoring pictures one by one, with a record of those that are finished."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from pellucid.data.eval_samples import EvalSample, EvalSet
from pellucid.errors import DataError, PellucidError, PictureError
from pellucid.evaluation.report import Score
from pellucid.evaluation.score_log import Finished, ScoreLog, make_key
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration.entries import stamp
from pellucid.system.files import check_overwrite
from pellucid.system.shards import Shard

Progress = Callable[[int, int], None]
"""Called with (pictures done, all pictures)."""


@dataclass(frozen=True)
class Measured:
    """A scored picture. warnings: about its files. restored: as it was scored; None if results were given."""

    score: Score
    warnings: tuple[str, ...]
    restored: Picture | None = None


@dataclass
class Scored:
    """All pictures. scores: for each picture that of each seed. num_resumed: how many of them were recorded."""

    scores: list[list[Score]] = field(default_factory=list)
    failures: list[tuple[Path, PellucidError]] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    num_resumed: int = 0

    def by_seed(self) -> tuple[tuple[Score, ...], ...]:
        """For each seed the scores of all pictures."""
        return tuple(zip(*self.scores, strict=True))


@dataclass(frozen=True)
class Scoring:
    """Scores samples by `measure(sample, seed)`, unless the record contains their scores.

    facts: everything that all scores depend on. saved: for each sample where its restored picture goes.
    model: its name, for `pellucid status`. shard: only samples with these names.
    """

    collection: EvalSet
    measure: Callable[[EvalSample, int | None], Measured]
    seeds: Sequence[int | None]
    facts: Sequence[object]
    record: ScoreLog
    saved: Sequence[Path | None]
    model: str = ""
    overwrite: bool = False
    shard: Shard | None = None

    def run(self, progress: Progress | None) -> Scored:
        """All scores. Raises DataError if there are none, and OutputError if a file would be overwritten.

        With a shard, there may be none.
        """
        try:
            return self._run(progress)
        finally:
            self.record.close()

    def _run(self, progress: Progress | None) -> Scored:
        self.record.add_facts(run=self._id, model=self.model, num_pictures=len(self.collection), seeds=self.seeds)
        for sample, result in self._pairs():
            if result is not None and self._find(sample, self.seeds[0], result) is None:
                check_overwrite(result, overwrite=self.overwrite)
        scored = Scored()
        pairs = list(self._pairs())
        for done, (sample, result) in enumerate(pairs, start=1):
            try:
                finished = [self._finish(sample, seed, result) for seed in self.seeds]
            except PictureError as error:
                scored.failures.append((sample.path, error.about(sample.path)))
                self.record.add_facts(run=self._id, failed=sample.name, error=str(error.about(sample.path)))
            else:
                scored.scores.append([picture.score for picture in finished])
                warnings = (warning for picture in finished for warning in picture.warnings)
                scored.warnings.update(dict.fromkeys(f"{sample.name}: {warning}" for warning in warnings))
            if progress is not None:
                progress(done, len(pairs))
        if not scored.scores and self.shard is None:
            first = scored.failures[0][1]
            facts = f"none of the {len(self.collection)} pictures could be scored: {first.facts}"
            raise DataError(facts, hint=first.hint, **first.parameters)
        scored.num_resumed = self.record.num_found
        return scored

    def _pairs(self) -> Iterator[tuple[EvalSample, Path | None]]:
        for sample, result in zip(self.collection.samples, self.saved, strict=True):
            if self.shard is None or self.shard.takes(sample.name):
                yield sample, result

    @cached_property
    def _id(self) -> str:
        """Differs if data or settings do."""
        first = self.collection.samples[0]
        folder = str(first.path.absolute()).removesuffix(first.name)
        return make_key(self.facts, self.collection.fingerprint, self.model, folder)[:16]

    def _finish(self, sample: EvalSample, seed: int | None, result: Path | None) -> Finished:
        result = result if seed == self.seeds[0] else None
        found = self._find(sample, seed, result)
        if found is not None:
            self.record.num_found += 1
            return found
        key = self._key(sample, seed)  # before the files are read: they may change meanwhile
        measured = self.measure(sample, seed)
        if result is not None and measured.restored is not None:
            images.write(measured.restored, result, overwrite=self.overwrite)
        finished = Finished(measured.score, measured.warnings, None if result is None else stamp(result))
        self.record.add(key, finished, run=self._id, seed=seed)
        return finished

    def _find(self, sample: EvalSample, seed: int | None, result: Path | None) -> Finished | None:
        """A recorded picture whose restored picture, if one is wanted, is still as it was saved."""
        found = self.record.find(self._key(sample, seed))
        return found if found is None or result is None or found.saved == stamp(result) else None

    def _key(self, sample: EvalSample, seed: int | None) -> str:
        stamps = [(str(path.absolute()), stamp(path)) for path in sample.files]
        versions = [version(package) for package in ("pellucid", "torch")]
        return make_key(self.facts, versions, self.collection.fingerprint, sample.name, stamps, seed)
