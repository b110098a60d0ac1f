"""Camera shake as kernels: random trajectories, or kernels that were measured, drawn between the pixels.

Points of light are spread over the four pixels around them (a tent of one pixel each way), so that a shift by a
part of a pixel shows, and no pixel is skipped. A kernel's center of mass is its middle: what is blurred stays in
its place on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.degradations.rng import Range, uniform

Places = NDArray[np.complex128]
"""Rows and columns, as one number each."""

NUM_POINTS = 128
_NUM_POINTS_OF_SOURCE = 2000


class Shake(Protocol):
    """Where kernels come from."""

    @property
    def kernel_px(self) -> int:
        """Side of the kernels, odd."""

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, kernel_px, kernel_px) on the generator's device: never negative, each of sum 1 and centered."""


@dataclass(frozen=True)
class CameraShake:
    """A hand that follows its way with inertia, trembles, is pulled back to where it began, and jerks at times.

    length_px: of the trajectory, to the part of a pixel, or the (lowest, highest) of a uniform draw; up to 127,
        beyond which points lie more than a pixel apart. The ways wind, so that kernels are smaller: see `anxiety`.
    kernel_px: side of the kernels, odd. A way that does not fit is drawn together until it does.
    anxiety: how much it is turned aside on the way, 0 for a straight line. Ways of 60 px lie 2.5 px from their
        middle (root mean square) with the source's (0, 0.1), and 6.6 px with (0, 0.01); kernels that Levin et al.
        measured, 2.6 to 9.4 px.
    Source: Boracchi and Foi, "Modeling the Performance of Image Restoration from Motion Blur", IEEE TIP 2012, with
    its random impulses, pull to the center and jerks. Its 2000 points are 128 here.
    """

    length_px: Range = (0.0, 100.0)
    kernel_px: int = 31
    anxiety: Range = (0.0, 0.1)

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        points = self.trajectories(count, generator)
        return _spread(_centered(points), torch.full_like(points[..., 0], 1 / NUM_POINTS), self.kernel_px)

    def trajectories(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, NUM_POINTS, 2): rows and columns in pixels, from (0, 0) on."""

        def normal(*shape: int) -> Places:
            drawn = torch.randn(*shape, 2, generator=generator, device=generator.device)
            return torch.view_as_complex(drawn).cpu().numpy().astype(np.complex128)

        def even(*shape: int) -> NDArray[np.float64]:
            return torch.rand(shape, generator=generator, device=generator.device).cpu().double().numpy()

        length_px, anxiety = (
            uniform(value, count, generator).cpu().double().numpy() for value in (self.length_px, self.anxiety)
        )
        pull, jerk, impulse = (high * even(count) for high in (0.7, 10.0, 0.2))
        # What happens at each point of the original is made as much stronger here, or likelier.
        rate = _NUM_POINTS_OF_SOURCE / NUM_POINTS
        trembling = anxiety * rate**0.5 * jerk * normal(NUM_POINTS, count)
        turning = (even(NUM_POINTS, count) < impulse * anxiety * rate) * normal(NUM_POINTS, count)
        path = _followed(
            length_px / (NUM_POINTS - 1), _unit(normal(count)), trembling, turning, anxiety * rate * pull
        )
        return torch.from_numpy(np.stack([path.real, path.imag], axis=-1)).float().to(generator.device)


HAND_HELD = CameraShake()


@dataclass(frozen=True, eq=False)
class MeasuredShake:
    """Kernels that were measured, one for each picture: turned and mirrored at random, and made smaller.

    measured: (height, width) each, not negative, of any sum and size, as Levin et al. publish theirs with
        "Understanding and Evaluating Blind Deconvolution Algorithms", CVPR 2009.
    zoom: times the size they were measured in, at most 1, or the (lowest, highest) of a uniform draw.
    kernel_px: side of the kernels given, odd. One that does not fit is made smaller until it does.
    """

    measured: Sequence[NDArray[Any]] = field(repr=False)
    zoom: Range = 1.0
    kernel_px: int = 31

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        points, weights = (part.to(generator.device) for part in self._points)
        drawn = torch.randint(len(points), (count,), generator=generator, device=generator.device)
        turns = torch.randint(8, (count,), generator=generator, device=generator.device)
        zoom = uniform(self.zoom, count, generator)
        points = points[drawn] * zoom[:, None, None]
        points = torch.where((turns & 4 > 0)[:, None, None], points.flip(-1), points)
        signs = torch.stack([1 - (turns & 2), 1 - 2 * (turns & 1)], dim=-1)
        return _spread(points * signs[:, None], weights[drawn], self.kernel_px)

    @cached_property
    def _points(self) -> tuple[Tensor, Tensor]:
        """Places around each center of mass and weights of sum 1, (kernels, points, 2) and (kernels, points)."""
        count, most = len(self.measured), max(int(np.count_nonzero(kernel)) for kernel in self.measured)
        points, weights = torch.zeros(count, most, 2), torch.zeros(count, most)
        for i, kernel in enumerate(self.measured):
            places = np.argwhere(kernel)
            light = torch.from_numpy(np.asarray(kernel, np.float64)[tuple(places.T)])
            light = light / light.sum()
            offsets = torch.from_numpy(places).double()
            points[i, : len(places)] = (offsets - (light[:, None] * offsets).sum(dim=0)).float()
            weights[i, : len(places)] = light.float()
        return points, weights


def _followed(
    step_px: NDArray[np.float64], direction: Places, trembling: Places, turning: Places, pull: NDArray[np.float64]
) -> Places:
    """(N, T) places along each way. Where `turning` is not 0, the camera turns back, and as much aside.

    One step follows the other, so they are counted on the CPU, in complex numbers: 1 ms for all of them.
    """
    path = [np.zeros_like(direction)]
    for trembles, turns in zip(trembling[1:], turning[1:], strict=True):
        change = trembles - pull * path[-1] + turns - 2 * direction * (turns != 0)
        direction = _unit(direction + change)
        path.append(path[-1] + step_px * direction)
    return np.stack(path, axis=1)


def _unit(directions: Places) -> Places:
    return directions / np.maximum(np.abs(directions), 1e-12)


def _centered(points: Tensor) -> Tensor:
    return points - points.mean(dim=1, keepdim=True)


def _spread(points: Tensor, weights: Tensor, kernel_px: int) -> Tensor:
    """(N, T, 2) places around the middle and (N, T) light -> (N, kernel_px, kernel_px)."""
    middle = kernel_px // 2
    points = points * (middle / points.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)).clamp(max=1)
    places = torch.arange(kernel_px, device=points.device) - middle
    rows, cols = ((1 - (points[..., axis, None] - places).abs()).clamp(min=0) for axis in (0, 1))
    return torch.einsum("nt,ntk,ntl->nkl", weights, rows, cols)
