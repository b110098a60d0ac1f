"""The run folder of a training: its identity, its progress and its result. One process at a time writes to it.

RUN/run.json                         recipe, data, seed, versions, hardware, command lines
RUN/metrics.jsonl                    a line every few steps, and one for each validation
RUN/checkpoints/step-*.safetensors   everything needed to resume; the three newest and the best are kept
RUN/validation/step-*.png            degraded, restored, target
RUN/weights.safetensors              the result, for restore and evaluate
RUN/tensorboard, RUN/trace.json      written with --tensorboard and --profile
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

from pellucid.errors import OutputError, WeightsError, describe_damage
from pellucid.recipes.overrides import rename_keywords
from pellucid.system.files import check_name, check_own, check_regular, write_atomic
from pellucid.training.optimization import TensorsByName
from pellucid.weights.checkpoint import fingerprint

FORMAT = 1
NUM_KEPT = 3
"""How many of the newest checkpoints are kept, in addition to the best one."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after `step` steps: tensors by name, and metadata that JSON can represent."""

    step: int
    tensors: TensorsByName
    metadata: Json


class Run:
    """A run folder that this process has locked. identity: that of run.json, as it was recorded."""

    def __init__(self, folder: Path, identity: Json) -> None:
        self.folder = folder
        self.weights = folder / "weights.safetensors"
        self._identity = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._metrics = folder / "metrics.jsonl"

    def save(self, checkpoint: Checkpoint, *, best_step: int | None) -> None:
        """Write a checkpoint atomically, then delete those that are neither among the newest nor the best."""
        header = {
            "format": FORMAT,
            "run": self._identity,
            "step": checkpoint.step,
            "facts": checkpoint.metadata,
            "sha256": fingerprint(checkpoint.tensors),
        }
        content = serialize(checkpoint.tensors, metadata={"pellucid_training": json.dumps(header)})
        write_atomic(self._path(checkpoint.step), content, overwrite=True)
        for path in self._find_checkpoints()[NUM_KEPT:]:
            if best_step is None or path != self._path(best_step):
                path.unlink()

    def load_newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest valid checkpoint, and for each newer, invalid one the reason in a line.

        Invalid checkpoints are renamed to `.refused`.
        """
        problems: list[str] = []
        for path in self._find_checkpoints():
            try:
                return self._read(path), problems
            except WeightsError as error:
                path.rename(path.with_suffix(".refused"))
                problems.append(str(error))
        return None, problems

    def drop_metrics_after(self, step: int) -> None:
        """Remove the metrics of steps that an interrupted training took after its last checkpoint."""
        kept = [line for line in read_metrics(self.folder) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomic(self._metrics, text.encode(), overwrite=True)

    def append_metrics(self, line: Json) -> None:
        try:
            check_own(self._metrics)
            with self._metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"{self._metrics} cannot be written: {error.strerror}") from error

    def update_description(self, **entries: Any) -> None:
        """Add entries to run.json."""
        _write_json(self.folder / "run.json", {**describe_run(self.folder), **entries})

    def _path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:09}.safetensors"

    def _find_checkpoints(self) -> list[Path]:
        """All checkpoints, newest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors"), reverse=True)

    def _read(self, path: Path) -> Checkpoint:
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["pellucid_training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            run, expected = str(header["run"]), str(header["sha256"])
            checkpoint = Checkpoint(int(header["step"]), tensors, dict(header["facts"]))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a complete checkpoint ({error})") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise WeightsError(f"{path} is not a checkpoint of a training ({describe_damage(error)})") from error
        if run != self._identity:
            raise WeightsError(f"{path} is a checkpoint of another training")
        if fingerprint(tensors) != expected:
            raise WeightsError(f"{path} is damaged: its tensors do not match their checksum")
        return checkpoint


@contextmanager
def open_run(folder: Path, identity: Json, description: Json) -> Iterator[Run]:
    """Lock a run folder: a new one, or one that was started with the same identity.

    identity: what must be equal to resume. description: what else a new run.json contains.
    Raises OutputError if another process has locked the folder, or if it contains another training or other files.
    """
    identity = json.loads(json.dumps(identity))  # as it is read back: JSON turns tuples into lists
    check_name(folder)
    _check_usable(folder)
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")  # released by the system however the process ends
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"{folder} is already being trained", hint="choose another {out}") from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        if not (folder / "run.json").exists():
            _write_json(folder / "run.json", {"format": FORMAT, "identity": identity, **description})
        before = describe_run(folder)
        _check_same(folder, before, {"identity": identity, **description})
        yield Run(folder, before["identity"])
    finally:
        lock.release()


def describe_run(folder: Path) -> Json:
    """The content of run.json. Raises OutputError if it is missing or not valid."""
    path = folder / "run.json"
    try:
        check_regular(path)
        description = json.loads(path.read_text())
        if description["format"] != FORMAT:
            found = str(description["format"])[:20]
            raise OutputError(f"{folder} is a run of format {found}; this version reads format {FORMAT}")
        return {**description, "identity": dict(description["identity"])}
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.exists():
            raise OutputError(f"{folder} does not exist", hint="check the name") from error
        raise OutputError(f"{folder} is not a run folder: it has no run.json") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutputError(
            f"{path} is damaged: {describe_damage(error)}", hint="restore it from a copy, or use another folder"
        ) from error


def read_metrics(folder: Path) -> list[Json]:
    """All lines of metrics.jsonl, each with its step, without damaged lines and values that are not numbers."""
    return [line for line in map(_parse_metrics, _read_lines(folder)) if line is not None]


def count_damaged_metrics(folder: Path) -> int:
    """Number of damaged lines of metrics.jsonl, without one at the end that a crash has cut off."""
    return sum(_parse_metrics(line) is None for line in _read_lines(folder) if line.endswith("\n"))


def _read_lines(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else []


def _parse_metrics(text: str) -> Json | None:
    """The numbers of a line; None if it is damaged."""
    try:
        line = json.loads(text)
        numbers = {key: value for key, value in line.items() if value is None or isinstance(value, int | float)}
        return {**numbers, "step": int(line["step"])}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _check_usable(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="{out} must be a folder")
    if folder.is_dir() and not (folder / "run.json").exists():
        # A training that died right after its start has left only an empty folder of checkpoints.
        others = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"checkpoints"}
        if others:
            raise OutputError(f"{folder} contains other files ({min(others)})", hint="choose another {out}")


def _check_same(folder: Path, before: Json, now: Json) -> None:
    """before, now: contents of run.json."""
    recorded, identity = rename_keywords(before["identity"]), now["identity"]
    keys = sorted(key for key in recorded.keys() | identity.keys() if recorded.get(key) != identity.get(key))
    if "recipe" in keys:
        keys = ["recipe"]  # keywords of different recipes cannot be compared
    if keys:
        recorded, identity = _name_sources(recorded, before), _name_sources(identity, now)
        order = ", in the same order" if "mix" in keys else ""
        raise OutputError(
            f"{folder} was started with {_list_values(keys, recorded)}, not {_list_values(keys, identity)}",
            hint=f"choose another {{out}}, or the same {', '.join(keys)}{order}",
        )


def _name_sources(identity: Json, description: Json) -> Json:
    """The identity with the names of its stores, and the start of the fingerprints that `prepare` prints."""
    named = dict(identity)
    data, mix = description.get("data"), description.get("mix")
    if isinstance(data, dict):
        named["data"] = _name_source(data, str(identity.get("data")))
    if isinstance(mix, list) and all(isinstance(source, dict) for source in mix) and "mix" in identity:
        parts = [part.partition("=") for part in str(identity["mix"]).split(",")]
        named["mix"] = ",".join(
            f"{_name_source(source, digest)}={share}"
            for source, (digest, _, share) in zip(mix, parts, strict=False)
        )
    return named


def _name_source(source: Json, digest: str) -> str:
    return f"{source.get('folder', 'a store')} ({digest[:12]})"


def _list_values(keys: Sequence[str], identity: Json) -> str:
    return " ".join(f"{key}={identity.get(key, '(not given)')}" for key in keys)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode(), overwrite=True)
