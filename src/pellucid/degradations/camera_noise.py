"""Camera noise as it appears in finished (sRGB) pictures: developed, denoised and compressed in the camera."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.degradations.cameras import CAMERAS, PHONES
from pellucid.degradations.degradation import Degradation, Footprint, OneOf, apply, footprint, join_footprints
from pellucid.degradations.raw_synthesis import Cameras, SensorNoise, Unprocess
from pellucid.degradations.rng import Generator, Range, accepts_shards, uniform
from pellucid.degradations.standard import Rounding, ShiftedJpeg
from pellucid.pictures.camera.packing import apply_gains
from pellucid.pictures.color import rgb_to_gray
from pellucid.system import devices

ANY_CAMERA = Unprocess()
ANY_SENSOR = OneOf((SensorNoise(CAMERAS, num_levels=None), SensorNoise(replace(PHONES, gain=(2e-5, 4e-3)), None)))
ANY_FILE = OneOf((ShiftedJpeg((50, 100)), ShiftedJpeg((85, 100)), Rounding()))

LENS_RADIUS_PX = 3
"""Radius of the kernel of the lens blur."""

SMOOTHING_RADIUS_PX = 12
"""Radius of the smoothing kernels; at least three times their standard deviation."""

SHARPENING_RADIUS_PX, SHARPENING_PX = 3, 0.8
"""Radius and standard deviation of the Gaussian kernel of the unsharp mask."""

_CROSS = (
    (0.0, 0.0, -1.0, 0.0, 0.0),
    (0.0, 0.0, 2.0, 0.0, 0.0),
    (-1.0, 2.0, 4.0, 2.0, -1.0),
    (0.0, 0.0, 2.0, 0.0, 0.0),
    (0.0, 0.0, -1.0, 0.0, 0.0),
)
_ROW = (
    (0.0, 0.0, 0.5, 0.0, 0.0),
    (0.0, -1.0, 0.0, -1.0, 0.0),
    (-1.0, 4.0, 5.0, 4.0, -1.0),
    (0.0, -1.0, 0.0, -1.0, 0.0),
    (0.0, 0.0, 0.5, 0.0, 0.0),
)
_DIAGONAL = (
    (0.0, 0.0, -1.5, 0.0, 0.0),
    (0.0, 2.0, 0.0, 2.0, 0.0),
    (-1.5, 0.0, 6.0, 0.0, -1.5),
    (0.0, 2.0, 0.0, 2.0, 0.0),
    (0.0, 0.0, -1.5, 0.0, 0.0),
)
_FILTERS = torch.tensor([_CROSS, _ROW, tuple(zip(*_ROW, strict=True)), _DIAGONAL]) / 8
"""Filters that interpolate green at red and blue pixels; red or blue at green pixels, from the same row and from
the same column; and red at blue or blue at red pixels."""

_MOSAIC, _FROM_CROSS, _FROM_ROW, _FROM_COLUMN, _FROM_DIAGONAL = range(5)
_SOURCES = (
    ((_MOSAIC, _FROM_ROW), (_FROM_COLUMN, _FROM_DIAGONAL)),
    ((_FROM_CROSS, _MOSAIC), (_MOSAIC, _FROM_CROSS)),
    ((_FROM_DIAGONAL, _FROM_COLUMN), (_FROM_ROW, _MOSAIC)),
)
"""For red, green and blue: where the sample comes from, at each of the 2 x 2 positions of an RGGB mosaic."""


def demosaic(mosaic: Tensor) -> Tensor:
    """An RGGB mosaic (N, 1, H, W) -> (N, 3, H, W), by linear interpolation; not clamped. Kernel radius: 2 px.

    Source: Malvar, He, Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned color
    images", ICASSP 2004.
    """
    filters = devices.to_device(_FILTERS[:, None], mosaic.device).to(mosaic)
    candidates = torch.cat([mosaic, F.conv2d(_pad_reflected(mosaic, 2), filters)], dim=1)
    colors = mosaic.new_empty(len(mosaic), 3, *mosaic.shape[-2:])
    for color, sources in enumerate(_SOURCES):
        for row in range(2):
            for col in range(2):
                site = ..., slice(row, None, 2), slice(col, None, 2)
                colors[:, color][site] = candidates[:, sources[row][col]][site]
    return colors


def render(mosaic: Tensor, cameras: Cameras, tone: Tensor) -> Tensor:
    """An RGGB mosaic (N, 1, H, W), linear, white is 1 -> a finished picture (N, 3, H, W), sRGB in [0, 1].

    White balance, brightening, demosaicing, colors, gamma (2.2) and a tone curve: the reverse of `Unprocess`.
    tone: (N,) from 0, no tone curve, to 1, the smoothstep that `Unprocess` inverts.
    """
    gains = cameras.gains / cameras.brightness[:, None]
    smallest = gains.amin(dim=1).to(mosaic).reshape(-1, 1, 1, 1)
    balanced = (apply_gains(mosaic, gains.to(mosaic), ("RG", "GB")) * smallest).clamp(0, 1)
    from_camera = torch.linalg.inv_ex(cameras.matrix)[0].to(mosaic)  # never singular
    light = torch.einsum("nij,njhw->nihw", from_camera, demosaic(balanced)).clamp(0, 1)
    plain = light.clamp(min=1e-8) ** (1 / 2.2)
    share = tone.to(mosaic).reshape(-1, 1, 1, 1)
    return plain + share * (plain**2 * (3 - 2 * plain) - plain)


@dataclass(frozen=True)
class CameraNoise:
    """Adds camera noise as it appears in finished pictures: (N, 3, H, W) sRGB -> the same.

    The picture is unprocessed to a mosaic, to which sensor noise is added. The mosaics with and without noise are
    developed in the same way; their difference is the visible noise: correlated, colored, stronger in dark parts.
    To simulate edge-preserving denoising in the camera, only the noise is smoothed, its luma less than its chroma.
    Picture and noise are sharpened, and their sum is compressed. The target is the developed picture without
    noise, sharpened in the same way and not compressed.

    unprocess: draws the camera. noise: of the mosaic. lens_px: standard deviation of the blur of the lens, up to
    1. tone: strength of the tone curve, up to 1. luma_px, chroma_px: standard deviation of the smoothing of the
    noise, up to 4. sharpening: amount of the unsharp mask. compression: of the noisy picture, the last step.
    clean_share: fraction of the pictures that are only rounded to 8 bits, so that a network learns to preserve
    fine texture without noise.
    The defaults were compared with the noise in PolyU's pictures: standard deviation and spatial correlation.
    Source: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, for the way to the mosaic.
    """

    unprocess: Unprocess = ANY_CAMERA
    noise: Degradation = ANY_SENSOR
    lens_px: Range = (0.0, 1.0)
    tone: Range = (0.0, 1.0)
    luma_px: Range = (0.2, 1.4)
    chroma_px: Range = (0.5, 4.0)
    sharpening: Range = (0.0, 0.5)
    compression: Degradation = ANY_FILE
    clean_share: float = 0.0

    draws = True

    @property
    def accepts_shards(self) -> bool:
        return accepts_shards(self.unprocess)

    @property
    def footprint(self) -> Footprint:
        return join_footprints(
            Footprint(reach_px=LENS_RADIUS_PX),
            footprint(self.unprocess),
            footprint(self.noise),
            Footprint(reach_px=2 + SMOOTHING_RADIUS_PX + SHARPENING_RADIUS_PX),
            footprint(self.compression),
        )

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        return self.make_pair(clean, generator)[0]

    def make_pair(self, clean: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """(degraded, target): the developed picture with noise, compressed, and without noise."""
        cameras = self.unprocess.draw_cameras(len(clean), generator)
        lens_px, tone, luma_px, chroma_px, sharpening = (
            uniform(value, len(clean), generator).to(clean)
            for value in (self.lens_px, self.tone, self.luma_px, self.chroma_px, self.sharpening)
        )
        mosaic = self.unprocess.record(smooth(clean, lens_px, LENS_RADIUS_PX), cameras)
        developed = render(mosaic, cameras, tone)
        noise = render(apply(self.noise, mosaic, generator), cameras, tone) - developed
        noise = _smooth_noise(noise, luma_px, chroma_px)
        target = _sharpen(developed, sharpening)
        degraded = apply(self.compression, (target + _sharpen(noise, sharpening)).clamp(0, 1), generator)
        is_clean = self._draw_clean(clean, generator)
        rounded = Rounding()(clean, generator)
        return torch.where(is_clean, rounded, degraded), torch.where(is_clean, clean, target.clamp(0, 1))

    def _draw_clean(self, clean: Tensor, generator: Generator) -> Tensor:
        """A mask of the pictures that stay clean: (N, 1, 1, 1) bool."""
        return (
            (uniform((0.0, 1.0), len(clean), generator) < self.clean_share).to(clean.device).reshape(-1, 1, 1, 1)
        )


def _smooth_noise(noise: Tensor, luma_px: Tensor, chroma_px: Tensor) -> Tensor:
    luma = rgb_to_gray(noise)
    return smooth(luma, luma_px, SMOOTHING_RADIUS_PX) + smooth(noise - luma, chroma_px, SMOOTHING_RADIUS_PX)


def _sharpen(picture: Tensor, strength: Tensor) -> Tensor:
    blurred = smooth(picture, torch.full_like(strength, SHARPENING_PX), SHARPENING_RADIUS_PX)
    return picture + strength.reshape(-1, 1, 1, 1) * (picture - blurred)


def smooth(planes: Tensor, deviation_px: Tensor, radius_px: int) -> Tensor:
    """Convolve each picture of (N, C, H, W) with a Gaussian of its own (N,) standard deviation; mirrored edges."""
    distance = torch.arange(-radius_px, radius_px + 1, device=planes.device)
    kernels = torch.exp(-0.5 * (distance / deviation_px.clamp(min=1e-3)[:, None]) ** 2).to(planes)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(planes.shape[1], dim=0)[:, None]
    padded = _pad_reflected(planes, radius_px).flatten(0, 1)[None]
    down = F.conv2d(padded, kernels[..., None], groups=len(kernels))
    return F.conv2d(down, kernels[:, :, None], groups=len(kernels)).reshape(planes.shape)


def _pad_reflected(planes: Tensor, margin_px: int) -> Tensor:
    """Mirror at the outermost pixels, which keeps the phase of a mosaic; repeatedly if the picture is small."""
    if margin_px < min(planes.shape[-2:]):
        return F.pad(planes, (margin_px,) * 4, mode="reflect")
    for axis in (-2, -1):
        size = planes.shape[axis]
        period = max(2 * (size - 1), 1)
        position = torch.arange(-margin_px, size + margin_px, device=planes.device).remainder(period)
        mirrored = torch.minimum(position, period - position).clamp(max=size - 1)
        planes = planes.index_select(axis, mirrored)
    return planes
