"""Motion blur by camera shake, in linear light. `camera_shake` makes the kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.degradations.camera_shake import HAND_HELD, Shake, draw_kernels
from pellucid.degradations.degradation import Degradation, Footprint, apply, footprint, join_footprints
from pellucid.degradations.rng import Generator, Range, uniform
from pellucid.pictures.color import linear_to_srgb, srgb_to_linear


@dataclass(frozen=True)
class MotionBlur:
    """Motion blur in linear light, clipped as by a saturated sensor, with a new kernel for each picture.

    (N, C, H, W) sRGB -> the same. The picture is mirrored beyond its edges.
    shake: draws the kernels.
    highlights: how much brighter than white the white parts are, in units of white; their blur is white, too.
    noise: of the sensor, on the blurred linear light, e.g. SensorNoise.
    Source: Rim et al., "Realistic Blur Synthesis for Learning Image Deblurring", ECCV 2022, for the order of these
    steps, and for highlights of 0.25 to 1.75.
    """

    shake: Shake = HAND_HELD
    highlights: Range = 0.0
    noise: Degradation | None = None

    draws = accepts_shards = True

    @property
    def footprint(self) -> Footprint:
        blur = Footprint(reach_px=self.shake.kernel_px // 2)
        return blur if self.noise is None else join_footprints(blur, footprint(self.noise))

    def __call__(self, clean: Tensor, generator: Generator) -> Tensor:
        kernels = draw_kernels(self.shake, len(clean), generator).to(clean)
        excess = uniform(self.highlights, len(clean), generator).to(clean).reshape(-1, 1, 1, 1)
        light = srgb_to_linear(clean.clamp(0, 1)) + excess * _whiteness(clean)
        blurred = _convolve(light, kernels)
        if self.noise is not None:
            blurred = apply(self.noise, blurred, generator)
        return linear_to_srgb(blurred.clamp(0, 1))


_NEARLY_WHITE = 0.95


def _whiteness(pictures: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): 1 for white, falling to 0 at 0.95 of white.

    A ramp of the darkest channel: a threshold for each channel would turn a noisy lamp into colored specks.
    """
    return (pictures.amin(dim=1, keepdim=True) - _NEARLY_WHITE).clamp(0, 1 - _NEARLY_WHITE) / (1 - _NEARLY_WHITE)


def _convolve(planes: Tensor, kernels: Tensor) -> Tensor:
    """Each picture with its own kernel, the same for all its planes, mirrored beyond the edges."""
    count, channels, height, width = planes.shape
    for axis in (-2, -1):
        planes = _pad_mirrored(planes, axis, kernels.shape[-1] // 2)
    # Convolution flips kernels, which conv2d does not.
    weights = kernels.flip(-2, -1).repeat_interleave(channels, 0)[:, None]
    blurred = F.conv2d(planes.reshape(1, count * channels, *planes.shape[-2:]), weights, groups=count * channels)
    return blurred.reshape(count, channels, height, width)


def _pad_mirrored(planes: Tensor, axis: int, margin_px: int) -> Tensor:
    """Mirror at both ends of an axis, edge pixels included; repeatedly if the margin is wider than the picture."""
    size = planes.shape[axis]
    reflected = torch.arange(-margin_px, size + margin_px, device=planes.device) % (2 * size)
    return planes.index_select(axis, torch.minimum(reflected, 2 * size - 1 - reflected))
