"""What a training writes into its run folder: metrics, validations, checkpoints, and the resulting weights.

Only the first process of a training has a recorder.
"""

import math
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pellucid.backends.eager import TorchBackend
from pellucid.data.preparing import ignore
from pellucid.data.store_upload import Log
from pellucid.errors import DataError, PellucidError
from pellucid.evaluation import evaluate as evaluation
from pellucid.evaluation.report import Report, describe_failures
from pellucid.pictures import images
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.restorer import Restorer
from pellucid.system.arguments import check_fields, checks_methods
from pellucid.training.bucket_run import BucketRun
from pellucid.training.learner import Learner
from pellucid.training.run_folder import Checkpoint, Json, Run
from pellucid.training.tensorboard import TensorboardWriter
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata


@checks_methods()
@dataclass(frozen=True)
class Validation:
    """What to score during a training, with the arguments of `evaluate`.

    data: a folder of pictures, or a store. target: a folder of targets, if `data` contains degraded pictures.
    """

    data: str | Path
    target: str | Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def check(self, recipe: Recipe) -> tuple[str, ...]:
        """Raise DataError if the recipe cannot be scored on this data. Returns warnings, one line each."""
        try:
            return evaluation.collect(recipe, self.data, self.target).warnings
        except DataError as error:
            hint = error.hint.replace("{target}", "the target of the validation")
            raise DataError(error.facts, hint=hint) from error


@dataclass
class History:
    """Running totals of the steps so far; part of every checkpoint."""

    loss_sum: float = 0.0
    num_losses: int = 0
    """Sum and number of the finite losses since the last line of metrics."""
    psnr_db: float | None = None
    """PSNR of the last validation."""
    best_psnr_db: float = -math.inf
    best_step: int | None = None

    def add(self, loss: float) -> None:
        if math.isfinite(loss):
            self.loss_sum += loss
            self.num_losses += 1

    def take_mean_loss(self) -> float | None:
        """The mean of the finite losses since the last call; None if there is none."""
        mean = self.loss_sum / self.num_losses if self.num_losses else None
        self.loss_sum, self.num_losses = 0.0, 0
        return mean


class Recorder:
    """Writes the progress of a learner into its run folder.

    validation: if None, the last weights are the result; otherwise the best validated ones.
    origin: the data and seed, for the provenance of the weights. from_pairs: whether all data are pairs.
        degradation: describes that of the training if it is not the recipe's.
    save_every_s: longest time between checkpoints.
    tensorboard: also receives metrics and validation strips. bucket_run: uploads every checkpoint.
    log: called with a line of text if pictures cannot be scored.
    """

    def __init__(
        self,
        run: Run,
        learner: Learner,
        validation: Validation | None,
        *,
        origin: str,
        from_pairs: bool,
        degradation: str | None,
        save_every_s: float,
        tensorboard: TensorboardWriter | None = None,
        bucket_run: BucketRun | None = None,
        log: Log = ignore,
    ) -> None:
        self._run, self._learner, self._validation, self._tensorboard = run, learner, validation, tensorboard
        self._origin, self._from_pairs, self._degradation = origin, from_pairs, degradation
        self._save_every_s = save_every_s
        self._bucket_run, self._log = bucket_run, log
        self._known_failures = list[str]()
        self._saved_at = time.monotonic()
        self.history = History()

    @property
    def behind_s(self) -> float:
        """See `BucketRun.behind_s`."""
        return 0.0 if self._bucket_run is None else self._bucket_run.behind_s

    def load(self, metadata: Json) -> None:
        """Resume from the metadata of a checkpoint."""
        self.history = History(**metadata["history"])

    def record_metrics(self, **metrics: Any) -> None:
        """Append a line of metrics: the mean loss since the last line, and those given."""
        loss, num_skipped = self.history.take_mean_loss(), self._learner.num_skipped
        self._append({"step": self._learner.step, "loss": loss, "num_skipped": num_skipped, **metrics})

    def _append(self, line: Json) -> None:
        self._run.append_metrics(line)
        if self._tensorboard is not None:
            self._tensorboard.write_metrics(line)

    def validate(self) -> None:
        """Score the current weights. The best ones so far become the result."""
        assert self._validation is not None
        restorer = self._build_restorer()
        report = evaluation.evaluate(restorer, self._validation.data, target=self._validation.target)
        if not report.scores:
            raise DataError(f"no picture in {self._validation.data} can be scored: {report.failures[0][1]}")
        self._log_failures(report)
        psnr_db, step = report.mean_psnr_db, self._learner.step
        self._append({"step": step, **report.to_json()["mean"]})
        strip = evaluation.strip(restorer, self._validation.data, target=self._validation.target)
        path = self._run.folder / "validation" / f"step-{step:09}.png"
        images.write(strip, path, overwrite=True)
        if self._tensorboard is not None:
            self._tensorboard.write_strip(step, path)
        self.history.psnr_db = psnr_db
        if psnr_db > self.history.best_psnr_db:
            self.history.best_psnr_db, self.history.best_step = psnr_db, step
            self._save_weights(report)

    def _log_failures(self, report: Report) -> None:
        """Log which pictures are left out, once, not at every validation."""
        failures = [str(path) for path, _ in report.failures]
        line = describe_failures(report)
        if line is not None and failures != self._known_failures:
            assert self._validation is not None
            self._log(f"{self._validation.data}: {line}")
        self._known_failures = failures

    def is_due(self) -> bool:
        """Whether the last checkpoint is at least `save_every_s` old."""
        return time.monotonic() - self._saved_at >= self._save_every_s

    def save(self) -> None:
        """Write a checkpoint and, without validation, the weights.

        Raises PellucidError if the weights are not finite; the last checkpoint is kept then.
        """
        if not self._learner.is_finite():
            raise PellucidError(
                f"the weights are not finite after step {self._learner.step}; they are not saved, and the last "
                f"checkpoint is kept",
                hint="train with a lower lr, or with clip_norm=1",
            )
        if self._validation is None:
            self._save_weights(None)
        metadata = {**self._learner.metadata(), "history": asdict(self.history)}
        state = Checkpoint(self._learner.step, self._learner.tensors(), metadata)
        self._run.save(state, best_step=self.history.best_step)
        if self._bucket_run is not None:
            self._bucket_run.save(self._learner.step)
        self._saved_at = time.monotonic()

    def _save_weights(self, report: Report | None) -> None:
        learner, recipe = self._learner, self._learner.recipe
        network = checkpoint.fill(recipe, learner.weights(), source="the training")
        metadata = WeightsMetadata(
            recipe=recipe.name,
            parameters=recipe.parameters,
            provenance=f"{self._origin}, step {learner.step} of {recipe.num_steps}, {learner.mode}; "
            f"pellucid {version('pellucid')}: {command_line()}",
            license="not stated",
            network_sha256=recipe.network_sha256,
            learned_from_pairs=self._from_pairs,
            degradation=self._degradation,
            scores=() if report is None else (_to_score(report, self._validation),),
        )
        checkpoint.save(self._run.weights, network, metadata, overwrite=True)

    def _build_restorer(self) -> Restorer:
        recipe, device = self._learner.recipe, self._learner.device
        network = checkpoint.fill(recipe, self._learner.weights(), source="the training")
        return Restorer(f"step {self._learner.step}", recipe, TorchBackend(network, str(device)))


def command_line() -> str:
    """The command line of this process, without the folder of its program."""
    program = Path(sys.argv[0]).name
    return shlex.join(["pellucid" if program == "__main__.py" else program, *sys.argv[1:]])


def _to_score(report: Report, validation: Validation | None) -> Json:
    assert validation is not None
    return {"data": Path(validation.data).name, **report.to_json()["mean"], "protocol": report.protocol}
