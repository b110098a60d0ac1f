import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pellucid.errors import MissingExtraError, OutputError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.training import run_folder
from pellucid.training.recorder import Validation
from pellucid.training.train import Status, train

STRIP = "degraded, restored, target"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    for i in range(2):
        samples = np.random.default_rng(i).integers(0, 256, (20, 24, 1), dtype=np.uint8)
        images.write(Picture(samples), tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


def run(pictures: Path, out: Path, **options: Any) -> None:
    made = registry.find(
        "dncnn.gaussian", depth=3, width=4, patch_px=16, batch_size=2, num_steps=6, validate_every=2
    )
    options = {"tensorboard": True, "validation": Validation(pictures), "save_every_s": 0, **options}
    train(made, pictures, out, device="cpu", tune=False, **options)


def events(out: Path) -> EventAccumulator:
    read = EventAccumulator(str(out / "tensorboard"))
    read.Reload()
    return read


def check_agrees_with_metrics(out: Path) -> None:
    lines, read = run_folder.read_metrics(out), events(out)
    for key in ("loss", "lr", "psnr_db"):
        shown = [(event.step, event.value) for event in read.Scalars(key)]
        expected = [(line["step"], pytest.approx(line[key])) for line in lines if key in line]
        assert shown == expected and shown
    assert [event.step for event in read.Images(STRIP)] == [2, 4, 6]


def test_events_equal_metrics_and_strips(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "run")
    check_agrees_with_metrics(tmp_path / "run")
    (tmp_path / "strip.png").write_bytes(events(tmp_path / "run").Images(STRIP)[-1].encoded_image_string)
    strip = images.read(tmp_path / "run" / "validation" / "step-000000006.png").samples
    shown = images.read(tmp_path / "strip.png").samples
    np.testing.assert_array_equal(shown, np.broadcast_to(strip, shown.shape))


def test_events_of_an_interrupted_run_are_complete(pictures: Path, tmp_path: Path) -> None:
    def crash(status: Status) -> None:
        if status.step == 3:
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        run(pictures, tmp_path / "run", tensorboard=False, save_every_s=300, progress=crash)
    with pytest.raises(RuntimeError, match="interrupted"):
        run(pictures, tmp_path / "run", save_every_s=300, progress=crash)
    run(pictures, tmp_path / "run")
    check_agrees_with_metrics(tmp_path / "run")


def test_a_training_without_the_option_writes_no_events(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "run", tensorboard=False)
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_missing_package_is_reported_before_the_training(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pellucid\[tensorboard\]'"):
        run(pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_an_error(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "run", tensorboard=False)
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    with pytest.raises(OutputError, match="tensorboard cannot be written"):
        run(pictures, tmp_path / "run")
