"""The folder of a training: who it is, how far it is, how it went. One process at a time writes to it.

RUN/run.json                    the whole recipe, data, seed, versions, hardware, command lines
RUN/metrics.jsonl               a line for every few steps, and for every validation
RUN/checkpoints/step-*.safetensors   all that goes on from there; the newest and the best are kept
RUN/validation/step-*.png       degraded, restored, target
RUN/weights.safetensors         the result, for restore and evaluate
RUN/tensorboard, RUN/trace.json      what --tensorboard and --profile write
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from pellucid.errors import OutputError, WeightsError
from pellucid.system.files import write_atomic
from pellucid.training.optimization import TensorsByName
from pellucid.weights.checkpoint import fingerprint

FORMAT = 1
NUM_KEPT = 3
"""So many of the newest checkpoints are kept, beside the best."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a training is after so many steps: tensors by name, and facts that JSON can hold."""

    step: int
    tensors: TensorsByName
    facts: Json


class Run:
    """A run folder that this process holds."""

    def __init__(self, folder: Path, identity: Json) -> None:
        self.folder = folder
        self.weights = folder / "weights.safetensors"
        self._identity = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._metrics = folder / "metrics.jsonl"

    def save(self, checkpoint: Checkpoint, *, best_step: int | None) -> None:
        """Write a checkpoint, whole or not at all, then let go of those that are neither new nor the best."""
        header = {
            "format": FORMAT,
            "run": self._identity,
            "step": checkpoint.step,
            "facts": checkpoint.facts,
            "sha256": fingerprint(checkpoint.tensors),
        }
        content = serialize(checkpoint.tensors, metadata={"pellucid_training": json.dumps(header)})
        write_atomic(self._path(checkpoint.step), content, overwrite=True)
        for path in self._checkpoints()[NUM_KEPT:]:
            if best_step is None or path != self._path(best_step):
                path.unlink()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be trusted, and why newer ones cannot, a line each.

        Those are set aside under another name.
        """
        refused: list[str] = []
        for path in self._checkpoints():
            try:
                return self._read(path), refused
            except WeightsError as error:
                path.rename(path.with_suffix(".refused"))
                refused.append(str(error))
        return None, refused

    def begin_at(self, step: int) -> None:
        """Forget metrics of steps that a broken-off run took after its last checkpoint."""
        kept = [line for line in read_metrics(self.folder) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomic(self._metrics, text.encode(), overwrite=True)

    def log(self, line: Json) -> None:
        """Add a line to the metrics."""
        try:
            with self._metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"{self._metrics} cannot be written: {error.strerror}") from error

    def note(self, **facts: Any) -> None:
        """Add facts to run.json."""
        _write_json(self.folder / "run.json", {**describe_run(self.folder), **facts})

    def _path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:09}.safetensors"

    def _checkpoints(self) -> list[Path]:
        """The newest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors"), reverse=True)

    def _read(self, path: Path) -> Checkpoint:
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["pellucid_training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            run, expected = str(header["run"]), str(header["sha256"])
            checkpoint = Checkpoint(int(header["step"]), tensors, dict(header["facts"]))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is no whole checkpoint ({error})") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise WeightsError(f"{path} is no checkpoint of a training ({repr(error)[:80]})") from error
        if run != self._identity:
            raise WeightsError(f"{path} is a checkpoint of another training")
        if fingerprint(tensors) != expected:
            raise WeightsError(f"{path} is damaged: its tensors are not those that were saved")
        return checkpoint


@contextmanager
def open_run(folder: Path, identity: Json, facts: Json) -> Iterator[Run]:
    """Hold a run folder, a new one or one that was begun with the same identity.

    identity: what must agree to go on; facts: what else run.json says of a new one.
    Raises OutputError when another process holds the folder, when it is of another training, or holds
    something else.
    """
    # As it is read back, or tuples would differ from the lists that JSON makes of them.
    identity = json.loads(json.dumps(identity))
    _check_usable(folder)
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        # The system lets go of this lock when the process dies, however it dies.
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"{folder} is being trained by another process; choose another --out") from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        if (folder / "run.json").exists():
            _check_same(folder, identity)
        else:
            _write_json(folder / "run.json", {"format": FORMAT, "identity": identity, **facts})
        yield Run(folder, identity)
    finally:
        lock.release()


def describe_run(folder: Path) -> Json:
    """What run.json says. Raises OutputError where there is none that can be read."""
    try:
        described = json.loads((folder / "run.json").read_text())
        if described["format"] != FORMAT:
            raise OutputError(
                f"{folder} is a run of format {str(described['format'])[:20]}; this version knows {FORMAT}"
            )
        return {**described, "identity": dict(described["identity"])}
    except FileNotFoundError as error:
        raise OutputError(f"{folder} is no folder of a training: it has no run.json") from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutputError(f"{folder / 'run.json'} is not one of pellucid's ({repr(error)[:80]})") from error


def read_metrics(folder: Path) -> list[Json]:
    """All lines of metrics.jsonl, each with its step; a torn last line is left out."""
    path = folder / "metrics.jsonl"
    lines: list[Json] = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"])})
        except (ValueError, TypeError, KeyError):
            continue
    return lines


def _check_usable(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is a file; --out is a folder")
    if folder.is_dir() and not (folder / "run.json").exists():
        # A run that died in its first moments has left no more than an empty folder of checkpoints.
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if set(others) - {"checkpoints"}:
            raise OutputError(f"{folder} holds other files ({sorted(others)[0]}); choose another --out")


def _check_same(folder: Path, identity: Json) -> None:
    before = describe_run(folder)["identity"]
    keys = sorted(key for key in before.keys() | identity.keys() if before.get(key) != identity.get(key))
    if "recipe" in keys:
        keys = ["recipe"]  # the keywords of another one say nothing
    if keys:
        raise OutputError(
            f"{folder} holds a training with {_listed(keys, before)}, not {_listed(keys, identity)}; "
            f"choose another --out, or the same {' and '.join(keys)}"
        )


def _listed(keys: Sequence[str], identity: Json) -> str:
    return " ".join(f"{key}={identity.get(key, '(not given)')}" for key in keys)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode(), overwrite=True)
