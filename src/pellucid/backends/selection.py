"""Builds the backend for a model, and selects the fastest one.

ONNX Runtime and OpenVINO run graphs, which are created once and kept in the user's cache. The name of a graph's
file contains a hash of what it was made from and a hash of its content, so outdated and damaged graphs are never
used. If several processes need a graph at the same time, one creates it and the others wait.
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

from pellucid.backends import parity, runtimes
from pellucid.backends.backend import Backend, find_device
from pellucid.backends.eager import TorchBackend
from pellucid.backends.metadata import OPSET, PRECISIONS
from pellucid.backends.model import Model
from pellucid.errors import ArgumentError, MissingExtraError, OutputError, PellucidError, suggest
from pellucid.system import files

BACKENDS = ("torch", "onnxruntime", "openvino")

AUTO_MIN_PSNR_DB = parity.CLOSE_PSNR_DB
"""PSNR against torch float32 that "auto" requires."""

CACHE_VERSION = 2
"""Increased when graphs change, so that graphs of earlier releases are not used."""

_NUM_TRIALS = 3
_EXACT_DB = 999.0
"""Recorded as the PSNR of equal results, because JSON has no infinity."""


@dataclass(frozen=True)
class BackendChoice:
    """The backend and precision that "auto" selected, and how they compare with torch float32.

    psnr_db: PSNR of the results against torch float32; 999 if they are equal.
    """

    backend: str
    precision: str
    psnr_db: float
    speedup: float

    def __str__(self) -> str:
        if (self.backend, self.precision) == ("torch", "float32"):
            return f"torch float32: the fastest with a PSNR of at least {AUTO_MIN_PSNR_DB:.0f} dB against float32"
        psnr = "exact" if self.psnr_db >= _EXACT_DB else f"PSNR against float32: {self.psnr_db:.1f} dB"
        return f"{self.backend} {self.precision}: {self.speedup:.1f}x speedup over torch float32, {psnr}"


def check_names(backend: str | None, precision: str | None) -> None:
    """Raise PellucidError for an unknown backend or precision."""
    if backend not in (None, "auto", *BACKENDS):
        raise ArgumentError(f"no backend {backend[:40]!r}; {suggest(backend, ('auto', *BACKENDS))}")
    if precision not in (None, "auto", *PRECISIONS):
        raise ArgumentError(f"no precision {precision[:40]!r}; {suggest(precision, ('auto', *PRECISIONS))}")


def check_options(device: str = "auto", backend: str | None = None, precision: str | None = None) -> None:
    """Raise the errors of `select_backend` that do not depend on the model."""
    check_names(backend, precision)
    find_device(device)
    if precision == "int8":
        raise PellucidError(
            "int8 needs calibration on pictures, so only exported files can have it",
            hint="`pellucid export` writes such a file",
        )
    if backend not in (None, "auto", "torch"):
        _check_runtime(backend, precision or "float32", device)


def select_backend(
    model: Model, *, device: str = "auto", backend: str | None = None, precision: str | None = None
) -> tuple[Backend, BackendChoice | None]:
    """The backend for a model, and how it was chosen if "auto" chose it. The network may be converted in place.

    backend: one of BACKENDS or "auto". None is "auto" if `precision` is "auto", otherwise "torch".
    precision: float32, bfloat16, float16 or "auto". None is "auto" if `backend` is "auto", otherwise "float32".

    Raises MissingExtraError for a runtime that is not installed, PellucidError for an unknown name, and for a
    backend that does not support the precision or the device.
    """
    check_options(device, backend, precision)
    if backend is None:
        backend = "auto" if precision == "auto" else "torch"
    if precision is None:
        precision = "auto" if backend == "auto" else "float32"
    if backend != "auto" and precision != "auto":
        return build_backend(model, backend, precision, device), None
    choice = choose_fastest(model, device=device, backend=backend, precision=precision)
    return build_backend(model, choice.backend, choice.precision, device), choice


def choose_fastest(model: Model, *, device: str, backend: str, precision: str) -> BackendChoice:
    """The fastest candidate with AUTO_MIN_PSNR_DB; measured once on each machine, then read from the cache.

    backend, precision: restrict the candidates; "auto" allows all. Raises the errors of `select_backend`.
    """
    candidates = [
        candidate
        for candidate in list_candidates(device)
        if backend in ("auto", candidate[0]) and precision in ("auto", candidate[1])
    ]
    if not candidates:
        # Raises the reason: a package is missing, or the precision is not supported.
        build_backend(model, "torch" if backend == "auto" else backend, precision, device)
        raise PellucidError(f"no installed backend computes in {precision}")
    path = (
        files.cache_folder()
        / "choices"
        / f"{_hash_model(model, *_describe_environment(device), repr(candidates))}.json"
    )
    try:
        return BackendChoice(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        choice = _measure_fastest(model, candidates, device)
    with _translate_cache_errors():
        files.write_atomic(path, json.dumps(vars(choice)).encode(), overwrite=True)
    return choice


def cache_graph(model: Model) -> Path:
    """The path of the model as a float32 ONNX file in the user's cache; created if it is missing or damaged.

    Raises MissingExtraError without onnx, and without onnxscript if there is no template for the network;
    OutputError if the cache cannot be written.
    """
    # Imported late, because running weights with PyTorch does not need them.
    from pellucid.backends import graphs, templates

    folder, key = files.cache_folder() / "graphs", _hash_model(model)
    with _translate_cache_errors():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            for found in folder.glob(f"{key}-*.onnx"):
                content = found.read_bytes()
                if found.stem.endswith(_hash(content)):
                    return found
                found.unlink()
            network, num_planes = model.network, model.metadata.num_planes
            graph = templates.build_graph(network, num_planes)
            if graph is None:
                graph = graphs.to_onnx(graphs.capture(network, num_planes))
            graphs.annotate(graph, model.metadata.to_entries())
            content = graph.SerializeToString()
            created = folder / f"{key}-{_hash(content)}.onnx"
            files.write_atomic(created, content, overwrite=True)
            return created


def build_backend(model: Model, backend: str, precision: str, device: str) -> Backend:
    """The backend of this name, one of BACKENDS. Raises the errors of `select_backend`."""
    if backend == "torch":
        return TorchBackend(model.network, device, precision=precision)
    _check_runtime(backend, precision, device)
    metadata, fingerprint = model.metadata, model.metadata.weights_sha256
    if backend == "onnxruntime":
        return runtimes.OnnxBackend(cache_graph(model), metadata, model.meta_network, fingerprint=fingerprint)
    return runtimes.OpenVinoBackend(
        cache_graph(model), metadata, model.meta_network, precision=precision, fingerprint=fingerprint
    )


def _check_runtime(backend: str, precision: str, device: str) -> None:
    """Raise PellucidError if a runtime is not installed, or cannot run weight files in this way."""
    if find_device(device if device != "auto" else "cpu").type != "cpu":
        raise PellucidError(
            f"{backend} runs on the CPU, not on {device}", hint="{backend} runs there", backend="torch"
        )
    runtimes.check_installed(backend)
    if backend == "onnxruntime" and precision not in ("float32", "auto"):
        raise PellucidError(
            f"onnxruntime runs weight files in float32, not in {precision}",
            hint="`pellucid export` can write a file in another precision",
        )


def list_candidates(device: str) -> Iterator[tuple[str, str]]:
    """(backend, precision) of all installed backends: float32, and half precision if the device supports it."""
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


def _measure_fastest(model: Model, candidates: list[tuple[str, str]], device: str) -> BackendChoice:
    degraded = parity.synthetic_inputs(model.recipe)
    inputs, large = parity.crop_inputs(degraded), degraded[:1].contiguous()
    reference = TorchBackend(model.network, device)
    reference_s = _time_s(reference, large)
    choices = []
    for backend, precision in candidates:
        candidate = build_backend(model.copy(), backend, precision, device)
        psnr_db = min(parity.compare(candidate, reference, inputs).psnr_db, _EXACT_DB)
        choices.append(BackendChoice(backend, precision, psnr_db, reference_s / _time_s(candidate, large)))
    accurate = [choice for choice in choices if choice.psnr_db >= AUTO_MIN_PSNR_DB]
    default = BackendChoice("torch", "float32", _EXACT_DB, 1.0)
    return max(accurate or [default], key=lambda choice: choice.speedup)


def _time_s(run: Callable[[Tensor], Tensor], degraded: Tensor) -> float:
    """The shortest of several times, because other processes may use the machine, too."""
    run(degraded)
    times_s = []
    for _ in range(_NUM_TRIALS):
        start_s = time.perf_counter()
        run(degraded)
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


def _hash_model(model: Model, *more: object) -> str:
    """A hash of everything that determines a graph: weights, recipe and the versions of its writers."""
    metadata = model.metadata
    parts = (CACHE_VERSION, OPSET, torch.__version__, metadata.weights_sha256, metadata.weights.recipe, more)
    parameters = json.dumps(dict(metadata.weights.parameters), sort_keys=True)
    return _hash(repr((*parts, parameters)).encode())


def _describe_environment(device: str) -> tuple[object, ...]:
    """Everything that determines which backend is the fastest: processor, threads, device and versions."""
    machine = (platform.machine(), platform.processor(), os.cpu_count(), torch.get_num_threads())
    return (*machine, str(find_device(device)), *map(_find_version, ("onnxruntime", "openvino")))


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@contextmanager
def _translate_cache_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, OutputError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"the cache {files.cache_folder()} cannot be written: {reason}",
            hint="set the environment variable PELLUCID_CACHE to another folder",
        ) from error
