"""Formats of other runtimes: how a network is written in each, and how its own runtime runs what was written."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pellucid.backends import cells, graphs, mindir, parity, quantizing, runtimes
from pellucid.backends.eager import DTYPES
from pellucid.backends.facts import PRECISIONS, PREFIX, Facts
from pellucid.errors import PellucidError
from pellucid.recipe import Network, Recipe
from pellucid.system.extras import optional_package
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import Card

if TYPE_CHECKING:
    from onnx import ModelProto

Run = Callable[[Tensor], Tensor]

_SMALL = ((1, 1), (2, 3), (17, 31), (32, 24))
"""Sizes for MindSpore, whose convolutions on CPUs take 300 times as long as PyTorch's."""


@dataclass(frozen=True)
class Plan:
    """What is to be written. pictures: the user's, as the network takes them; int8 is calibrated on these."""

    network: Network
    recipe: Recipe
    facts: Facts
    pictures: Sequence[Tensor] = ()

    @classmethod
    def of(cls, network: Network, recipe: Recipe, card: Card) -> "Plan":
        """A float32 file for inputs of any size."""
        digest = checkpoint.fingerprint(network.state_dict())
        return cls(network, recipe, Facts.of(network, recipe, card, weights_sha256=digest))

    @cached_property
    def shadow(self) -> Network:
        """The network without weights, which tells how much memory it takes."""
        return copy.deepcopy(self.network.folded()).to("meta")

    def copy(self) -> "Plan":
        """With a network of its own, which may be converted."""
        return replace(self, network=copy.deepcopy(self.network))

    def onnx(self, precision: str | None = None) -> "ModelProto":
        """The network as an ONNX graph that computes in a precision, or in float32 where that is int8."""
        dtype = DTYPES.get(precision or self.facts.precision, torch.float32)
        return graphs.to_onnx(self.captured(dtype))

    def captured(self, dtype: torch.dtype | None = None) -> ExportedProgram:
        """The network as a graph that computes in a type, or in that of the precision."""
        dtype = dtype or DTYPES[self.facts.precision]
        return graphs.capture(self.network, self.facts.num_planes, dtype=dtype, shape=self.facts.shape)


def planned(path: Path, /, **parameters: object) -> tuple[Plan, Card]:
    """What is to be written of a weight file, and its card as it stands there; the plan's own has the changes.

    parameters: recipe keywords to change. Raises as `checkpoint.load`.
    """
    network, recipe, card = checkpoint.load(path, **parameters)
    return Plan.of(network, recipe, card), card


@dataclass(frozen=True)
class Format:
    """write: into a new file. run: what was written. beside: suffixes of files that belong to it.

    sizes: of the inputs that the parity check compares, (H, W).
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[Plan, Path], None]
    run: Callable[[Plan, Path], Run]
    beside: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = parity.SIZES


def _write_onnx(plan: Plan, path: Path) -> None:
    model = plan.onnx()
    graphs.annotate(model, plan.facts.to_metadata())
    path.write_bytes(model.SerializeToString())


def _run_onnx(plan: Plan, path: Path) -> Run:
    return runtimes.OnnxBackend(path, plan.facts, plan.shadow)


def _write_openvino(plan: Plan, path: Path) -> None:
    openvino = optional_package("openvino")
    graph = path.with_suffix(".onnx")
    # Half precision is a matter of how the plugin computes; the graph is always that of float32.
    graph.write_bytes(plan.onnx("float32").SerializeToString())
    model = openvino.Core().read_model(str(graph))
    precision = plan.facts.precision
    if precision == "int8":
        model = quantizing.quantize(model, plan.pictures)
    for key, value in plan.facts.to_metadata().items():
        model.set_rt_info(value, [PREFIX, key])
    # float16 holds all that bfloat16 does of weights, which are far from its limits.
    openvino.save_model(model, str(path), compress_to_fp16=precision in ("float16", "bfloat16"))


def _run_openvino(plan: Plan, path: Path) -> Run:
    return runtimes.OpenVinoBackend(path, plan.facts, plan.shadow)


def _write_torch(plan: Plan, path: Path) -> None:
    torch.export.save(plan.captured(), path, extra_files={f"{PREFIX}.json": json.dumps(plan.facts.to_metadata())})


def _run_torch(plan: Plan, path: Path) -> Run:
    module = torch.export.load(path).module()
    return torch.inference_mode()(lambda degraded: module(degraded))


def _write_aoti(plan: Plan, path: Path) -> None:
    inductor: Any = import_module("torch._inductor")
    errors: Any = import_module("torch._inductor.exc")
    _check_compiler()
    options = {
        "aot_inductor.metadata": {f"{PREFIX}.{key}": text for key, text in plan.facts.to_metadata().items()},
        # As many threads as there are where it runs, not as here.
        "cpp.dynamic_threads": True,
    }
    program = plan.captured()
    try:
        with graphs.quiet():
            inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except (errors.InductorError, errors.CppCompileError) as error:
        said = _what_failed(str(error))
        raise PellucidError(
            f"aoti cannot compile the network: {said}; another compiler may do: CXX=/path/to/g++"
        ) from error


def _what_failed(said: str) -> str:
    """The line of a compiler's report that names the error."""
    lines = [line.strip()[:200] for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else "no reason given")


def _check_compiler() -> None:
    builder, errors = (import_module(f"torch._inductor.{name}") for name in ("cpp_builder", "exc"))
    try:
        builder.get_cpp_compiler()
    except (errors.InvalidCxxCompiler, OSError) as error:
        raise PellucidError(
            "aoti compiles the network and finds no C++ compiler; install one (apt-get install g++), or say where "
            "it is: CXX=/path/to/g++"
        ) from error


def _run_aoti(plan: Plan, path: Path) -> Run:
    inductor: Any = import_module("torch._inductor")
    module = inductor.aoti_load_package(str(path))
    return torch.inference_mode()(lambda degraded: module(degraded))


def _write_mindir(plan: Plan, path: Path, *, air: bool = False) -> None:
    mindir.write(
        cells.translate(plan.captured()),
        path,
        plan.facts.to_metadata(),
        num_planes=plan.facts.num_planes,
        shape=plan.facts.shape,
        air=air,
    )


def _run_mindir(plan: Plan, path: Path) -> Run:
    return mindir.Runner(path)


def _write_air(plan: Plan, path: Path) -> None:
    if not any(Path("/dev").glob("davinci*")):
        raise PellucidError(
            "only Ascend hardware with CANN can write AIR, and there is none here; export to mindir, MindSpore's "
            "format for every device"
        )
    _write_mindir(plan, path, air=True)


_ALL = (
    # ONNX Runtime has no bfloat16 convolution on CPUs.
    Format("onnx", ".onnx", ("float32", "float16"), _write_onnx, _run_onnx),
    Format("openvino", ".xml", PRECISIONS, _write_openvino, _run_openvino, beside=(".bin",)),
    # Of two formats with one suffix the first is meant where none is named.
    Format("torch", ".pt2", ("float32", "bfloat16", "float16"), _write_torch, _run_torch),
    Format("aoti", ".pt2", ("float32", "bfloat16", "float16"), _write_aoti, _run_aoti),
    Format("mindir", ".mindir", ("float32", "float16"), _write_mindir, _run_mindir, sizes=_SMALL),
    # MindSpore does not run AIR files: what is compared is the MindIR file of the same cell.
    Format("air", ".air", ("float32",), _write_air, _run_mindir, sizes=_SMALL),
)
FORMATS = {known.name: known for known in _ALL}
