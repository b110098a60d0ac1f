import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import small_models
from child_processes import interruptible
from pellucid.data.store import open as open_store
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.degradations.standard import GaussianNoise
from pellucid.domains import Luma
from pellucid.errors import ArgumentError, DataError, OutputError, PellucidError, RecipeError, WeightsError
from pellucid.networks.dncnn import DnCNN
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.recipes import registry
from pellucid.recipes.losses import mean_absolute
from pellucid.recipes.recipe import Recipe
from pellucid.restoration import restorer
from pellucid.system import devices
from pellucid.training import initialization, run_folder, tuning
from pellucid.training import train as training
from pellucid.training.distributed import Group
from pellucid.training.initialization import build_network, load_pretrained
from pellucid.training.learner import Learner, StepResult
from pellucid.training.recorder import History, Recorder, Validation
from pellucid.training.stopping import Stopped
from pellucid.training.train import Status, train
from pellucid.weights import checkpoint, models
from signalling import deliver

TINY: dict[str, dict[str, Any]] = {
    "srcnn.tuned": {
        "mapping_px": 1,
        "patch_px": 24,
        "batch_size": 4,
        "ema_decay": 0.9,
        "precondition_frequency": 2,
    },
    "srcnn.paper": {"patch_px": 24, "batch_size": 4, "clip_norm": 1.0},
    "dncnn.gaussian": {"depth": 3, "width": 4, "patch_px": 16, "batch_size": 4, "clip_tensor_norm": 5.0},
    "dncnn.three_tasks": {"depth": 3, "width": 4, "patch_px": 16, "batch_size": 4},
    "mimo_unet.gopro": {"num_blocks": 1, "dropout": 0.2, "patch_px": 16, "batch_size": 2},
}


def tiny(name: str, num_steps: int, **changes: Any) -> Recipe:
    return registry.find(name, **{**TINY[name], "num_steps": num_steps, **changes})


def scene(seed: int, channels: int = 1) -> Samples:
    """A smooth picture with an edge, 40 x 44 px."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:40, :44] / 40
    waves = [np.sin(rng.uniform(1, 9, 2) @ np.stack([rows.ravel(), cols.ravel()])) for _ in range(channels)]
    planes = np.stack([wave.reshape(40, 44) for wave in waves], axis=-1)
    return (
        ((planes * 0.2 + 0.5 + 0.3 * (rows + cols > rng.uniform(0.5, 1.5))[..., None]) * 255)
        .clip(0, 255)
        .astype("uint8")
    )


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of clean gray pictures, and one of pairs in color."""
    folder = tmp_path_factory.mktemp("stores")
    stamp = Stamp(1, 2, "3")
    with StoreWriter(folder / "clean", {}) as writer:
        for i in range(5):
            writer.put(f"{i}.png", stamp, scene(i))
        writer.finish("clean", [Planned(key, key) for key in writer.records], [])
    with StoreWriter(folder / "pairs", {}) as writer:
        for i in range(3):
            sharp = scene(i, channels=3)
            writer.put(f"sharp{i}", stamp, sharp)
            writer.put(f"blur{i}", stamp, (sharp // 2 + np.roll(sharp, 1, 1) // 2))
        writer.finish("pairs", [Planned(f"{i}", f"sharp{i}", f"blur{i}") for i in range(3)], [])
    return {"clean": folder / "clean", "pairs": folder / "pairs"}


def data_for(made: Recipe, stores: dict[str, Path]) -> Path:
    return stores["clean" if made.degradation is not None else "pairs"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for i in range(2):
        images.write(Picture(scene(10 + i)), tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


def tensors(weights: Path) -> dict[str, Tensor]:
    return checkpoint.load(weights).network.state_dict()


def equal(one: Path, other: Path) -> bool:
    return checkpoint.fingerprint(tensors(one)) == checkpoint.fingerprint(tensors(other))


class Crash(Exception):  # noqa: N818  # not an error of the package
    pass


def crash_at(*steps: int) -> Callable[[Status], None]:
    def progress(status: Status) -> None:
        if status.step in steps:
            raise Crash

    return progress


def run(made: Recipe, data: Path, out: Path, **options: Any) -> Path:
    return train(made, data, out, device="cpu", **{"tune": False, **options})


# Resuming.


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("crashes", [(1,), (4, 5), (2, 9)])
def test_an_interrupted_training_ends_with_the_same_weights(
    name: str, crashes: tuple[int, ...], stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny(name, num_steps=10)
    whole = run(made, data_for(made, stores), tmp_path / "whole")
    # A checkpoint after every third step, so that some steps are taken twice.
    monkeypatch.setattr(Recorder, "is_due", lambda recorder: recorder._learner.step % 3 == 0)
    for step in crashes:
        with pytest.raises(Crash):
            run(made, data_for(made, stores), tmp_path / "interrupted", progress=crash_at(step))
    interrupted = run(made, data_for(made, stores), tmp_path / "interrupted")
    assert equal(whole, interrupted)
    losses = [
        [(line["step"], line["loss"], line["lr"]) for line in run_folder.read_metrics(folder)]
        for folder in (whole.parent, interrupted.parent)
    ]
    assert losses[0] == losses[1]
    assert [step for step, _, _ in losses[0]] == list(range(1, 11))


def test_mean_losses_and_the_best_survive_a_crash(stores: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    # A line of metrics is the mean of three steps; the learning rate is so high that the best comes early.
    made = tiny("dncnn.gaussian", num_steps=300, validate_every=60, lr=3.0, schedule="exponential", last=100)
    options: dict[str, Any] = {"validation": Validation(pictures)}
    whole = run(made, stores["clean"], tmp_path / "whole", **options)
    with pytest.raises(Crash):
        run(made, stores["clean"], tmp_path / "interrupted", save_every_s=0, progress=crash_at(200), **options)
    interrupted = run(made, stores["clean"], tmp_path / "interrupted", **options)
    timing = {"images_per_s", "waiting"}
    lines = [
        [
            {key: value for key, value in line.items() if key not in timing}
            for line in run_folder.read_metrics(folder)
        ]
        for folder in (whole.parent, interrupted.parent)
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 105
    assert equal(whole, interrupted)
    scores = {line["step"]: line["psnr_db"] for line in lines[0] if "psnr_db" in line}
    assert max(scores, key=lambda step: scores[step]) < 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(number: signal.Signals, stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("dncnn.gaussian", num_steps=8)
    whole = run(made, stores["clean"], tmp_path / "whole")

    def interrupt(status: Status) -> None:
        if status.step == 3:
            deliver(number)  # the next test sends real signals to a child process

    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped after step 4") as caught:
        run(made, stores["clean"], tmp_path / "stopped", progress=interrupt)
    assert caught.value.signal_number == number
    assert signal.getsignal(number) == handler
    assert not (tmp_path / "stopped" / "checkpoints" / "step-000000003.safetensors").exists()
    seen: list[int] = []
    assert equal(whole, run(made, stores["clean"], tmp_path / "stopped", progress=lambda s: seen.append(s.step)))
    assert seen == [5, 6, 7, 8]


COMMAND = [sys.executable, "-m", "pellucid", "train"]


def start_command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        interruptible([*COMMAND, *arguments]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_saves_and_the_same_command_resumes(
    number: signal.Signals, stores: dict[str, Path], tmp_path: Path
) -> None:
    made = tiny("dncnn.gaussian", num_steps=300)
    keywords = [f"{key}={value}" for key, value in made.parameters.items()]
    command = ["dncnn.gaussian", *keywords, "--data", str(stores["clean"]), "--out", str(tmp_path / "run")]
    command += ["--tune", "off", "--device", "cpu"]
    process = start_command(*command)
    assert process.stderr is not None
    process.stderr.readline()  # the first line of progress
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "stopped after step" in said
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    process = start_command(*command)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert equal(run(made, stores["clean"], tmp_path / "whole"), tmp_path / "run" / "weights.safetensors")


def test_killed_at_random_times_the_same_command_ends_with_the_same_weights(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    made = tiny("dncnn.gaussian", num_steps=300)
    whole = run(made, stores["clean"], tmp_path / "whole")
    keywords = [f"{key}={value}" for key, value in made.parameters.items()]
    out = tmp_path / "killed"
    command = ["dncnn.gaussian", *keywords, "--data", str(stores["clean"]), "--out", str(out), "--tune", "off"]
    command += ["--device", "cpu", "--save-every", "0.05"]
    rng = np.random.default_rng(7)
    num_kills = 0
    while num_kills < 3:
        process = start_command(*command)
        assert process.stderr is not None
        for _ in range(rng.integers(1, 25)):  # lines of progress, one every three steps
            process.stderr.readline()
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        num_kills += 1
    assert num_kills
    process = start_command(*command)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and printed.strip() == str(out / "weights.safetensors")
    assert equal(whole, out / "weights.safetensors")
    assert not list((out / "checkpoints").glob("*.refused"))


def test_a_finished_training_is_not_changed(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("srcnn.tuned", num_steps=3)
    weights = run(made, stores["clean"], tmp_path / "run")
    before = weights.read_bytes()
    log: list[str] = []
    assert run(made, stores["clean"], tmp_path / "run", log=log.append, progress=crash_at(1, 2, 3)) == weights
    assert weights.read_bytes() == before
    assert "all steps are done (3)" in log[-1]


# The run folder.


def test_the_newest_checkpoints_and_the_best_are_kept(
    stores: dict[str, Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny("dncnn.gaussian", num_steps=12, validate_every=1, lr=1e-2)
    run(made, stores["clean"], tmp_path / "run", validation=Validation(pictures))
    scores = {
        line["step"]: line["psnr_db"] for line in run_folder.read_metrics(tmp_path / "run") if "psnr_db" in line
    }
    assert sorted(scores) == list(range(1, 13))
    best = max(scores, key=lambda step: scores[step])
    kept = {int(path.stem[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {10, 11, 12, best}
    metadata = checkpoint.read_metadata(tmp_path / "run" / "weights.safetensors")
    assert metadata.scores[0]["psnr_db"] == scores[best]
    assert f"step {best} of 12" in metadata.provenance


def test_validation_scores_what_restores(stores: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    from pellucid.evaluation.evaluate import evaluate

    made = tiny("srcnn.tuned", num_steps=4)
    weights = run(made, stores["clean"], tmp_path / "run", validation=Validation(pictures))
    loaded = restorer.load(weights, device="cpu")
    (score,) = checkpoint.read_metadata(weights).scores
    assert evaluate(loaded, pictures).mean_psnr_db == pytest.approx(score["psnr_db"], abs=1e-9)
    assert score["data"] == "pictures" and score["protocol"]["num_pictures"] == 2
    strip = images.read(tmp_path / "run" / "validation" / "step-000000004.png")
    assert (strip.height, strip.width) == (40, 3 * 44)
    described = run_folder.describe_run(tmp_path / "run")
    assert described["starts"][0]["num_processes"] == 1
    assert described["training"]["lr"] == 3e-3 and described["data"]["num_pictures"] == 5


def test_degraded_pictures_are_validated_against_their_targets(stores: dict[str, Path], tmp_path: Path) -> None:
    for i in range(2):
        images.write(Picture(scene(i, 3)), tmp_path / "sharp" / f"{i}.png")
        images.write(Picture(np.roll(scene(i, 3), 1, 1)), tmp_path / "blur" / f"{i}.png")
    made = tiny("mimo_unet.gopro", num_steps=1)
    log: list[str] = []
    validation = Validation(tmp_path / "blur", tmp_path / "sharp")
    run(made, stores["pairs"], tmp_path / "run", validation=validation, log=log.append)
    assert any("psnr_db" in line for line in run_folder.read_metrics(tmp_path / "run"))
    assert not any("matched in sorted order" in line for line in log)
    for i in range(2):
        (tmp_path / "blur" / f"{i}.png").rename(tmp_path / "blur" / f"x{i}.png")
    run(made, stores["pairs"], tmp_path / "again", validation=validation, log=log.append)
    assert any("matched in sorted order" in line for line in log)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "with seed=0, not seed=1"),
        ({"limit": 2}, "with data="),
        ({"tune": True}, "with tune=off, not tune=auto"),
        ({"made": tiny("dncnn.gaussian", 2, lr=1e-4)}, r"with lr=\(not given\), not lr=0.0001"),
        ({"made": tiny("dncnn.gaussian", 2, optimizer="soap")}, "with optimizer=adam, not optimizer=soap"),
        ({"made": tiny("dncnn.gaussian", 3)}, "with num_steps=2, not num_steps=3"),
        ({"made": tiny("dncnn.gaussian", 2, sigma_255=5)}, "with sigma_255=25.0, not sigma_255=5.0"),
        ({"made": tiny("dncnn.three_tasks", 2)}, "with "),
        (
            {"made": replace(tiny("dncnn.gaussian", 2), degradation=GaussianNoise(3.0))},
            r"with degradation=\(not given\), not degradation=GaussianNoise\(sigma_255=3\)",
        ),
        ({"made": replace(tiny("dncnn.gaussian", 2), loss=mean_absolute)}, "not loss=mean_absolute"),
    ],
)
def test_a_folder_of_another_training_is_refused(
    changed: dict[str, Any], message: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    run(tiny("dncnn.gaussian", 2), stores["clean"], tmp_path / "run")
    options = {"made": tiny("dncnn.gaussian", 2), **changed}
    with pytest.raises(OutputError, match=message) as caught:
        run(data=stores["clean"], out=tmp_path / "run", **options)
    assert "\n" not in str(caught.value) and "choose another out" in str(caught.value)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickle(path: Path) -> None:
    torch.save({"network": torch.zeros(3)}, path)


def weights_instead(path: Path) -> None:
    path.write_bytes((path.parent.parent / "weights.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "not a complete checkpoint"),
        (flip_a_bit, "damaged"),
        (empty, "not a complete checkpoint"),
        (pickle, "not a complete checkpoint"),
        (weights_instead, "not a checkpoint of a training"),
    ],
)
def test_a_damaged_checkpoint_is_renamed_and_the_one_before_is_used(
    damage: Callable[[Path], None], reason: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    made = tiny("dncnn.gaussian", num_steps=6)
    whole = run(made, stores["clean"], tmp_path / "whole")
    with pytest.raises(Crash):
        run(made, stores["clean"], tmp_path / "run", save_every_s=0, progress=crash_at(4))
    damage(tmp_path / "run" / "checkpoints" / "step-000000004.safetensors")
    log: list[str] = []
    weights = run(made, stores["clean"], tmp_path / "run", log=log.append)
    assert reason in log[0] and "resuming from step 3" in log[1]
    assert equal(whole, weights)


def test_a_checkpoint_of_another_run_is_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    for seed in (0, 1):
        with pytest.raises(Crash):
            made = tiny("srcnn.tuned", num_steps=6)
            run(made, stores["clean"], tmp_path / f"{seed}", seed=seed, save_every_s=0, progress=crash_at(3))
    name = Path("checkpoints") / "step-000000003.safetensors"
    (tmp_path / "1" / name).replace(tmp_path / "0" / name)
    log: list[str] = []
    run(made, stores["clean"], tmp_path / "0", log=log.append)
    assert "of another training" in log[0] and "resuming from step 2" in log[1]


def test_a_folder_with_other_files_is_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("srcnn.tuned", num_steps=1)
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"contains other files \(thesis.tex\)"):
        run(made, stores["clean"], tmp_path / "mine")
    with pytest.raises(OutputError, match="is a file; out must be a folder"):
        run(made, stores["clean"], tmp_path / "mine" / "thesis.tex")
    for content in ("", "[]", "{}", '{"format": 1}', '{"format": 99, "identity": {}}', "[" * 10_000):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "run.json").write_text(content)
        with pytest.raises(OutputError, match="run.json|format 99") as caught:
            run(made, stores["clean"], tmp_path / "run")
        assert "\n" not in str(caught.value)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_an_incomplete_line_of_metrics_is_dropped(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("srcnn.tuned", num_steps=4)
    with pytest.raises(Crash):
        run(made, stores["clean"], tmp_path / "run", save_every_s=0, progress=crash_at(2))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    run(made, stores["clean"], tmp_path / "run")
    assert [line["step"] for line in run_folder.read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


def test_two_trainings_in_one_folder_are_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("srcnn.tuned", num_steps=2)

    def intrude(_: Status) -> None:
        run(made, stores["clean"], tmp_path / "run")

    with pytest.raises(OutputError, match="is already being trained"):
        run(made, stores["clean"], tmp_path / "run", progress=intrude)
    run(made, stores["clean"], tmp_path / "run")  # the first one has released the lock


def test_a_full_disk_is_a_one_line_error_and_the_last_checkpoint_is_kept(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny("srcnn.tuned", num_steps=6)
    whole = run(made, stores["clean"], tmp_path / "whole")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    def fill(status: Status) -> None:
        if status.step == 3:
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        run(made, stores["clean"], tmp_path / "run", save_every_s=0, progress=fill)
    monkeypatch.undo()
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step-00000000{step}.safetensors" for step in (1, 2, 3)]
    assert equal(whole, run(made, stores["clean"], tmp_path / "run"))


# Several stores.

MIXED: dict[str, Any] = {"num_blocks": 1, "width": 4, "patch_px": 16, "batch_size": 8}


@pytest.fixture(scope="session")
def color(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of clean pictures in color."""
    folder = tmp_path_factory.mktemp("color") / "color"
    with StoreWriter(folder, {}) as writer:
        for i in range(4):
            writer.put(f"{i}.png", Stamp(1, 2, "3"), scene(20 + i, channels=3))
        writer.finish("clean", [Planned(key, key) for key in writer.records], [])
    return folder


def test_an_interrupted_training_on_several_stores_ends_with_the_same_weights(
    stores: dict[str, Path], color: Path, tmp_path: Path
) -> None:
    made = registry.find("mimo_unet.synthetic", **MIXED, num_steps=6)
    options: dict[str, Any] = {"mix": {str(stores["pairs"]): 0.4}, "save_every_s": 0}
    whole = run(made, color, tmp_path / "whole", **options)
    with pytest.raises(Crash):
        run(made, color, tmp_path / "interrupted", progress=crash_at(3), **options)
    log: list[str] = []
    interrupted = run(made, color, tmp_path / "interrupted", log=log.append, **options)
    assert f"{tmp_path / 'interrupted'}: resuming from step 3" in log
    assert equal(whole, interrupted)
    assert not equal(whole, run(made, color, tmp_path / "alone"))


def test_all_stores_and_their_shares_are_recorded(stores: dict[str, Path], color: Path, tmp_path: Path) -> None:
    made, log = registry.find("mimo_unet.synthetic", **MIXED, num_steps=1), list[str]()
    weights = run(made, color, tmp_path / "run", mix={str(stores["pairs"]): 0.3}, log=log.append)
    assert log == [
        f"{color}: 70.0% of the patches, 4 pictures, degraded by the recipe",
        f"{stores['pairs']}: 30.0% of the patches, 3 pictures, as they are",
    ]
    provenance = checkpoint.read_metadata(weights).provenance
    assert "trained on color (4 pictures, share 0.7), pairs (3 pictures, share 0.3), seed 0" in provenance
    description = run_folder.describe_run(tmp_path / "run")
    assert description["data"] == {"folder": str(color), "kind": "clean", "num_pictures": 4, "share": 0.7}
    assert description["mix"] == [
        {"folder": str(stores["pairs"]), "kind": "pairs", "num_pictures": 3, "share": 0.3}
    ]
    assert description["identity"]["mix"] == f"{open_store(stores['pairs']).fingerprint[:16]}=0.3"


def test_a_training_on_one_store_is_recorded_as_before(stores: dict[str, Path], tmp_path: Path) -> None:
    log: list[str] = []
    weights = run(tiny("dncnn.gaussian", 1), stores["clean"], tmp_path / "run", log=log.append)
    description = run_folder.describe_run(tmp_path / "run")
    assert log == [] and "mix" not in description and "mix" not in description["identity"]
    assert "share" not in description["data"]
    assert "trained on clean (5 pictures), seed 0, step 1" in checkpoint.read_metadata(weights).provenance


@pytest.mark.parametrize("share", [None, 0.4])
def test_a_folder_of_another_mix_is_refused(
    share: float | None, stores: dict[str, Path], color: Path, tmp_path: Path
) -> None:
    made, pairs = registry.find("mimo_unet.synthetic", **MIXED, num_steps=1), str(stores["pairs"])
    run(made, color, tmp_path / "run", mix={pairs: 0.3})
    with pytest.raises(OutputError, match=r"was started with mix=.*\(\w{12}\)=0\.3, not mix=") as caught:
        run(made, color, tmp_path / "run", mix=None if share is None else {pairs: share})
    assert "or the same mix, in the same order" in str(caught.value) and "\n" not in str(caught.value)
    assert f"mix={pairs} (" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"recipe": "dncnn.gaussian"},
            "recipe is 'dncnn.gaussian'; a pellucid.Recipe is needed; pellucid.find returns one",
        ),
        ({"mix": ["pairs.store"]}, "mix is of type list; a dictionary"),
        ({"mix": {"pairs.store": "0.5"}}, r"mix\['pairs.store'\] is '0.5'; a number is needed"),
        ({"validation": "val"}, "validation is 'val'; a pellucid.Validation is needed"),
        ({"seed": -1}, "-1 is not possible; seed can be a whole number of 0 or more"),
        ({"device": 3}, "device is 3; text is needed"),
        ({"limit": 0}, "0 is not possible; limit can be a whole number of 1 or more"),
        ({"save_every_s": "x"}, "save_every_s is 'x'; a number is needed"),
        ({"progress": 3}, "progress is 3; a function is needed"),
        ({"log": 3}, "log is 3; a function is needed"),
        ({"out": 3}, "out is 3; a path or a URL is needed"),
    ],
)
def test_arguments_of_other_types_are_one_line(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"recipe": tiny("dncnn.gaussian", 1), "data": tmp_path, "out": tmp_path / "run", **given}
    with pytest.raises(ArgumentError, match=message):
        train(**arguments)


def test_impossible_shares_are_refused_first(stores: dict[str, Path], tmp_path: Path) -> None:
    for mix in ({"gone": 1.0}, {"gone": 0.6, "lost": 0.4}):
        with pytest.raises(ArgumentError, match="share"):
            run(tiny("dncnn.gaussian", 1), tmp_path / "missing", tmp_path / "run", mix=mix)
    with pytest.raises(DataError, match="gone does not exist"):
        run(tiny("dncnn.gaussian", 1), stores["clean"], tmp_path / "run", mix={"gone": 0.5})
    assert not (tmp_path / "run").exists()


def test_the_speed_of_a_mixed_training_can_be_measured(stores: dict[str, Path], color: Path) -> None:
    made = registry.find("mimo_unet.synthetic", **MIXED)
    mix = {str(stores["pairs"]): 0.5}
    assert training.measure(made, color, mix=mix, num_steps=2, device="cpu", tune=False).images_per_s > 0
    with pytest.raises(DataError, match="mixed with itself"):
        training.measure(made, color, mix={str(color): 0.5}, num_steps=2, device="cpu", tune=False)


# Numbers that are not finite.


def poison(monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    learn = Learner.learn

    def poisoned(learner: Learner, degraded: Tensor, target: Tensor) -> list[StepResult]:
        return learn(learner, degraded * float("nan") if learner.step in steps else degraded, target)

    monkeypatch.setattr(Learner, "learn", poisoned)


def test_batches_that_are_not_finite_are_skipped(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny("dncnn.gaussian", num_steps=6, ema_decay=0.9)
    poison(monkeypatch, range(2, 4))
    log: list[str] = []
    weights = run(made, stores["clean"], tmp_path / "run", log=log.append)
    assert [line.partition(";")[0] for line in log] == [
        "loss or gradient not finite at step 3 (seed 0)",
        "loss or gradient not finite at step 4 (seed 0)",
    ]
    assert all(tensor.isfinite().all() for tensor in tensors(weights).values())
    assert run_folder.read_metrics(tmp_path / "run")[-1]["num_skipped"] == 2


def test_too_many_skipped_batches_in_a_row_end_the_training(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(3, 99))
    with pytest.raises(PellucidError, match="in 20 batches in a row, steps 4 to 23 of seed 7") as caught:
        run(tiny("srcnn.tuned", num_steps=40), stores["clean"], tmp_path / "run", seed=7)
    assert "\n" not in str(caught.value)


def test_a_training_that_skips_most_of_its_batches_writes_no_weights(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(1, 5))
    with pytest.raises(PellucidError, match="not finite in 4 of 5 batches, so the weights are not saved"):
        run(tiny("srcnn.tuned", num_steps=5), stores["clean"], tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_weights_that_are_not_finite_are_never_written(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("srcnn.paper", num_steps=60, lr=1e30, clip_norm=1e9)
    with pytest.raises(PellucidError, match="not finite"):
        run(made, stores["clean"], tmp_path / "run", save_every_s=0)
    for path in [tmp_path / "run" / "weights.safetensors", *(tmp_path / "run" / "checkpoints").iterdir()]:
        assert all(tensor.isfinite().all() for name, tensor in load_file(path).items() if "optimizer" not in name)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "soap", "precondition_frequency": 2}], ids=["Adam", "SOAP"])
def test_a_run_whose_losses_are_read_late_writes_the_same(
    changes: dict[str, Any],
    stores: dict[str, Path],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, but on the CPU. Metrics are written in every second step here."""
    made = tiny("dncnn.gaussian", num_steps=200, validate_every=70, ema_decay=0.9, **changes)
    poison(monkeypatch, range(50, 53))
    seen: list[list[Any]] = []
    for is_late in (False, True):
        monkeypatch.setattr(devices, "is_asynchronous", lambda device, is_late=is_late: is_late)
        out, log, statuses = tmp_path / str(is_late), list[str](), list[Status]()
        validation = Validation(pictures)
        run(made, stores["clean"], out, validation=validation, log=log.append, progress=statuses.append)
        lines = [
            {key: value for key, value in line.items() if key not in ("images_per_s", "waiting")}
            for line in run_folder.read_metrics(out)
        ]
        seen.append([repr(lines), log, [repr((one.step, one.loss, one.lr)) for one in statuses]])
    assert seen[0] == seen[1] and len(seen[1][2]) == 200
    assert equal(tmp_path / "False" / "weights.safetensors", tmp_path / "True" / "weights.safetensors")
    newest = [
        load_file(tmp_path / name / "checkpoints" / "step-000000200.safetensors") for name in ("False", "True")
    ]
    assert checkpoint.fingerprint(newest[0]) == checkpoint.fingerprint(newest[1])


def test_a_run_whose_losses_are_read_late_resumes_and_ends_as_others(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny("dncnn.gaussian", num_steps=200)
    whole = run(made, stores["clean"], tmp_path / "whole")
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: True)
    with pytest.raises(Crash):
        run(made, stores["clean"], tmp_path / "run", save_every_s=0, progress=crash_at(101))
    assert equal(whole, run(made, stores["clean"], tmp_path / "run"))
    poison(monkeypatch, range(3, 99))
    with pytest.raises(PellucidError, match="in 20 batches in a row, steps 4 to 23 of seed 0"):
        run(made, stores["clean"], tmp_path / "poisoned")


def test_weights_say_whether_they_learned_from_pairs(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("dncnn.gaussian", num_steps=1, channels=3)
    for kind in ("clean", "pairs"):
        metadata = checkpoint.read_metadata(run(made, stores[kind], tmp_path / kind))
        assert metadata.learned_from_pairs is (kind == "pairs")


def test_weights_state_a_degradation_that_is_not_of_the_recipe(stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("dncnn.gaussian", num_steps=1, channels=3)
    changed = replace(made, degradation=GaussianNoise(3.0))
    for name, kind, given, expected in (
        ("a", "clean", made, None),
        ("b", "clean", changed, "GaussianNoise(sigma_255=3)"),
        ("c", "pairs", changed, None),
    ):
        assert checkpoint.read_metadata(run(given, stores[kind], tmp_path / name)).degradation == expected


def test_a_training_with_an_own_part_resumes(stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Crash):
        changed = replace(tiny("dncnn.gaussian", 4), degradation=GaussianNoise(3.0))
        run(changed, stores["clean"], tmp_path / "run", save_every_s=0, progress=crash_at(2))
    changed = replace(tiny("dncnn.gaussian", 4), degradation=GaussianNoise(3.0))
    whole = run(changed, stores["clean"], tmp_path / "whole")
    assert equal(whole, run(changed, stores["clean"], tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"domain": Luma()}, "domain"),
        ({"network": partial(DnCNN, 1, 4, 4), "domain": Luma()}, "network and domain"),
    ],
)
def test_parts_that_weights_do_not_contain_are_refused(
    changes: dict[str, Any], named: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"has another {named}, which its weights would not be used with"):
        run(replace(tiny("dncnn.gaussian", 1), **changes), stores["clean"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Fine-tuning, tuning, and measuring.


def test_fine_tuning_loads_what_fits_and_logs_what_does_not(stores: dict[str, Path], tmp_path: Path) -> None:
    gray = run(tiny("dncnn.gaussian", num_steps=2), stores["clean"], tmp_path / "gray")
    log: list[str] = []
    made = tiny("dncnn.gaussian", num_steps=1, channels=3, lr=1e-30)
    color = run(made, stores["pairs"], tmp_path / "color", start_from=gray, log=log.append)
    assert "ignored: layers.0.conv.weight, layers.2.conv.bias, layers.2.conv.weight; newly initialized:" in log[0]
    torch.testing.assert_close(tensors(color)["layers.1.conv.weight"], tensors(gray)["layers.1.conv.weight"])
    with pytest.raises(WeightsError, match="none of the weights to start from fits"):
        run(tiny("srcnn.tuned", num_steps=1), stores["clean"], tmp_path / "other", start_from=gray)
    assert not (tmp_path / "other").exists()  # otherwise, other weights could not be tried with this folder
    with pytest.raises(OutputError, match="with from="):
        run(made, stores["pairs"], tmp_path / "color")


def test_a_resumed_run_keeps_its_mode(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny("srcnn.tuned", num_steps=4)
    log: list[str] = []
    with pytest.raises(Crash):
        run(made, stores["clean"], tmp_path / "run", tune=True, log=log.append, progress=crash_at(2))
    assert log == ["tuning: not tried in a training of 4 steps", log[-1]] and log[-1].startswith("tuned: ")
    monkeypatch.setattr(tuning, "tune", lambda *_: pytest.fail("tuned again"))
    again: list[str] = []
    run(made, stores["clean"], tmp_path / "run", tune=True, log=again.append)
    assert again[0] == f"{log[-1]}, when this run was started"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_learns_and_resumes(precision: str, stores: dict[str, Path], tmp_path: Path) -> None:
    made = tiny("dncnn.gaussian", num_steps=30, precision=precision, lr=1e-2)
    losses: list[float] = []
    whole = run(made, stores["clean"], tmp_path / "whole", progress=lambda s: losses.append(s.loss))
    finite = [loss for loss in losses if np.isfinite(loss)]
    assert len(finite) > 20 and np.mean(finite[-5:]) < 0.8 * finite[0]
    with pytest.raises(Crash):
        run(made, stores["clean"], tmp_path / "interrupted", save_every_s=0, progress=crash_at(12))
    assert equal(whole, run(made, stores["clean"], tmp_path / "interrupted"))


def test_measuring_writes_nothing(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speed = training.measure(tiny("srcnn.tuned", 4), stores["clean"], num_steps=10, device="cpu", tune=False)
    assert speed.images_per_s > 0 and 0 <= speed.waiting <= 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_steps", [2, 5, 20])
def test_a_profile_is_a_trace(
    num_steps: int, stores: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(tiny("srcnn.tuned", num_steps=num_steps), stores["clean"], tmp_path / "run", profile=True)
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert any("convolution" in event.get("name", "") for event in trace["traceEvents"])
    assert "USDT" not in capfd.readouterr().err


def test_a_training_without_steps_left_writes_no_profile_and_says_so(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    recipe, log = tiny("srcnn.tuned", num_steps=2), list[str]()
    run(recipe, stores["clean"], tmp_path / "run")
    run(recipe, stores["clean"], tmp_path / "run", profile=True, log=log.append)
    assert any("no trace" in line for line in log) and not (tmp_path / "run" / "trace.json").exists()


# Learning.


@pytest.mark.parametrize(
    ("name", "changes", "share"),
    [
        ("srcnn.tuned", {"mapping_px": 5, "schedule": "constant"}, 0.1),
        ("dncnn.gaussian", {"initialize": "zero-last", "depth": 5, "width": 16}, 0.5),
        ("mimo_unet.gopro", {"dropout": 0, "lr": 1e-3}, 0.5),
        ("sid_unet.sony", {"lr": 1e-3}, 0.5),
    ],
)
def test_every_network_can_overfit_one_batch(name: str, changes: dict[str, Any], share: float) -> None:
    made = registry.find(name, **{**TINY.get(name, {}), "ema_decay": 0, "num_steps": 10**6, **changes})
    torch.manual_seed(0)
    channels = 3 if "mimo" in name else 1
    target = torch.stack([Picture(scene(i, channels)).to_tensor()[0, :, :32, :32] for i in range(2)])
    degraded = target + 0.1 * torch.randn(target.shape)
    if "sid" in name:
        degraded, target = torch.rand(1, 4, 16, 16), torch.rand(1, 3, 1, 1).expand(1, 3, 32, 32)
    network = build_network(made, 0, None, lambda _: None)
    learner = Learner(made, network, tuning.default_mode(made), seed=0, group=Group(torch.device("cpu")))
    losses = [learner.learn(degraded, target)[0].loss for _ in range(60)]
    assert losses[-1] < share * losses[0]


@pytest.mark.parametrize(
    ("name", "changes", "share"),
    [
        ("mimo_unet.synthetic", {"num_blocks": 2, "width": 16, "lr": 2e-3, "frequency_weight": 0}, 0.6),
        ("sid_unet.any_camera", {"width": 8, "lr": 4e-3}, 0.3),
    ],
)
def test_camera_degradations_can_be_learned(name: str, changes: dict[str, Any], share: float) -> None:
    """By overfitting one batch, which is degraded as in training."""
    made = registry.find(name, schedule="constant", ema_decay=0, warmup_steps=0, **changes)
    assert made.degradation is not None
    target = torch.stack([Picture(scene(i, 3)).to_tensor()[0, :, :32, :32] for i in range(2)])
    degraded = made.domain.encode(made.degradation(target, torch.Generator().manual_seed(0)))
    network = build_network(made, 0, None, lambda _: None)
    learner = Learner(made, network, tuning.default_mode(made), seed=0, group=Group(torch.device("cpu")))
    losses = [learner.learn(degraded, target)[0].loss for _ in range(150)]
    assert losses[-1] < share * losses[0]


def test_wrong_keywords_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean batch_size"):
        registry.find("dncnn.gaussian", batchsize=3)


def test_a_url_does_not_become_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is a URL"), run_folder.open_run(Path("s3://bucket/run"), {}, {}):
        pass
    assert not list(tmp_path.iterdir())


def test_the_mean_loss_is_that_of_the_finite_ones_since_the_last_line() -> None:
    history = History()
    for loss in (2.0, 5.0, float("nan"), float("inf")):
        history.add(loss)
    assert history.take_mean_loss() == 3.5
    assert history.take_mean_loss() is None


@pytest.mark.parametrize(
    ("count", "text"), [(0, "none"), (1, "0"), (4, "0, 1, 2, 3"), (5, "0, 1, 2, 3 and 1 more")]
)
def test_long_lists_of_tensors_are_abbreviated(count: int, text: str) -> None:
    assert initialization._abbreviate([str(number) for number in range(count)]) == text


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (3, 1)])
def test_larger_and_smaller_tensors_are_ignored(given: int, wanted: int) -> None:
    start = tiny("dncnn.gaussian", 1, channels=given).network().state_dict()
    log: list[str] = []
    found = build_network(tiny("dncnn.gaussian", 1, channels=wanted), 0, start, log.append).state_dict()
    assert "ignored: layers.0.conv.weight, layers.2.conv.bias, layers.2.conv.weight; newly initialized:" in log[0]
    assert torch.equal(found["layers.1.conv.weight"], start["layers.1.conv.weight"])


def test_seeds_of_any_size_are_possible() -> None:
    made = tiny("dncnn.gaussian", 1)
    one, other = (build_network(made, seed, None, pytest.fail).state_dict() for seed in (5, 2**64 + 5))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("step", "problems", "lines"),
    [
        (None, [], []),
        (3, [], ["run: resuming from step 3"]),
        (3, ["a is damaged"], ["a is damaged; renamed to .refused", "run: resuming from step 3"]),
        (None, ["a is damaged"], ["a is damaged; renamed to .refused", "run: resuming from step 0"]),
    ],
)
def test_where_a_run_resumes_is_logged(step: int | None, problems: list[str], lines: list[str]) -> None:
    newest: Any = None if step is None else SimpleNamespace(step=step)
    found: Any = SimpleNamespace(folder=Path("run"), load_newest=lambda: (newest, problems))
    log: list[str] = []
    assert training._load_checkpoint(found, log.append) is newest
    assert log == lines


@pytest.mark.parametrize(("has_extra", "lacks_one"), [(True, False), (False, True), (False, False)])
def test_tensors_that_are_ignored_or_new_are_named(has_extra: bool, lacks_one: bool) -> None:
    made = tiny("dncnn.gaussian", 1)
    weights = dict(made.network().state_dict())
    missing = next(iter(weights))
    if lacks_one:
        del weights[missing]
    log: list[str] = []
    build_network(made, 0, weights | ({"extra": torch.zeros(1)} if has_extra else {}), log.append)
    assert len(log) == (has_extra or lacks_one)
    assert all(
        ("ignored: extra" in line, f"initialized: {missing}" in line) == (has_extra, lacks_one) for line in log
    )


@pytest.mark.parametrize("name", small_models.RECIPES)
def test_weights_of_the_same_recipe_are_loaded_whole_to_start_from(name: str, tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, name)
    expected = checkpoint.load(weights).network.state_dict()
    recipe = registry.find(name, **small_models.RECIPES[name])
    network = build_network(recipe, 1, load_pretrained(weights, recipe), pytest.fail)
    torch.testing.assert_close(network.state_dict(), expected, rtol=0, atol=0)


def test_batch_norm_of_weights_to_start_from_is_folded_for_a_network_without_it() -> None:
    recipe = registry.find("dncnn.photo")
    network = build_network(recipe, 0, load_pretrained("dncnn-color-blind", recipe), pytest.fail)
    picture = torch.rand(1, 3, 30, 30)
    with torch.no_grad():
        expected = checkpoint.load(models.find_model("dncnn-color-blind")).network.eval()(picture)
        torch.testing.assert_close(network(picture), expected, rtol=0, atol=1e-5)


# Files that cannot be used.


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("place", ["data", "mix", "validation"])
def test_files_that_cannot_be_used_are_logged(
    place: str, stores: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    damage(pictures / "1.png")
    options: dict[str, dict[str, Any]] = {
        "data": {"data": pictures},
        "mix": {"data": stores["clean"], "mix": {str(pictures): 0.5}},
        "validation": {"data": stores["clean"], "validation": Validation(pictures)},
    }
    log: list[str] = []
    run(tiny("dncnn.gaussian", 2, validate_every=1), out=tmp_path / "run", log=log.append, **options[place])
    noun = "pictures" if place == "validation" else "files"
    (line,) = [line for line in log if "left out" in line]
    assert line.startswith(f"{pictures}: 1 of 2 {noun} left out, e.g. ") and "1.png" in line


def test_pictures_without_a_target_are_logged_each_time(tmp_path: Path) -> None:
    for i in range(3):
        images.write(Picture(scene(i, 3)), tmp_path / "blur" / f"{i}.png")
        if i < 2:
            images.write(Picture(np.roll(scene(i, 3), 1, 1)), tmp_path / "sharp" / f"{i}.png")
    for _ in range(2):  # the second training finds the store of the first one
        log: list[str] = []
        training.measure(
            tiny("mimo_unet.gopro", num_steps=2),
            tmp_path / "blur",
            target=tmp_path / "sharp",
            num_steps=2,
            device="cpu",
            tune=False,
            log=log.append,
        )
        assert [line.split(", e.g. ")[0] for line in log] == [f"{tmp_path / 'blur'}: 1 of 5 files left out"]


def test_a_checkpoint_is_not_a_weight_file(stores: dict[str, Path], tmp_path: Path) -> None:
    weights = run(tiny("dncnn.gaussian", 1), stores["clean"], tmp_path / "run")
    (path,) = (tmp_path / "run" / "checkpoints").glob("step-*.safetensors")
    with pytest.raises(WeightsError) as caught:
        restorer.load(path)
    assert str(caught.value) == f"{path} is a checkpoint of a training; give {weights}"
    moved = path.rename(tmp_path / "moved.safetensors")
    with pytest.raises(WeightsError, match="a checkpoint of a training; give the weights.safetensors of its run"):
        restorer.load(moved)
