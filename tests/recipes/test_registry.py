import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pellucid import networks
from pellucid.degradations.degradation import OneOf
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.degradations.standard import GaussianNoise, Jpeg, Shrink, ShrinkAndEnlarge
from pellucid.domains import RGB, Gray, Luma, PackedRaw
from pellucid.errors import RecipeError
from pellucid.networks import dncnn, srcnn
from pellucid.networks.srcnn import SRCNN, inner_squares
from pellucid.recipes import registry
from pellucid.recipes.losses import half_sum_of_squares, mean_absolute
from pellucid.recipes.optimizers import SGD, SOAP, Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol
from pellucid.recipes.schedules import Constant, Cosine, Drops, Exponential
from pellucid.system.keywords import describe_meaning

PUBLISHED = {
    "srcnn.paper",
    "srcnn.tuned",
    "dncnn.gaussian",
    "dncnn.blind",
    "dncnn.three_tasks",
    "mimo_unet.gopro",
    "mimo_unet.gopro_plus",
    "mimo_unet.synthetic",
    "sid_unet.sony",
    "sid_unet.fuji",
    "sid_unet.any_camera",
}

HOSTILE = [
    "",
    ".",
    "..",
    "os.system",
    "builtins.eval",
    "antigravity.fly_radar",
    "dncnn",
    "dncnn.",
    ".gaussian",
    "dncnn.nn",
    "dncnn.F",
    "dncnn.torch",
    "dncnn._as_published",
    "dncnn._one_task",
    "dncnn.draw_as_released",
    "dncnn.recipe",
    "dncnn.partial",
    "dncnn.Recipe",
    "dncnn.Layer",
    "dncnn.DnCNN",
    "dncnn.__init__",
    "dncnn.__builtins__",
    "srcnn.protocol",
    "srcnn.inner_squares",
    "../dncnn.gaussian",
    "dncnn/gaussian",
    "dncnn..gaussian",
    "dncnn.gaussian.__globals__",
    "dncnn.gaussian.func",
    "dncnn.gaussian()",
    "dncnn.gaussian ",
    "dncnn.gaussian\n",
    "DnCNN.gaussian",
    "pellucid.networks.dncnn.gaussian",
    "networks.dncnn",
    "recipe.find",
    "checkpoint.load",
    "a" * 10_000,
    "a." * 5_000,
    "dncnn." + "g" * 10_000,
    "dncnn\0.gaussian",
]


def lr_at(found: Recipe, step: int) -> float:
    return found.optimizer.lr * found.schedule.factor(step, found.num_steps)


def one_line(error: pytest.ExceptionInfo[RecipeError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 450
    return message


def test_names_are_those_published() -> None:
    assert sorted(registry.list_names()) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", registry.list_names())
def test_a_recipe_finds_itself_again(name: str) -> None:
    found = registry.find(name)
    assert found.name == name
    again = registry.find(found.name, **found.parameters)
    assert again.parameters == found.parameters
    assert again.domain == found.domain
    assert (again.patch_px, again.batch_size, again.num_steps) == (
        found.patch_px,
        found.batch_size,
        found.num_steps,
    )


@pytest.mark.parametrize("name", registry.list_names())
def test_a_recipe_describes_itself(name: str) -> None:
    keywords = registry.own_keywords(name)
    assert registry.summarize(name)
    assert {key: keyword.default for key, keyword in keywords.items()} == registry.find(name).parameters
    # Types are for people: what may be given, not how pydantic keeps it.
    assert all("FieldInfo" not in keyword.values for keyword in keywords.values())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_and_imports_nothing(name: str) -> None:
    registry.list_names()
    before = set(sys.modules)
    with pytest.raises(RecipeError) as caught:
        registry.find(name)
    one_line(caught)
    assert {module for module in set(sys.modules) - before if not module.startswith("pellucid.networks")} == set()
    with pytest.raises(RecipeError):
        registry.own_keywords(name)


@given(st.text(max_size=30) | st.from_regex(r"[a-z_]{1,12}\.[a-z_]{1,12}", fullmatch=True))
def test_any_other_name_is_refused(name: str) -> None:
    if name not in PUBLISHED:
        with pytest.raises(RecipeError):
            registry.find(name)


def test_a_recipe_answers_to_its_own_module_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dncnn, "borrowed", srcnn.paper, raising=False)
    assert "dncnn.borrowed" not in registry.list_names()
    with pytest.raises(RecipeError, match="no recipe"):
        registry.find("dncnn.borrowed")


def test_a_slip_in_a_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'dncn\.gausian'; did you mean dncnn\.gaussian") as caught:
        registry.find("dncn.gausian")
    one_line(caught)


def test_a_slip_in_a_keyword_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"gaussian has no keyword 'sigma_25'; did you mean sigma_255"):
        registry.find("dncnn.gaussian", sigma_25=15)
    with pytest.raises(RecipeError, match="has no keyword") as caught:
        registry.find("dncnn.gaussian", **{"k" * 10_000: 1, "\n": 2})
    one_line(caught)


@pytest.mark.parametrize("key", ["name", "function", "parameters", "self", "args", "kwargs"])
def test_keywords_of_the_machinery_are_unknown_as_any_other(key: str) -> None:
    # They come out of weight files too, where anything can be written.
    with pytest.raises(RecipeError, match=f"dncnn.gaussian has no keyword '{key}'"):
        registry.find("dncnn.gaussian", **{key: 1})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("dncnn.gaussian", {"sigma_255": "15"}, {"sigma_255": 15.0}),
        ("dncnn.gaussian", {"sigma_255": "12.5", "depth": "20"}, {"sigma_255": 12.5, "depth": 20}),
        ("dncnn.gaussian", {"bias": "false"}, {"bias": False}),
        ("dncnn.gaussian", {"channels": "3"}, {"channels": 3}),
        ("srcnn.paper", {"scale": "4", "mapping_px": "1"}, {"scale": 4, "mapping_px": 1}),
        ("srcnn.tuned", {"num_steps": "10"}, {"num_steps": 10}),
        ("dncnn.three_tasks", {"quality": "10"}, {"quality": 10, "scale": None}),
        ("dncnn.three_tasks", {"scale": "3"}, {"scale": 3, "quality": None}),
        ("mimo_unet.gopro", {"upsampling": "asymmetric"}, {"upsampling": "asymmetric"}),
        ("sid_unet.sony", {"up_bias": "true"}, {"up_bias": True}),
    ],
)
def test_values_may_be_text(name: str, text: dict[str, str], expected: dict[str, Any]) -> None:
    parameters = registry.find(name, **text).parameters
    assert {key: parameters[key] for key in expected} == expected
    assert [type(parameters[key]) for key in expected] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("dncnn.gaussian", "sigma_255", -1),
        ("dncnn.gaussian", "sigma_255", 256),
        ("dncnn.gaussian", "sigma_255", float("nan")),
        ("dncnn.gaussian", "sigma_255", "much"),
        ("dncnn.gaussian", "sigma_255", None),
        ("dncnn.gaussian", "sigma_255", "two\nlines"),
        ("dncnn.gaussian", "sigma_255", "9" * 10_000),
        ("dncnn.gaussian", "sigma_255", [1] * 10_000),
        ("dncnn.gaussian", "channels", 2),
        ("dncnn.gaussian", "channels", "2"),
        ("dncnn.gaussian", "depth", 1),
        ("dncnn.gaussian", "depth", 10**6),
        ("dncnn.gaussian", "depth", 17.5),
        ("dncnn.gaussian", "width", 0),
        ("dncnn.gaussian", "bias", "perhaps"),
        ("dncnn.three_tasks", "scale", 5),
        ("dncnn.three_tasks", "quality", 0),
        ("srcnn.paper", "scale", 1),
        ("srcnn.paper", "scale", True),
        ("srcnn.paper", "mapping_px", 7),
        ("srcnn.tuned", "num_steps", 0),
        ("mimo_unet.gopro", "upsampling", "bilinear"),
        ("mimo_unet.gopro", "dropout", 1),
        ("mimo_unet.gopro", "frequency_weight", -0.1),
        ("sid_unet.sony", "channel_order", "planar"),
    ],
)
def test_a_wrong_value_names_the_field_and_the_recipe_in_one_line(name: str, key: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.find(name, **{key: value})
    message = one_line(caught)
    assert name in message
    assert key in message


def test_two_tasks_at_once_are_refused() -> None:
    with pytest.raises(RecipeError, match="alternatives; give one"):
        registry.find("dncnn.three_tasks", scale=2, quality=10)


def test_a_recipe_is_also_a_function() -> None:
    made = dncnn.gaussian(sigma_255=15)
    assert made.name == "dncnn.gaussian"
    assert made.parameters["sigma_255"] == 15
    with pytest.raises(RecipeError, match=r"dncnn\.gaussian: sigma_255"):
        dncnn.gaussian(sigma_255=-15)


# What is published: Zhang et al. 2017, Section IV-A, and the PyTorch code that released weights come from.


@pytest.mark.parametrize(
    ("name", "patch_px", "steps_per_epoch", "depth"),
    [
        ("dncnn.gaussian", 40, 1600, 17),
        ("dncnn.blind", 50, 3000, 20),
        ("dncnn.three_tasks", 50, 8000, 20),
    ],
)
def test_dncnn_as_published(name: str, patch_px: int, steps_per_epoch: int, depth: int) -> None:
    found = registry.find(name)
    assert found.loss is half_sum_of_squares
    assert found.optimizer == Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    assert (found.patch_px, found.batch_size) == (patch_px, 128)
    assert found.num_steps == 50 * steps_per_epoch
    assert lr_at(found, 0) == 1e-3
    assert lr_at(found, 30 * steps_per_epoch - 1) == 1e-3
    assert lr_at(found, 30 * steps_per_epoch) == pytest.approx(1e-4)
    assert lr_at(found, found.num_steps - 1) == pytest.approx(1e-4)
    assert found.parameters["depth"] == depth


def test_dncnn_degradations_as_published() -> None:
    assert registry.find("dncnn.gaussian", sigma_255=15).degradation == GaussianNoise(15)
    assert registry.find("dncnn.gaussian", sigma_255=15).protocol == ScoringProtocol(GaussianNoise(15))
    assert registry.find("dncnn.blind", sigma_255=15).degradation == GaussianNoise((0, 55))
    assert registry.find("dncnn.blind", sigma_255=15).protocol == ScoringProtocol(GaussianNoise(15))
    mixed = OneOf((GaussianNoise((0, 55)), ShrinkAndEnlarge((2, 3, 4)), Jpeg((5, 99))))
    assert registry.find("dncnn.three_tasks", quality=10).degradation == mixed


def test_dncnn_domains() -> None:
    assert registry.find("dncnn.gaussian").domain == Gray()
    assert registry.find("dncnn.gaussian", channels=3).domain == RGB()
    assert registry.find("dncnn.blind", channels=3).domain == RGB()
    assert registry.find("dncnn.three_tasks").domain == Luma(1)
    assert registry.find("dncnn.three_tasks", scale=3).domain == Luma(3)


def test_three_tasks_are_scored_one_at_a_time() -> None:
    def protocol(**task: Any) -> ScoringProtocol:
        return registry.find("dncnn.three_tasks", **task).protocol

    assert protocol() == ScoringProtocol(GaussianNoise(25))
    assert protocol(sigma_255=0) == ScoringProtocol(GaussianNoise(0))
    assert protocol(quality=10) == ScoringProtocol(Jpeg(10), rounds=True)
    assert protocol(scale=3) == ScoringProtocol(Shrink(3), crop_multiple=3, border_px=3, rounds=True)


def test_dncnn_gains_start_near_zero() -> None:
    torch.manual_seed(0)
    found = registry.find("dncnn.gaussian")
    network = found.network()
    assert found.initialize is not None
    assert isinstance(network, nn.Module)
    found.initialize(network)
    gains = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert gains.abs().max() == pytest.approx(0.025)
    # Drawn with deviation sqrt(2 / 576) = 0.0589: two thirds are cut to the limits.
    assert (gains.abs() == gains.abs().max()).float().mean().item() == pytest.approx(0.671, abs=0.05)
    inner = next(m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 64)
    assert inner.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.03)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_srcnn_as_published(scale: int) -> None:
    found = registry.find("srcnn.paper", scale=scale)
    assert found.domain == Luma(scale)
    assert found.degradation == Shrink(scale)
    assert found.loss is inner_squares
    # 1e-4, and 1e-5 for the last layer (Section 3.3).
    assert found.optimizer == SGD(lr=1e-4, momentum=0.9, slower=("reconstruct", 0.1))
    assert lr_at(found, found.num_steps - 1) == 1e-4
    assert found.batch_size * found.num_steps == 8 * 10**8
    assert found.patch_px % scale == 0
    assert 33 - scale < found.patch_px <= 33
    assert found.protocol == ScoringProtocol(Shrink(scale), crop_multiple=scale, border_px=scale, rounds=True)


def test_srcnn_starts_small() -> None:
    torch.manual_seed(0)
    found = registry.find("srcnn.paper")
    network = found.network()
    assert found.initialize is not None
    assert isinstance(network, SRCNN)
    found.initialize(network)
    assert network.extract.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert network.extract.bias is not None
    assert not network.extract.bias.any()


@pytest.mark.parametrize("name", ["srcnn.paper", "mimo_unet.gopro", "sid_unet.sony"])
def test_the_slower_layer_is_one_of_the_network(name: str) -> None:
    found = registry.find(name)
    if found.optimizer.slower is not None:
        prefix, _ = found.optimizer.slower
        assert any(key.startswith(f"{prefix}.") for key in found.network().state_dict())


@pytest.mark.parametrize("name", ["mimo_unet.gopro", "mimo_unet.gopro_plus"])
def test_mimo_as_published(name: str) -> None:
    found = registry.find(name)
    assert found.domain == RGB()
    assert found.degradation is None
    assert found.optimizer == Adam(lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    assert (found.patch_px, found.batch_size) == (256, 4)
    # 2103 pairs, 4 a step, the last short; 3000 epochs; halved every 500.
    assert found.num_steps == 526 * 3000
    assert [lr_at(found, 526 * epoch - 1) for epoch in (500, 1000)] == pytest.approx([1e-4, 0.5e-4])
    assert [lr_at(found, 526 * epoch) for epoch in (500, 1000, 2999)] == pytest.approx(
        [0.5e-4, 0.25e-4, 1e-4 / 32]
    )
    assert found.protocol == ScoringProtocol(None)


def test_mimo_plus_has_20_blocks_and_dropout() -> None:
    network = registry.find("mimo_unet.gopro_plus").network()
    assert isinstance(network, nn.Module)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)] == [0.1]
    assert any(key.startswith("encoder1.19.") for key in network.state_dict())
    assert not any(key.startswith("encoder1.20.") for key in network.state_dict())
    assert [m.p for m in _modules("mimo_unet.gopro") if isinstance(m, nn.Dropout2d)] == [0]


def _modules(name: str) -> list[nn.Module]:
    network = registry.find(name).network()
    assert isinstance(network, nn.Module)
    return list(network.modules())


@pytest.mark.parametrize(
    ("name", "num_scenes", "patch_px", "sensor"),
    [("sid_unet.sony", 161, 1024, "bayer"), ("sid_unet.fuji", 135, 1536, "xtrans")],
)
def test_sid_as_published(name: str, num_scenes: int, patch_px: int, sensor: str) -> None:
    found = registry.find(name)
    assert isinstance(found.domain, PackedRaw)
    assert found.domain.sensor == sensor
    assert found.loss is mean_absolute
    assert found.optimizer == Adam(lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    assert found.batch_size == 1
    assert found.patch_px == patch_px  # 512 packed pixels
    assert found.num_steps == 4001 * num_scenes
    # 1e-5 for epochs above 2000, which are counted from 0.
    assert lr_at(found, 2001 * num_scenes - 1) == 1e-4
    assert lr_at(found, 2001 * num_scenes) == pytest.approx(1e-5)


@pytest.mark.parametrize("name", registry.list_names())
def test_patches_fit_the_network(name: str) -> None:
    found = registry.find(name)
    side = Fraction(found.patch_px)
    if found.degradation is not None and isinstance(found.degradation, Shrink):
        side /= found.degradation.scale
    packed = side * found.domain.rate
    assert packed.denominator == 1
    assert packed % found.network().multiple == 0


def test_constant_stays() -> None:
    assert [Constant().factor(step, 10) for step in (0, 5, 9)] == [1, 1, 1]


def test_drops_multiply_at_their_steps() -> None:
    drops = Drops(at_steps=(2, 4), gamma=0.5)
    assert [drops.factor(step, 6) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_exponential_falls_evenly() -> None:
    fall = Exponential(last=0.01)
    assert [fall.factor(step, 5) for step in range(5)] == pytest.approx([1, 10**-0.5, 0.1, 10**-1.5, 0.01])
    assert fall.factor(0, 1) == 1


def test_cosine_warms_up_and_falls_to_zero() -> None:
    cosine = Cosine(warmup_steps=4)
    assert [cosine.factor(step, 12) for step in (0, 1, 3, 4, 8, 12)] == pytest.approx([0.25, 0.5, 1, 1, 0.5, 0])


@given(st.integers(0, 50), st.integers(1, 100))
def test_no_schedule_leaves_zero_to_one(warmup: int, num_steps: int) -> None:
    schedules = (Cosine(warmup), Exponential(0.1), Drops((3, 7), 0.5), Constant())
    for schedule in schedules:
        assert all(0 <= schedule.factor(step, num_steps) <= 1 for step in range(num_steps))


# Keywords that every recipe takes.


def test_every_recipe_takes_the_keywords_of_training_and_finds_itself_again() -> None:
    given = {"lr": "2e-4", "batch_size": "3", "betas": "0.8,0.9", "ema_decay": "0.99", "clip_tensor_norm": "5"}
    for name in registry.list_names():
        changes = {key: value for key, value in given.items() if not (name == "srcnn.paper" and key == "betas")}
        found = registry.find(name, **changes)
        assert (found.optimizer.lr, found.batch_size, found.ema_decay) == (2e-4, 3, 0.99)
        again = registry.find(found.name, **json.loads(json.dumps(found.parameters)))
        assert again.parameters == found.parameters
        assert (again.optimizer, again.schedule) == (found.optimizer, found.schedule)


def test_what_is_not_given_stays_the_papers() -> None:
    found = registry.find("dncnn.gaussian", lr=1e-4)
    assert found.optimizer == Adam(lr=1e-4)
    assert found.schedule == registry.find("dncnn.gaussian").schedule
    assert set(found.parameters) - set(registry.find("dncnn.gaussian").parameters) == {"lr"}


def test_optimizers_and_schedules_can_be_changed() -> None:
    found = registry.find("srcnn.paper", optimizer="adam", schedule="drops", at_steps="10,20", gamma="0.5,0.1")
    assert found.optimizer == Adam(lr=1e-4, slower=("reconstruct", 0.1))
    assert found.schedule == Drops((10, 20), (0.5, 0.1))
    assert [lr_at(found, step) for step in (9, 10, 20)] == pytest.approx([1e-4, 5e-5, 5e-6])
    warmed = registry.find("dncnn.gaussian", warmup_steps=4)
    assert [lr_at(warmed, step) for step in (0, 3, 4)] == pytest.approx([2.5e-4, 1e-3, 1e-3])
    assert registry.find("dncnn.gaussian", schedule="cosine", warmup_steps=4).schedule == Cosine(4)


def test_a_shorter_training_keeps_the_shape_of_its_schedule() -> None:
    found = registry.find("dncnn.gaussian", num_steps=100)
    assert found.schedule == Drops((60,), 0.1)  # 30 of 50 epochs
    assert registry.find("srcnn.tuned", num_steps=100).schedule == Cosine(100)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 1}, "has no keyword 'learning_rate'; "),
        ({"batchsize": 1}, "did you mean batch_size"),
        ({"recipe": 1}, "has no keyword 'recipe'"),
        ({"lr": 0}, "lr=0 is not possible: it should be greater than 0"),
        ({"lr": "nan"}, "lr=nan is not possible"),
        ({"ema_decay": 1}, "ema_decay=1 is not possible"),
        ({"precision": "int8"}, "precision=int8 is not possible"),
        ({"momentum": 0.5}, "momentum does not belong to adam, which has lr, betas, eps, weight_decay"),
        ({"last": 0.5}, "last does not belong to drops"),
        ({"schedule": "exponential"}, "exponential needs last="),
        ({"at_steps": "1,2", "gamma": "0.1,0.2,0.3"}, "3 values of gamma for 2 at_steps"),
    ],
)
def test_a_wrong_keyword_of_training_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        registry.find("dncnn.gaussian", **given)
    one_line(caught)


@pytest.mark.parametrize("name", registry.list_names())
def test_keywords_of_training_are_described_with_the_recipes_values(name: str) -> None:
    found = registry.find(name)
    described = registry.describe_training(found)
    assert described["lr"].default == found.optimizer.lr
    assert described["num_steps"].default == found.num_steps
    assert described["ema_decay"].values == "number from 0 below 1"


@pytest.mark.parametrize("name", registry.list_names())
def test_every_keyword_says_what_it_means(name: str) -> None:
    known = {**registry.describe_training(registry.find(name)), **registry.own_keywords(name)}
    assert all(keyword.meaning and "\n" not in keyword.meaning for keyword in known.values())


def test_a_type_without_description_has_no_meaning() -> None:
    assert describe_meaning(int) == ""


def test_a_former_name_of_a_keyword_is_still_understood() -> None:
    found = registry.find("srcnn.tuned", basis_steps=7)
    assert found.optimizer == SOAP(lr=3e-3, precondition_frequency=7)
    assert found.parameters["precondition_frequency"] == 7 and "basis_steps" not in found.parameters


def test_a_recipe_is_marked_by_its_decorator_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Annotations may be text, as `from __future__ import annotations` makes them."""
    text = (
        Path(srcnn.__file__)
        .read_text()
        .replace('"""\n\nimport', '"""\n\nfrom __future__ import annotations\n\nimport', 1)
    )
    assert "from __future__" in text
    (tmp_path / "postponed.py").write_text(text)
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(tmp_path)])
    try:
        assert registry.find("postponed.paper", scale="3").domain == Luma(3)
        assert "postponed.protocol" not in registry.list_names()
    finally:
        sys.modules.pop("pellucid.networks.postponed", None)


def test_dncnn_can_start_at_its_input() -> None:
    found = registry.find("dncnn.gaussian", depth=3, width=4, initialize="zero-last")
    network = found.network()
    assert found.initialize is not None
    found.initialize(network)
    noisy = torch.rand(2, 1, 8, 8)
    assert torch.equal(network(noisy), noisy)


def test_any_camera_learns_from_what_restoration_shows_it() -> None:
    """The mosaic of a picture's exposure, in the white balance of its file, is what the network is trained on."""
    found = registry.find("sid_unet.any_camera")
    exposed = found.degradation
    assert isinstance(exposed, SyntheticRaw) and found.protocol.degradation == exposed
    clean = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 8, 12)
    for seed in range(4):
        learned = found.domain.encode(exposed(clean, torch.Generator().manual_seed(seed)))
        mosaic = exposed.mosaic(clean, torch.Generator().manual_seed(seed))
        assert mosaic.white_balance != (1, 1, 1) and 50 <= mosaic.exposure_ratio <= 300
        torch.testing.assert_close(found.domain.to_input(mosaic), learned, rtol=0, atol=2e-5)


def test_exposure_ratios_come_in_order() -> None:
    assert registry.find("sid_unet.any_camera", exposure_ratio="10,10").parameters["exposure_ratio"] == (10, 10)
    with pytest.raises(RecipeError, match="the lowest comes first"):
        registry.find("sid_unet.any_camera", exposure_ratio=(300, 50))


def test_learning_from_synthetic_blur_starts_at_the_input() -> None:
    found = registry.find("mimo_unet.synthetic", num_blocks=1, width=8)
    network = found.network()
    assert found.initialize is not None
    found.initialize(network)
    picture = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(picture), picture)
