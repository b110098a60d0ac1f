"""Shards: each picture of a batch gets the numbers that it gets if its shard is made alone."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pellucid.degradations.camera_noise import CameraNoise
from pellucid.degradations.camera_shake import CameraShake, MeasuredShake
from pellucid.degradations.cameras import PHONES, Sensor
from pellucid.degradations.degradation import Chain, Degradation, Footprint, OneOf, make_pair
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import Cameras, NoisyRaw, SensorNoise, SyntheticRaw, Unprocess
from pellucid.degradations.rng import ShardGenerators, draw_normal, get_cpu_generator, join_generators
from pellucid.degradations.standard import GaussianNoise, Jpeg, Rounding, ShiftedJpeg, ShrinkAndEnlarge


@dataclass(frozen=True)
class Own:
    """A degradation of a user, which draws from a generator of PyTorch."""

    draws = True
    footprint = Footprint()

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return clean + torch.rand(clean.shape, generator=generator)


class OwnWithTarget(Own):
    def make_pair(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self(clean, generator), clean / 2


class OwnNoise(GaussianNoise):
    """A subclass that draws in its own way, unlike its base."""

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:  # type: ignore[override]  # as users do
        return clean + torch.rand(clean.shape, generator=generator)


@dataclass(frozen=True)
class OwnShake:
    kernel_px: int = 3

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        kernels = torch.rand(count, 3, 3, generator=generator)
        return kernels / kernels.sum((1, 2), keepdim=True)


class OwnSensor(Sensor):
    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:  # type: ignore[override]  # as users do
        gain = torch.rand(count, generator=generator) / 100
        return gain, gain**2, gain**2


class OwnCameras(Unprocess):
    def draw_cameras(self, count: int, generator: torch.Generator) -> Cameras:  # type: ignore[override]  # as users do
        torch.rand(count, generator=generator)
        return super().draw_cameras(count, generator)


class OwnJpeg(Jpeg):
    """Draws, although it inherits the statement that it does not."""

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:  # type: ignore[override]  # as users do
        return clean + torch.rand(clean.shape, generator=generator)


MEASURED = MeasuredShake([np.eye(3), np.ones((2, 4)), np.eye(7)[:5]], zoom=(0.5, 1.0), kernel_px=7)

DRAWING: list[Degradation] = [
    GaussianNoise((0, 55)),
    ShrinkAndEnlarge((2, 3)),
    Jpeg((5, 99)),
    ShiftedJpeg((5, 95)),
    OneOf((GaussianNoise((0, 55)), ShrinkAndEnlarge((2, 3, 4)), OneOf((Rounding(), SensorNoise())))),
    Unprocess(),
    SyntheticRaw(),
    NoisyRaw(),
    CameraNoise(clean_share=0.5),
    MotionBlur(CameraShake((3.0, 12.0), 9), highlights=(0.25, 1.75), noise=SensorNoise()),
    MotionBlur(MEASURED),
    MotionBlur(OwnShake()),
    Own(),
    OwnWithTarget(),
    OwnNoise(25),
    Chain((Rounding(), Own(), GaussianNoise(5))),
    OneOf((Own(), GaussianNoise((0, 55)))),
    SyntheticRaw(noise=Own()),
    CameraNoise(noise=Own(), compression=Own()),
    SensorNoise(OwnSensor(0.01, 0.0)),
    NoisyRaw(sensors=(OwnSensor(0.01, 0.0), PHONES)),
    SyntheticRaw(OwnCameras()),
    CameraNoise(OwnCameras()),
    Chain((OwnJpeg(50), GaussianNoise(5))),
]


def build(num_shards: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(7 * seed) for seed in range(num_shards)]


@pytest.mark.parametrize("degradation", DRAWING, ids=repr)
def test_shards_are_degraded_together_as_alone(degradation: Degradation) -> None:
    count, num_shards = 2, 4
    clean = torch.rand(count * num_shards, 3, 24, 36, generator=torch.Generator().manual_seed(1))
    shards = zip(clean.split(count), build(num_shards), strict=True)
    alone = [make_pair(degradation, *shard) for shard in shards]
    together = make_pair(degradation, clean, join_generators(build(num_shards), count))
    for planes, expected in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(planes, torch.cat(expected), rtol=1e-5, atol=1e-6)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_selected_pictures_draw_from_the_generators_of_their_shards(
    counts: list[int], data: st.DataObject
) -> None:
    shards = [shard for shard, count in enumerate(counts) for _ in range(count)]
    members = sorted(data.draw(st.sets(st.sampled_from(range(len(shards))), min_size=1)))
    generators = ShardGenerators(tuple(build(len(counts))), tuple(counts))
    drawn = draw_normal((len(members), 2), generators.select(torch.tensor(members)))
    fresh = build(len(counts))
    of_members = [shards[i] for i in members]
    expected = [torch.randn(of_members.count(i), 2, generator=fresh[i]) for i in sorted(set(of_members))]
    assert torch.equal(drawn, torch.cat(expected))


def test_a_single_shard_keeps_its_generator() -> None:
    (generator,) = build(1)
    assert join_generators([generator], 3) is generator
    assert get_cpu_generator(generator) is generator


def test_the_axis_of_the_pictures_may_be_any() -> None:
    drawn = draw_normal((5, 4, 2), join_generators(build(2), 2), axis=1)
    first, second = build(2)
    assert torch.equal(drawn[:, :2], torch.randn(5, 2, 2, generator=first))
    assert torch.equal(drawn[:, 2:], torch.randn(5, 2, 2, generator=second))


def test_shards_must_cover_the_batch() -> None:
    with pytest.raises(ValueError, match=r"5 pictures, but shards of \(2, 2\)"):
        draw_normal((5, 1), join_generators(build(2), 2))
