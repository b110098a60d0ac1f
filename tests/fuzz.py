"""Read thousands of damaged files and count what happens: python tests/fuzz.py --count 5000 --seed 0

Intact files of every kind are mutated: bytes are changed, truncated, duplicated, dropped, numbers made huge, and
the parts that they consist of are mixed (`soups`). Child processes read folders of them, so that a crash or a hang
is detected and attributed to one file. Each file must give a complete result or a one-line error, and a truncated
picture the same result as the intact one, or a note. `tests/test_fuzz.py` runs a few hundred.

`--minutes 30` runs for so long; `--only dng` takes the originals whose names contain "dng". Other seeds give other
files, so runs add up. Files with faults are kept in the folder `--keep`.
"""

import argparse
import hashlib
import json
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count as count_up
from pathlib import Path

import numpy as np
import tifffile

import child_processes
import sample_files
import soups
from pellucid.restoration import pipeline

BATCH = 200
STALL_S = 300.0
"""For one file, on a busy machine, including the start of Python."""

CEILING_BYTES = 1_500_000_000
"""Of the resident memory of a child process. Declared sizes of up to MAX_PIXELS are allowed."""

MAX_PIXELS = 4_000_000

PICTURES = """
import json, sys, torch
from pellucid.backends.eager import TorchBackend
from pellucid.recipes import registry
from pellucid.restoration import planning, restore
from pellucid.restoration.restorer import Restorer
torch.set_num_threads(1)
torch.manual_seed(0)
chosen = registry.find("dncnn.gaussian", depth=2, width=1)
restorer = Restorer("tiny", chosen, TorchBackend(chosen.network(), "cpu"))
jobs = planning.plan(sys.argv[1:2], sys.argv[2], format="tiff")
settings = restore.Settings(bit_depth=16, max_pixels=int(sys.argv[3]))
for outcome in restore.iter_restore(jobs, restorer, settings=settings, workers=1):
    error = None if outcome.error is None else str(outcome.error)
    notes = [*outcome.info, *outcome.warnings]
    print(json.dumps([outcome.source.name, outcome.target.name, error, notes]), flush=True)
"""

METADATA = """
import json, sys
from pathlib import Path
from pellucid.pictures import metadata
from pellucid.pictures.camera import raw_data, raw_metadata
from pellucid.pictures.records import sidecars
from pellucid.restoration.pipeline import to_pellucid_error
for path in sorted(Path(sys.argv[1]).iterdir()):
    error, target = None, Path(sys.argv[2], path.name)
    try:
        with path.open("rb") as file:
            found, _ = raw_metadata.read(file)
        metadata.adapt(found, orientation=6, before=(30, 40), after=(80, 60))
        if path.suffix == ".xmp":
            sidecars.read(path.with_suffix(""))
        raw_data.check_complete(path)
        target.touch()
    except Exception as caught:  # anything else than a one-line error is a fault
        error = str(to_pellucid_error(caught, path))
    print(json.dumps([path.name, target.name, error, []]), flush=True)
"""
"""Reads the metadata of camera RAW files whose samples cannot be decoded."""

WEIGHTS = """
import json, sys, torch
from pathlib import Path
from pellucid.restoration.pipeline import to_pellucid_error
from pellucid.errors import PellucidError
from pellucid.weights import checkpoint, converting
from pellucid.weights.foreign import reading
torch.set_num_threads(1)
small = {"depth": 4, "width": 8}
for path in sorted(Path(sys.argv[1]).iterdir()):
    error, target = None, Path(sys.argv[2], path.name + ".safetensors")
    try:
        if path.suffix == ".safetensors" and "plain" not in path.name:
            checkpoint.load(path)
        else:
            reading.read(path)
        try:
            converting.convert(path, "dncnn.gaussian", target, **small)
        except PellucidError:
            target.touch()  # not every file contains this network
    except Exception as caught:  # as above
        error = str(to_pellucid_error(caught, path))
    print(json.dumps([path.name, target.name, error, []]), flush=True)
"""
"""Reads each file, and converts it if it contains a network of this kind."""

Outcome = tuple[str, str, str | None, list[str]]
"""Name of a file, name of its result, error, notes."""


@dataclass
class Tally:
    """The outcomes of all files."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    def add_fault(self, text: str) -> None:
        self.counts["FAULT"] += 1
        self.faults.append(text)
        print(text, flush=True)


@dataclass(frozen=True)
class Suite:
    """Originals of one kind, and the program that a child process runs on them.

    has_results: whether the program writes pictures. share: of the files of a run, relative to pictures.
    """

    originals: dict[str, bytes]
    program: str
    has_results: bool = True
    share: float = 1.0


Mutation = Callable[[bytearray, np.random.Generator], bytes]


def _flip(content: bytearray, rng: np.random.Generator) -> bytes:
    for at in rng.integers(0, len(content), rng.integers(1, 9)):
        content[at] = rng.integers(0, 256)
    return bytes(content)


def _flip_in_head(content: bytearray, rng: np.random.Generator) -> bytes:
    for at in rng.integers(0, min(200, len(content)), rng.integers(1, 5)):
        content[at] = rng.integers(0, 256)
    return bytes(content)


def _truncate(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content[: rng.integers(0, len(content))])


def _duplicate(content: bytearray, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    return bytes(content[:stop] + content[start:])


def _drop(content: bytearray, rng: np.random.Generator) -> bytes:
    start = rng.integers(0, len(content))
    return bytes(content[:start] + content[start + rng.integers(1, 30) :])


def _blank(content: bytearray, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    content[start:stop] = bytes([rng.choice([0, 255])]) * int(stop - start)
    return bytes(content)


def _huge_number(content: bytearray, rng: np.random.Generator) -> bytes:
    value = rng.choice([0, 1, 0x7FFF, 0xFFFF, 60000, 0x7FFFFFFF, 0xFFFFFFFF])
    order = rng.choice(["<I", ">I"])
    at = int(rng.integers(0, max(1, min(400, len(content)) - 4)))
    content[at : at + 4] = struct.pack(order, value)
    return bytes(content)


def _soup(content: bytearray, rng: np.random.Generator) -> bytes:
    return soups.mix(bytes(content), rng)


def _fix_checksums(content: bytes) -> bytes:
    """A PNG with correct checksums for all chunks that can be parsed."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunk = content[at + 4 : at + 8 + length]
        parts += [content[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + length
    return b"".join(parts)


MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _flip_in_head, _truncate, _duplicate, _drop, _blank, _huge_number),
    *(_soup, _soup, _soup),
)


def mutate(originals: dict[str, bytes], seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of damaged files without end, reproducible by seed. originals: the intact files."""
    names = sorted(originals)
    for i in count_up():
        rng = np.random.default_rng((seed, i))
        name = names[i % len(names)]
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        content = mutation(bytearray(originals[name]), rng)
        kind = mutation.__name__.lstrip("_")
        if name.endswith(".png") and mutation not in (_soup, _truncate) and rng.random() < 0.7:
            content = _fix_checksums(content)  # otherwise only the checksums would be tested
            kind += "+checksums"
        stem, _, suffix = name.rpartition(".")
        yield f"{i:06}-{stem}-{kind}.{suffix}", content


def list_suites(only: str = "") -> list[Suite]:
    """All originals, or those whose names contain a text."""
    suites = (
        Suite(sample_files.all_files(), PICTURES),
        Suite(sample_files.structures(), METADATA, has_results=False, share=0.2),
        Suite(sample_files.weight_files(), WEIGHTS, has_results=False, share=0.2),
    )
    chosen = [
        replace(suite, originals={name: content for name, content in suite.originals.items() if only in name})
        for suite in suites
    ]
    return [suite for suite in chosen if suite.originals]


def run(
    suite: Suite, *, count: int, seed: int, deadline_s: float = float("inf"), keep: Path | None = None
) -> Tally:
    """Read all damaged files, folder by folder, until the count or the time is reached."""
    tally = Tally()
    judge = _Judge(tally, _restore_originals(suite), keep)
    batch: dict[str, bytes] = {}
    for i, (name, content) in enumerate(mutate(suite.originals, seed), start=1):
        batch[name] = content
        if len(batch) == BATCH or i == count:
            _read_all(suite, batch, judge)
            batch = {}
        if i == count or (not batch and time.monotonic() > deadline_s):
            break
    return tally


def _restore_originals(suite: Suite) -> "dict[str, tuple[str, list[str]]]":
    """(hash of the samples, notes) of the results of all intact files that give one, by name."""
    if not suite.has_results:
        return {}
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name, "in"), Path(name, "out")
        _write_all(folder, suite.originals)
        _, outcomes, _ = _run_child(suite.program, folder, out, Tally())
        return {source: (_hash(out / target), notes) for source, target, error, notes in outcomes if error is None}


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _hash(picture: Path) -> str:
    return hashlib.sha256(np.ascontiguousarray(tifffile.imread(picture)).tobytes()).hexdigest()


@dataclass(frozen=True)
class _Judge:
    """Counts outcomes and finds faults. intact: results of the originals. keep: folder for files with faults."""

    tally: Tally
    intact: dict[str, tuple[str, list[str]]]
    keep: Path | None

    def judge(self, outcome: Outcome, content: bytes, out: Path) -> None:
        source, target, error, notes = outcome
        kind = source.rpartition(".")[2]
        result = out / target
        self.tally.counts[f"{kind} {'accepted' if error is None else 'refused'}"] += 1
        if error is None and not result.is_file():
            self.add_fault(source, content, "no result")
        elif error is None:
            self._compare(source, result, notes, content)
        elif result.exists():
            self.add_fault(source, content, "refused, but has a result")
        elif "\n" in error or pipeline.FAULT in error or source not in error:
            self.add_fault(source, content, f"not a one-line error that names the file: {error}")

    def _compare(self, source: str, result: Path, notes: list[str], content: bytes) -> None:
        """A truncated picture, or a PNG with wrong checksums, gives what the intact one does, or a note."""
        stem, _, suffix = source.rpartition(".")
        _, original, kind = stem.split("-")
        is_found = kind == "truncate" or (suffix == "png" and kind != "soup" and "checksums" not in kind)
        if not is_found or f"{original}.{suffix}" not in self.intact:
            return
        expected, known_notes = self.intact[f"{original}.{suffix}"]
        if not set(notes) - set(known_notes) and _hash(result) != expected:
            self.add_fault(source, content, "damaged, but another result without a note")

    def add_fault(self, source: str, content: bytes, text: str) -> None:
        self.tally.add_fault(f"{source}: {text}")
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            (self.keep / source).write_bytes(content)


def _read_all(suite: Suite, batch: dict[str, bytes], judge: _Judge) -> None:
    """Read one folder; after a crash or a hang, read the remaining files."""
    batch = dict(batch)
    while batch:
        with tempfile.TemporaryDirectory() as name:
            folder, out = Path(name, "in"), Path(name, "out")
            _write_all(folder, batch)
            out.mkdir()
            status, outcomes, text = _run_child(suite.program, folder, out, judge.tally)
            for outcome in outcomes:
                judge.judge(outcome, batch.pop(outcome[0]), out)
            if len(batch) > 1 and not outcomes:  # it ended before the first file, so any file can be the cause
                names = sorted(batch)
                for half in (names[::2], names[1::2]):
                    _read_all(suite, {name: batch[name] for name in half}, judge)
                return
            if batch:
                culprit = min(batch)
                judge.add_fault(culprit, batch.pop(culprit), f"exit status {status} {text[-300:]}")
            elif leftovers := list(out.glob(".*.part")):
                judge.tally.add_fault(f"left behind: {leftovers}")


def _run_child(program: str, folder: Path, out: Path, tally: Tally) -> tuple[int, list[Outcome], str]:
    """(exit status, outcomes, all output)."""
    output = folder.with_name("output")
    command = [sys.executable, "-c", program, str(folder), str(out), str(MAX_PIXELS)]
    status, peak = child_processes.run(command, output, timeout_s=3600, stall_s=STALL_S)
    tally.peak_bytes = max(tally.peak_bytes, peak)
    if peak > CEILING_BYTES:
        tally.add_fault(f"{peak:,} bytes of memory for {min(folder.iterdir()).name} and after")
    text = output.read_text(errors="replace")
    # C libraries print messages without an end of line into the same file.
    lines = [line[max(0, line.find('["')) :] for line in text.splitlines()]
    return status, [json.loads(line) for line in lines if line.startswith('["') and line.endswith("]")], text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="pictures; a fifth as many of the other kinds")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    for reason in sample_files.missing_encoders().values():
        print(reason, flush=True)
    num_faults, suites = 0, list_suites(args.only)
    for suite in suites:
        minutes = args.minutes * suite.share / sum(suite.share for suite in suites)
        tally = run(
            suite,
            count=max(1, round(args.count * suite.share)),
            seed=args.seed,
            deadline_s=time.monotonic() + 60 * minutes,
            keep=args.keep,
        )
        for what, number in sorted(tally.counts.items()):
            print(f"{number:6} {what}")
        print(f"peak resident memory of the child processes: {tally.peak_bytes / 1e6:.0f} MB", flush=True)
        num_faults += len(tally.faults)
    sys.exit(bool(num_faults))


if __name__ == "__main__":
    main()
