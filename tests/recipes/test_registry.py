"""Recipes are found by name, and only recipes of the package."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import networks
from pellucid.domains import Luma
from pellucid.errors import RecipeError
from pellucid.networks import dncnn, srcnn
from pellucid.recipes import registry

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

MALICIOUS = [
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
    "dncnn._protocol",
    "dncnn.init_as_released",
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


def one_line(error: pytest.ExceptionInfo[RecipeError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 450
    return message


def test_all_published_recipes_have_names() -> None:
    assert set(PUBLISHED) <= set(registry.list_names())


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


@pytest.mark.parametrize("name", registry.list_names())
def test_every_keyword_has_a_description(name: str) -> None:
    known = {**registry.describe_training(registry.find(name)), **registry.own_keywords(name)}
    assert all(keyword.meaning and "\n" not in keyword.meaning for keyword in known.values())


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_name_is_refused_and_imports_nothing(name: str) -> None:
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


def test_a_recipe_has_a_name_in_its_own_module_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dncnn, "borrowed", srcnn.paper, raising=False)
    assert "dncnn.borrowed" not in registry.list_names()
    with pytest.raises(RecipeError, match="no recipe"):
        registry.find("dncnn.borrowed")


def test_a_typo_in_a_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'dncn\.gausian'; did you mean dncnn\.gaussian") as caught:
        registry.find("dncn.gausian")
    one_line(caught)


def test_a_typo_in_a_keyword_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"gaussian has no keyword 'sigma_25'; did you mean sigma_255"):
        registry.find("dncnn.gaussian", sigma_25=15)
    with pytest.raises(RecipeError, match="has no keyword") as caught:
        registry.find("dncnn.gaussian", **{"k" * 10_000: 1, "\n": 2})
    one_line(caught)


@pytest.mark.parametrize("key", ["name", "function", "parameters", "self", "args", "kwargs"])
def test_parameter_names_of_the_implementation_are_not_keywords(key: str) -> None:
    # They come out of weight files too, where anything can be written.
    with pytest.raises(RecipeError, match=f"dncnn.gaussian has no keyword '{key}'"):
        registry.find("dncnn.gaussian", **{key: 1})


def test_a_recipe_is_also_a_function() -> None:
    made = dncnn.gaussian(sigma_255=15)
    assert made.name == "dncnn.gaussian"
    assert made.parameters["sigma_255"] == 15
    with pytest.raises(RecipeError, match=r"dncnn\.gaussian: sigma_255"):
        dncnn.gaussian(sigma_255=-15)


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
def test_the_error_for_a_wrong_value_is_one_line_with_recipe_and_keyword(name: str, key: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.find(name, **{key: value})
    message = str(caught.value)
    assert "\n" not in message and len(message) < 450
    assert name in message
    assert key in message
