"""The metadata of exported files, and which metadata is rejected."""

from dataclasses import replace
from typing import Any

import pytest

import small_models
from pellucid.backends.metadata import GraphMetadata
from pellucid.errors import WeightsError
from pellucid.recipes import registry
from pellucid.weights.checkpoint import WeightsMetadata


def make_metadata(name: str = "sid_unet.sony") -> GraphMetadata:
    chosen, network = small_models.build(name)
    weights = WeightsMetadata(name, {}, "random", "CC0", ({"data": "Set5", "keywords": {}, "psnr_db": 33.5},))
    return GraphMetadata.of(network, chosen, weights, weights_sha256="ab" * 32)


@pytest.mark.parametrize("name", small_models.RECIPES)
def test_metadata_survives_a_round_trip_through_texts(name: str) -> None:
    metadata = make_metadata(name)
    entries = metadata.to_entries()
    assert all(isinstance(value, str) for value in entries.values())
    assert GraphMetadata.from_entries(entries, source="x.onnx") == metadata
    found, network = metadata.resolve(source="x.onnx")
    assert (found.name, found.parameters) == (name, registry.find(name, **small_models.RECIPES[name]).parameters)
    assert network.halo == metadata.halo and next(network.parameters()).is_meta


def test_what_weights_learned_from_survives_the_round_trip() -> None:
    metadata = make_metadata()
    learned = replace(metadata, weights=replace(metadata.weights, learned_from_pairs=True, degradation="Haze(3)"))
    assert GraphMetadata.from_entries(learned.to_entries(), source="x.onnx") == learned


def test_other_programs_find_what_they_need() -> None:
    entries = make_metadata().to_entries()
    assert (entries["scale"], entries["multiple"], entries["halo"]) == ("2", "16", "107")
    assert "camera mosaic" in entries["input"] and "2x the size" in entries["output"]
    assert "black is 0, white is 1" in entries["input"]
    assert (entries["license"], entries["shape"]) == ("CC0", "null")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": None}, "does not contain pellucid's metadata; `pellucid export`"),
        ({"scale": "two"}, "metadata is not pellucid's"),
        ({"scale": "-1"}, "is not a count"),
        ({"halo": "1e9"}, "is not a count"),
        ({"shape": "[1, 2]"}, "metadata is not pellucid's"),
        ({"parameters": "[" * 10**5}, "metadata is not pellucid's"),
        ({"precision": "float8"}, "precision float8"),
        ({"license": None}, "invalid header"),
        ({"format": "99"}, "format 99, but this version reads"),
    ],
)
def test_foreign_or_damaged_metadata_is_rejected(changed: dict[str, Any], message: str) -> None:
    entries = {**make_metadata().to_entries(), **changed}
    with pytest.raises(WeightsError, match=message):
        GraphMetadata.from_entries(
            {key: value for key, value in entries.items() if value is not None}, source="x.onnx"
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
        ({"recipe": "sid_unet.fuji"}, "; export it again"),
    ],
)
def test_recipes_resolve_inside_the_package_and_must_fit_the_graph(changed: dict[str, str], message: str) -> None:
    metadata = GraphMetadata.from_entries({**make_metadata().to_entries(), **changed}, source="x.onnx")
    with pytest.raises(WeightsError, match=message):
        metadata.resolve(source="x.onnx")
