"""Motion blur in linear light."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.degradations.camera_shake import HAND_HELD, Shake
from pellucid.degradations.degradation import Degradation, Footprint
from pellucid.degradations.rng import Range, uniform
from pellucid.pictures.color import linear_to_srgb, srgb_to_linear


@dataclass(frozen=True)
class MotionBlur:
    """The blur of a shaken camera, in linear light, clipped where the sensor is full: another kernel each picture.

    (N, C, H, W) sRGB -> the same. Beyond its edges the picture is mirrored.
    shake: where kernels come from.
    highlights: what is white in all colors shines by so much more than it shows, so that its blur is white, too.
    noise: of the sensor, on the blurred linear light; such as SensorNoise.
    Source: the order of things, and 0.25 to 1.75 for highlights, of Rim et al., "Realistic Blur Synthesis for
    Learning Image Deblurring", ECCV 2022.
    """

    shake: Shake = HAND_HELD
    highlights: Range = 0.0
    noise: Degradation | None = None

    @property
    def footprint(self) -> Footprint:
        return Footprint(reach_px=self.shake.kernel_px // 2)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        kernels = self.shake.kernels(len(clean), generator).to(clean)
        beyond = uniform(self.highlights, len(clean), generator).to(clean).reshape(-1, 1, 1, 1)
        light = srgb_to_linear(clean.clamp(0, 1)) + beyond * _whiteness(clean)
        blurred = _convolved(light, kernels)
        if self.noise is not None:
            blurred = self.noise(blurred, generator)
        return linear_to_srgb(blurred.clamp(0, 1))


_NEARLY_WHITE = 0.95


def _whiteness(pictures: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): 0 for all but what is nearly white, 1 for white.

    A ramp, and of the darkest channel: a threshold for each would make colored specks of a noisy lamp.
    """
    return (pictures.amin(dim=1, keepdim=True) - _NEARLY_WHITE).clamp(0, 1 - _NEARLY_WHITE) / (1 - _NEARLY_WHITE)


def _convolved(planes: Tensor, kernels: Tensor) -> Tensor:
    """Each picture with its own kernel, all its planes alike; mirrored beyond the edges."""
    count, channels, height, width = planes.shape
    for axis in (-2, -1):
        planes = _with_mirrored(planes, axis, kernels.shape[-1] // 2)
    # Convolution turns kernels around, which conv2d does not do.
    each = kernels.flip(-2, -1).repeat_interleave(channels, 0)[:, None]
    blurred = F.conv2d(planes.reshape(1, count * channels, *planes.shape[-2:]), each, groups=count * channels)
    return blurred.reshape(count, channels, height, width)


def _with_mirrored(planes: Tensor, axis: int, margin_px: int) -> Tensor:
    """With so much more on both sides, the edge itself mirrored as well, as often as it takes."""
    size = planes.shape[axis]
    folded = torch.arange(-margin_px, size + margin_px, device=planes.device) % (2 * size)
    return planes.index_select(axis, torch.minimum(folded, 2 * size - 1 - folded))
