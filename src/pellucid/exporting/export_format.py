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
from pellucid.backends.sample_form import SampleForm
from pellucid.exporting import whole

if TYPE_CHECKING:
    from onnx import ModelProto

Run = Callable[..., Tensor]
"""(N, C, H, W) float32 -> (N, C', scale * H, scale * W) float32; for a whole graph, its inputs -> samples."""


@dataclass(frozen=True)
class ExportRequest:
    """A model and how to export it.

    precision: in which the exported graph computes, one of `backends.metadata.PRECISIONS`.
    shape: the only input shape that the graph accepts, (N, C, H, W) or as in `form`; any number and size of
        pictures if None.
    pictures: inputs of the graph, made from the user's pictures; int8 is calibrated on them.
    form: of the samples that a whole graph takes and returns; None for the network alone.
    """

    model: Model
    precision: str = "float32"
    shape: Shape | None = None
    pictures: Sequence[tuple[Tensor, ...]] = ()
    form: SampleForm | None = None

    @cached_property
    def metadata(self) -> GraphMetadata:
        """The metadata of the exported file."""
        found = replace(self.model.metadata, precision=self.precision, shape=self.shape, form=self.form)
        if self.form is None:
            return found
        domain = self.model.recipe.domain
        return replace(
            found,
            scale=domain.result_scale(found.scale),
            multiple=domain.grid_px(found.multiple),
            halo=domain.halo_px(found.halo),
            num_planes=whole.count_input_channels(domain, self.form),
        )

    def capture(self, dtype: torch.dtype | None = None) -> ExportedProgram:
        """The network or the whole as a graph. dtype: in which it computes; that of the request if None."""
        dtype = dtype or DTYPES[self.precision]
        if self.form is not None:
            return whole.capture_whole(self.model, self.form, dtype=dtype, shape=self.shape)
        return graphs.capture(self.model.network, self.metadata.num_planes, dtype=dtype, shape=self.shape)

    def to_onnx(self, dtype: torch.dtype | None = None) -> "ModelProto":
        """The network as an ONNX model; see `capture`. Raises MissingExtraError without the ONNX packages."""
        domain, form = self.model.recipe.domain, self.form
        names = None if form is None else whole.name_all_dimensions(domain, form)
        return graphs.to_onnx(self.capture(dtype), names)


@dataclass(frozen=True)
class ExportFormat:
    """A file format, and how its own runtime runs what was written.

    suffix: of the file, with its dot. precisions: those that the format supports.
    write: writes a request to a path that does not exist yet, in a temporary folder for any other files.
    run: loads the written file into its own runtime.
    companions: suffixes of further files that belong to it, e.g. the weights of an .xml file.
    takes_whole: whether it can contain a whole graph, or only a network.
    is_default: whether `suffix` alone means this format; False if another format uses the same suffix.
    note: for a precision, a message if the runtime computes in another one on this machine, otherwise None.
    parity_sizes: (H, W) of the inputs on which the written file is compared with the network.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[ExportRequest, Path], None]
    run: Callable[[ExportRequest, Path], Run]
    companions: tuple[str, ...] = ()
    takes_whole: bool = True
    is_default: bool = True
    note: Callable[[str], str | None] = lambda precision: None
    parity_sizes: tuple[tuple[int, int], ...] = parity.SIZES
