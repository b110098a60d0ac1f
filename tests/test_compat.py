"""Files of the former version, with its names of keywords, are read, resumed and recognized."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import pellucid
from pellucid import cli
from pellucid.data import store
from pellucid.weights import checkpoint

FILES = Path(__file__).parent / "compat"
FINGERPRINT = "7835e69cba5e"

TRAINING = (
    "train dncnn.gaussian depth=3 width=4 patch_px=16 batch_size=4 optimizer=soap lr=3e-3 basis_steps=2 "
    "ema_decay=0.9 --steps 12 --data store --out run --tune off --seed 3 --device cpu"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, with the modification times that they were recorded with, as the working directory."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    for line in (tmp_path / "restored" / ".pellucid.jsonl").read_text().split("\n\n"):
        entry = json.loads(line)
        _set_mtime(tmp_path / "pictures" / entry["source"][0], entry["source"][2])
        _set_mtime(tmp_path / "restored" / entry["target"], entry["result"][1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _set_mtime(path: Path, mtime_ns: int) -> None:
    if path.exists():
        os.utime(path, ns=(mtime_ns, mtime_ns))


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `pellucid COMMAND` successfully."""
    monkeypatch.setattr(sys, "argv", ["pellucid", *command.split()])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert not exited.value.code


def test_a_weight_file_with_a_former_keyword_restores_the_same_pictures() -> None:
    metadata = checkpoint.read_metadata(Path("whole/weights.safetensors"))
    assert metadata.parameters["basis_steps"] == 2 and "precondition_frequency" not in metadata.parameters
    restorer = pellucid.load("whole/weights.safetensors", device="cpu")
    assert restorer.recipe.parameters["precondition_frequency"] == 2
    for name in ("p0.png", "p1.png", "p2.png"):
        restored = restorer.restore(pellucid.read(f"pictures/{name}"))
        # Another machine sums in another order, which moves a rounded sample here and there.
        expected = pellucid.read(f"restored/{name}").samples.astype(int)
        np.testing.assert_allclose(restored.samples, expected, atol=1)


def test_a_store_is_opened_and_sound() -> None:
    opened = store.open("store")
    assert opened.names == ("p0.png", "p1.png", "p2.png", "p3.png")
    assert opened.check() == [] and opened.fingerprint.startswith(FINGERPRINT)


def test_a_finished_store_is_returned_as_it_is() -> None:
    prepared = pellucid.prepare("folder", ["pictures"], "store")
    assert prepared.num_decoded == 0 and prepared.store.fingerprint.startswith(FINGERPRINT)


def test_an_unfinished_store_is_resumed_without_decoding_again() -> None:
    prepared = pellucid.prepare("folder", ["pictures"], "unfinished")
    assert prepared.num_decoded == 0
    assert prepared.store.check() == [] and prepared.store.fingerprint.startswith(FINGERPRINT)


@pytest.mark.parametrize("keyword", ["basis_steps", "precondition_frequency"])
def test_a_training_is_resumed_with_exactly_the_same_weights(
    keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(TRAINING.replace("basis_steps", keyword), monkeypatch)
    starts = json.loads(Path("run/run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 6]
    run(TRAINING.replace("--out run", "--out again"), monkeypatch)
    # Other processors sum in another order: where a whole training differs, a resumed one may differ as little.
    atol = 0.0 if difference("again", "whole") == 0 else 1e-3
    assert difference("run", "whole") <= atol
    np.testing.assert_allclose(losses("run"), losses("whole"), rtol=0, atol=atol)


def difference(one: str, other: str) -> float:
    """The largest difference between the weights of two run folders."""
    weights, others = (load_file(f"{folder}/weights.safetensors") for folder in (one, other))
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def losses(folder: str) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def test_results_in_a_manifest_are_kept_and_the_missing_one_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [Path("restored") / f"p{i}.png" for i in range(4)]
    before = [path.stat().st_mtime_ns for path in results[:3]]
    run("restore pictures --model whole/weights.safetensors --out restored", monkeypatch)
    assert [path.stat().st_mtime_ns for path in results[:3]] == before
    assert pellucid.read(results[3]).samples.shape == (40, 48, 3)


def test_an_exported_network_is_loaded() -> None:
    pytest.importorskip("onnxruntime")
    exported = pellucid.load("exported.onnx")
    picture = pellucid.read("pictures/p0.png")
    expected = pellucid.load("whole/weights.safetensors", device="cpu").restore(picture)
    np.testing.assert_allclose(exported.restore(picture).samples, expected.samples.astype(int), atol=1)
