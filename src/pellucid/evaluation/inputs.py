"""What a restorer gets and what it should produce, made from an evaluation sample by the protocol of a recipe."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from pellucid.data.eval_samples import EvalSample
from pellucid.degradations.degradation import degrade
from pellucid.domains import Degraded, Domain
from pellucid.errors import PictureError
from pellucid.evaluation.comparison import Comparison, to_8_bits
from pellucid.pictures.camera import raw
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.recipes.recipe import Recipe


@dataclass(frozen=True)
class ScoringInput:
    """A picture to score. Planes are (1, C, H, W) in the colors that are compared; white is 1.

    make_baseline: the planes of `Score.degraded_psnr_db`. warnings: why the files may be misunderstood.
    """

    target: Tensor
    degraded: Degraded
    make_baseline: Callable[[], Tensor | None]
    warnings: tuple[str, ...] = ()


def prepare_input(recipe: Recipe, comparison: Comparison, sample: EvalSample, seed: int | None) -> ScoringInput:
    """Target and degraded picture, the latter as given, or made by the protocol with this seed."""
    protocol, domain = recipe.protocol, recipe.domain
    # Color conversion rounds to 8 bit, as it does in MATLAB, where the published scores come from.
    clean = sample.read_target()
    comparison.check_memory(clean)
    target = to_8_bits(comparison.convert(clean.to_tensor()))
    if sample.read_degraded is None:
        assert protocol.degradation is not None
        height, width = (size // protocol.crop_multiple * protocol.crop_multiple for size in target.shape[-2:])
        target = target[..., :height, :width]
        comparison.check_size(sample.path, target, crop_multiple=protocol.crop_multiple)
        seeded = protocol if seed is None else replace(protocol, seed=seed)
        degraded, target = degrade(protocol.degradation, target, seeded.generator(sample.name))
    else:
        comparison.check_size(sample.path, target)
        degraded = sample.read_degraded()
    if isinstance(degraded, Mosaic):
        return _prepare_mosaic(domain, target, degraded)
    warnings = warnings_of(clean)
    if sample.read_degraded is not None:
        comparison.check_channels(sample.name, degraded.channels, clean.channels)
        warnings = warnings_of_pair(degraded, clean, comparison)
    picture = replace(degraded, extra=None).as_depth("float32")
    return ScoringInput(target, picture, lambda: domain.encode(comparison.convert(picture.to_tensor())), warnings)


def warnings_of(picture: Picture) -> tuple[str, ...]:
    """Why the file of a picture may be misunderstood."""
    return () if picture.encoding is None else picture.encoding.warnings


def warnings_of_pair(degraded: Picture, target: Picture, comparison: Comparison) -> tuple[str, ...]:
    """Why one of two files may be misunderstood."""
    of_target = (f"target: {warning}" for warning in warnings_of(target))
    return (*warnings_of(degraded), *of_target, *comparison.warn_of_channels(degraded.channels, target.channels))


def _prepare_mosaic(domain: Domain, target: Tensor, mosaic: Mosaic) -> ScoringInput:
    """The mosaic in float, as pictures are, and its target, both cropped to the area that the domain accepts."""
    if (mosaic.height, mosaic.width) != tuple(target.shape[-2:]):
        raise PictureError(
            f"a mosaic of {mosaic.width} x {mosaic.height} px, "
            f"but its target has {target.shape[-1]} x {target.shape[-2]}"
        )
    if domain.gives_mosaic:
        return ScoringInput(target, mosaic, lambda: to_picture(mosaic).to_tensor())
    rows, cols = domain.covered_area(mosaic)
    target = target[:, :, rows, cols]
    accepted = domain.accept(mosaic).as_depth("float32")
    return ScoringInput(target, accepted, lambda: _develop_baseline(mosaic, rows, cols, target))


def to_picture(restored: Degraded) -> Picture:
    """A result as it is scored: a mosaic is developed by LibRaw."""
    return raw.develop_mosaic(restored, keeps_white=True) if isinstance(restored, Mosaic) else restored


def _develop_baseline(mosaic: Mosaic, rows: slice, cols: slice, target: Tensor) -> Tensor | None:
    """The baseline of Chen et al. 2018: developed like the target, and scaled to its mean."""
    try:
        planes = raw.develop_mosaic(mosaic).crop(rows, cols).to_tensor()
    except PictureError:
        return None
    return (planes * (target.mean() / planes.mean().clamp(min=1e-6))).clamp(0, 1)
