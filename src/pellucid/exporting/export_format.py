"""What an export format gets and what it provides.

A format is a file in `pellucid.exporting.formats` that defines `FORMAT`. Its name is the name of the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pellucid.backends import graphs, parity
from pellucid.backends.backend import Shape
from pellucid.backends.eager import DTYPES
from pellucid.backends.metadata import GraphMetadata
from pellucid.backends.model import Model

if TYPE_CHECKING:
    from onnx import ModelProto

Run = Callable[[Tensor], Tensor]
"""(N, C, H, W) float32 -> (N, C', scale * H, scale * W) float32."""


@dataclass(frozen=True)
class ExportRequest:
    """A model and how to export it.

    precision: in which the exported graph computes, one of `backends.metadata.PRECISIONS`.
    shape: the only input shape (N, C, H, W) that the graph accepts; any number and size of pictures if None.
    pictures: network inputs, (N, C, H, W) each, made from the user's pictures; int8 is calibrated on them.
    """

    model: Model
    precision: str = "float32"
    shape: Shape | None = None
    pictures: Sequence[Tensor] = ()

    @cached_property
    def metadata(self) -> GraphMetadata:
        """The metadata of the exported file."""
        return replace(self.model.metadata, precision=self.precision, shape=self.shape)

    def capture(self, dtype: torch.dtype | None = None) -> ExportedProgram:
        """The network as a graph that computes in `dtype`, or in the precision of the request if None."""
        dtype = dtype or DTYPES[self.precision]
        return graphs.capture(self.model.network, self.metadata.num_planes, dtype=dtype, shape=self.shape)

    def to_onnx(self, dtype: torch.dtype | None = None) -> "ModelProto":
        """The network as an ONNX model; see `capture`. Raises MissingExtraError without the ONNX packages."""
        return graphs.to_onnx(self.capture(dtype))


@dataclass(frozen=True)
class ExportFormat:
    """A file format, and how its own runtime runs what was written.

    suffix: of the file, with its dot. precisions: those that the format supports.
    write: writes a request to a path that does not exist yet, in a temporary folder for any other files.
    run: loads the written file into its own runtime.
    companions: suffixes of further files that belong to it, e.g. the weights of an .xml file.
    is_default: whether `suffix` alone means this format; False if another format uses the same suffix.
    parity_sizes: (H, W) of the inputs on which the written file is compared with the network.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[ExportRequest, Path], None]
    run: Callable[[ExportRequest, Path], Run]
    companions: tuple[str, ...] = ()
    is_default: bool = True
    parity_sizes: tuple[tuple[int, int], ...] = parity.SIZES
