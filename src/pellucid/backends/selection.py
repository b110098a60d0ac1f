"""The fastest way to run weights here: another runtime's graph, made once and kept, and the choice among them.

Graphs lie in the user's cache under a name that holds what they were made of and the hash of their content, so
that a stale one is never found and a broken one never believed. Several processes may ask at once: one makes
the graph, the others wait.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from pellucid.backends import graphs, parity, runtimes
from pellucid.backends.backend import Backend, find_device
from pellucid.backends.eager import TorchBackend
from pellucid.backends.metadata import PRECISIONS, GraphMetadata
from pellucid.backends.model import Model
from pellucid.backends.parity import Agreement
from pellucid.errors import MissingExtraError, OutputError, PellucidError, suggest
from pellucid.system import files

BACKENDS = ("torch", "onnxruntime", "openvino")

LEAST_DB = 60.0
"""How well what "auto" takes agrees with float32 torch: a tenth of a step of 8 bit."""

VERSION = 2
"""Of the graphs that are kept; a higher one leaves those of earlier releases unused."""

_TRIALS = 3


@dataclass(frozen=True)
class BackendChoice:
    """What runs a network, how well it agrees with float32 torch, and how many times faster it is."""

    backend: str
    precision: str
    psnr_db: float
    speedup: float

    def __str__(self) -> str:
        if (self.backend, self.precision) == ("torch", "float32"):
            return "torch in float32 is the fastest here that agrees with itself to 60 dB"
        agrees = "equals it" if self.psnr_db > 200 else f"agrees to {self.psnr_db:.1f} dB"
        return f"{self.backend} in {self.precision}: {self.speedup:.1f}x as fast as torch in float32, {agrees}"


def check_names(backend: str | None, precision: str | None) -> None:
    """Raise PellucidError for a backend or precision that nobody has."""
    if backend not in (None, "auto", *BACKENDS):
        raise PellucidError(f"no backend {backend[:40]!r}; {suggest(backend, ('auto', *BACKENDS))}")
    if precision not in (None, "auto", *PRECISIONS):
        raise PellucidError(f"no precision {precision[:40]!r}; {suggest(precision, ('auto', *PRECISIONS))}")


def select_backend(
    plan: Model, *, device: str = "auto", backend: str | None = None, precision: str | None = None
) -> tuple[Backend, BackendChoice | None]:
    """What is to run these weights, and why where that was left to us.

    backend, precision: by name, or "auto". torch in float32 where neither is given. Raises MissingExtraError for
    a runtime that is not installed, PellucidError for one that has not this precision.
    """
    check_names(backend, precision)
    if backend is None:
        backend = "auto" if precision == "auto" else "torch"
    if precision is None:
        precision = "auto" if backend == "auto" else "float32"
    if precision == "int8":
        raise PellucidError(
            "int8 is calibrated on pictures: 'pellucid export MODEL --out MODEL.xml --precision int8 --calibrate "
            "FOLDER' makes a file to restore with"
        )
    if backend != "auto" and precision != "auto":
        return build_backend(plan, backend, precision, device), None
    choice = choose_fastest(plan, device=device, backend=backend, precision=precision)
    return build_backend(plan, choice.backend, choice.precision, device), choice


def choose_fastest(plan: Model, *, device: str, backend: str, precision: str) -> BackendChoice:
    """The fastest that agrees with float32 torch to LEAST_DB, measured once for each machine and then kept."""
    ways = [way for way in list_options(device) if backend in ("auto", way[0]) and precision in ("auto", way[1])]
    if not ways:
        # Of one that is fixed the reason is wanted: not installed, or not in this precision.
        build_backend(plan, "torch" if backend == "auto" else backend, precision, device)
        raise PellucidError(f"nothing installed here computes in {precision}")
    kept = files.cache_folder() / "choices" / f"{_key(plan, *_surroundings(device), repr(ways))}.json"
    try:
        return BackendChoice(**json.loads(kept.read_bytes()))
    except (OSError, ValueError, TypeError):
        choice = _measured(plan, ways, device)
    with _writable():
        files.write_atomic(kept, json.dumps(vars(choice)).encode(), overwrite=True)
    return choice


def graph(plan: Model) -> Path:
    """The weights as a float32 ONNX file in the user's cache, made now where it is not there or broken."""
    folder, key = files.cache_folder() / "graphs", _key(plan)
    with _writable():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            for found in folder.glob(f"{key}-*.onnx"):
                content = found.read_bytes()
                if found.stem.endswith(_hash(content)):
                    return found
                found.unlink()
            model = plan.onnx("float32")
            graphs.annotate(model, plan.facts.to_metadata())
            content = model.SerializeToString()
            made = folder / f"{key}-{_hash(content)}.onnx"
            files.write_atomic(made, content, overwrite=True)
            return made


def build_backend(plan: Model, backend: str, precision: str, device: str) -> Backend:
    """What runs a plan in one of the `ways_of` a device. Raises as `backend_for`."""
    if backend == "torch":
        return TorchBackend(plan.network, device, precision=precision)
    if find_device(device if device != "auto" else "cpu").type != "cpu":
        raise PellucidError(f"{backend} runs on the CPU here; leave --device out, or take --backend torch")
    runtimes.check_installed(backend)
    fingerprint = plan.facts.weights_sha256
    if backend == "onnxruntime":
        if precision != "float32":
            raise PellucidError(
                f"onnxruntime computes in float32 here; 'pellucid export --precision {precision}' makes a file"
            )
        return runtimes.OnnxBackend(graph(plan), plan.facts, plan.shadow, fingerprint=fingerprint)
    return runtimes.OpenVinoBackend(
        graph(plan), plan.facts, plan.shadow, precision=precision, fingerprint=fingerprint
    )


def list_options(device: str) -> Iterator[tuple[str, str]]:
    """All that is installed, in float32 and what this device computes in besides."""
    found = find_device(device)
    yield "torch", "float32"
    yield "torch", "bfloat16"
    if found.type != "cpu":
        yield "torch", "float16"
        return
    with suppress(MissingExtraError):
        runtimes.check_installed("onnxruntime")
        yield "onnxruntime", "float32"
    with suppress(MissingExtraError):
        runtimes.check_installed("openvino")
        yield "openvino", "float32"
        if "bf16" in runtimes.supported_precisions():
            yield "openvino", "bfloat16"


def _measured(plan: Model, ways: list[tuple[str, str]], device: str) -> BackendChoice:
    degraded = parity.synthetic_inputs(plan.recipe)
    inputs, large = parity.crop_inputs(degraded, parity.SIZES[-2:]), degraded[:1].contiguous()
    reference = TorchBackend(plan.network, device)
    reference_s = _seconds(reference, large)
    choices = []
    for backend, precision in ways:
        candidate = build_backend(plan.copy(), backend, precision, device)
        agreement = parity.compare(candidate, reference, inputs)
        speedup = reference_s / _seconds(candidate, large)
        choices.append(BackendChoice(backend, precision, _finite(agreement), speedup))
    good = [choice for choice in choices if choice.psnr_db >= LEAST_DB]
    return max(good or [BackendChoice("torch", "float32", _finite(None), 1.0)], key=lambda choice: choice.speedup)


def _seconds(run: Callable[[Tensor], Tensor], degraded: Tensor) -> float:
    """The least of a few times: others use the machine, too."""
    run(degraded)
    taken = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        run(degraded)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _finite(agreement: Agreement | None) -> float:
    """As JSON can hold it."""
    return 999.0 if agreement is None else min(agreement.psnr_db, 999.0)


def _key(plan: Model, *more: object) -> str:
    """What a graph is made of: weights, recipe, and who wrote it."""
    facts: GraphMetadata = plan.facts
    parts = (VERSION, graphs.OPSET, torch.__version__, facts.weights_sha256, facts.card.recipe, more)
    parameters = json.dumps(dict(facts.card.parameters), sort_keys=True)
    return _hash(repr((*parts, parameters)).encode())


def _surroundings(device: str) -> tuple[object, ...]:
    """All that decides what is fastest: processor, threads, and who computes."""
    machine = (platform.machine(), platform.processor(), os.cpu_count(), torch.get_num_threads())
    return (*machine, str(find_device(device)), *map(_version, ("onnxruntime", "openvino")))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@contextmanager
def _writable() -> Iterator[None]:
    try:
        yield
    except (OSError, OutputError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"the cache {files.cache_folder()} cannot be written: {reason}; PELLUCID_CACHE names another folder"
        ) from error
