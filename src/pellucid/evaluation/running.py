"""Scoring pictures one by one, with a record of those that are finished."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

from pellucid.data.eval_samples import EvalSample, EvalSet
from pellucid.errors import DataError, NotEnoughMemoryError, PellucidError, PictureError
from pellucid.evaluation.report import Score
from pellucid.evaluation.score_log import Finished, ScoreLog, make_key
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration.entries import stamp
from pellucid.system import heap
from pellucid.system.files import check_overwrite
from pellucid.system.shards import Shard
from pellucid.system.wording import format_count

Progress = Callable[[int, int], None]
"""Called with (pictures done, all pictures)."""


@dataclass(frozen=True)
class Measured:
    """A scored picture. warnings: about its files. restored: as it was scored; None if results were given."""

    score: Score
    warnings: tuple[str, ...]
    restored: Picture | None = None


@dataclass(frozen=True)
class Missing:
    """A sample that must be scored, completely or in part.

    number: in the collection. seeds: those whose scores are missing. result: the file for the picture that is
    restored with the first seed, if it is wanted and missing. may_replace: whether that may replace a file.
    """

    number: int
    seeds: tuple[int | None, ...]
    result: Path | None = None
    may_replace: bool = False


@dataclass
class Scored:
    """The results of all pictures. scores: by picture, then by seed. num_resumed: how many were recorded."""

    scores: list[list[Score]] = field(default_factory=list)
    failures: list[tuple[Path, PellucidError]] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    num_resumed: int = 0

    def by_seed(self) -> tuple[tuple[Score, ...], ...]:
        """The scores of all pictures, for each seed."""
        return tuple(zip(*self.scores, strict=True))


Finish = tuple[int, int | None, Finished | PellucidError]
"""(number of a sample, seed, its score or why there is none)."""

BeforeSaving = Callable[[int, Finished], None]
"""Called with (number of a sample, its score) before its restored picture gets its name.

A process that is killed then or later leaves a picture that the next run knows.
"""

ScoreAll = Callable[[Sequence[Missing]], Generator[Finish, None, None]]
"""Scores samples, in any order. After an error, the other seeds of its sample may be left out."""


@dataclass(frozen=True)
class Scoring:
    """Scores samples by `measure(sample, seed)`.

    facts: everything that all scores depend on. saved: for each sample, the file for its restored picture.
    model: name of the model, for `pellucid status`.
    """

    collection: EvalSet
    measure: Callable[[EvalSample, int | None], Measured]
    seeds: Sequence[int | None]
    facts: Sequence[object]
    saved: Sequence[Path | None]
    model: str = ""

    def run(
        self,
        record: ScoreLog,
        *,
        overwrite: bool = False,
        shard: Shard | None = None,
        progress: Progress | None = None,
        score_all: ScoreAll | None = None,
    ) -> Scored:
        """All scores, from the record if it contains them.

        shard: score only the samples of this shard. score_all: default: `score_all`, in this process.
        Raises OutputError if a file would be overwritten, and, without a shard, DataError if all pictures fail.
        """
        try:
            run = _Run(self, record, overwrite, shard)
            return run.finish(score_all or partial(self.score_all, before_saving=run.record_early), progress)
        finally:
            record.close()

    def score_all(
        self, missing: Iterable[Missing], before_saving: BeforeSaving | None = None
    ) -> Generator[Finish, None, None]:
        """Score samples in this process, one after the other."""
        with heap.keeping():
            for one in missing:
                sample = self.collection.samples[one.number]
                for seed in one.seeds:
                    try:
                        yield one.number, seed, self._finish(sample, seed, one, before_saving)
                    except (PictureError, NotEnoughMemoryError) as error:
                        yield one.number, seed, error.about(sample.path)
                        break

    def _finish(
        self, sample: EvalSample, seed: int | None, missing: Missing, before_saving: BeforeSaving | None
    ) -> Finished:
        result = missing.result if seed == self.seeds[0] else None
        measured = self.measure(sample, seed)
        if result is None:
            return Finished(measured.score, measured.warnings)

        def record(whole: Path) -> None:
            if before_saving is not None:
                before_saving(missing.number, Finished(measured.score, measured.warnings, stamp(whole)))

        if measured.restored is not None:
            images.write(measured.restored, result, overwrite=missing.may_replace, before_rename=record)
        return Finished(measured.score, measured.warnings, stamp(result))


class _Run:
    """The work of a run, and what is known of it so far."""

    def __init__(self, scoring: Scoring, record: ScoreLog, overwrite: bool, shard: Shard | None) -> None:
        self._scoring, self._record, self._overwrite, self._shard = scoring, record, overwrite, shard
        self._keys: dict[tuple[int, int | None], str] = {}
        self._finished: dict[int, dict[int | None, Finished | PellucidError]] = {}
        self._early: set[tuple[int, int | None]] = set()

    def finish(self, score_all: ScoreAll, progress: Progress | None) -> Scored:
        """Score what is missing, and return all scores, in the order of the samples."""
        scoring, samples = self._scoring, self._scoring.collection.samples
        self._record.add_facts(
            run=self._id, model=scoring.model, num_pictures=len(scoring.collection), seeds=scoring.seeds
        )
        missing = [one for number in range(len(samples)) if (one := self._find_missing(number)) is not None]
        num_found = sum(map(len, self._finished.values()))
        waiting = {one.number: len(one.seeds) for one in missing}
        with closing(score_all(missing)) as finishes:
            for number, seed, finished in finishes:
                self._add(number, seed, finished)
                waiting[number] -= 1
                if isinstance(finished, PellucidError) or not waiting[number]:
                    del waiting[number]
                if progress is not None:
                    progress(len(self._finished) - len(waiting), len(self._finished))
        scored = self._collect()
        if not scored.scores and self._shard is None:
            path, first = scored.failures[0]
            reason = first.facts.removeprefix(f"{path}: ")
            facts = f"0 of {format_count(len(scoring.collection), 'picture')} could be scored: {reason}"
            raise DataError(facts, hint=first.hint, **first.parameters)
        scored.num_resumed = num_found
        return scored

    def _find_missing(self, number: int) -> Missing | None:
        """What must be scored of a sample; None if it is known, or belongs to another shard."""
        scoring, sample = self._scoring, self._scoring.collection.samples[number]
        if self._shard is not None and not self._shard.takes(sample.name):
            return None
        result, first = scoring.saved[number], scoring.seeds[0]
        known = self._finished.setdefault(number, {})
        stamps = [(str(path.absolute()), stamp(path)) for path in sample.files]
        for seed in scoring.seeds:
            # Before the files are read, because they may change in the meantime.
            key = self._keys[number, seed] = self._make_key(sample, stamps, seed)
            found = self._record.find(key)
            # The restored picture, if one is wanted, must still be as it was saved.
            if found is not None and (seed != first or result is None or found.saved == stamp(result)):
                known[seed] = found
        seeds = tuple(seed for seed in scoring.seeds if seed not in known)
        wanted = result if first not in known else None
        if wanted is not None:
            check_overwrite(wanted, overwrite=self._overwrite)
        return Missing(number, seeds, wanted, self._overwrite) if seeds else None

    def record_early(self, number: int, finished: Finished) -> None:
        """See `BeforeSaving`; its seed is the first one."""
        seed = self._scoring.seeds[0]
        self._early.add((number, seed))
        self._record.add(self._keys[number, seed], finished, run=self._id, seed=seed)

    def _add(self, number: int, seed: int | None, finished: Finished | PellucidError) -> None:
        self._finished[number][seed] = finished
        if isinstance(finished, Finished) and (number, seed) in self._early:
            return
        if isinstance(finished, Finished):
            self._record.add(self._keys[number, seed], finished, run=self._id, seed=seed)
        else:
            name = self._scoring.collection.samples[number].name
            self._record.add_facts(run=self._id, failed=name, error=str(finished))

    def _collect(self) -> Scored:
        scored = Scored()
        for number, by_seed in self._finished.items():
            sample = self._scoring.collection.samples[number]
            errors = [finished for finished in by_seed.values() if isinstance(finished, PellucidError)]
            if errors:
                scored.failures.append((sample.path, errors[0]))
                continue
            pictures = [by_seed[seed] for seed in self._scoring.seeds]
            finished = [picture for picture in pictures if isinstance(picture, Finished)]
            scored.scores.append([picture.score for picture in finished])
            warnings = (warning for picture in finished for warning in picture.warnings)
            scored.warnings.update(dict.fromkeys(f"{sample.name}: {warning}" for warning in warnings))
        return scored

    @cached_property
    def _id(self) -> str:
        """Identifies data and settings."""
        scoring = self._scoring
        first = scoring.collection.samples[0]
        folder = str(first.path.absolute()).removesuffix(first.name)
        return make_key(scoring.facts, scoring.collection.fingerprint, scoring.model, folder)[:16]

    def _make_key(self, sample: EvalSample, stamps: Sequence[object], seed: int | None) -> str:
        versions = [version(package) for package in ("pellucid", "torch")]
        fingerprint = self._scoring.collection.fingerprint
        return make_key(self._scoring.facts, versions, fingerprint, sample.name, stamps, seed)
