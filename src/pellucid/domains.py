"""Domains: what a network sees of a picture, and how its output becomes a picture again.

Training, evaluation and restoration use the same object, so they cannot drift apart. A domain does not know
about tiles, but states what they need: how many network pixels a picture pixel becomes, and how far it looks.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from pellucid.errors import PictureError
from pellucid.pictures.color import rgb_to_gray, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb
from pellucid.pictures.packing import BAYER, XTRANS, align, apply_gains, pack_bayer, pack_xtrans
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import reach, resize

Degraded = Picture | Mosaic
D = TypeVar("D", bound=Degraded)

TYPICAL_WHITE_BALANCE = (2.15, 1.0, 1.7)
"""The middle of what Brooks et al., CVPR 2019, draw for cameras."""


class Domain(Protocol):
    """The contract of every domain."""

    @property
    def rate(self) -> Fraction:
        """Network input pixels per picture pixel, along one side."""

    @property
    def num_planes(self) -> int:
        """How many planes the network takes: C of (N, C, H, W)."""

    @property
    def colors(self) -> str:
        """The color space in which targets are given and scores are counted."""

    @property
    def takes_mosaic(self) -> bool:
        """Whether it takes the mosaic of a camera RAW file; developed pictures otherwise."""

    def halo_px(self, network_halo: int) -> int:
        """How far an output pixel sees in the picture, when it sees this far in the network's input."""

    def accept(self, degraded: Degraded) -> Degraded:
        """Check that this is the right kind of picture, and cut off what cannot be used."""

    def to_input(self, degraded: Degraded) -> Tensor:
        """A degraded picture as the network takes it: (N, C, H, W)."""

    def encode(self, planes: Tensor) -> Tensor:
        """Degraded planes, made from targets, as the network takes them."""

    def to_colors(self, planes: Tensor) -> Tensor:
        """Gray or RGB planes, (N, 1 or 3, H, W), in the colors of the network: (N, C, H, W)."""

    def to_target(self, target: Picture) -> Tensor:
        """A clean picture in the colors of the network: (1, C, H, W)."""

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        """The network's output as a picture of the same kind as the degraded one."""


@dataclass(frozen=True)
class Gray:
    """One gray plane. A color picture passes plane by plane, as its noise is independent in each."""

    rate = Fraction(1)
    num_planes = 1
    colors = "gray"
    takes_mosaic = False

    def halo_px(self, network_halo: int) -> int:
        return network_halo

    def accept(self, degraded: Degraded) -> Picture:
        return _picture(degraded)

    def to_input(self, degraded: Degraded) -> Tensor:
        return self.encode(_picture(degraded).to_tensor().transpose(0, 1))

    def encode(self, planes: Tensor) -> Tensor:
        return planes

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes if planes.shape[1] == 1 else rgb_to_gray(planes)

    def to_target(self, target: Picture) -> Tensor:
        return self.to_colors(target.to_tensor())

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        like = _picture(like)
        return like.with_tensor(output.transpose(0, 1), like.alpha_to_tensor())


@dataclass(frozen=True)
class RGB:
    """Three planes at once. A gray picture passes as three equal planes, of which the mean comes back."""

    rate = Fraction(1)
    num_planes = 3
    colors = "rgb"
    takes_mosaic = False

    def halo_px(self, network_halo: int) -> int:
        return network_halo

    def accept(self, degraded: Degraded) -> Picture:
        return _picture(degraded)

    def to_input(self, degraded: Degraded) -> Tensor:
        return self.encode(self.to_target(_picture(degraded)))

    def encode(self, planes: Tensor) -> Tensor:
        return planes

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)

    def to_target(self, target: Picture) -> Tensor:
        return self.to_colors(target.to_tensor())

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        like = _picture(like)
        if like.channels == 1:
            red, green, blue = output.unbind(1)
            output = ((red + green + blue) / 3)[:, None]
        return like.with_tensor(output, like.alpha_to_tensor())


@dataclass(frozen=True)
class Luma:
    """BT.601 luma, enlarged bicubically by `scale` before the network sees it; chroma is only enlarged.

    A gray picture is taken as it is. As in Dong et al. 2014 (super-resolution) and Zhang et al. 2017
    (deblocking, three tasks).
    """

    scale: int = 1

    num_planes = 1
    colors = "y"
    takes_mosaic = False

    @property
    def rate(self) -> Fraction:
        return Fraction(self.scale)

    def halo_px(self, network_halo: int) -> int:
        return reach(self.scale, beyond=network_halo)

    def accept(self, degraded: Degraded) -> Picture:
        return _picture(degraded)

    def to_input(self, degraded: Degraded) -> Tensor:
        return self.encode(self.to_target(_picture(degraded)))

    def encode(self, planes: Tensor) -> Tensor:
        return resize(planes, self.scale)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes if planes.shape[1] == 1 else rgb_to_luma(planes)

    def to_target(self, target: Picture) -> Tensor:
        return self.to_colors(target.to_tensor())

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        like = _picture(like)
        alpha = like.alpha_to_tensor()
        if like.channels == 3:
            chroma = self.encode(rgb_to_ycbcr(like.to_tensor())[:, 1:])
            output = ycbcr_to_rgb(torch.cat([output, chroma], dim=1))
        # Bicubic sums swing beyond what they are made of; alpha is a share.
        return like.with_tensor(output, None if alpha is None else self.encode(alpha).clamp(0, 1))


@dataclass(frozen=True)
class PackedRaw:
    """A camera mosaic, packed one plane a filter site, times its exposure ratio, cut off at white.

    Bayer: 4 planes of half the size; X-Trans: 9 planes of a third. The output is an RGB picture of 16 bit.
    white_balanced: the mosaic is first multiplied with the gains its camera set, the smallest counting as 1, so
        that what is gray is so for the network, whatever the camera and the light; with typical ones where a file
        says none. Chen et al. leave that to the network, which learns it for the one camera it sees.
    """

    sensor: Literal["bayer", "xtrans"] = "bayer"
    white_balanced: bool = False

    colors = "rgb"
    takes_mosaic = True

    @property
    def rate(self) -> Fraction:
        return Fraction(1, 2 if self.sensor == "bayer" else 3)

    @property
    def num_planes(self) -> int:
        return self.rate.denominator**2

    @property
    def pattern(self) -> tuple[str, ...]:
        """The phase of the filters that it packs, row by row."""
        return BAYER if self.sensor == "bayer" else XTRANS

    def halo_px(self, network_halo: int) -> int:
        # A packed pixel holds the sites of a whole cell, seen from any site of another cell.
        cell_px = self.rate.denominator
        return (network_halo + 1) * cell_px - 1

    def accept(self, degraded: Degraded) -> Mosaic:
        return align(_mosaic(degraded), self.pattern)

    def to_input(self, degraded: Degraded) -> Tensor:
        mosaic = _mosaic(degraded)
        bright = mosaic.to_tensor() * mosaic.exposure_ratio
        return self.encode(apply_gains(bright, self.gains(mosaic), mosaic.pattern))

    def gains(self, mosaic: Mosaic) -> Tensor:
        """(1, 3): what the colors are multiplied with."""
        if not self.white_balanced:
            return torch.ones(1, 3)
        return torch.tensor([mosaic.white_balance or TYPICAL_WHITE_BALANCE])

    def encode(self, planes: Tensor) -> Tensor:
        packed = pack_bayer(planes) if self.sensor == "bayer" else pack_xtrans(planes)
        return packed.clamp(max=1)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)

    def to_target(self, target: Picture) -> Tensor:
        return self.to_colors(target.to_tensor())

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        return replace(Picture.from_tensor(output, like.dtype), metadata=_mosaic(like).metadata)


def _picture(degraded: Degraded) -> Picture:
    if isinstance(degraded, Mosaic):
        raise PictureError("a camera mosaic; this recipe restores developed pictures (gray or RGB)")
    return _known(degraded)


def _mosaic(degraded: Degraded) -> Mosaic:
    if isinstance(degraded, Picture):
        raise PictureError("a developed picture; this recipe restores the mosaic of a camera RAW file")
    return _known(degraded)


def _known(degraded: D) -> D:
    """Python lets anything through; a path or an array is the usual mistake."""
    if not isinstance(degraded, Picture | Mosaic):
        raise PictureError(f"a {type(degraded).__name__}; a Picture is needed, as pellucid.read gives it")
    return degraded
