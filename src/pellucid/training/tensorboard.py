"""The metrics and validation strips of a run for TensorBoard: RUN/tensorboard.

The events are written again from metrics.jsonl whenever a training starts. So they agree with the run even if it
was interrupted, and include steps that were trained without this option.
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
    """Writes the TensorBoard events of a run folder; those of earlier starts are deleted.

    Raises OutputError if they cannot be written, MissingExtraError without the extra `tensorboard`.
    """

    def __init__(self, folder: Path) -> None:
        self._run, self._folder = folder, folder / "tensorboard"
        with self._explain_errors():
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            # purge_step makes a running TensorBoard forget the deleted events.
            self._writer = _import_writer()(str(self._folder), purge_step=0, flush_secs=FLUSH_S)

    def catch_up(self) -> None:
        """Write everything that the run folder contains so far."""
        for line in read_metrics(self._run):
            self.write_metrics(line)
            strip = self._run / "validation" / f"step-{line['step']:09}.png"
            if "psnr_db" in line and strip.exists():
                self.write_strip(line["step"], strip)

    def write_metrics(self, line: Json) -> None:
        """Write the numbers in a line of metrics."""
        with self._explain_errors():
            for key, value in line.items():
                if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(key, value, line["step"])

    def write_strip(self, step: int, strip: Path) -> None:
        """Write a validation strip, a picture file."""
        samples = images.read(strip).samples
        with self._explain_errors():
            self._writer.add_image("degraded, restored, target", samples, step, dataformats="HWC")

    def close(self) -> None:
        with self._explain_errors():
            self._writer.close()

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be written: {error.strerror or error}") from error


def check_available() -> None:
    """Raise MissingExtraError if the package of TensorBoard is missing."""
    _import_writer()


def _import_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("writing for TensorBoard", "tensorboard") from error
    return SummaryWriter
