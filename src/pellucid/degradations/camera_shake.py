"""Camera shake as blur kernels: random trajectories or measured kernels, with sub-pixel accuracy.

Each point of a kernel is distributed over the four pixels around it (bilinearly), so that shifts by a fraction of
a pixel count and lines have no gaps. The center of mass of a kernel is its middle, so that blurred pictures do not
move.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.degradations.rng import (
    Generator,
    Range,
    accepts_shards,
    draw_by_shard,
    draw_integers,
    draw_normal,
    draw_uniform,
    get_cpu_generator,
    uniform,
)
from pellucid.system import devices

Points = NDArray[np.complex128]
"""Points in a plane, row + column * 1j."""

NUM_POINTS = 128
"""Number of points in a trajectory."""

_NUM_POINTS_IN_PAPER = 2000


class Shake(Protocol):
    """Draws kernels."""

    @property
    def kernel_px(self) -> int:
        """Side of the kernels; odd."""

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, kernel_px, kernel_px) on the generator's device: not negative, centered, of sum 1."""


def draw_kernels(shake: Shake, count: int, generator: Generator) -> Tensor:
    """The kernels of a shake; of each shard separately if it accepts only generators of PyTorch."""
    if accepts_shards(shake):
        return shake.kernels(count, cast(torch.Generator, generator))
    return draw_by_shard(shake.kernels, count, generator)


@dataclass(frozen=True)
class CameraShake:
    """Random trajectories of a hand-held camera: inertia, tremor, a pull back to the start, and occasional jerks.

    length_px: of the trajectory, or the (lowest, highest) of a uniform draw; up to 127, as points must not be more
        than a pixel apart. Trajectories wind, so that kernels are smaller: see `anxiety`.
    kernel_px: side of the kernels; odd. A trajectory that does not fit is scaled down until it does.
    anxiety: how much the trajectory winds; 0 is a straight line. The root mean square distance from the middle is
        2.5 px for trajectories of 60 px with the source's (0, 0.1), 6.6 px with (0, 0.01), and 2.6 to 9.4 px for
        kernels that Levin et al. measured.
    Source: Boracchi and Foi, "Modeling the Performance of Image Restoration from Motion Blur", IEEE TIP 2012, with
    128 points instead of 2000.
    """

    length_px: Range = (0.0, 100.0)
    kernel_px: int = 31
    anxiety: Range = (0.0, 0.1)

    accepts_shards = True

    def kernels(self, count: int, generator: Generator) -> Tensor:
        points = self.trajectories(count, generator)
        return _rasterize(_center(points), torch.full_like(points[..., 0], 1 / NUM_POINTS), self.kernel_px)

    def trajectories(self, count: int, generator: Generator) -> Tensor:
        """(count, NUM_POINTS, 2): rows and columns in pixels, starting at (0, 0)."""

        cpu_generator = get_cpu_generator(generator)

        def normal(*shape: int) -> Points:
            drawn = draw_normal((*shape, 2), cpu_generator, axis=len(shape) - 1)
            return torch.view_as_complex(drawn).numpy().astype(np.complex128)

        def random(*shape: int) -> NDArray[np.float64]:
            return draw_uniform(shape, cpu_generator, axis=len(shape) - 1).double().numpy()

        length_px, anxiety = (
            uniform(value, count, cpu_generator).double().numpy() for value in (self.length_px, self.anxiety)
        )
        pull, tremor_scale, jerk_rate = (high * random(count) for high in (0.7, 10.0, 0.2))
        # With fewer points, what happens at each of them is stronger, or more likely, by this factor.
        rate = _NUM_POINTS_IN_PAPER / NUM_POINTS
        tremor = anxiety * rate**0.5 * tremor_scale * normal(NUM_POINTS, count)
        jerks = (random(NUM_POINTS, count) < jerk_rate * anxiety * rate) * normal(NUM_POINTS, count)
        path = _follow(
            length_px / (NUM_POINTS - 1), _normalize(normal(count)), tremor, jerks, anxiety * rate * pull
        )
        points = torch.from_numpy(np.stack([path.real, path.imag], axis=-1)).float()
        return devices.to_device(points, generator.device)


HAND_HELD = CameraShake()
"""The parameters of the paper, with trajectories up to 100 px."""


@dataclass(frozen=True, eq=False)
class MeasuredShake:
    """Measured kernels: a random one for each picture, randomly rotated by quarter turns, mirrored and shrunk.

    measured: (height, width) each, not negative, of any sum and size, e.g. those that Levin et al. publish with
        "Understanding and Evaluating Blind Deconvolution Algorithms", CVPR 2009.
    zoom: factor of the size, at most 1, or the (lowest, highest) of a uniform draw.
    kernel_px: side of the kernels; odd. A kernel that does not fit is scaled down until it does.
    """

    measured: Sequence[NDArray[Any]] = field(repr=False)
    zoom: Range = 1.0
    kernel_px: int = 31

    accepts_shards = True

    def kernels(self, count: int, generator: Generator) -> Tensor:
        points, weights = (devices.to_device(part, generator.device) for part in self._points)
        drawn = draw_integers(len(points), (count,), generator)
        transforms = draw_integers(8, (count,), generator)
        zoom = uniform(self.zoom, count, generator)
        points = points[drawn] * zoom[:, None, None]
        points = torch.where((transforms & 4 > 0)[:, None, None], points.flip(-1), points)
        signs = torch.stack([1 - (transforms & 2), 1 - 2 * (transforms & 1)], dim=-1)
        return _rasterize(points * signs[:, None], weights[drawn], self.kernel_px)

    @cached_property
    def _points(self) -> tuple[Tensor, Tensor]:
        """Points relative to the center of mass, (kernels, points, 2), and weights of sum 1, (kernels, points)."""
        count, most = len(self.measured), max(int(np.count_nonzero(kernel)) for kernel in self.measured)
        points, weights = torch.zeros(count, most, 2), torch.zeros(count, most)
        for i, kernel in enumerate(self.measured):
            pixels = np.argwhere(kernel)
            light = torch.from_numpy(np.asarray(kernel, np.float64)[tuple(pixels.T)])
            light = light / light.sum()
            positions = torch.from_numpy(pixels).double()
            points[i, : len(pixels)] = (positions - (light[:, None] * positions).sum(dim=0)).float()
            weights[i, : len(pixels)] = light.float()
        return points, weights


def _follow(
    step_px: NDArray[np.float64], direction: Points, tremor: Points, jerks: Points, pull: NDArray[np.float64]
) -> Points:
    """(N, T) points along each trajectory. Where a jerk is not 0, it is added to a reversal of the direction.

    Each step depends on the one before, so they are computed on the CPU, in complex numbers: 1 ms for all of them.
    """
    path = [np.zeros_like(direction)]
    for shift, jerk in zip(tremor[1:], jerks[1:], strict=True):
        change = shift - pull * path[-1] + jerk - 2 * direction * (jerk != 0)
        direction = _normalize(direction + change)
        path.append(path[-1] + step_px * direction)
    return np.stack(path, axis=1)


def _normalize(directions: Points) -> Points:
    return directions / np.maximum(np.abs(directions), 1e-12)


def _center(points: Tensor) -> Tensor:
    return points - points.mean(dim=1, keepdim=True)


def _rasterize(points: Tensor, weights: Tensor, kernel_px: int) -> Tensor:
    """(N, T, 2) points around the middle and their (N, T) weights -> (N, kernel_px, kernel_px) kernels."""
    middle = kernel_px // 2
    points = points * (middle / points.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)).clamp(max=1)
    pixels = torch.arange(kernel_px, device=points.device) - middle
    rows, cols = ((1 - (points[..., axis, None] - pixels).abs()).clamp(min=0) for axis in (0, 1))
    return torch.einsum("nt,ntk,ntl->nkl", weights, rows, cols)
