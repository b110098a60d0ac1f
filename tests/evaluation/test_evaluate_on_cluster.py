"""Scoring in several processes: reports are those of one process, to the bit. Ray is simulated."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from object_server import Bucket
from pellucid import cli
from pellucid.clusters.inputs import SharedInput
from pellucid.errors import ClusterError, DataError, OutputError
from pellucid.evaluation.evaluate import evaluate, score
from pellucid.evaluation.on_cluster import _Assignment, evaluate_on, score_on
from pellucid.evaluation.report import Report
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration.loading import Loading
from pellucid.restoration.restorer import Restorer, load
from simulated_ray import SimulatedRay

POISON = Path(__file__).parents[1] / "poison.py"
LOADING = Loading("srcnn-x2", device="cpu")
NOISY = Loading("dncnn-gray-25", device="cpu")


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return load("srcnn-x2", device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """12 pictures, and a damaged one."""
    rng = np.random.default_rng(0)
    for number in range(12):
        samples = rng.integers(0, 256, (30 + number, 40, 3), np.uint8)
        images.write(Picture(samples), tmp_path / "in" / f"{number:02}.png")
    content = (tmp_path / "in" / "00.png").read_bytes()
    (tmp_path / "in" / "damaged.png").write_bytes(content[:60])
    return tmp_path / "in"


def _as_json(report: Report) -> str:
    return json.dumps(report.to_json())


def test_the_report_is_that_of_one_process(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    expected = evaluate(restorer, pictures, save=tmp_path / "saved")
    record, seen = tmp_path / "record.jsonl", []
    found = evaluate_on(
        "ray",
        restorer,
        LOADING,
        pictures,
        save=tmp_path / "saved-on-ray",
        record=record,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert _as_json(found) == _as_json(expected) and len(found.failures) == 1
    assert len(simulated_ray.started) == 2 and seen[-1] == (13, 13)
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "saved-on-ray").iterdir())
    for name in names:
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "saved-on-ray" / name).read_bytes()

    simulated_ray.actors.clear()
    again = evaluate_on("ray", restorer, LOADING, pictures, save=tmp_path / "saved-on-ray", record=record)
    assert again.num_resumed == 12 and again.scores == expected.scores
    assert len(simulated_ray.actors) == 1  # only the damaged one was left


def test_noise_seeds_and_both_records_agree(simulated_ray: SimulatedRay, pictures: Path, tmp_path: Path) -> None:
    noisy = load("dncnn-gray-25", device="cpu")
    for number in range(3, 12):
        (pictures / f"{number:02}.png").unlink()
    record = tmp_path / "record"
    record.mkdir()
    expected = evaluate(noisy, pictures, num_seeds=2)
    assert _as_json(evaluate_on("ray", noisy, NOISY, pictures, num_seeds=2, record=record)) == _as_json(expected)
    here = evaluate(noisy, pictures, num_seeds=2, record=record)
    assert here.num_resumed == 6 and here.by_seed == expected.by_seed


def test_given_results_are_scored_alike(simulated_ray: SimulatedRay, pictures: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    (pictures / "damaged.png").unlink()
    for path in pictures.iterdir():
        samples = images.read(path).samples.astype(np.int16) + rng.integers(-9, 9, images.read(path).samples.shape)
        images.write(Picture(samples.clip(0, 255).astype(np.uint8)), tmp_path / "results" / path.name)
    expected = score(tmp_path / "results", pictures, colors="y")
    assert _as_json(score_on("ray", tmp_path / "results", pictures, colors="y")) == _as_json(expected)


def test_a_picture_that_ends_its_process_fails_alone(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    (pictures / "damaged.png").unlink()
    expected = evaluate(restorer, pictures)
    (pictures / "05.png").rename(pictures / "poison.png")
    loading = Loading("srcnn-x2", device="cpu", networks=[str(POISON)])
    found = evaluate_on("ray", restorer, loading, pictures, save=tmp_path / "saved")
    assert [path.name for path, _ in found.failures] == ["poison.png"]
    assert "in which it was scored has ended 3 times" in str(found.failures[0][1])
    assert found.scores == tuple(one for one in expected.scores if one.name != "05.png")
    assert len([*(tmp_path / "saved").iterdir()]) == 11  # nothing else is left there


def test_a_process_that_dies_after_saving_a_picture_loses_nothing(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    network = tmp_path / "deadly.py"
    network.write_text(DIES_ONCE.format(marker=tmp_path / "has-died"))
    loading = Loading("srcnn-x2", device="cpu", networks=[str(network)])
    found = evaluate_on("ray", restorer, loading, pictures, save=tmp_path / "saved")
    assert (tmp_path / "has-died").exists() and len(simulated_ray.started) > 2
    assert [path.name for path, _ in found.failures] == ["damaged.png"]
    assert found.scores == evaluate(restorer, pictures).scores


DIES_ONCE = """
import multiprocessing, os, pathlib
from pellucid.pictures import images
write = images.write
def write_and_die(picture, path, **keywords):
    notes = write(picture, path, **keywords)
    if path.name == "04.png" and not os.path.exists("{marker}"):
        pathlib.Path("{marker}").touch()
        os.kill(os.getpid(), 9)
    return notes
if multiprocessing.parent_process() is not None:
    images.write = write_and_die
"""


def test_nothing_is_overwritten_unasked(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    mine = tmp_path / "saved" / "03.png"
    images.write(Picture(np.zeros((5, 5, 1), np.uint8)), mine)
    before = mine.read_bytes()
    with pytest.raises(OutputError, match="03.png exists"):
        evaluate_on("ray", restorer, LOADING, pictures, save=mine.parent)
    assert mine.read_bytes() == before and not simulated_ray.actors
    evaluate_on("ray", restorer, LOADING, pictures, save=mine.parent, overwrite=True)
    assert mine.read_bytes() != before


def test_nothing_to_score_is_an_error(simulated_ray: SimulatedRay, tmp_path: Path, restorer: Restorer) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="0 of 1 picture could be scored"):
        evaluate_on("ray", restorer, LOADING, tmp_path / "in")


def test_processes_with_other_data_or_models_are_refused(pictures: Path, restorer: Restorer) -> None:
    shared, _ = SharedInput.prepare(pictures)
    loading = LOADING.settle(restorer)
    (item,) = _items(loading, shared, pictures, restorer)
    worker = pickle.loads(pickle.dumps(_Assignment(loading, shared, None, {})))()
    list(worker.work([item]))
    images.write(images.read(pictures / "01.png"), pictures / "00.png", overwrite=True)
    with pytest.raises(ClusterError, match="has other data than this computer, e.g. another 00.png"):
        list(worker.work([item]))
    with pytest.raises(ClusterError, match="another model of the name srcnn-x3"):
        _Assignment(Loading("srcnn-x3", device="cpu", fingerprint=loading.fingerprint), shared, None, {})()
    with pytest.raises(ClusterError, match=f"has no access to {pictures}/gone of this computer; use a folder"):
        _Assignment(loading, SharedInput(pictures / "gone"), None, {})()
    with pytest.raises(ClusterError, match=f"has no access to {pictures} of this computer"):
        _Assignment(loading, shared, None, {}, marker=pictures / "gone")()


def _items(loading: Loading, shared: SharedInput, pictures: Path, restorer: Restorer) -> list[Any]:
    from pellucid.evaluation.evaluate import plan_evaluation
    from pellucid.evaluation.on_cluster import _to_item
    from pellucid.evaluation.running import Missing

    samples = plan_evaluation(restorer, pictures).scoring.collection.samples
    return [_to_item(Missing(0, (None,)), samples[0], _Assignment(loading, shared, None, {}))]


def test_data_in_a_bucket_that_change_are_noticed(
    simulated_ray: SimulatedRay, bucket: Bucket, pictures: Path, restorer: Restorer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    (pictures / "damaged.png").unlink()
    bucket.upload(pictures, "in")
    expected = evaluate(restorer, pictures)
    assert evaluate_on("ray", restorer, LOADING, f"{bucket.url}/in").scores == expected.scores
    shared, _ = SharedInput.prepare(f"{bucket.url}/in")
    assert shared.as_local().name == "in"
    bucket.put("in/00.png", (pictures / "01.png").read_bytes())
    with pytest.raises(ClusterError, match="in has changed since this run began; run it again"):
        shared.as_local()


def test_the_command_compares_models(
    simulated_ray: SimulatedRay, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pellucid.commands.evaluate._connected", lambda on, num_models: _Nothing())
    arguments = ["evaluate", "srcnn-x2", "--model", "srcnn-x3", "--data", str(pictures), "--device", "cpu"]
    contents = []
    for name, more in {"one": [], "ray": ["--on", "ray", "--processes", "1"]}.items():
        out = tmp_path / f"{name}.json"
        result = CliRunner().invoke(cli.app, [*arguments, "--json", str(out), *more])
        assert result.exit_code == 1 and "damaged.png" in result.output
        contents.append(json.loads(out.read_text()))
    assert contents[0] == contents[1] and len(simulated_ray.started) == 2


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
