"""What runs an exported graph without PyTorch computing: ONNX Runtime and OpenVINO, on the CPU."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.backends import graphs
from pellucid.backends.activation_memory import ActivationMemory
from pellucid.backends.backend import Shape
from pellucid.backends.eager import OVERHEAD
from pellucid.backends.metadata import PREFIX, GraphMetadata
from pellucid.errors import NotEnoughMemoryError, PellucidError, WeightsError
from pellucid.recipes.network import Network
from pellucid.system import optional_packages
from pellucid.system.optional_packages import import_optional

Samples = NDArray[np.float32]

_HEAD_BYTES = 4096
"""In which an .xml file says what it is."""

_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""What OpenVINO calls the precision of all that is not quantised."""


class _GraphBackend(ABC):
    """What both have in common: a graph, the facts about it, and how much memory its network takes."""

    runtime: str

    def __init__(self, facts: GraphMetadata, network: Network, fingerprint: str) -> None:
        self.scale, self.multiple, self.halo = facts.scale, facts.multiple, facts.halo
        self.facts, self.precision = facts, facts.precision
        self.device = torch.device("cpu")
        self._footprint, self._fingerprint = ActivationMemory(network), fingerprint

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.precision} on cpu"

    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', scale * H, scale * W)."""
        count, _, height, width = degraded.shape
        if self.facts.shape is not None and tuple(degraded.shape) != self.facts.shape:
            raise PellucidError(
                f"the model was exported for inputs of {_by(self.facts.shape)} only, and this one has "
                f"{_by(degraded.shape)}; export it without --shape"
            )
        with _failures_of(self.runtime):
            restored = self._run(np.ascontiguousarray(degraded.numpy(), np.float32))
        if restored.shape[0] != count or restored.shape[2:] != (height * self.scale, width * self.scale):
            raise PellucidError(f"{self.runtime} gave {_by(restored.shape)} for {_by(degraded.shape)}; use torch")
        return torch.from_numpy(restored)

    def working_bytes(self, shape: Shape, *, room: int = 0) -> int:
        """Memory that a call with (N, C, H, W) takes, at most."""
        return int(OVERHEAD * self._footprint.activation_bytes(shape, room=room / OVERHEAD))

    def fingerprint(self) -> str:
        """Tells one file, or way to run weights, from another."""
        return f"{self._fingerprint} {self.runtime} {self.precision}"

    @abstractmethod
    def _run(self, degraded: Samples) -> Samples:
        """The graph's own output."""


class OnnxBackend(_GraphBackend):
    """An ONNX file in ONNX Runtime. As many threads as PyTorch has.

    network: the same one without weights, which tells how much memory it takes.
    """

    runtime = "onnxruntime"

    def __init__(
        self, path: Path, facts: GraphMetadata, network: Network, *, fingerprint: str | None = None
    ) -> None:
        super().__init__(facts, network, fingerprint or _digest(path))
        runtime = import_optional("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is said in one line, by us
        with _failures_of(self.runtime, path):
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _run(self, degraded: Samples) -> Samples:
        restored: Samples = self._session.run([graphs.OUTPUT], {graphs.INPUT: degraded})[0]
        return restored


class OpenVinoBackend(_GraphBackend):
    """An OpenVINO or ONNX file in OpenVINO. As many threads as PyTorch has.

    precision: in which a graph of float32 computes; that of the file where None.
    """

    runtime = "openvino"

    def __init__(
        self,
        path: Path,
        facts: GraphMetadata,
        network: Network,
        *,
        precision: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(facts, network, fingerprint or _digest(path))
        self.precision = precision or facts.precision
        options = {
            # Without it, CPUs with bfloat16 compute in that whatever the file says.
            "INFERENCE_PRECISION_HINT": self._hint(),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        with _failures_of(self.runtime, path):
            self._compiled = import_optional("openvino").Core().compile_model(str(path), "CPU", options)

    def _hint(self) -> str:
        """A CPU that cannot compute in half precision takes the weights in it, and computes in float32."""
        hint = _HINTS[self.precision]
        return hint if hint == "f32" or hint in supported_precisions() else "f32"

    def _run(self, degraded: Samples) -> Samples:
        restored: Samples = self._compiled([degraded], share_inputs=True)[0]
        return restored


def check_installed(runtime: str) -> None:
    """Raise MissingExtraError where what runs graphs, or makes them, is not installed."""
    for package in ("onnx", "onnxscript", runtime):
        optional_packages.check_installed(package, needed_by=runtime)


def supported_precisions() -> set[str]:
    """The precisions in which OpenVINO computes on this CPU: f32, bf16, f16."""
    capabilities = import_optional("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {{"FP32": "f32", "BF16": "bf16", "FP16": "f16"}.get(name, name) for name in capabilities}


def read_metadata(path: Path) -> GraphMetadata:
    """What an .onnx or .xml file says about itself; nothing of it is compiled yet.

    Raises WeightsError where it is no such file, or none of ours.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"{path} {kind}; a model file is needed")
    metadata = _onnx_metadata(path) if path.suffix.lower() == ".onnx" else _openvino_metadata(path)
    return GraphMetadata.from_metadata(metadata, source=path)


def _onnx_metadata(path: Path) -> Mapping[str, str]:
    onnx = import_optional("onnx")
    with _failures_of("onnx", path):
        model = onnx.load(str(path), load_external_data=False)
    outside = onnx.TensorProto.EXTERNAL
    if any(tensor.data_location == outside for tensor in model.graph.initializer):
        raise WeightsError(f"{path} keeps weights in other files; pellucid's own are one file")
    return graphs.metadata_of({entry.key: entry.value for entry in model.metadata_props})


def _openvino_metadata(path: Path) -> Mapping[str, str]:
    if not path.with_suffix(".bin").is_file():
        raise WeightsError(f"{path} needs {path.with_suffix('.bin').name} beside it, which holds the weights")
    if b"<net" not in path.read_bytes()[:_HEAD_BYTES]:
        raise WeightsError(f"{path} is no model that openvino takes")  # it would try all else, and say so aloud
    with _failures_of("openvino", path):
        info = import_optional("openvino").Core().read_model(str(path)).rt_info
        return {key: value.astype(str) for key, value in info[PREFIX].items()} if PREFIX in info else {}


@contextmanager
def _failures_of(runtime: str, path: Path | None = None) -> Iterator[None]:
    """What a runtime raises, in one line: for a file that is none, or memory that does not do."""
    try:
        yield
    except (PellucidError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # the runtimes have trees of exceptions of their own, which share no root
        said = " ".join(str(error).split())
        if path is not None:
            raise WeightsError(f"{path} is no model that {runtime} takes: {said[:160]}") from error
        if any(sign in said.lower() for sign in ("alloc", "memory")):
            raise NotEnoughMemoryError(f"not enough memory in {runtime}; take smaller tiles") from error
        raise PellucidError(f"{runtime} cannot run the model: {said[:200]}") from error


def _digest(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix.lower() == ".xml":
        digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
