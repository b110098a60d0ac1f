"""Formats of other runtimes: how a network is written in each, and how its own runtime runs what was written."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.backends import graphs, parity, runtimes
from pellucid.backends.metadata import PRECISIONS, PREFIX
from pellucid.backends.model import Model
from pellucid.errors import PellucidError
from pellucid.export import mindir, mindspore_cell, quantization
from pellucid.system.optional_packages import import_optional

if TYPE_CHECKING:
    pass


Run = Callable[[Tensor], Tensor]

_SMALL = ((1, 1), (2, 3), (17, 31), (32, 24))
"""Sizes for MindSpore, whose convolutions on CPUs take 300 times as long as PyTorch's."""


@dataclass(frozen=True)
class ExportFormat:
    """write: into a new file. run: what was written. beside: suffixes of files that belong to it.

    sizes: of the inputs that the parity check compares, (H, W).
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[Model, Path], None]
    run: Callable[[Model, Path], Run]
    beside: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = parity.SIZES


def _write_onnx(plan: Model, path: Path) -> None:
    model = plan.onnx()
    graphs.annotate(model, plan.facts.to_metadata())
    path.write_bytes(model.SerializeToString())


def _run_onnx(plan: Model, path: Path) -> Run:
    return runtimes.OnnxBackend(path, plan.facts, plan.shadow)


def _write_openvino(plan: Model, path: Path) -> None:
    openvino = import_optional("openvino")
    graph = path.with_suffix(".onnx")
    # Half precision is a matter of how the plugin computes; the graph is always that of float32.
    graph.write_bytes(plan.onnx("float32").SerializeToString())
    model = openvino.Core().read_model(str(graph))
    precision = plan.facts.precision
    if precision == "int8":
        model = quantization.quantize(model, plan.pictures)
    for key, value in plan.facts.to_metadata().items():
        model.set_rt_info(value, [PREFIX, key])
    # float16 holds all that bfloat16 does of weights, which are far from its limits.
    openvino.save_model(model, str(path), compress_to_fp16=precision in ("float16", "bfloat16"))


def _run_openvino(plan: Model, path: Path) -> Run:
    return runtimes.OpenVinoBackend(path, plan.facts, plan.shadow)


def _write_torch(plan: Model, path: Path) -> None:
    torch.export.save(plan.captured(), path, extra_files={f"{PREFIX}.json": json.dumps(plan.facts.to_metadata())})


def _run_torch(plan: Model, path: Path) -> Run:
    module = torch.export.load(path).module()
    return torch.inference_mode()(lambda degraded: module(degraded))


def _write_aoti(plan: Model, path: Path) -> None:
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


def _run_aoti(plan: Model, path: Path) -> Run:
    inductor: Any = import_module("torch._inductor")
    module = inductor.aoti_load_package(str(path))
    return torch.inference_mode()(lambda degraded: module(degraded))


def _write_mindir(plan: Model, path: Path, *, air: bool = False) -> None:
    mindir.write(
        mindspore_cell.translate(plan.captured()),
        path,
        plan.facts.to_metadata(),
        num_planes=plan.facts.num_planes,
        shape=plan.facts.shape,
        air=air,
    )


def _run_mindir(plan: Model, path: Path) -> Run:
    return mindir.Runner(path)


def _write_air(plan: Model, path: Path) -> None:
    if not any(Path("/dev").glob("davinci*")):
        raise PellucidError(
            "only Ascend hardware with CANN can write AIR, and there is none here; export to mindir, MindSpore's "
            "format for every device"
        )
    _write_mindir(plan, path, air=True)


_ALL = (
    # ONNX Runtime has no bfloat16 convolution on CPUs.
    ExportFormat("onnx", ".onnx", ("float32", "float16"), _write_onnx, _run_onnx),
    ExportFormat("openvino", ".xml", PRECISIONS, _write_openvino, _run_openvino, beside=(".bin",)),
    # Of two formats with one suffix the first is meant where none is named.
    ExportFormat("torch", ".pt2", ("float32", "bfloat16", "float16"), _write_torch, _run_torch),
    ExportFormat("aoti", ".pt2", ("float32", "bfloat16", "float16"), _write_aoti, _run_aoti),
    ExportFormat("mindir", ".mindir", ("float32", "float16"), _write_mindir, _run_mindir, sizes=_SMALL),
    # MindSpore does not run AIR files: what is compared is the MindIR file of the same cell.
    ExportFormat("air", ".air", ("float32",), _write_air, _run_mindir, sizes=_SMALL),
)
FORMATS = {known.name: known for known in _ALL}
