"""Runs an exported graph with ONNX Runtime or OpenVINO."""

import hashlib
import platform
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.backends.accelerators import check_provider, find_openvino_device, find_provider
from pellucid.backends.activation_memory import ActivationMemory
from pellucid.backends.backend import Shape
from pellucid.backends.fixed_shape import FixedShape
from pellucid.backends.metadata import (
    INPUT,
    OUTPUT,
    PREFIX,
    GraphMetadata,
    check_stored_weights,
    hash_onnx_weights,
)
from pellucid.errors import NotEnoughMemoryError, PellucidError, WeightsError
from pellucid.recipes.network import Network
from pellucid.system import optional_packages
from pellucid.system.optional_packages import import_optional

Samples = NDArray[np.float32]

_HEAD_BYTES = 4096
"""Within these bytes, OpenVINO's .xml files have their <net> element."""

_NARROW_PX = 32
"""Narrower inputs are computed in float32 instead of bfloat16; U-Nets reduce their columns to a sixteenth."""

_PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""OpenVINO's names of the precision of all layers that are not quantized."""


class GraphBackend(ABC):
    """Base class of the backends that run a file.

    network: the same network, with or without weights; only its shapes are used, to find how much memory it takes.
    fixed_shape: how inputs of any size are computed if the graph takes one shape only; otherwise None.
    device: where the runtime computes; inputs and outputs are on the CPU.
    """

    runtime: str
    frees_activations = False  # the runtimes keep their memory

    def __init__(self, metadata: GraphMetadata, network: Network, fingerprint: str, device: str) -> None:
        self.scale, self.multiple, self.halo = metadata.scale, metadata.multiple, metadata.halo
        self.metadata, self.precision = metadata, metadata.precision
        self.device, self.runtime_device = torch.device("cpu"), "cpu" if device == "auto" else device
        self._memory, self._fingerprint = ActivationMemory(network), fingerprint
        self.fixed_shape = (
            None if metadata.shape is None else FixedShape(metadata.shape, self.scale, self.multiple, self.halo)
        )

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.precision} on {self.runtime_device}"

    @property
    @abstractmethod
    def note(self) -> str | None:
        """See `Backend.note`."""

    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', scale * H, scale * W). Raises PictureError as `FixedShape.check` does."""
        count, _, height, width = degraded.shape
        planes = np.ascontiguousarray(degraded.numpy(), np.float32)
        with translate_errors(self.runtime):
            restored = self._run(planes) if self.fixed_shape is None else self.fixed_shape.run(self._run, planes)
        if restored.shape[0] != count or restored.shape[2:] != (height * self.scale, width * self.scale):
            raise PellucidError(
                f"for an input of {_format_shape(degraded.shape)}, {self.runtime} returned "
                f"{_format_shape(restored.shape)}",
                hint="{backend} can be another one",
            )
        return torch.from_numpy(restored)

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """An upper bound of the memory for a call."""
        if self.fixed_shape is None:
            return self._memory.working_bytes(shape, available_bytes=available_bytes)
        joined_bytes = 2 * 4 * prod(shape) * self.scale**2  # the input and the output, which windows are copied to
        left_bytes = max(0, available_bytes - joined_bytes)
        return joined_bytes + self._memory.working_bytes(self.fixed_shape.shape, available_bytes=left_bytes)

    def device_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """0: inputs and outputs are on the CPU, and nothing is known about other memory."""
        return 0

    def fingerprint(self) -> str:
        """Differs if the file, the weights, the runtime, the precision or the device differ."""
        device = "" if self.runtime_device == "cpu" else f" {self.runtime_device}"
        return make_fingerprint(self._fingerprint, self.runtime, self.precision) + device

    @abstractmethod
    def _run(self, degraded: Samples) -> Samples:
        """The output of the graph. Several threads may call it."""

    def __reduce__(self) -> NoReturn:
        raise PellucidError(
            f"a model that {self.runtime} runs cannot be pickled", hint="load it again where it is needed"
        )


class OnnxBackend(GraphBackend):
    """An ONNX file in ONNX Runtime, with as many threads as PyTorch.

    metadata: of the file; see `read_metadata`. network: only its shapes are used, for `working_bytes`.
    fingerprint: of the weights if known; of the file if None. device: see `accelerators.find_provider`.

    Raises MissingExtraError without onnxruntime, WeightsError if it cannot load the file, PellucidError if it
    cannot use the device.
    """

    runtime = "onnxruntime"

    def __init__(
        self,
        path: Path,
        metadata: GraphMetadata,
        network: Network,
        *,
        fingerprint: str | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(metadata, network, fingerprint or _hash_file(path), device)
        self._session = open_onnx(path, device)

    @property
    def note(self) -> str | None:
        return note_onnx_precision(self.precision)

    def _run(self, degraded: Samples) -> Samples:
        restored: Samples = self._session.run([OUTPUT], {INPUT: degraded})[0]
        return restored


class OpenVinoBackend(GraphBackend):
    """An OpenVINO (.xml with .bin) or ONNX file in OpenVINO, with as many threads as PyTorch.

    precision: in which a float32 graph computes; that of the file if None. device: see
    `accelerators.find_openvino_device`. Other arguments: see `OnnxBackend`.

    Raises MissingExtraError without openvino, WeightsError if it cannot load the file, PellucidError if it does
    not find the device.
    """

    runtime = "openvino"

    def __init__(
        self,
        path: Path,
        metadata: GraphMetadata,
        network: Network,
        *,
        precision: str | None = None,
        fingerprint: str | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(metadata, network, fingerprint or _hash_file(path), device)
        self.precision = precision or metadata.precision
        self._compiled = _compile_openvino(path, self.precision, device)
        self._local = threading.local()
        self._compile_exact = lru_cache(partial(_compile_openvino, path, "float32", device))
        self._is_bfloat16 = _choose_hint(self.precision, find_openvino_device(device)) == "bf16"

    @property
    def note(self) -> str | None:
        return note_openvino_precision(self.precision)

    def _run(self, degraded: Samples) -> Samples:
        # In bfloat16, results of its kernels for AMX are wrong where features have a single column.
        is_narrow = self._is_bfloat16 and degraded.shape[-1] < _NARROW_PX
        request = self._find_request("exact" if is_narrow else "usual")
        restored: Samples = request.infer([degraded], share_inputs=True)[0]
        return restored

    def _find_request(self, name: str) -> Any:
        """This thread's own request: a compiled model has a single one, which is busy until it is done."""
        requests = vars(self._local)
        if name not in requests:
            compiled = self._compile_exact() if name == "exact" else self._compiled
            requests[name] = compiled.create_infer_request()
        return requests[name]


def make_fingerprint(weights: str, runtime: str, precision: str) -> str:
    """That of a `GraphBackend` on the CPU. weights: of the weights or of the file."""
    return f"{weights} {runtime} {precision}"


def note_onnx_precision(precision: str) -> str | None:
    """A message if ONNX Runtime computes in another precision on this machine, otherwise None."""
    # Its float16 convolutions are for ARM; elsewhere it inserts casts.
    if precision != "float16" or platform.machine().lower() in ("arm64", "aarch64"):
        return None
    return "onnxruntime computes float16 in float32 on this CPU: the file is smaller, but not faster"


def note_openvino_precision(precision: str) -> str | None:
    """A message if OpenVINO computes in another precision on this machine, otherwise None."""
    if precision not in ("bfloat16", "float16") or _choose_hint(precision) != "f32":
        return None
    return f"openvino computes in float32: this CPU does not support {precision}"


def load_onnx(path: Path) -> Callable[..., Tensor]:
    """A graph with any inputs, as a function of tensors. Raises the errors of `OnnxBackend`."""
    session = open_onnx(path)
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        arrays = dict(zip(names, (each.contiguous().numpy() for each in inputs), strict=True))
        with translate_errors("onnxruntime"):
            return torch.from_numpy(session.run([OUTPUT], arrays)[0])

    return run


def load_openvino(path: Path, precision: str) -> Callable[..., Tensor]:
    """A graph with any inputs, as a function of tensors. Raises the errors of `OpenVinoBackend`."""
    compiled = _compile_openvino(path, precision)

    def run(*inputs: Tensor) -> Tensor:
        with translate_errors("openvino"):
            return torch.from_numpy(compiled([each.contiguous().numpy() for each in inputs])[0].copy())

    return run


def open_onnx(path: Path, device: str = "cpu") -> Any:
    """A session of ONNX Runtime. device: see `find_provider`, whose errors it raises.

    Raises WeightsError if it cannot load the file.
    """
    runtime = import_optional("onnxruntime")
    provider, settings = find_provider(device)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # only fatal ones: errors are raised as one line
    if provider == "DmlExecutionProvider":  # it supports nothing else
        options.enable_mem_pattern, options.execution_mode = False, runtime.ExecutionMode.ORT_SEQUENTIAL
    with translate_errors("onnxruntime", path):
        session = runtime.InferenceSession(str(path), options, providers=[(provider, settings)])
    check_provider(session, device, provider)
    return session


def _compile_openvino(path: Path, precision: str, device: str = "cpu") -> Any:
    found = find_openvino_device(device)
    # Without this, devices that support half precision use it, whatever the precision of the file.
    options: dict[str, object] = {"INFERENCE_PRECISION_HINT": _choose_hint(precision, found)}
    if found == "CPU":
        options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    with translate_errors("openvino", path):
        return import_optional("openvino").Core().compile_model(str(path), found, options)


def _choose_hint(precision: str, device: str = "CPU") -> str:
    """float32 on devices that cannot compute in half precision."""
    hint = _PRECISION_HINTS[precision]
    return hint if hint == "f32" or hint in supported_precisions(device) else "f32"


def check_installed(runtime: str) -> None:
    """Raise MissingExtraError if a runtime, or a package that writes graphs for it, is not installed."""
    for package in ("onnx", "onnxscript", runtime):
        optional_packages.check_installed(package, needed_by=runtime)


def supported_precisions(device: str = "CPU") -> set[str]:
    """The precisions in which OpenVINO computes on this device, out of f32, bf16 and f16."""
    openvino = import_optional("openvino")
    with translate_errors("openvino"):
        capabilities = openvino.Core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    return {{"FP32": "f32", "BF16": "bf16", "FP16": "f16"}.get(name, name) for name in capabilities}


def is_foreign(path: Path) -> bool:
    """Whether this is an ONNX file that another program wrote: without pellucid's metadata."""
    return path.suffix.lower() == ".onnx" and path.is_file() and "recipe" not in _read_onnx_entries(path)[0]


def read_metadata(path: Path) -> GraphMetadata:
    """The metadata of an .onnx or .xml file; the graph is not compiled.

    Raises WeightsError if there is no such file, if it is not pellucid's, or if its weights are not those that the
    metadata were written for.
    """
    if not path.is_file():
        raise WeightsError(f"{path} {'is a folder, not a model file' if path.is_dir() else 'does not exist'}")
    entries, stored_sha256 = _read_onnx(path) if path.suffix.lower() == ".onnx" else _read_openvino(path)
    check_stored_weights(entries, stored_sha256, source=path)
    return GraphMetadata.from_entries(entries, source=path)


def _read_onnx(path: Path) -> tuple[Mapping[str, str], str]:
    """(metadata, hash of the weights)"""
    entries, model = _read_onnx_entries(path)
    external = import_optional("onnx").TensorProto.EXTERNAL
    if any(tensor.data_location == external for tensor in model.graph.initializer):
        raise WeightsError(f"{path} refers to weights in other files, which is not supported")
    return entries, hash_onnx_weights(model)


def _read_onnx_entries(path: Path) -> tuple[Mapping[str, str], Any]:
    """(metadata, the model)"""
    onnx = import_optional("onnx")
    with translate_errors("onnx", path):
        model = onnx.load(str(path), load_external_data=False)
    head = f"{PREFIX}."
    entries = {
        entry.key.removeprefix(head): entry.value for entry in model.metadata_props if entry.key.startswith(head)
    }
    return entries, model


def _read_openvino(path: Path) -> tuple[Mapping[str, str], str]:
    """(metadata, hash of the weights)"""
    if not path.with_suffix(".bin").is_file():
        raise WeightsError(f"{path} needs {path.with_suffix('.bin').name}, the file with its weights, next to it")
    if b"<net" not in path.read_bytes()[:_HEAD_BYTES]:
        # OpenVINO would try all its other formats, and print their errors.
        raise WeightsError(f"{path} is not a model that openvino can load", hint="export or copy it again")
    with translate_errors("openvino", path):
        info = import_optional("openvino").Core().read_model(str(path)).rt_info
        entries = {key: value.astype(str) for key, value in info[PREFIX].items()} if PREFIX in info else {}
    return entries, hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()


def _shorten_load_error(message: str) -> str:
    """What a runtime says about a damaged file, without places in its source code and its checks."""
    if missing := re.search(r'External data path does not exist: "([^"]+)"', message):
        return f"its weights are in {Path(missing[1]).name}, which is not next to it"
    message = re.sub(r"(Exception from |Check '[^']*' failed at )?src/\S+?:\d+:\s*", "", message)
    message = re.sub(r"^Load model from .* failed: ?", "", message)
    if re.search(r"(?i)wire format was corrupt|no graph was found|protobuf|error parsing message", message):
        return "it is damaged, or of another format"
    return message if len(message) <= 160 else f"{message[:157]}..."


@contextmanager
def translate_errors(runtime: str, path: Path | None = None) -> Iterator[None]:
    """Raise what a runtime raises as a PellucidError of one line.

    path: of the file that is being loaded; None while it runs.
    """
    try:
        yield
    except (PellucidError, MemoryError, KeyboardInterrupt):
        raise
    except PermissionError as error:
        raise WeightsError(f"{path or error.filename} cannot be read: {error.strerror}") from error
    except Exception as error:  # the exceptions of the runtimes have no common base class
        message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
        if path is not None and path.is_file() and not path.stat().st_size:
            raise WeightsError(f"{path} is empty", hint="export or copy it again") from error
        if path is not None:
            reason = _shorten_load_error(message)
            raise WeightsError(
                f"{path} is not a model that {runtime} can load: {reason}", hint="export or copy it again"
            ) from error
        if any(sign in message.lower() for sign in ("alloc", "memory")):
            raise NotEnoughMemoryError(
                f"not enough memory in {runtime}", hint="use smaller tiles ({tile_px})"
            ) from error
        raise PellucidError(f"{runtime} cannot run the model: {message[:200]}") from error


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix.lower() == ".xml":
        digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


def _format_shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
