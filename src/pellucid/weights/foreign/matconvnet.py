"""MatConvNet in MATLAB v7.3 files, which are HDF5: the layers of a simplenn network."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pellucid.errors import MissingExtraError
from pellucid.system.wording import format_count
from pellucid.weights.foreign.format import MAX_UNPACKED_BYTES, Format, tensor_from_array

HDF5 = b"\x89HDF\r\n\x1a\n"


def recognize(content: bytes) -> bool:
    return content.startswith(HDF5) or content[512:520] == HDF5  # after MATLAB's own header of 512 bytes


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    """`net.layers.N.weight`, `.bias` and `.moments`, N from 1 as MATLAB counts, convolutions in torch's layout.

    Raises MissingExtraError if h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading MATLAB files", "convert") from error
    with h5py.File(io.BytesIO(content), "r") as file:
        if "net/layers" not in file:
            raise ValueError(f"it has {', '.join(list(file)[:4])}, not the net.layers of MatConvNet")
        datasets: dict[str, Any] = {}
        for number, reference in enumerate(_read_few(file["net/layers"]), start=1):
            stored = _find_datasets(file, file[reference], number)
            datasets |= {f"net.layers.{number}.{leaf}": dataset for leaf, dataset in stored.items()}
        # Before any of them is read: a file may declare any shape, and the same dataset many times.
        if sum(dataset.nbytes for dataset in datasets.values()) > MAX_UNPACKED_BYTES:
            raise ValueError(f"its layers declare more than {MAX_UNPACKED_BYTES >> 20} MiB")
        return {name: _to_torch_layout(name, tensor_from_array(dataset[()])) for name, dataset in datasets.items()}


def _find_datasets(file: Any, layer: Any, number: int) -> dict[str, Any]:
    """The datasets of a layer, not yet read."""
    leaves = {"conv": ("weight", "bias"), "bnorm": ("weight", "bias", "moments"), "relu": (), "loss": ()}
    kind = "".join(chr(code) for code in _read_few(layer["type"]))
    if kind not in leaves:
        raise ValueError(f"layer {number} is a {kind[:20]!r}; known: {', '.join(leaves)}")
    for option in ("stride", "dilate"):
        if option in layer and any(value != 1 for value in _read_few(layer[option])):
            raise ValueError(f"layer {number} has a {option} other than 1, unlike any DnCNN")
    if not leaves[kind]:
        return {}
    datasets = [file[reference] for reference in _read_few(layer["weights"])]
    if len(datasets) != len(leaves[kind]):
        raise ValueError(f"layer {number} has {len(datasets)} arrays of weights, not {len(leaves[kind])}")
    return dict(zip(leaves[kind], datasets, strict=True))


def _read_few(dataset: Any) -> list[Any]:
    if dataset.size > 1000:
        raise ValueError(f"{dataset.name} declares {format_count(dataset.size, 'value')}")
    return list(np.asarray(dataset[()]).ravel())


def _to_torch_layout(name: str, array: Tensor) -> Tensor:
    """HDF5 shows MATLAB's axes in reverse: (out, in, width, height) for a convolution."""
    if name.endswith(".moments"):
        return array
    if array.ndim < 3:
        return array.flatten()
    if array.ndim == 3:  # MATLAB drops the last axis if there is one output
        array = array.unsqueeze(0)
    return array.transpose(-1, -2).contiguous()


FORMAT = Format("MATLAB", (".mat",), recognize, read)
