"""The metrics and validation strips of a run for TensorBoard: RUN/tensorboard.

The folder is made anew from metrics.jsonl each time a training starts, so it agrees with the run however often
that was broken off, and shows steps that were taken without it, too.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.errors import MissingExtraError, OutputError
from pellucid.pictures import images
from pellucid.training.run_folder import Json, read_metrics

FLUSH_S = 10


class TensorboardWriter:
    """Writes what TensorBoard shows of a run folder."""

    def __init__(self, folder: Path) -> None:
        self._run, self._folder = folder, folder / "tensorboard"
        with self._writing():
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            # A TensorBoard that is open forgets what it has read of the old files, from step 0 on.
            self._writer = _summary_writer()(str(self._folder), purge_step=0, flush_secs=FLUSH_S)

    def catch_up(self) -> None:
        """Write all that the run folder holds so far."""
        for line in read_metrics(self._run):
            self.log(line)
            strip = self._run / "validation" / f"step-{line['step']:09}.png"
            if "psnr_db" in line and strip.exists():
                self.show(line["step"], strip)

    def log(self, line: Json) -> None:
        """Write the numbers of a line of metrics."""
        with self._writing():
            for key, value in line.items():
                if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(key, value, line["step"])

    def show(self, step: int, strip: Path) -> None:
        """Write a validation strip."""
        samples = images.read(strip).samples
        with self._writing():
            self._writer.add_image("degraded, restored, target", samples, step, dataformats="HWC")

    def close(self) -> None:
        with self._writing():
            self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be written: {error.strerror or error}") from error


def check_available() -> None:
    """Raise MissingExtraError where TensorBoard's package is missing."""
    _summary_writer()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("writing for TensorBoard", "tensorboard") from error
    return SummaryWriter
