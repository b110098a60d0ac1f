"""The weights that ship: they load, their metadata are complete, and docs/weights.md agrees."""

from pathlib import Path

import pytest

import weights as script
from pellucid.restoration.restorer import load
from pellucid.weights import checkpoint, models

ROOT = Path(__file__).parent.parent
SHIPPED = [model for model in models.list_models() if model.is_shipped]


def test_something_ships() -> None:
    assert "srcnn-x2" in {model.name for model in SHIPPED}


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_the_metadata_are_complete(model: models.NamedModel) -> None:
    metadata = checkpoint.read_metadata(model.path)
    assert metadata.scores and metadata.provenance and metadata.license
    assert [(score["data"], score["keywords"]) for score in metadata.scores] == [
        (test.data, test.keywords) for test in script.TESTS[model.name]
    ]


def test_the_documentation_has_the_table_of_the_metadata() -> None:
    assert "\n".join(script.table()) in (ROOT / "docs" / "weights.md").read_text()


def test_all_weights_together_stay_small() -> None:
    assert sum(model.path.stat().st_size for model in SHIPPED) < 60e6


LONG = {
    "dncnn-color-blind",
    "dncnn-color-jpeg",
    "dncnn-photo",
    "dncnn-gray-15",
    "dncnn-gray-25",
    "dncnn-gray-50",
    "dncnn-gray-blind",
    "dncnn-three-tasks",
    "mimo-unet",
    "raw-denoise",
    "sid-any",
}
"""Their test sets take 20 seconds or more."""


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=pytest.mark.slow if model.name in LONG else ()) for model in SHIPPED],
    ids=lambda model: model.name,
)
def test_the_first_score_is_measured_again(model: models.NamedModel, data: Path) -> None:
    """The others take longer: `make scores` measures them all."""
    stated = checkpoint.read_metadata(model.path).scores[0]
    report = script.TESTS[model.name][0].measure(load(model.name, **stated["keywords"]))
    # Another machine sums in another order, which moves a rounded sample here and there.
    assert report.mean_psnr_db == pytest.approx(stated["psnr_db"], abs=0.002)
    assert report.to_json()["protocol"] == stated["protocol"]


MIN_GAINS_DB = {
    "mimo-unet": 0.1,  # GoPro's blur is of moving objects, too
    "mimo-unet-small": 0.1,  # weakened, so that blur of unknown cameras does not become worse
}


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_the_network_beats_its_input(model: models.NamedModel) -> None:
    for score in checkpoint.read_metadata(model.path).scores:
        assert score["psnr_db"] > score["degraded_psnr_db"] + MIN_GAINS_DB.get(model.name, 1)
