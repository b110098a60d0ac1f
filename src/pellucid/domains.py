"""Domains: what a network sees of a picture, and how its output becomes a picture again.

Training, evaluation and restoration use the same object, so they cannot drift apart. A domain knows nothing about
tiles, but it states what tiling needs: how many network pixels a picture pixel becomes, and how far it looks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeGuard, TypeVar

import torch
from torch import Tensor

from pellucid.degradations.degradation import Degradation
from pellucid.degradations.raw_synthesis import Unprocess
from pellucid.errors import PictureError
from pellucid.pictures.camera.packing import BAYER, XTRANS, align, apply_gains, find_phase, pack_bayer, pack_xtrans
from pellucid.pictures.color import rgb_to_gray, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import reach, resize

Degraded = Picture | Mosaic
D = TypeVar("D", bound=Degraded)

TYPICAL_WHITE_BALANCE = (2.15, 1.0, 1.7)
"""Gains of red, green and blue: the middle of the ranges that Brooks et al., CVPR 2019, draw for cameras."""


class Domain(ABC):
    """What a network sees, and what its output means. Each subclass is one way; its parameters are its fields.

    All tensors are float32 with black 0 and white 1. The network's input is (N, C, H, W), C being `num_planes`.
    """

    @property
    @abstractmethod
    def rate(self) -> Fraction:
        """Network input pixels per picture pixel, along one side."""

    @property
    @abstractmethod
    def num_planes(self) -> int:
        """Number of planes of the network's input."""

    @property
    @abstractmethod
    def colors(self) -> str:
        """Color space of targets and scores: gray, y (luma) or rgb."""

    takes_mosaic = False
    """Whether it takes the mosaic of a camera RAW file; if not, it takes developed pictures."""

    @abstractmethod
    def halo_px(self, network_halo: int) -> int:
        """How far an output pixel sees, in picture pixels; `network_halo` is the same in network input pixels."""

    @abstractmethod
    def accept(self, degraded: Degraded) -> Degraded:
        """The part of the picture that the network can use. Raises PictureError for the wrong kind of picture."""

    def covered_area(self, degraded: Degraded) -> tuple[slice, slice]:
        """Rows and columns of the part that `accept` returns."""
        self.accept(degraded)
        return slice(0, degraded.height), slice(0, degraded.width)

    @abstractmethod
    def to_input(self, degraded: Degraded) -> Tensor:
        """An accepted picture as the network's input."""

    @abstractmethod
    def encode(self, planes: Tensor) -> Tensor:
        """Degraded planes, made from targets by a degradation, as the network's input."""

    @abstractmethod
    def to_colors(self, planes: Tensor) -> Tensor:
        """Gray or RGB planes, (N, 1 or 3, H, W), in the colors of targets: (N, 1 or 3, H, W)."""

    def to_target(self, target: Picture) -> Tensor:
        """A clean picture in the colors of targets: (1, 1 or 3, H, W)."""
        return self.to_colors(target.to_tensor())

    @abstractmethod
    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        """The network's output as a picture with the depth, other channels and metadata of the degraded one."""

    @abstractmethod
    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        """Network inputs with realistic contents, made from sRGB planes (N, 3, H, W), for measurements.

        Raw domains ignore the degradation.
        """

    def warnings_for(self, degraded: Degraded) -> Iterator[str]:
        """Why this picture may be restored badly, e.g. because its file lacks something."""
        return iter(())


class MosaicDomain(Domain):
    """A domain that takes the mosaics of camera RAW files and returns developed pictures."""

    takes_mosaic = True

    @property
    @abstractmethod
    def pattern(self) -> tuple[str, ...]:
        """Colors of the filters, row by row, in the phase that an accepted mosaic starts with."""

    @abstractmethod
    def gains(self, mosaic: Mosaic) -> Tensor:
        """(1, 3): the factors of red, green and blue samples."""

    @abstractmethod
    def accept(self, degraded: Degraded) -> Mosaic: ...

    def covered_area(self, degraded: Degraded) -> tuple[slice, slice]:
        accepted, corner = self.accept(degraded), find_phase(_mosaic(degraded).pattern, self.pattern)
        assert corner is not None  # otherwise it would not have been accepted
        (top, left), height, width = corner, accepted.height, accepted.width
        return slice(top, top + height), slice(left, left + width)


def takes_mosaic(domain: Domain) -> TypeGuard[MosaicDomain]:
    """Whether it takes mosaics, in a form that type checkers understand."""
    return domain.takes_mosaic


class _PictureDomain(Domain):
    """A domain that takes developed pictures."""

    def accept(self, degraded: Degraded) -> Picture:
        return _picture(degraded)

    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        planes = self.to_colors(photos) if self.colors == "rgb" else photos.mean(1, keepdim=True)
        return self.encode(planes if degradation is None else degradation(planes, generator))


@dataclass(frozen=True)
class Gray(_PictureDomain):
    """One gray plane. A color picture is restored plane by plane, because its noise is independent in each.

    Targets of color pictures are converted to gray.
    """

    rate = Fraction(1)
    num_planes = 1
    colors = "gray"

    def halo_px(self, network_halo: int) -> int:
        return network_halo

    def to_input(self, degraded: Degraded) -> Tensor:
        return self.encode(_picture(degraded).to_tensor().transpose(0, 1))

    def encode(self, planes: Tensor) -> Tensor:
        return planes

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes if planes.shape[1] == 1 else rgb_to_gray(planes)

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        like = _picture(like)
        return like.with_tensor(output.transpose(0, 1), like.alpha_to_tensor(), like.extra_to_tensor())


@dataclass(frozen=True)
class RGB(_PictureDomain):
    """Three planes at once. A gray picture becomes three equal planes; the result is the mean of the output."""

    rate = Fraction(1)
    num_planes = 3
    colors = "rgb"

    def halo_px(self, network_halo: int) -> int:
        return network_halo

    def to_input(self, degraded: Degraded) -> Tensor:
        return self.encode(self.to_target(_picture(degraded)))

    def encode(self, planes: Tensor) -> Tensor:
        return planes

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        like = _picture(like)
        if like.channels == 1:
            red, green, blue = output.unbind(1)
            output = ((red + green + blue) / 3)[:, None]
        return like.with_tensor(output, like.alpha_to_tensor(), like.extra_to_tensor())


@dataclass(frozen=True)
class Luma(_PictureDomain):
    """BT.601 luma, enlarged bicubically by `scale` before the network sees it; other channels are only enlarged.

    A gray picture is used as it is. As in Dong et al. 2014 (super-resolution) and Zhang et al. 2017 (deblocking,
    three tasks).
    """

    scale: int = 1

    num_planes = 1
    colors = "y"

    @property
    def rate(self) -> Fraction:
        return Fraction(self.scale)

    def halo_px(self, network_halo: int) -> int:
        return reach(self.scale, beyond=network_halo)

    def to_input(self, degraded: Degraded) -> Tensor:
        return self.encode(self.to_target(_picture(degraded)))

    def encode(self, planes: Tensor) -> Tensor:
        return resize(planes, self.scale)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes if planes.shape[1] == 1 else rgb_to_luma(planes)

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        like = _picture(like)
        alpha, extra = like.alpha_to_tensor(), like.extra_to_tensor()
        if like.channels == 3:
            chroma = self.encode(rgb_to_ycbcr(like.to_tensor())[:, 1:])
            output = ycbcr_to_rgb(torch.cat([output, chroma], dim=1))
        # Bicubic interpolation overshoots; alpha is a fraction. Extra channels of floats may have any range.
        alpha = None if alpha is None else self.encode(alpha).clamp(0, 1)
        return like.with_tensor(output, alpha, None if extra is None else self.encode(extra))


@dataclass(frozen=True)
class PackedRaw(MosaicDomain):
    """A camera mosaic, packed into one plane per filter site, times its exposure ratio, clipped at white.

    Bayer: 4 planes of half the size; X-Trans: 9 planes of a third. The output is a 16-bit RGB picture. As in Chen
    et al., "Learning to See in the Dark", CVPR 2018.
    white_balanced: whether samples are first multiplied by the camera's white balance gains, divided by the
        smallest one, so that gray objects are gray for the network, whatever the camera and the light. If the file
        contains no gains, typical ones are used. Chen et al. do not balance; their network learns it.
    """

    sensor: Literal["bayer", "xtrans"] = "bayer"
    white_balanced: bool = False

    colors = "rgb"

    @property
    def rate(self) -> Fraction:
        return Fraction(1, 2 if self.sensor == "bayer" else 3)

    @property
    def num_planes(self) -> int:
        return self.rate.denominator**2

    @property
    def pattern(self) -> tuple[str, ...]:
        return BAYER if self.sensor == "bayer" else XTRANS

    def halo_px(self, network_halo: int) -> int:
        # A packed pixel contains all sites of a cell, seen from any site of another cell.
        cell_px = self.rate.denominator
        return (network_halo + 1) * cell_px - 1

    def accept(self, degraded: Degraded) -> Mosaic:
        return align(_mosaic(degraded), self.pattern)

    def to_input(self, degraded: Degraded) -> Tensor:
        mosaic = _mosaic(degraded)
        bright = mosaic.to_tensor() * mosaic.exposure_ratio
        return self.encode(apply_gains(bright, self.gains(mosaic), mosaic.pattern))

    def gains(self, mosaic: Mosaic) -> Tensor:
        if not self.white_balanced:
            return torch.ones(1, 3)
        return torch.tensor([mosaic.white_balance or TYPICAL_WHITE_BALANCE])

    def encode(self, planes: Tensor) -> Tensor:
        packed = pack_bayer(planes) if self.sensor == "bayer" else pack_xtrans(planes)
        return packed.clamp(max=1)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)

    def to_picture(self, output: Tensor, like: Degraded) -> Picture:
        return replace(Picture.from_tensor(output, like.dtype), metadata=_mosaic(like).metadata)

    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        return self.encode(Unprocess(self.pattern)(photos, generator))

    def warnings_for(self, degraded: Degraded) -> Iterator[str]:
        if self.white_balanced and _mosaic(degraded).white_balance is None:
            yield "the file contains no white balance, so a typical one is used; colors may be off"


def _picture(degraded: Degraded) -> Picture:
    if isinstance(degraded, Mosaic):
        raise PictureError("a camera mosaic; this recipe restores developed pictures (gray or RGB)")
    return _check_kind(degraded)


def _mosaic(degraded: Degraded) -> Mosaic:
    if isinstance(degraded, Picture):
        raise PictureError("this is a developed picture, but the recipe restores mosaics of camera RAW files")
    return _check_kind(degraded)


def _check_kind(degraded: D) -> D:
    """Python does not check types; the usual mistake is a path or an array."""
    if not isinstance(degraded, Picture | Mosaic):
        raise PictureError(f"a {type(degraded).__name__}; a Picture is needed, as pellucid.read gives it")
    return degraded
