"""A picture whose noise is not what a model was trained for gets a line that names a better model."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.restoration.restorer import load
from pellucid.restoration.settings import Settings
from pellucid.restoration.suitability import (
    describe_noise,
    list_problems,
    warn_about,
    warn_about_change,
    warn_about_settings,
)


def make_picture(sigma_255: float, channels: int = 1, side_px: int = 120) -> Picture:
    rows, cols = np.mgrid[:side_px, :side_px]
    smooth = 128 + 40 * np.sin(rows / 30) * np.cos(cols / 25)
    noisy = smooth[:, :, None] + np.random.default_rng(0).normal(0, sigma_255, (side_px, side_px, channels))
    return Picture(np.clip(noisy, 0, 255).round().astype(np.uint8))


@pytest.mark.parametrize(
    ("sigma_255", "channels", "model", "message"),
    [
        (25, 1, "dncnn-gray-25", None),
        (19, 1, "dncnn-gray-25", None),
        (
            0,
            1,
            "dncnn-gray-25",
            "noise of about 0 .* learned from a deviation of 25; dncnn-gray-blind fits",
        ),
        (8, 1, "dncnn-gray-25", "noise of about 8 .*; dncnn-gray-blind fits better"),
        (14, 1, "dncnn-gray-25", "noise of about 14 .*; dncnn-gray-15 fits better"),
        (50, 1, "dncnn-gray-15", "noise of about 4. .* a deviation of 15; dncnn-gray-50 fits better"),
        (8, 3, "dncnn-gray-25", "; dncnn-color-blind fits better"),
        (8, 1, "dncnn-gray-blind", None),
        (0, 3, "dncnn-color-blind", None),
        (40, 3, "dncnn-three-tasks", None),
        (40, 1, "srcnn-x2", None),
    ],
)
def test_noise_that_does_not_fit_gets_a_line(
    sigma_255: float, channels: int, model: str, message: str | None
) -> None:
    warnings = warn_about(make_picture(sigma_255, channels), load(model, device="cpu"))
    if message is None:
        assert warnings == ()
    else:
        (warning,) = warnings
        assert re.search(message, warning), warning


@pytest.mark.parametrize("learned", [{"learned_from_pairs": True}, {"degradation": "Haze()"}])
def test_weights_that_learned_from_something_else_get_no_line_about_noise(learned: dict[str, Any]) -> None:
    model = load("dncnn-gray-25", device="cpu")
    metadata = model.models[0].metadata
    assert metadata is not None and warn_about(make_picture(0, 1), model)
    model.models[0].metadata = replace(metadata, **learned)
    assert warn_about(make_picture(0, 1), model) == ()


def test_small_pictures_are_not_measured() -> None:
    assert warn_about(make_picture(0, side_px=40), load("dncnn-gray-25", device="cpu")) == ()


@pytest.mark.parametrize("sigma_255", [15, 25, 50])
def test_pictures_of_a_test_set_fit_their_own_model(sigma_255: int, data: Path) -> None:
    restorer = load(f"dncnn-gray-{sigma_255}", device="cpu")
    for path in sorted((data / "denoising" / "BSD68").glob("*.png"))[:20]:
        samples = pellucid.read(path).samples
        noisy = samples + np.random.default_rng(0).normal(0, sigma_255, samples.shape)
        assert warn_about(Picture(np.clip(noisy, 0, 255).round().astype(np.uint8)), restorer) == (), path


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


def test_levels_of_noise_are_described() -> None:
    found = [
        describe_noise(registry.find(name)) for name in ("dncnn.gaussian", "dncnn.blind", "dncnn.three_tasks")
    ]
    assert found == ["25", "up to 55", ""]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("change_255", "is_named"), [(0, True), (0.4, True), (1, False), (-1, False)])
def test_a_result_that_hardly_changed_gets_a_line(dtype: str, change_255: float, is_named: bool) -> None:
    restorer = load("dncnn-three-tasks")
    degraded = make_picture(5, channels=3, side_px=300).as_depth("float32")
    restored = Picture(degraded.samples + np.float32(change_255 / 255)).as_depth(dtype)
    lines = [*warn_about_change(degraded.as_depth(dtype), restored, restorer)]
    deeper = Picture(degraded.samples + np.float32(change_255 / 255)).as_depth("float32")
    assert len([*warn_about_change(degraded.as_depth(dtype), deeper, restorer)]) == is_named
    if is_named:
        assert lines == [
            "hardly changed by dncnn-three-tasks, which corrects noise and JPEG blocks: "
            "less than 0.5 where white is 255"
        ]
    else:
        assert not lines


def test_a_result_of_another_size_is_not_compared() -> None:
    degraded = make_picture(5)
    assert not [*warn_about_change(degraded, degraded.crop(slice(0, 60), slice(0, 60)), load("dncnn-gray-25"))]


def test_settings_without_effect_are_named() -> None:
    restorer = load("dncnn-gray-25")
    settings = Settings(quality=80, exposure=2.0)
    assert [*warn_about_settings(Path("a.png"), restorer, settings)] == [
        "the exposure ratio has no effect: dncnn-gray-25 restores developed pictures",
        "the quality has no effect on PNG, which is written without loss",
    ]
    assert not [*warn_about_settings(Path("a.jpg"), restorer, Settings(quality=80))]
    assert not [*warn_about_settings(Path("a.png"), restorer, Settings())]
