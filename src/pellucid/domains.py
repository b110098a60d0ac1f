"""Domains: how a picture becomes the input of a network, and how the output becomes a picture again.

Training, evaluation and restoration use the same object, so they cannot diverge. A domain knows nothing about
tiles, but specifies what tiling needs: the number of network pixels per picture pixel, and the receptive field.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from pellucid.degradations.cameras import find_noise
from pellucid.degradations.degradation import Degradation
from pellucid.degradations.raw_synthesis import NoisyRaw, Unprocess
from pellucid.errors import PictureError
from pellucid.pictures.camera.packing import (
    BAYER,
    XTRANS,
    align,
    apply_gains,
    find_phase,
    pack_bayer,
    pack_xtrans,
    pad_to_blocks,
    unpack_bayer,
)
from pellucid.pictures.camera.photon_transfer import measure_noise_level
from pellucid.pictures.camera.stabilizing import find_deviation, stabilize, unstabilize
from pellucid.pictures.color import rgb_to_gray, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb
from pellucid.pictures.picture import Mosaic, NoiseLevel, Picture
from pellucid.pictures.resize import reach, resize
from pellucid.pictures.samples import CPU, to_planes
from pellucid.system import devices

Degraded = Picture | Mosaic
D = TypeVar("D", bound=Degraded)

TYPICAL_WHITE_BALANCE = (2.15, 1.0, 1.7)
"""Gains of red, green and blue: the middle of the ranges that Brooks et al., CVPR 2019, draw for cameras."""


class Domain(ABC):
    """The input representation of a network, and the meaning of its output. Fields are parameters of a subclass.

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

    gives_mosaic = False
    """Whether the result is a mosaic that is still to be developed; if not, it is a picture."""

    @property
    def num_results(self) -> int:
        """Number of planes of the network's output."""
        return 1 if self.num_planes == 1 else 3

    @abstractmethod
    def halo_px(self, network_halo: int) -> int:
        """The receptive radius in picture pixels. network_halo: that of the network, in network input pixels."""

    def result_scale(self, network_scale: int) -> int:
        """Result pixels per picture pixel, along one side."""
        return int(self.rate * network_scale)

    def grid_px(self, network_multiple: int) -> int:
        """The part of a picture that is read for a tile starts on multiples of this."""
        return (Fraction(network_multiple) / self.rate).numerator

    @abstractmethod
    def accept(self, degraded: Degraded) -> Degraded:
        """The part of the picture that the network can use. Raises PictureError for the wrong kind of picture."""

    def covered_area(self, degraded: Degraded) -> tuple[slice, slice]:
        """Rows and columns of the part that `accept` returns."""
        self.accept(degraded)
        return slice(0, degraded.height), slice(0, degraded.width)

    @abstractmethod
    def to_planes(self, degraded: Degraded, device: torch.device = CPU) -> Tensor:
        """An accepted picture on a device: what the input and, together with the output, the result is made of."""

    @abstractmethod
    def planes_to_input(self, planes: Tensor) -> Tensor:
        """Planes of accepted pictures as the network's input."""

    @abstractmethod
    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        """The network's output as the colors of the result: (N, 1 or 3, H, W), not clamped.

        planes: those from which the input was made.
        """

    def keep(self, network_input: Tensor) -> Tensor:
        """The output of a network that changes nothing, for blending. Its size is that of the input."""
        return network_input

    def to_input(self, degraded: Degraded) -> Tensor:
        """An accepted picture as the network's input."""
        return self.planes_to_input(self.to_planes(degraded))

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
    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        """Network inputs with realistic contents, made from sRGB planes (N, 3, H, W), for measurements.

        Raw domains ignore the degradation.
        """

    def finish(self, restored: D, degraded: Degraded) -> D:
        """The result for a picture, from that for what `accept` has made of it."""
        return restored

    def warnings_for(self, degraded: Degraded) -> Iterator[str]:
        """Reasons why this picture may be restored badly, e.g. missing metadata in its file."""
        return iter(())


class MosaicDomain(Domain):
    """A domain that takes the mosaics of camera RAW files."""

    takes_mosaic = True

    @property
    @abstractmethod
    def pattern(self) -> tuple[str, ...]:
        """Colors of the filters, row by row, starting at the top left corner of an accepted mosaic."""

    @abstractmethod
    def accept(self, degraded: Degraded) -> Mosaic: ...

    def complete(self, mosaic: Mosaic) -> tuple[Mosaic, tuple[str, ...]]:
        """The mosaic of a file with what the network must know besides its samples, and where that is from."""
        return mosaic, ()


class DevelopingDomain(MosaicDomain):
    """A domain that takes mosaics and returns developed pictures."""

    def planes_to_input(self, planes: Tensor) -> Tensor:
        return planes

    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        return output

    white_balanced: bool = False
    """Whether the input depends on the white balance of the camera."""

    @abstractmethod
    def gains(self, mosaic: Mosaic) -> Tensor:
        """(1, 3): gains of red, green and blue samples."""

    @abstractmethod
    def linear_to_input(self, bright: Tensor, gains: Tensor) -> Tensor:
        """Linear mosaics (N, 1, H, W), times their exposure ratio, and gains (N, 3), as the network's input.

        Mosaics start with `pattern` and have complete blocks.
        """

    def covered_area(self, degraded: Degraded) -> tuple[slice, slice]:
        accepted, corner = self.accept(degraded), find_phase(_mosaic(degraded).pattern, self.pattern)
        assert corner is not None  # otherwise it would not have been accepted
        (top, left), height, width = corner, accepted.height, accepted.width
        return slice(top, top + height), slice(left, left + width)


class DenoisingDomain(MosaicDomain):
    """A domain that takes mosaics and returns mosaics, which are still to be developed.

    noise: shot and read part of the noise of all mosaics, see `NoiseLevel`. None: that of each mosaic.
    """

    gives_mosaic = True

    noise: tuple[float, float] | None = None

    @abstractmethod
    def find_noise_level(self, mosaic: Mosaic) -> tuple[NoiseLevel, str]:
        """The noise of a mosaic, and where that is from."""

    @abstractmethod
    def linear_to_planes(self, linear: Tensor, noise: Tensor) -> Tensor:
        """Linear mosaics (N, 1, H, W), and the shot and read part of their noise, as planes of `to_planes`.

        noise: (N, 2), or (1, 2) for all. Mosaics start with `pattern` and have complete blocks. Values below black
        are negative.
        """


def takes_mosaic(domain: Domain) -> TypeGuard[MosaicDomain]:
    """Whether a domain takes mosaics, as a type guard."""
    return domain.takes_mosaic


def develops_mosaic(domain: Domain) -> TypeGuard[DevelopingDomain]:
    """Whether a domain takes mosaics and returns developed pictures, as a type guard."""
    return domain.takes_mosaic and not domain.gives_mosaic


def denoises_mosaic(domain: Domain) -> TypeGuard[DenoisingDomain]:
    """Whether a domain takes mosaics and returns mosaics, as a type guard."""
    return domain.takes_mosaic and domain.gives_mosaic


class PictureDomain(Domain):
    """A domain that takes developed pictures. Planes are their colors, (N, 1 or 3, H, W)."""

    channels_last: bool = False
    """The order of planes in memory in which the network takes them at once; see `to_planes` of `samples`."""

    def accept(self, degraded: Degraded) -> Picture:
        return _picture(degraded)

    def to_planes(self, degraded: Degraded, device: torch.device = CPU) -> Tensor:
        return to_planes(_picture(degraded).samples, device, channels_last=self.channels_last)

    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        planes = self.to_colors(photos) if self.colors == "rgb" else photos.mean(1, keepdim=True)
        return self.encode(planes if degradation is None else degradation(planes, generator))


@dataclass(frozen=True)
class Gray(PictureDomain):
    """One gray plane. A color picture is restored plane by plane, because its noise is independent in each.

    Targets of color pictures are converted to gray.
    """

    rate = Fraction(1)
    num_planes = 1
    colors = "gray"

    def halo_px(self, network_halo: int) -> int:
        return network_halo

    def planes_to_input(self, planes: Tensor) -> Tensor:
        return self.encode(planes.flatten(0, 1)[:, None])

    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        return output.unflatten(0, planes.shape[:2])[:, :, 0]

    def encode(self, planes: Tensor) -> Tensor:
        return planes

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes if planes.shape[1] == 1 else rgb_to_gray(planes)


@dataclass(frozen=True)
class RGB(PictureDomain):
    """Three planes at once. A gray picture becomes three equal planes; the result is the mean of the output."""

    rate = Fraction(1)
    num_planes = 3
    colors = "rgb"
    channels_last = True

    def halo_px(self, network_halo: int) -> int:
        return network_halo

    def planes_to_input(self, planes: Tensor) -> Tensor:
        return self.encode(self.to_colors(planes))

    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        if planes.shape[1] == 3:
            return output
        red, green, blue = output.unbind(1)
        return ((red + green + blue) / 3)[:, None]

    def encode(self, planes: Tensor) -> Tensor:
        return planes

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Luma(PictureDomain):
    """BT.601 luma, enlarged bicubically by `scale` before the network; other channels are only enlarged.

    A gray picture is used as it is. As in Dong et al. 2014 (super-resolution) and Zhang et al. 2017 (deblocking,
    three tasks).
    network_scale: how much the network itself enlarges luma.
    """

    scale: int = 1
    network_scale: int = 1

    num_planes = 1
    colors = "y"

    @property
    def rate(self) -> Fraction:
        return Fraction(self.scale)

    def halo_px(self, network_halo: int) -> int:
        chroma_px = reach(self.network_scale) if self.network_scale > 1 else 0
        return reach(self.scale, beyond=max(network_halo, chroma_px))

    def planes_to_input(self, planes: Tensor) -> Tensor:
        return self.encode(self.to_colors(planes))

    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        if planes.shape[1] == 1:
            return output
        chroma = resize(self.encode(rgb_to_ycbcr(planes)[:, 1:]), self.network_scale)
        return ycbcr_to_rgb(torch.cat([output, chroma], dim=1))

    def encode(self, planes: Tensor) -> Tensor:
        return resize(planes, self.scale)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes if planes.shape[1] == 1 else rgb_to_luma(planes)


@dataclass(frozen=True)
class PackedRaw(DevelopingDomain):
    """A camera mosaic, packed into one plane per filter site, times its exposure ratio, clipped at white.

    Bayer: 4 planes of half the size; X-Trans: 9 planes of a third. The output is a 16-bit RGB picture. As in Chen
    et al., "Learning to See in the Dark", CVPR 2018.
    white_balanced: whether samples are first multiplied by the camera's white balance gains, divided by the
        smallest one, so that gray objects are gray in the input, for any camera and illuminant. If the file
        contains no gains, typical ones are used. In Chen et al., the network itself learns the white balance.
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
        # A packed pixel contains all sites of a cell, and any site of another cell may depend on all of them.
        cell_px = self.rate.denominator
        return (network_halo + 1) * cell_px - 1

    def accept(self, degraded: Degraded) -> Mosaic:
        return align(_mosaic(degraded), self.pattern)

    def to_planes(self, degraded: Degraded, device: torch.device = CPU) -> Tensor:
        mosaic = _mosaic(degraded)
        gains = devices.to_device(self.gains(mosaic), device)
        return self.linear_to_input(mosaic.to_tensor(device) * mosaic.exposure_ratio, gains)

    def linear_to_input(self, bright: Tensor, gains: Tensor) -> Tensor:
        return self.encode(apply_gains(bright, gains, self.pattern))

    def gains(self, mosaic: Mosaic) -> Tensor:
        if not self.white_balanced:
            return torch.ones(1, 3, dtype=torch.float32)
        return torch.tensor([mosaic.white_balance or TYPICAL_WHITE_BALANCE], dtype=torch.float32)

    def encode(self, planes: Tensor) -> Tensor:
        packed = pack_bayer(planes) if self.sensor == "bayer" else pack_xtrans(planes)
        return packed.clamp(max=1)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)

    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        return self.encode(Unprocess(self.pattern)(photos, generator))

    def warnings_for(self, degraded: Degraded) -> Iterator[str]:
        if self.white_balanced and _mosaic(degraded).white_balance is None:
            yield "the file contains no white balance, so a typical one is used; colors may be off"


@dataclass(frozen=True)
class StableRaw(DenoisingDomain):
    """A Bayer mosaic that is denoised and stays a mosaic, packed into four planes of half the size.

    Samples are on the scale of `stabilize`, on which the noise is equally strong everywhere; a fifth plane
    contains its standard deviation. Values below black are kept. Saturated samples are returned as they are.
    Planes are (N, 3, H, W): linear samples, and the shot and the read part of the noise in each pixel.
    noise: shot and read part of the noise of all mosaics, see `NoiseLevel`. None: that of each mosaic, and if it
        is not known, that of its camera at its ISO, or else an estimate from its samples.
    """

    noise: tuple[float, float] | None = None

    colors = "rgb"
    rate = Fraction(1, 2)
    num_planes = 5
    num_results = 4
    pattern = BAYER

    def halo_px(self, network_halo: int) -> int:
        return 2 * (network_halo + 1) - 1  # see PackedRaw

    def result_scale(self, network_scale: int) -> int:
        return network_scale

    def accept(self, degraded: Degraded) -> Mosaic:
        accepted = pad_to_blocks(_mosaic(degraded), self.pattern)
        return replace(accepted, noise=self.find_noise_level(accepted)[0])

    def complete(self, mosaic: Mosaic) -> tuple[Mosaic, tuple[str, ...]]:
        self.accept(mosaic)  # raises errors
        noise, origin = self.find_noise_level(mosaic)
        iso = "" if mosaic.exposure.iso is None else f"ISO {mosaic.exposure.iso:g}, "
        note = f"{iso}noise of {noise.shot:.2g} (shot) and {noise.read:.2g} (read), {origin}"
        return replace(mosaic, noise=noise), (note,)

    def find_noise_level(self, mosaic: Mosaic) -> tuple[NoiseLevel, str]:
        """The noise of a mosaic, and where that is from, in the order of `noise` above."""
        if self.noise is not None:
            return NoiseLevel(*self.noise), "as stated"
        if mosaic.noise is not None:
            return mosaic.noise, "from the file"
        model = "" if mosaic.camera is None else mosaic.camera.model
        known = None if mosaic.exposure.iso is None else find_noise(model, mosaic.exposure.iso)
        if known is not None:
            return NoiseLevel(*known), f"measured for {model}"
        return measure_noise_level(mosaic), "estimated from the samples"

    def finish(self, restored: D, degraded: Degraded) -> D:
        """Without the rows and columns that `accept` has added."""
        assert isinstance(restored, Mosaic)
        given, corner = _mosaic(degraded), find_phase(_mosaic(degraded).pattern, self.pattern)
        assert corner is not None
        (top, left), height, width = corner, given.height, given.width
        samples = restored.samples[top : top + height, left : left + width]
        return cast(D, replace(given, samples=samples, noise=None))

    def to_planes(self, degraded: Degraded, device: torch.device = CPU) -> Tensor:
        mosaic = _mosaic(degraded)
        noise, _ = self.find_noise_level(mosaic)
        levels = devices.to_device(torch.tensor([[noise.shot, noise.read]], dtype=torch.float32), device)
        return self.linear_to_planes(mosaic.to_linear(device), levels)

    def linear_to_planes(self, linear: Tensor, noise: Tensor) -> Tensor:
        count, _, height, width = linear.shape  # a graph of any number of mosaics must not call `len`
        levels = noise[:, :, None, None].expand(count, -1, height, width)
        return torch.cat([linear, levels], dim=1)

    def planes_to_input(self, planes: Tensor) -> Tensor:
        return self.encode(planes)

    def output_to_planes(self, output: Tensor, planes: Tensor) -> Tensor:
        linear, shot, read = planes.split(1, dim=1)
        restored = unstabilize(unpack_bayer(output), shot, read)
        return torch.where(linear >= 1, linear, restored.clamp(max=1))

    def keep(self, network_input: Tensor) -> Tensor:
        return network_input[:, :4]

    def encode(self, planes: Tensor) -> Tensor:
        linear, shot, read = planes.split(1, dim=1)
        stable = pack_bayer(stabilize(linear.clamp(max=1), shot, read))
        return torch.cat([stable, find_deviation(shot, read)[..., ::2, ::2]], dim=1)

    def to_colors(self, planes: Tensor) -> Tensor:
        return planes.expand(-1, 3, -1, -1)

    def synthesize(self, photos: Tensor, degradation: Degradation | None, generator: torch.Generator) -> Tensor:
        return self.encode((NoisyRaw() if degradation is None else degradation)(photos, generator))


def _picture(degraded: Degraded) -> Picture:
    if isinstance(degraded, Mosaic):
        raise PictureError("a camera mosaic; this recipe restores developed pictures (gray or RGB)")
    return _check_kind(degraded)


def _mosaic(degraded: Degraded) -> Mosaic:
    if isinstance(degraded, Picture):
        raise PictureError(
            "this is a developed picture, but the recipe restores mosaics of camera RAW files",
            hint="'pellucid models' lists models for pictures",
        )
    return _check_kind(degraded)


def _check_kind(degraded: D) -> D:
    """Raise PictureError for other types; the usual mistake is a path or an array."""
    if not isinstance(degraded, Picture | Mosaic):
        raise PictureError(f"a {type(degraded).__name__}; a Picture is needed, as pellucid.read gives it")
    return degraded
