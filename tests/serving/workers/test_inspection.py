"""What the service knows of each model before it restores with it."""

from pellucid.restoration.restorer import load
from pellucid.serving.workers.inspection import describe_models
from pellucid.weights import models


def test_the_scale_of_each_model_is_that_of_its_results() -> None:
    known = {one["name"]: one["scale"] for one in describe_models()}
    shipped = [model.name for model in models.list_models() if model.name in known]
    assert len(shipped) >= 14
    assert known == known | {name: load(name).scale for name in shipped}
