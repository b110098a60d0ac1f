"""What models correct."""

import pytest

from pellucid.recipes import registry
from pellucid.serving.advice import list_problems


@pytest.mark.parametrize(
    ("recipe", "problems"),
    [
        ("srcnn.tuned", ["too small"]),
        ("dncnn.blind", ["noise"]),
        ("dncnn.three_tasks", ["noise", "JPEG blocks"]),
        ("mimo_unet.synthetic", ["motion blur"]),
        ("sid_unet.any_camera", ["too dark"]),
    ],
)
def test_what_models_correct(recipe: str, problems: list[str]) -> None:
    assert list_problems(registry.find(recipe)) == problems
