"""Whole graphs: they take the samples of a file, and return those of the result.

Everything between is in the graph: the colors, enlarging, chroma or packing of the domain before and after the
network, and rounding. Precisions below float32 concern the network only.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pellucid.backends import graphs
from pellucid.backends.backend import Shape
from pellucid.backends.graphs import Dimensions
from pellucid.backends.metadata import OUTPUT
from pellucid.backends.model import Model
from pellucid.backends.sample_form import DTYPES, NUM_CHANNELS, SampleForm
from pellucid.domains import (
    TYPICAL_WHITE_BALANCE,
    DevelopingDomain,
    Domain,
    PictureDomain,
    develops_mosaic,
    takes_mosaic,
)
from pellucid.errors import ArgumentError

Inputs = dict[str, Tensor]
"""The inputs of a whole graph by name, in order."""


class _WholePicture(nn.Module):
    def __init__(self, network: nn.Module, domain: PictureDomain, form: SampleForm) -> None:
        super().__init__()
        self.network, self._domain, self._form = network, domain, form

    def forward(self, picture: Tensor) -> Tensor:
        planes = self._form.to_planes(picture) / self._form.peak
        output = self.network(self._domain.planes_to_input(planes))
        return self._form.from_planes(self._domain.output_to_planes(output, planes))


class _WholeMosaic(nn.Module):
    """The mosaic starts with the domain's pattern and has complete blocks.

    A white balance that is not positive is unknown, as in RAW files; the typical one is used then.
    """

    def __init__(self, network: nn.Module, domain: DevelopingDomain, form: SampleForm) -> None:
        super().__init__()
        self.network, self._domain, self._form = network, domain, form

    def forward(
        self,
        mosaic: Tensor,
        black_levels: Tensor,
        white_level: Tensor,
        exposure_ratio: Tensor,
        white_balance: Tensor | None = None,
    ) -> Tensor:
        samples, period = self._form.to_planes(mosaic), len(self._domain.pattern)
        num_rows, num_cols = (size // period for size in samples.shape[-2:])
        black = black_levels[:, None].repeat(1, 1, num_rows, num_cols)
        linear = (samples - black).clamp(min=0) / (white_level[:, None, None, None] - black)
        gains = samples.new_ones(1, 3) if white_balance is None else _replace_unknown(white_balance)
        bright = linear * exposure_ratio[:, None, None, None]
        return self._form.from_planes(self.network(self._domain.linear_to_input(bright, gains)))


def _replace_unknown(white_balance: Tensor) -> Tensor:
    is_known = (white_balance > 0).all(dim=1, keepdim=True)
    return torch.where(is_known, white_balance, white_balance.new_tensor([TYPICAL_WHITE_BALANCE]))


def choose_form(domain: Domain, samples: str | None, layout: str | None, colors: str | None) -> SampleForm:
    """The form, with defaults for what is None: uint8, or uint16 for mosaics; nchw; the colors of the model.

    Raises ArgumentError for unknown names, and for mosaics that are not uint16 or give another picture than RGB.
    """
    if domain.gives_mosaic:
        raise ArgumentError("a model that returns mosaics has no whole graph", hint="omit {whole}")
    default_colors = "gray" if domain.colors == "gray" else "rgb"
    if not takes_mosaic(domain):
        return SampleForm(samples or "uint8", layout or "nchw", colors or default_colors)
    form = SampleForm(samples or "uint16", layout or "nchw", colors or "rgb")
    if form.samples != "uint16" or form.colors != "rgb":
        raise ArgumentError("a model for camera RAW files takes uint16 mosaics and gives uint16 RGB pictures")
    return form


def count_input_channels(domain: Domain, form: SampleForm) -> int:
    """Channels of the picture or mosaic that goes in."""
    return 1 if takes_mosaic(domain) else NUM_CHANNELS[form.colors]


def capture_whole(
    model: Model, form: SampleForm, *, dtype: torch.dtype = torch.float32, shape: Shape | None = None
) -> ExportedProgram:
    """The network with its domain as one graph. shape: the only shape of pictures; any if None."""
    domain, network = model.recipe.domain, graphs.freeze(model.network, dtype)
    examples = _build_examples(domain, form, shape)
    names = {} if shape else {name: _name_dimensions(name, form) for name in examples}
    module = _build_module(network, domain, form)
    module(*examples.values())  # computes the constants of enlarging, which cannot be traced
    block_px = len(domain.pattern) if takes_mosaic(domain) else 1
    return graphs.trace(module, examples, names, block_px=block_px)


def name_all_dimensions(domain: Domain, form: SampleForm) -> dict[str, Dimensions]:
    """Names of the inputs, in order, and of the output, with names of their free dimensions."""
    inputs = _build_examples(domain, form, None)
    return {**{name: _name_dimensions(name, form) for name in inputs}, OUTPUT: form.name_dimensions("restored_")}


def _name_dimensions(name: str, form: SampleForm) -> Dimensions:
    """Names of the free dimensions of an input."""
    if name in ("picture", "mosaic"):
        return form.name_dimensions()
    return {"black_levels": ("count", None, None), "white_balance": ("count", None)}.get(name, ("count",))


def _build_examples(domain: Domain, form: SampleForm, shape: Shape | None) -> Inputs:
    """Inputs of the right types and shapes, in order. shape: of the picture or mosaic; None for a small one."""
    num_channels = count_input_channels(domain, form)
    count, (height, width) = graphs.EXAMPLE_COUNT, graphs.EXAMPLE_SIZE
    if takes_mosaic(domain):
        height, width = (size * len(domain.pattern) for size in (height, width))
    if shape is None:
        nchw = form.layout == "nchw"
        shape = (count, num_channels, height, width) if nchw else (count, height, width, num_channels)
    samples = torch.zeros(shape, dtype=DTYPES[form.samples])
    if not develops_mosaic(domain):
        return {"picture": samples}
    period = len(domain.pattern)
    return build_mosaic_inputs(
        domain,
        samples,
        torch.zeros(shape[0], period, period),
        torch.full((shape[0],), float(form.peak)),
        torch.ones(shape[0]),
        torch.ones(shape[0], 3),
    )


def build_mosaic_inputs(
    domain: DevelopingDomain, mosaic: Tensor, black: Tensor, white: Tensor, ratio: Tensor, balance: Tensor
) -> Inputs:
    """The inputs of a graph for mosaics; some networks take no white balance."""
    inputs = {"mosaic": mosaic, "black_levels": black, "white_level": white, "exposure_ratio": ratio}
    return {**inputs, "white_balance": balance} if domain.white_balanced else inputs


def _build_module(network: nn.Module, domain: Domain, form: SampleForm) -> nn.Module:
    if develops_mosaic(domain):
        return _WholeMosaic(network, domain, form)
    return _WholePicture(network, cast(PictureDomain, domain), form)
