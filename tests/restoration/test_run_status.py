"""Shards of a folder: together they make what one process makes, and the status adds them up."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from pellucid.restoration import planning, restorer
from pellucid.restoration.entries import Entries
from pellucid.restoration.report import make_report
from pellucid.restoration.restore import restore
from pellucid.restoration.run_status import RunStatus, read_status
from pellucid.system.shards import Shard
from small_models import save_weights


@pytest.fixture
def many(album: Path) -> Path:
    """The album with more pictures, among them two whose results have the same name without their suffixes."""
    for i in range(6):
        shutil.copy(album / "a.png", album / f"n{i}.png")
    shutil.copy(album / "b.tif", album / "a.tif")
    return album


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path, "dncnn.gaussian", depth=3, width=4, channels=3)


def _run(source: Path, out: Path, weights: Path, shard: Shard | None = None) -> int:
    plan = planning.plan(source, out, format="png", model=weights.stem, shard=shard, strict=False)
    outcomes = restore(plan, restorer.load(weights))
    assert len(outcomes) == len(plan)
    return sum(outcome.error is None and not outcome.is_skipped for outcome in outcomes)


def _contents(out: Path) -> dict[str, bytes]:
    paths = [
        path for path in out.rglob("*") if path.is_file() and not path.relative_to(out).parts[0].startswith(".")
    ]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def _read_one(out: Path) -> RunStatus:
    (status,) = read_status(out)
    return status


def test_shards_together_make_what_one_process_makes(many: Path, weights: Path, tmp_path: Path) -> None:
    one, split = tmp_path / "one", tmp_path / "split"
    num_restored = _run(many, one, weights)
    assert num_restored == sum(_run(many, split, weights, Shard(i, 4)) for i in range(1, 5)) == 10
    assert _contents(one) == _contents(split) and "a.tif.png" in _contents(one)
    assert sum(_run(many, split, weights, Shard(i, 4)) for i in range(1, 5)) == 0
    assert _run(many, split, weights) == 0  # one process knows the results of all shards
    assert _run(many, split, weights, Shard(2, 3)) == 0  # and so does another split
    manifests = {path.name for path in (split / ".pellucid").iterdir()}
    assert manifests <= {f"{i}-of-4.jsonl" for i in range(1, 5)} | {"2-of-3.jsonl"} and len(manifests) > 2


def test_the_status_adds_up_all_shards(many: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for i in (1, 3):
        _run(many, out, weights, Shard(i, 4))
    status = _read_one(out)
    done = {name for name in _contents(out)}
    assert {os.path.relpath(str(one.target), out) for one in status.select("restored")} == done
    assert len(status.pictures) == 11 and set(status.shards) <= {"1/4", "3/4"}
    assert len(status.select("missing")) + len(status.select("failed")) == 11 - len(done)
    for i in (2, 4):
        _run(many, out, weights, Shard(i, 4))
    status = _read_one(out)
    assert [one.source.name for one in status.select("failed")] == ["broken.png"]
    assert status.select("missing") == [] and status.pictures_per_minute is not None
    (out / "n3.png").unlink()
    shutil.copy(many / "a.png", many / "new.png")
    assert {one.source.name for one in _read_one(out).select("missing")} == {"n3.png", "new.png"}


def test_the_merged_report_is_that_of_one_process(many: Path, weights: Path, tmp_path: Path) -> None:
    plan = planning.plan(many, tmp_path / "one", format="png", strict=False)
    expected = make_report(restore(plan, network := restorer.load(weights)), network)
    for i in range(1, 4):
        _run(many, tmp_path / "split", weights, Shard(i, 3))
    report = _read_one(tmp_path / "split").to_report()
    for one in (*expected["pictures"], *report["pictures"]):
        one["target"] = Path(one["target"]).name
        del one["network_s"]
    assert report == expected


def test_the_status_of_a_moved_folder_and_of_missing_inputs(many: Path, weights: Path, tmp_path: Path) -> None:
    _run(many, tmp_path / "out", weights, Shard(1, 1))
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert len(_read_one(moved).select("restored")) == 10
    shutil.move(many, tmp_path / "elsewhere")
    status = _read_one(moved)
    assert len(status.select("failed")) == 1 and "missing pictures are not known" in status.problems[0]
    reasons = {one.error for one in status.select("missing")}
    assert len(reasons) > 1 and all(text and "cannot be checked, because" in text for text in reasons)


def test_a_copied_input_is_not_restored_again_but_a_changed_one_is(
    many: Path, weights: Path, tmp_path: Path
) -> None:
    _run(many, tmp_path / "out", weights)
    for path in many.glob("n*.png"):
        os.utime(path, ns=(1, 1))
    shutil.copy(many / "deep" / "c.png", many / "n2.png")
    assert _run(many, tmp_path / "out", weights) == 1


def test_two_models_in_one_folder_are_two_runs(many: Path, weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    other = weights.with_stem("other")
    shutil.copy(save_weights(tmp_path / "b", "srcnn.tuned", scale=2), other)
    for one in (weights, other):
        for i in (1, 2):
            _run(many, tmp_path / "out", one, Shard(i, 2))
    found = read_status(tmp_path / "out")
    assert [(run.model, len(run.select("restored"))) for run in found] == [("dncnn.gaussian", 10), ("other", 10)]
    assert [len(run.select("failed")) for run in found] == [1, 1]
    assert len(_contents(tmp_path / "out")) == 20


def test_the_newest_outcome_counts_in_whichever_manifest_it_is() -> None:
    entries = Entries()
    for outcome, at_s in (("restored", 20.0), ("failed", 10.0)):
        entries.add({"target": "a.png", "outcome": outcome, "at_s": at_s, "settings": "s"})
    found = entries.find_outcome("a.png", {"s"})
    assert found is not None and found["outcome"] == "restored"
    entries.add({"target": "a.png", "outcome": "failed", "at_s": 20.0, "settings": "s"})
    found = entries.find_outcome("a.png", {"s"})
    assert found is not None and found["outcome"] == "failed"  # the last one of the same moment
    entries.add({"target": "a.png", "outcome": "restored", "at_s": 30.0, "settings": "of another run"})
    assert entries.find_outcome("a.png", {"s"}) == found
