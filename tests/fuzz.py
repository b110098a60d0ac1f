"""Restore thousands of damaged files and count what happens: python tests/fuzz.py --count 5000 --seed 0

Intact files of every format are mutated: bytes are changed, truncated, duplicated, dropped, and numbers made huge.
A child process restores folders of them, so that a crash or a hang is detected and attributed to one file. Each
file must give a complete result or a one-line error. `tests/test_fuzz.py` runs a few hundred.
"""

import argparse
import json
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import child_processes
import sample_files
from pellucid.restoration import pipeline

BATCH = 50
TIMEOUT_S = 120.0
"""For one folder of files, on a busy machine."""

CHILD = """
import json, sys, torch
from pathlib import Path
from pellucid.backends.eager import TorchBackend
from pellucid.recipes import registry
from pellucid.restoration import planning, restore
from pellucid.restoration.restorer import Restorer
torch.set_num_threads(1)
chosen = registry.find("dncnn.gaussian", depth=2, width=1)
restorer = Restorer("tiny", chosen, TorchBackend(chosen.network(), "cpu"))
jobs = planning.plan(sys.argv[1:2], sys.argv[2], format="tiff")
for outcome in restore.iter_restore(jobs, restorer, settings=restore.Settings(bit_depth=16), workers=1):
    error = None if outcome.error is None else str(outcome.error)
    print(json.dumps([outcome.source.name, outcome.target.name, error]), flush=True)
"""


@dataclass
class Tally:
    """The outcomes of all files."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    def add_fault(self, text: str) -> None:
        self.counts["FAULT"] += 1
        self.faults.append(text)


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


def _fix_checksums(content: bytes) -> bytes:
    """A PNG with correct checksums for all chunks that can be parsed."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunk = content[at + 4 : at + 8 + length]
        parts += [content[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + length
    return b"".join(parts)


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip_in_head, _truncate, _duplicate, _drop, _blank, _huge_number)


def mutate(originals: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of damaged files, reproducible by seed. originals: the intact files."""
    names = sorted(originals)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        name = names[i % len(names)]
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        content = mutation(bytearray(originals[name]), rng)
        if name.endswith(".png") and rng.random() < 0.7:
            content = _fix_checksums(content)  # otherwise only the checksums would be tested
        stem, _, suffix = name.rpartition(".")
        yield f"{i:06}-{stem}{mutation.__name__}.{suffix}", content


def run(originals: dict[str, bytes], *, count: int, seed: int) -> Tally:
    """Restore all damaged files, folder by folder."""
    tally, batch = Tally(), dict[str, bytes]()
    for name, content in mutate(originals, count, seed):
        batch[name] = content
        if len(batch) == BATCH:
            _restore(batch, tally)
            batch = {}
    if batch:
        _restore(batch, tally)
    return tally


def _restore(batch: dict[str, bytes], tally: Tally) -> None:
    """Restore one folder; after a crash or a hang, restore the remaining files."""
    while batch:
        with tempfile.TemporaryDirectory() as name:
            folder, out = Path(name, "in"), Path(name, "out")
            folder.mkdir()
            for file, content in batch.items():
                (folder / file).write_bytes(content)
            status, outcomes, text = _run_child(folder, out, tally)
            for source, target, error in outcomes:
                batch.pop(source)
                _judge(source, out / target, error, tally)
            if batch:
                culprit = min(batch)
                tally.add_fault(f"{culprit}: exit status {status} {text[-300:]}")
                batch.pop(culprit)
            elif leftovers := list(out.glob(".*.part")):
                tally.add_fault(f"left behind: {leftovers}")


def _run_child(folder: Path, out: Path, tally: Tally) -> tuple[int, list[list[str]], str]:
    """(exit status, [source, target, error] of each file, all output)."""
    output = folder.with_name("output")
    command = [sys.executable, "-c", CHILD, str(folder), str(out)]
    status, peak = child_processes.run(command, output, timeout_s=TIMEOUT_S)
    tally.peak_bytes = max(tally.peak_bytes, peak)
    text = output.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith('["') and line.endswith("]")]
    return status, [json.loads(line) for line in lines], text


def _judge(source: str, target: Path, error: str | None, tally: Tally) -> None:
    kind = source.rpartition(".")[2]
    if error is None:
        tally.counts[f"{kind} restored"] += 1
        if not target.is_file():
            tally.add_fault(f"{source}: no result")
    else:
        tally.counts[f"{kind} refused"] += 1
        if target.exists():
            tally.add_fault(f"{source}: refused, but has a result")
        if "\n" in error or pipeline.FAULT in error or source not in error:
            tally.add_fault(f"{source}: not a one-line error that names the file: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally = run(sample_files.all_files(), count=args.count, seed=args.seed)
    for what, count in sorted(tally.counts.items()):
        print(f"{count:6} {what}")
    print(f"peak resident memory of the child processes: {tally.peak_bytes / 1e6:.0f} MB")
    for fault in tally.faults:
        print(fault)
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
