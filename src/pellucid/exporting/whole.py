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
    DenoisingDomain,
    DevelopingDomain,
    Domain,
    PictureDomain,
    denoises_mosaic,
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


class _DevelopedMosaic(nn.Module):
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
        samples = self._form.to_planes(mosaic)
        black, span = _find_levels(samples, black_levels, white_level)
        linear = (samples - black).clamp(min=0) / span
        gains = samples.new_ones(1, 3) if white_balance is None else _replace_unknown(white_balance)
        bright = linear * exposure_ratio[:, None, None, None]
        return self._form.from_planes(self.network(self._domain.linear_to_input(bright, gains)))


class _DenoisedMosaic(nn.Module):
    """The mosaic starts with the domain's pattern and has complete blocks; so does the result."""

    def __init__(self, network: nn.Module, domain: DenoisingDomain, form: SampleForm) -> None:
        super().__init__()
        self.network, self._domain, self._form = network, domain, form

    def forward(
        self, mosaic: Tensor, black_levels: Tensor, white_level: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        samples = self._form.to_planes(mosaic)
        black, span = _find_levels(samples, black_levels, white_level)
        stated = samples.new_tensor([self._domain.noise]) if noise is None else noise
        linear = (samples - black) / span
        # Of white, it must be 1, but OpenVINO multiplies by the reciprocal.
        is_saturated = samples >= white_level[:, None, None, None]
        linear = torch.where(is_saturated, linear.clamp(min=1), linear)
        planes = self._domain.linear_to_planes(linear, stated)
        output = self.network(self._domain.planes_to_input(planes))
        return self._form.from_levels(self._domain.output_to_planes(output, planes) * span + black)


def _find_levels(samples: Tensor, black_levels: Tensor, white_level: Tensor) -> tuple[Tensor, Tensor]:
    """The black level of each sample, (N, 1, H, W), and how far white is above it."""
    num_rows, num_cols = (
        size // period for size, period in zip(samples.shape[-2:], black_levels.shape[-2:], strict=True)
    )
    black = black_levels[:, None].repeat(1, 1, num_rows, num_cols)
    return black, white_level[:, None, None, None] - black


def _replace_unknown(white_balance: Tensor) -> Tensor:
    is_known = (white_balance > 0).all(dim=1, keepdim=True)
    return torch.where(is_known, white_balance, white_balance.new_tensor([TYPICAL_WHITE_BALANCE]))


def choose_form(domain: Domain, samples: str | None, layout: str | None, colors: str | None) -> SampleForm:
    """The form, with defaults for what is None: uint8, or uint16 for mosaics; nchw; the colors of the model.

    Raises ArgumentError for unknown names, and for other samples and colors than those of a model for mosaics.
    """
    own_colors = "mosaic" if domain.gives_mosaic else "gray" if domain.colors == "gray" else "rgb"
    own_samples = "uint16" if domain.takes_mosaic else "uint8"
    form = SampleForm(samples or own_samples, layout or "nchw", colors or own_colors)
    if domain.takes_mosaic and (form.samples, form.colors) != (own_samples, own_colors):
        result = "mosaics" if domain.gives_mosaic else "RGB pictures"
        raise ArgumentError(
            f"this model takes the uint16 mosaics of camera RAW files and gives uint16 {result}",
            hint="omit {samples} and {colors}",
        )
    if form.colors == "mosaic" and not domain.gives_mosaic:
        raise ArgumentError("the result of this model is a picture", hint="{colors} is gray or rgb")
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
    names = {} if shape else {name: _name_dimensions(name, domain, form) for name in examples}
    module = _build_module(network, domain, form)
    module(*examples.values())  # computes the constants of enlarging, which cannot be traced
    block_px = len(domain.pattern) if takes_mosaic(domain) else 1
    return graphs.trace(module, examples, names, block_px=block_px)


def name_all_dimensions(domain: Domain, form: SampleForm) -> dict[str, Dimensions]:
    """Names of the inputs, in order, and of the output, with names of their free dimensions."""
    names = (name_samples(domain), *list_numbers(domain))
    inputs = {name: _name_dimensions(name, domain, form) for name in names}
    return {**inputs, OUTPUT: form.name_dimensions("restored_")}


def _name_dimensions(name: str, domain: Domain, form: SampleForm) -> Dimensions:
    """Names of the free dimensions of an input."""
    sizes = list_numbers(domain)
    return ("count", *(None for _ in sizes[name])) if name in sizes else form.name_dimensions()


def _build_examples(domain: Domain, form: SampleForm, shape: Shape | None) -> Inputs:
    """Inputs of the right types and shapes, in order. shape: of the picture or mosaic; None for a small one."""
    num_channels = count_input_channels(domain, form)
    count, (height, width) = graphs.EXAMPLE_COUNT, graphs.EXAMPLE_SIZE
    if takes_mosaic(domain):
        height, width = (size * len(domain.pattern) for size in (height, width))
    if shape is None:
        nchw = form.layout == "nchw"
        shape = (count, num_channels, height, width) if nchw else (count, height, width, num_channels)
    samples = torch.zeros(shape, dtype=DTYPES[form.samples])  # values do not matter
    numbers = {name: torch.ones(shape[0], *size) for name, size in list_numbers(domain).items()}
    return {name_samples(domain): samples, **numbers}


def name_samples(domain: Domain) -> str:
    """The name of the input that contains the samples."""
    return "mosaic" if domain.takes_mosaic else "picture"


def list_numbers(domain: Domain) -> dict[str, tuple[int, ...]]:
    """The inputs for each mosaic in addition to its samples, all float32: their sizes by name, in order."""
    if not takes_mosaic(domain):
        return {}
    period = len(domain.pattern)
    sizes: dict[str, tuple[int, ...]] = {"black_levels": (period, period), "white_level": ()}
    if develops_mosaic(domain):
        sizes["exposure_ratio"] = ()
        if domain.white_balanced:
            sizes["white_balance"] = (3,)
    elif denoises_mosaic(domain) and domain.noise is None:
        sizes["noise"] = (2,)
    return sizes


def _build_module(network: nn.Module, domain: Domain, form: SampleForm) -> nn.Module:
    if develops_mosaic(domain):
        return _DevelopedMosaic(network, domain, form)
    if denoises_mosaic(domain):
        return _DenoisedMosaic(network, domain, form)
    return _WholePicture(network, cast(PictureDomain, domain), form)
