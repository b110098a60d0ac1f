"""Recipes are found by name, and only recipes of the package."""

import sys
from pathlib import Path

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
