"""The weights that ship: they load, they say what they are, and the README says the same."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pellucid import checkpoint, models
from pellucid.evaluation import evaluate
from pellucid.restorer import load

ROOT = Path(__file__).parent.parent
SHIPPED = [model for model in models.listing() if model.ships]
FOLDERS = {"Set5": "super_resolution/Set5", "Set14": "super_resolution/Set14"}


def _score_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score", ROOT / "benchmarks" / "score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_something_ships() -> None:
    assert "srcnn-x2" in {model.name for model in SHIPPED}


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_the_card_is_complete_and_the_readme_agrees(model: models.Model) -> None:
    card = checkpoint.read_card(model.path)
    assert card.scores and card.provenance and card.license
    readme = (ROOT / "README.md").read_text()
    assert _score_script().readme_row(model.name, card) in readme


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_the_scores_on_the_card_are_measured_again(model: models.Model, data: Path) -> None:
    for score in checkpoint.read_card(model.path).scores:
        report = evaluate(load(model.name), data / FOLDERS[score["data"]])
        # Another machine sums in another order, which moves a rounded sample here and there.
        assert report.mean_psnr_db == pytest.approx(score["psnr_db"], abs=0.002)
        assert report.to_json()["protocol"] == score["protocol"]


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_the_network_beats_its_input(model: models.Model) -> None:
    for score in checkpoint.read_card(model.path).scores:
        assert score["psnr_db"] > score["degraded_psnr_db"] + 1
