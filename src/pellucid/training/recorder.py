"""What a training leaves behind: metrics, validations, checkpoints and, at last, weights that know what they are.

Only the first process of a training keeps anything.
"""

import math
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pellucid import evaluation
from pellucid.backends.eager import TorchBackend
from pellucid.errors import DataError, PellucidError
from pellucid.evaluation import Report
from pellucid.pictures import images
from pellucid.recipes.recipe import Recipe
from pellucid.restoration.restorer import Restorer
from pellucid.training.learner import Learner
from pellucid.training.run_folder import Checkpoint, Json, Run
from pellucid.training.tensorboard import TensorboardWriter
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata


@dataclass(frozen=True)
class Validation:
    """Pictures to score every now and then, as `evaluate` takes them: a folder, two, or a store."""

    data: Path
    target: Path | None = None

    def check(self, recipe: Recipe) -> None:
        """Raise DataError where the recipe could not be scored on this."""
        evaluation.collect(recipe, self.data, self.target)


@dataclass
class History:
    """What is known of the steps so far; a part of every checkpoint."""

    loss_sum: float = 0.0
    num_losses: int = 0
    """Since the last line of metrics."""
    psnr_db: float | None = None
    """Of the last validation."""
    best_psnr_db: float = -math.inf
    best_step: int | None = None

    def add(self, loss: float) -> None:
        if math.isfinite(loss):
            self.loss_sum += loss
            self.num_losses += 1

    def mean_loss(self) -> float | None:
        """Since it was asked last; None where no loss was finite."""
        mean = self.loss_sum / self.num_losses if self.num_losses else None
        self.loss_sum, self.num_losses = 0.0, 0
        return mean


class Recorder:
    """Writes into the run folder what becomes of a learner.

    validation: None where nothing is scored; then the last weights are the result, else the best.
    about: who trained on what, for the weights' provenance. every_s: a checkpoint at least so often.
    board: what else takes metrics and validation strips.
    """

    def __init__(
        self,
        run: Run,
        learner: Learner,
        validation: Validation | None,
        *,
        about: str,
        every_s: float,
        board: TensorboardWriter | None = None,
    ) -> None:
        self._run, self._learner, self._validation, self._board = run, learner, validation, board
        self._about, self._every_s = about, every_s
        self._saved_at = time.monotonic()
        self.history = History()

    def go_on_from(self, facts: Json) -> None:
        """Become what `facts` of a checkpoint say."""
        self.history = History(**facts["history"])

    def log(self, **facts: Any) -> None:
        """Add a line to the metrics: the mean loss since the last, and these facts."""
        loss, num_skipped = self.history.mean_loss(), self._learner.num_skipped
        self._log({"step": self._learner.step, "loss": loss, "num_skipped": num_skipped, **facts})

    def _log(self, line: Json) -> None:
        self._run.log(line)
        if self._board is not None:
            self._board.log(line)

    def validate(self) -> None:
        """Score the weights as they are; the best so far become the result."""
        assert self._validation is not None
        restorer = self._restorer()
        report = evaluation.evaluate(restorer, self._validation.data, target=self._validation.target)
        if not report.scores:
            raise DataError(f"no picture in {self._validation.data} can be scored: {report.failures[0][1]}")
        psnr_db, step = report.mean_psnr_db, self._learner.step
        self._log({"step": step, **report.to_json()["mean"]})
        strip = evaluation.strip(restorer, self._validation.data, target=self._validation.target)
        path = self._run.folder / "validation" / f"step-{step:09}.png"
        images.write(strip, path, overwrite=True)
        if self._board is not None:
            self._board.show(step, path)
        self.history.psnr_db = psnr_db
        if psnr_db > self.history.best_psnr_db:
            self.history.best_psnr_db, self.history.best_step = psnr_db, step
            self._save_weights(report)

    def is_due(self) -> bool:
        """Whether the last checkpoint is long ago."""
        return time.monotonic() - self._saved_at >= self._every_s

    def save(self) -> None:
        """Write a checkpoint and, where nothing is validated, the weights.

        Raises PellucidError when they are not finite; the run stays at its last checkpoint.
        """
        if not self._learner.is_finite():
            raise PellucidError(
                f"the weights are not finite after step {self._learner.step}, so nothing is saved and the last "
                f"checkpoint stays; train with a lower lr, or clip_norm=1"
            )
        if self._validation is None:
            self._save_weights(None)
        facts = {**self._learner.facts(), "history": asdict(self.history)}
        state = Checkpoint(self._learner.step, self._learner.tensors(), facts)
        self._run.save(state, best_step=self.history.best_step)
        self._saved_at = time.monotonic()

    def _save_weights(self, report: Report | None) -> None:
        learner, recipe = self._learner, self._learner.recipe
        network = checkpoint.fill(recipe, learner.weights(), source="the training")
        card = WeightsMetadata(
            recipe=recipe.name,
            parameters=recipe.parameters,
            provenance=f"{self._about}, step {learner.step} of {recipe.num_steps}, {learner.choice}; "
            f"pellucid {version('pellucid')}: {command_line()}",
            license="not stated",
            scores=() if report is None else (_score(report, self._validation),),
        )
        checkpoint.save(self._run.weights, network, card, overwrite=True)

    def _restorer(self) -> Restorer:
        recipe, device = self._learner.recipe, self._learner.device
        network = checkpoint.fill(recipe, self._learner.weights(), source="the training")
        return Restorer(f"step {self._learner.step}", recipe, TorchBackend(network, str(device)))


def command_line() -> str:
    """The command that runs, without the folders of its program."""
    program = Path(sys.argv[0]).name
    return shlex.join(["pellucid" if program == "__main__.py" else program, *sys.argv[1:]])


def _score(report: Report, validation: Validation | None) -> Json:
    assert validation is not None
    return {"data": validation.data.name, **report.to_json()["mean"], "protocol": report.protocol}
