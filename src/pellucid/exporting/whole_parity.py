"""How closely the samples of a whole graph agree with those that restoring the same pictures gives."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pellucid.backends import parity
from pellucid.backends.parity import Agreement
from pellucid.backends.sample_form import SampleForm
from pellucid.degradations.raw_synthesis import Unprocess
from pellucid.domains import Degraded, Domain, denoises_mosaic, develops_mosaic, takes_mosaic
from pellucid.exporting import whole
from pellucid.exporting.export_format import Run
from pellucid.exporting.whole import Inputs
from pellucid.pictures.picture import Mosaic, NoiseLevel, Picture
from pellucid.restoration.restorer import Restorer

_WHITE_BALANCE = (2.0, 1.0, 1.5)
_EXPOSURE_RATIO = 10.0
_OVEREXPOSURE = 8.0
_NOISE = NoiseLevel(1e-3, 4e-6)


def compare_samples(
    run: Run, reference: Restorer, form: SampleForm, pictures: Iterable[Degraded], *, count: int = 1
) -> Agreement:
    """The agreement before rounding: of each sample, its distance from the exact result beyond half a level.

    If the exact result is halfway between two levels, both are right.
    count: how often each picture is given to the graph at once.
    """
    return parity.summarize(_subtract(run, reference, form, pictures, count))


def _subtract(
    run: Run, reference: Restorer, form: SampleForm, pictures: Iterable[Degraded], count: int
) -> Iterator[Tensor]:
    for degraded in pictures:
        inputs = to_inputs(degraded, reference.recipe.domain, form, count=count)
        found = form.to_planes(run(*inputs.values())).double()
        exact, white = _restore_exactly(degraded, reference, form)
        exact = exact.expand(count, -1, -1, -1)
        parity.check_shapes(found, exact, next(iter(inputs.values())))
        yield ((found - exact).abs() - 0.5).clamp(min=0) / white


def _restore_exactly(degraded: Degraded, reference: Restorer, form: SampleForm) -> tuple[Tensor, float]:
    """The result before rounding, (1, C, H, W) in units of the samples, and the value of white."""
    restored: Degraded = reference.restore(degraded.as_depth("float32"))
    if isinstance(restored, Picture):
        return restored.to_tensor().double().clamp(0, 1) * form.peak, form.peak
    return torch.from_numpy(restored.samples)[None, None].double().clamp(0, form.peak), restored.white_level


def to_inputs(degraded: Degraded, domain: Domain, form: SampleForm, *, count: int = 1) -> Inputs:
    """The inputs of a whole graph, in order, for one picture, `count` times."""
    accepted = domain.accept(degraded)
    samples = torch.from_numpy(np.ascontiguousarray(accepted.samples))
    planes = samples.movedim(-1, 0) if isinstance(accepted, Picture) else samples[None]
    numbers = _find_numbers(accepted, domain) if isinstance(accepted, Mosaic) else {}
    return {
        whole.name_samples(domain): _to_layout(planes, form, count),
        **{name: numbers[name].expand(count, *size) for name, size in whole.list_numbers(domain).items()},
    }


def _find_numbers(mosaic: Mosaic, domain: Domain) -> Inputs:
    """All that a graph may take for a mosaic in addition to its samples."""
    numbers = {
        "black_levels": torch.from_numpy(mosaic.site_black_levels.copy()),
        "white_level": torch.tensor(float(mosaic.white_level)),
        "exposure_ratio": torch.tensor(float(mosaic.exposure_ratio)),
    }
    if develops_mosaic(domain):
        return {**numbers, "white_balance": domain.gains(mosaic)[0]}
    assert denoises_mosaic(domain)
    noise, _ = domain.find_noise_level(mosaic)
    return {**numbers, "noise": torch.tensor([noise.shot, noise.read])}


def _to_layout(planes: Tensor, form: SampleForm, count: int) -> Tensor:
    """(C, H, W) -> (N, C, H, W) or (N, H, W, C)."""
    layers = planes if form.layout == "nchw" else planes.movedim(0, -1)
    return layers.expand(count, -1, -1, -1).contiguous()


def convert_to_form(degraded: Degraded, form: SampleForm) -> Degraded:
    """A picture with the samples and colors of the form; a mosaic with its samples."""
    if isinstance(degraded, Mosaic):
        return degraded.as_depth(form.samples)
    planes = Picture(degraded.samples).to_tensor()
    if form.colors == "rgb":
        planes = planes.expand(-1, 3, -1, -1)
    elif planes.shape[1] == 3:
        planes = planes.mean(1, keepdim=True)
    return Picture.from_tensor(planes, form.samples)


def synthesize(domain: Domain, form: SampleForm, sizes: Sequence[tuple[int, int]]) -> list[Degraded]:
    """Synthetic pictures or mosaics of these sizes, (H, W), with the statistics of natural ones.

    Mosaics are dark and without noise if the domain develops them; else noisy, from black to saturated.
    """
    generator = torch.Generator().manual_seed(0)
    side_px = -(-max(max(size) for size in sizes) // 12) * 12 + 12
    photo = parity.dead_leaves(side_px, generator)[None]
    if not takes_mosaic(domain):
        picture = convert_to_form(Picture.from_tensor(photo), form)
        return [picture.crop(slice(0, height), slice(0, width)) for height, width in sizes]
    period = len(domain.pattern)
    black = np.arange(500.0, 500 + period**2).reshape(period, period)
    light = Unprocess(domain.pattern)(photo, generator)
    linear = light / _EXPOSURE_RATIO if develops_mosaic(domain) else _expose_unevenly(light, generator)
    samples = linear[0, 0].numpy() * (16383 - 512) + np.tile(black, (side_px // period,) * 2)
    mosaic = Mosaic(
        samples.round().clip(0, 16383).astype(np.uint16),
        domain.pattern,
        black_level=tuple(map(tuple, black.tolist())),
        white_level=16383,
        white_balance=_WHITE_BALANCE,
        exposure_ratio=_EXPOSURE_RATIO,
        noise=None if develops_mosaic(domain) else _NOISE,
    )
    blocks = [(-(-height // period) * period, -(-width // period) * period) for height, width in sizes]
    return [replace(mosaic, samples=mosaic.samples[:height, :width]) for height, width in blocks]


def _expose_unevenly(light: Tensor, generator: torch.Generator) -> Tensor:
    """Linear mosaics with noise: the left is black, with samples below black, and the right is saturated."""
    light = light * torch.linspace(0, _OVEREXPOSURE, light.shape[-1])
    deviation = (_NOISE.shot * light + _NOISE.read).sqrt()
    return light + deviation * torch.randn(light.shape, generator=generator)
