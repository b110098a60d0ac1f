"""What exported files say about themselves, and what is believed of it."""

from typing import Any

import pytest

import small_models
from pellucid.backends.metadata import GraphMetadata
from pellucid.errors import WeightsError
from pellucid.recipes import registry
from pellucid.weights.checkpoint import WeightsMetadata


def facts_of(name: str = "sid_unet.sony") -> GraphMetadata:
    chosen, network = small_models.build(name)
    card = WeightsMetadata(name, {}, "random", "CC0", ({"data": "Set5", "keywords": {}, "psnr_db": 33.5},))
    return GraphMetadata.of(network, chosen, card, weights_sha256="ab" * 32)


@pytest.mark.parametrize("name", small_models.RECIPES)
def test_facts_come_back_out_of_texts(name: str) -> None:
    facts = facts_of(name)
    metadata = facts.to_entries()
    assert all(isinstance(value, str) for value in metadata.values())
    assert GraphMetadata.from_entries(metadata, source="x.onnx") == facts
    found, network = facts.resolve(source="x.onnx")
    assert (found.name, found.parameters) == (name, registry.find(name, **small_models.RECIPES[name]).parameters)
    assert network.halo == facts.halo and next(network.parameters()).is_meta


def test_a_program_in_any_language_finds_what_it_needs() -> None:
    metadata = facts_of().to_entries()
    assert (metadata["scale"], metadata["multiple"], metadata["halo"]) == ("2", "16", "107")
    assert "camera mosaic" in metadata["input"] and "2x the size" in metadata["output"]
    assert "black is 0, white is 1" in metadata["input"]
    assert (metadata["license"], metadata["shape"]) == ("CC0", "null")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": None}, "says nothing about itself; `pellucid export`"),
        ({"scale": "two"}, "facts are not pellucid's"),
        ({"scale": "-1"}, "is no count"),
        ({"halo": "1e9"}, "is no count"),
        ({"shape": "[1, 2]"}, "facts are not pellucid's"),
        ({"parameters": "[" * 10**5}, "facts are not pellucid's"),
        ({"precision": "float8"}, "precision float8"),
        ({"license": None}, "not one of pellucid's"),
        ({"format": "99"}, "format 99; this version reads"),
    ],
)
def test_what_is_not_ours_is_refused(changed: dict[str, Any], message: str) -> None:
    metadata = {**facts_of().to_entries(), **changed}
    with pytest.raises(WeightsError, match=message):
        GraphMetadata.from_entries(
            {key: value for key, value in metadata.items() if value is not None}, source="x.onnx"
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": "os.system"}, "x.onnx: no recipe"),
        ({"parameters": '{"command": "true"}'}, "has no keyword"),
        (
            {"halo": "1"},
            r"halo and planes \(2, 16, 1, 4\), but sid_unet.sony has \(2, 16, 107, 4\)",
        ),
        ({"recipe": "sid_unet.fuji"}, "export it anew"),
    ],
)
def test_names_resolve_inside_the_package_and_facts_must_be_the_networks(
    changed: dict[str, str], message: str
) -> None:
    facts = GraphMetadata.from_entries({**facts_of().to_entries(), **changed}, source="x.onnx")
    with pytest.raises(WeightsError, match=message):
        facts.resolve(source="x.onnx")
