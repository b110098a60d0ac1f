from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pellucid.degradations.camera_shake import CameraShake
from pellucid.degradations.cameras import Sensor, ShotDependentVariance
from pellucid.degradations.degradation import Chain, Degradation, Footprint, OneOf, draws, footprint
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SensorNoise
from pellucid.degradations.standard import GaussianNoise, Jpeg, Rounding, ShiftedJpeg, Shrink, ShrinkAndEnlarge
from pellucid.errors import RecipeError
from pellucid.pictures.resize import resize

ALL: list[Degradation] = [
    GaussianNoise(25),
    GaussianNoise((0, 55)),
    Shrink(2),
    Jpeg(10),
    Jpeg((5, 99)),
    ShiftedJpeg((5, 95)),
    Rounding(),
    Chain((Shrink(2), GaussianNoise(5))),
    OneOf((GaussianNoise((0, 55)), ShrinkAndEnlarge((2, 3, 4)), Jpeg((5, 99)))),
    ShrinkAndEnlarge((2, 3, 4)),
    SensorNoise(),
    SensorNoise(Sensor(1e-3, ShotDependentVariance(2, 1), row=1e-5), num_levels=None),
    MotionBlur(CameraShake((3.0, 12.0), 9)),
    MotionBlur(CameraShake(12.0, 9), highlights=(0.25, 1.75), noise=SensorNoise(num_levels=None)),
]


@dataclass(frozen=True)
class PixelByPixel:
    """A function as a degradation that is neither random nor reads neighbors."""

    function: Callable[[Tensor], Tensor]

    draws = False
    footprint = Footprint()

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return self.function(clean)


KEEP_SIZE = [degradation for degradation in ALL if not isinstance(degradation, Shrink | Chain)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clean(count: int = 3, channels: int = 1, height: int = 24, width: int = 36) -> Tensor:
    """Smooth pictures, so that JPEG has something to keep."""
    small = torch.rand(count, channels, height // 4, width // 4, generator=seeded(7))
    return resize(small, 4).clamp(0, 1)


def is_same(degradation: Degradation, a: int, b: int) -> bool:
    return torch.equal(degradation(clean(), seeded(a)), degradation(clean(), seeded(b)))


@pytest.mark.parametrize("degradation", ALL, ids=repr)
def test_the_same_seed_gives_the_same_pictures(degradation: Degradation) -> None:
    given_state = torch.get_rng_state()
    picture = clean()
    first = degradation(picture, seeded(3))
    assert torch.equal(first, degradation(picture, seeded(3)))
    assert torch.equal(torch.get_rng_state(), given_state)
    assert torch.equal(picture, clean())  # not changed in place
    assert first.dtype == torch.float32


@pytest.mark.parametrize("degradation", [d for d in ALL if d not in (Shrink(2), Jpeg(10), Rounding())], ids=repr)
def test_another_seed_gives_other_pictures(degradation: Degradation) -> None:
    assert not all(is_same(degradation, 3, seed) for seed in range(4, 10))


@pytest.mark.parametrize("degradation", KEEP_SIZE, ids=repr)
@given(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20))
def test_sizes_are_kept(degradation: Degradation, count: int, channels: int, height: int, width: int) -> None:
    picture = torch.rand(count, channels, height, width, generator=seeded(0))
    assert degradation(picture, seeded(1)).shape == picture.shape


def test_a_chain_applies_its_steps_in_order() -> None:
    steps = (Shrink(2), GaussianNoise(10), Jpeg(50))
    generator, expected = seeded(5), clean()
    for step in steps:
        expected = step(expected, generator)
    assert torch.equal(Chain(steps)(clean(), seeded(5)), expected)
    assert torch.equal(Chain(())(clean(), seeded(5)), clean())


def test_all_choices_are_equally_likely() -> None:
    def fill(value: float) -> Degradation:
        return PixelByPixel(lambda pictures: torch.full_like(pictures, value))

    drawn = OneOf((fill(0), fill(1), fill(2)))(torch.zeros(3000, 1, 1, 1), seeded(0)).flatten()
    # 1000 of each expected, with a deviation of sqrt(3000 * 1/3 * 2/3) = 26.
    assert set(drawn.tolist()) == {0, 1, 2}
    assert all(abs(int((drawn == value).sum()) - 1000) < 110 for value in range(3))


def test_pictures_with_the_same_choice_keep_their_order() -> None:
    def add(value: float) -> Degradation:
        return PixelByPixel(lambda pictures: pictures + value)

    numbered = torch.arange(64.0).reshape(64, 1, 1, 1)
    added = OneOf((add(0.25), add(0.5)))(numbered, seeded(0)) - numbered
    assert set(added.flatten().tolist()) == {0.25, 0.5}


@pytest.mark.parametrize("degradation", ALL, ids=repr)
def test_degradations_that_do_not_draw_leave_the_generator_alone(degradation: Degradation) -> None:
    generator = seeded(3)
    degradation(clean(), generator)
    if not draws(degradation):
        assert torch.equal(generator.get_state(), seeded(3).get_state())


def test_footprints_add_up() -> None:
    """Worked out by hand. That they are wide enough is tested where patches are cropped."""
    assert footprint(GaussianNoise(25)) == Footprint()
    assert footprint(Shrink(3)) == Footprint(scale=3, grid_px=3, reach_px=6)
    assert footprint(Chain((Shrink(2), Shrink(3)))) == Footprint(scale=6, grid_px=6, reach_px=4 + 1 + 2 * (6 + 2))
    blur = MotionBlur(CameraShake(12.0, 9))
    assert footprint(Chain((blur, Jpeg(5)))) == Footprint(grid_px=16, reach_px=4 + 15 + 2)
    assert footprint(MotionBlur(blur.shake, noise=Jpeg(5))) == footprint(Chain((blur, Jpeg(5))))
    assert footprint(OneOf((Jpeg(5), ShrinkAndEnlarge((2, 3))))) == Footprint(grid_px=48, reach_px=12)


@pytest.mark.parametrize("wrap", [lambda step: step, lambda step: Chain((step,)), lambda step: OneOf((step,))])
def test_a_degradation_must_state_its_footprint(wrap: Callable[[object], Degradation]) -> None:
    """With a default, the borders of training patches would silently be degraded differently."""

    def blur(clean: Tensor, generator: torch.Generator) -> Tensor:
        return resize(resize(clean, Fraction(1, 2)), 2)

    with pytest.raises(RecipeError, match=r"blur.* has no attribute 'footprint'; add it: Footprint\(\)"):
        footprint(wrap(blur))


def test_a_degradation_must_state_whether_it_draws() -> None:
    with pytest.raises(RecipeError, match="has no attribute 'draws'; add it: True if it draws from its generator"):
        draws(Chain((cast(Degradation, lambda clean, _: clean),)))
