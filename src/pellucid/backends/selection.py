"""Builds the backend for a model, and selects the fastest one.

ONNX Runtime and OpenVINO run graphs, which are created once and kept in the user's cache. The name of a graph's
file contains a hash of what it was made from and a hash of its content, so outdated and damaged graphs are never
used. If several processes need a graph at the same time, one creates it and the others wait.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock

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

_REFERENCE = ("torch", "float32")
_RANKS = (
    ("openvino", "bfloat16"),
    ("openvino", "float32"),
    ("onnxruntime", "float32"),
    _REFERENCE,
    ("torch", "bfloat16"),
    ("torch", "float16"),
)
"""Backends on CPUs in the order of their speed; see docs/performance.md. torch is slower in half precision on
processors without instructions for it, so it is only used on request."""

_RANKS_ON_GPUS = (("torch", "bfloat16"), _REFERENCE, ("torch", "float16"))

_RULE = 2
"""Increased when candidates are compared otherwise, so that choices of earlier releases are not used."""

_SIDE_PX, _SIDE_HALF_PX = 96, 192
"""Of the synthetic pictures on which candidates are compared: small in float32, so that the first picture is not
late, and larger in half precision, whose error depends on the picture."""

_EXACT_DB = 999.0
"""Recorded as the PSNR of equal results, because JSON has no infinity."""


@dataclass(frozen=True)
class BackendChoice:
    """The backend and precision that "auto" selected, and how they compare with torch float32.

    psnr_db: PSNR of the results against torch float32; 999 if they are equal.
    accepted: the fingerprints of the backends whose results only differ in the last bits: those that "auto" may
        select in float32, on this machine or another one.
    """

    backend: str
    precision: str
    psnr_db: float
    accepted: tuple[str, ...] = ()

    def __str__(self) -> str:
        if (self.backend, self.precision) == ("torch", "float32"):
            return "torch float32"
        psnr = "exact" if self.psnr_db >= _EXACT_DB else f"{self.psnr_db:.1f} dB"
        return f"{self.backend} {self.precision} (PSNR against torch float32: {psnr})"


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
        raise ArgumentError(
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
    precision: float32, bfloat16, float16 or "auto". None is float32.

    Raises MissingExtraError for a runtime that is not installed, PellucidError for an unknown name, and for a
    backend that does not support the precision or the device.
    """
    check_options(device, backend, precision)
    if backend is None:
        backend = "auto" if precision == "auto" else "torch"
    precision = precision or "float32"
    if backend != "auto" and precision != "auto":
        return build_backend(model, backend, precision, device), None
    return _choose_backend(model, device=device, backend=backend, precision=precision)


def _choose_backend(model: Model, *, device: str, backend: str, precision: str) -> tuple[Backend, BackendChoice]:
    """The first candidate of `rank_candidates` that works and is close enough to torch float32.

    It is compared on synthetic pictures, once on each machine; later, the result is read from the cache. So the
    choice depends neither on the pictures nor on the load of the machine.

    backend, precision: restrict the candidates; "auto" allows all. Raises the errors of `select_backend`, and
    PellucidError if no candidate is close enough.
    """
    candidates = [
        candidate
        for candidate in rank_candidates(model, device)
        if backend in ("auto", candidate[0]) and precision in ("auto", candidate[1])
    ]
    if not candidates:
        # Raises the reason: a package is missing, or the precision is not supported.
        build_backend(model, "torch" if backend == "auto" else backend, precision, device)
        raise PellucidError(f"no installed backend computes in {precision}")
    if candidates[0] == _REFERENCE:
        accepted = tuple(_list_graphs(model)) if backend == "auto" else ()
        return build_backend(model, *_REFERENCE, device), BackendChoice(*_REFERENCE, _EXACT_DB, accepted)
    path = (
        files.cache_folder()
        / "choices"
        / f"{_hash_model(model, *_describe_environment(device), backend, repr(candidates))}.json"
    )
    try:
        kept = BackendChoice(**json.loads(path.read_bytes()))
        built = build_backend(model, kept.backend, kept.precision, device)
        return built, replace(kept, accepted=tuple(kept.accepted))
    except (
        OSError,
        ValueError,
        TypeError,
        PellucidError,
    ):  # the comparison raises again what cannot be passed over
        built, choice = _compare_candidates(model, candidates, device, is_free=backend == "auto")
    with suppress(OSError, OutputError):  # then it is compared again the next time
        files.write_atomic(path, json.dumps(vars(choice)).encode(), overwrite=True)
    return built, choice


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
    if found.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        yield "torch", "bfloat16"
    if found.type != "cpu":
        yield "torch", "float16"
        return
    with suppress(MissingExtraError):
        runtimes.check_installed("onnxruntime")
        yield "onnxruntime", "float32"
    with suppress(PellucidError):  # it is not installed, or does not work
        runtimes.check_installed("openvino")
        precisions = runtimes.supported_precisions()
        yield "openvino", "float32"
        if "bf16" in precisions:
            yield "openvino", "bfloat16"


def rank_candidates(model: Model, device: str) -> list[tuple[str, str]]:
    """(backend, precision) of the candidates for "auto", the fastest first.

    By rule, without measuring: measurements differ with the load of the machine. ONNX Runtime and OpenVINO are
    candidates for networks whose graphs ship with pellucid; to capture one takes longer than many pictures.
    """
    is_ready = has_template(model)
    found = {candidate for candidate in list_candidates(device) if is_ready or candidate[0] == "torch"}
    ranks = _RANKS_ON_GPUS if find_device(device).type == "cuda" else _RANKS
    return [candidate for candidate in ranks if candidate in found]


def has_template(model: Model) -> bool:
    """Whether the graph of this network ships with pellucid, without weights."""
    from pellucid.backends import templates  # late, as in `cache_graph`

    if not templates.may_have_template(model.network):
        return False
    return templates.find_template(model.meta_network, model.metadata.num_planes) is not None


def _compare_candidates(
    model: Model, candidates: Sequence[tuple[str, str]], device: str, *, is_free: bool
) -> tuple[Backend, BackendChoice]:
    """is_free: whether any backend may be selected, so that one that does not work is passed over."""
    reference = TorchBackend(model.copy().network, device)
    equals = (reference.fingerprint(), *_list_graphs(model)) if is_free else ()
    found = []
    for candidate in candidates:
        accepted = equals if candidate[1] == "float32" else ()
        if candidate == _REFERENCE:
            return reference, BackendChoice(*candidate, _EXACT_DB, accepted)
        try:
            built = build_backend(model.copy() if candidate[0] == "torch" else model, *candidate, device)
            psnr_db = _measure_psnr(model, built, reference, candidate[1])
        except PellucidError:
            if not is_free:
                raise
            continue
        if psnr_db >= _min_psnr_db(candidate[1]):
            return built, BackendChoice(*candidate, psnr_db, accepted)
        found.append(f"{' '.join(candidate)} reaches {psnr_db:.1f} dB")
    raise PellucidError(
        f"{', '.join(found)} against torch float32, less than the {AUTO_MIN_PSNR_DB:.0f} dB that auto requires",
        hint="use it anyway by {backend}",
        backend=candidates[0][0],
    )


def _measure_psnr(model: Model, built: Backend, reference: Backend, precision: str) -> float:
    side_px = _SIDE_PX if precision == "float32" else _SIDE_HALF_PX
    inputs = parity.synthetic_inputs(model.recipe, side_px)
    return min(parity.compare(built, reference, [inputs]).psnr_db, _EXACT_DB)


def _min_psnr_db(precision: str) -> float:
    return AUTO_MIN_PSNR_DB if precision != "float32" else max(AUTO_MIN_PSNR_DB, parity.MIN_PSNR_DB["float32"])


def _list_graphs(model: Model) -> Iterator[str]:
    """The fingerprints of the graphs that "auto" selects in float32, on this machine or another one."""
    for backend, precision in _RANKS:
        if backend != "torch" and precision == "float32":
            yield runtimes.make_fingerprint(model.metadata.weights_sha256, backend, precision)


def _hash_model(model: Model, *more: object) -> str:
    """A hash of everything that determines a graph: weights, recipe, code and the versions of its writers."""
    metadata, code = model.metadata, model.recipe.network_sha256
    facts = more if code is None else (*more, code)
    parts = (CACHE_VERSION, OPSET, torch.__version__, metadata.weights_sha256, metadata.weights.recipe, facts)
    parameters = json.dumps(dict(metadata.weights.parameters), sort_keys=True)
    return _hash(repr((*parts, parameters)).encode())


def _describe_environment(device: str) -> tuple[object, ...]:
    """Everything that determines which backend is chosen: the rule, processor, device and versions."""
    found = find_device(device)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else ""
    machine = (platform.machine(), platform.processor(), str(found), name)
    return (_RULE, AUTO_MIN_PSNR_DB, *machine, *map(_find_version, ("onnxruntime", "openvino")))


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
