"""Read a weight file of another framework: its tensors, under the names in the file.

The content of the file decides which format it is, not its name. `pellucid.weights.translation` translates names
and layouts to ours.
"""

import importlib
import pkgutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pellucid.errors import MissingExtraError, WeightsError
from pellucid.weights.foreign.format import Format

MAX_BYTES = 1 << 30
"""Limit on the size of a file, and with it of its tensors; the largest weights of these networks have 64 MB."""


@dataclass(frozen=True)
class ForeignWeights:
    """The tensors of a foreign weight file, under the names in the file.

    framework: which one wrote the file, e.g. "MindSpore".
    tensors: convolutions are in torch's layout, except that the arrays of MATLAB v5 are as MATLAB shows them.
    """

    path: Path
    """The file that was read: of several files, the one that lists the tensors."""
    framework: str
    tensors: Mapping[str, Tensor]


def read(path: Path) -> ForeignWeights:
    """Read a weight file of another framework.

    path: of a checkpoint of several files, any of them, their folder, or the name that they share.
    Raises WeightsError if its format is not known, if it is damaged, if it contains NaN or infinite weights, or if
    it needs code to be run; MissingExtraError if it is MATLAB v7.3 and h5py is not installed.
    """
    path = next((index for known in list_foreign_formats() if (index := known.locate(path))), path)
    content = _read_content(path)
    found = _recognize(path, content)
    try:
        tensors = found.read(content, path)
        _check(tensors)
    except MissingExtraError:
        raise
    except Exception as error:  # on damage torch, zipfile and h5py raise nearly every kind of exception
        framework = f"{found.framework} " if path.suffix in found.suffixes else ""
        raise WeightsError(f"{path} cannot be read as a {framework}weight file: {_explain(error)}") from error
    return ForeignWeights(path, found.framework, tensors)


def _explain(error: Exception) -> str:
    """The reason that one of our readers gives. The wording of a library means nothing to users."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_ours = isinstance(error, ValueError) and frame.f_globals["__name__"].startswith("pellucid.")
    return str(error)[:300] if is_ours else "it is truncated or damaged"


@cache
def list_foreign_formats() -> tuple[Format, ...]:
    """The `FORMAT` of each file in this folder that has one."""
    package = importlib.import_module(__name__.rpartition(".")[0])
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = (importlib.import_module(f"{package.__name__}.{name}") for name in names)
    return tuple(module.FORMAT for module in modules if hasattr(module, "FORMAT"))


def _read_content(path: Path) -> bytes:
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weight file")
    if not path.is_file():  # a pipe or a device might never end
        raise WeightsError(f"{path} {'is not a regular file' if path.exists() else 'does not exist'}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path} is larger than {MAX_BYTES >> 20} MiB, the limit for weight files")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content:
        raise WeightsError(f"{path} is empty")
    return content


def _recognize(path: Path, content: bytes) -> Format:
    for known in list_foreign_formats():
        if known.recognize(content):
            return known
    suffixes: dict[str, str] = {known.framework: ", ".join(known.suffixes) for known in list_foreign_formats()}
    listed = ", ".join(f"{framework} ({names})" for framework, names in suffixes.items())
    head = content[:8]
    start = (
        f'"{head.decode()}"' if head.isascii() and head.decode().isprintable() else f"the bytes {head.hex(' ')}"
    )
    raise WeightsError(f"{path} begins with {start}, unlike any weight file of {listed}")


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not plain arrays of finite numbers, or that declare more than the file contains."""
    if not tensors:
        raise ValueError("it contains no tensors")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ValueError(f"{name} is not a plain tensor")
        if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} has type {tensor.dtype}, which is not a floating-point type")
        # A stride of 0 repeats one number any number of times.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} declares {tuple(tensor.shape)}, more than the file contains")
        num_bad = int((~tensor.float().isfinite()).sum())
        if num_bad:
            raise ValueError(f"{name} has {num_bad} NaN or infinite values of {tensor.numel()}")
