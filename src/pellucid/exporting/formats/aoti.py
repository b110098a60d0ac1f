"""AOTInductor: one .pt2 file with the network as machine code, which libtorch loads in C++.

Metadata is in the package as `pellucid.KEY`. The file runs only on this type of
processor and with this release of PyTorch.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pellucid.backends import graphs
from pellucid.backends.metadata import PREFIX
from pellucid.errors import PellucidError
from pellucid.exporting.export_format import ExportFormat, ExportRequest, Run

_COMPILER_HINT = "CXX=/path/to/g++ selects another compiler"


def write(request: ExportRequest, path: Path) -> None:
    """Takes 15 to 90 s. Raises PellucidError without a C++ compiler that works."""
    inductor: Any = import_module("torch._inductor")
    errors: Any = import_module("torch._inductor.exc")
    _check_compiler()
    options = {
        "aot_inductor.metadata": {f"{PREFIX}.{key}": text for key, text in request.metadata.to_entries().items()},
        # The number of threads of the machine that runs it, not of this one.
        "cpp.dynamic_threads": True,
    }
    program = request.capture()
    try:
        with graphs.quiet():
            inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except (errors.InductorError, errors.CppCompileError) as error:
        raise PellucidError(
            f"aoti cannot compile the network: {_find_reason(str(error))}", hint=_COMPILER_HINT
        ) from error


def run(request: ExportRequest, path: Path) -> Run:
    """Loads the file in this process."""
    inductor: Any = import_module("torch._inductor")
    module = inductor.aoti_load_package(str(path))
    return torch.inference_mode()(lambda *inputs: module(*inputs))


def _check_compiler() -> None:
    builder, errors = (import_module(f"torch._inductor.{name}") for name in ("cpp_builder", "exc"))
    try:
        builder.get_cpp_compiler()
    except (errors.InvalidCxxCompiler, OSError) as error:
        raise PellucidError(
            "aoti compiles the network and needs a C++ compiler, but found none",
            hint=f"install one (apt-get install g++), or {_COMPILER_HINT}",
        ) from error


def _find_reason(report: str) -> str:
    """The line of a compiler's report that names the error."""
    lines = [line.strip()[:200] for line in report.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[0] if lines else "no reason given")


FORMAT = ExportFormat("aoti", ".pt2", ("float32", "bfloat16", "float16"), write, run, is_default=False)
