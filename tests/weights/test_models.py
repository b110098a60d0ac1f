"""Weight files by name."""

from pathlib import Path

import pytest
import torch

from pellucid.errors import WeightsError
from pellucid.recipes import registry
from pellucid.weights import checkpoint, models


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path))
    tiny = registry.find("dncnn.gaussian", depth=2, width=1)
    torch.manual_seed(0)
    card = checkpoint.WeightsMetadata(tiny.name, tiny.parameters, "random", "CC0")
    checkpoint.save(tmp_path / "mine.safetensors", tiny.network(), card)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_those_that_ship_come_first_and_own_ones_after(own_folder: Path) -> None:
    names = [(model.name, model.ships) for model in models.list_models()]
    assert names[-2:] == [("junk", False), ("mine", False)]
    assert all(ships for _, ships in names[:-2])


def test_a_name_or_a_path_finds_its_file(own_folder: Path) -> None:
    assert models.find("mine") == own_folder / "mine.safetensors"
    assert models.find(own_folder / "mine.safetensors") == own_folder / "mine.safetensors"
    assert models.find("elsewhere.safetensors") == Path("elsewhere.safetensors")


@pytest.mark.parametrize("name", ["", "min", "../mine", "mine\n", "x" * 5000])
def test_an_unknown_name_is_one_line_with_the_nearest(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        checkpoint.load(models.find(name))
    assert len(str(caught.value)) < 300 or "/" in name
    if name == "min":
        assert "did you mean mine" in str(caught.value)


def test_cards_tell_what_cannot_be_read(own_folder: Path) -> None:
    cards = {model.name: card for model, card in models.list_metadata()}
    assert isinstance(cards["junk"], WeightsError)
    assert isinstance(cards["mine"], checkpoint.WeightsMetadata) and cards["mine"].license == "CC0"


def test_without_a_folder_of_ones_own_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", "no/such/folder")
    assert all(model.ships for model in models.list_models())
    monkeypatch.delenv("PELLUCID_MODELS")
    assert models.user_folder() == Path.home() / ".pellucid" / "models"
