"""Restoring in several processes: results are those of one process. Ray is simulated."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from object_server import Bucket
from pellucid.clusters.inputs import SharedInput, to_absolute
from pellucid.errors import ArgumentError, ClusterError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration import on_cluster, planning
from pellucid.restoration.ledgers import BucketLedger
from pellucid.restoration.loading import Loading
from pellucid.restoration.manifest import Manifest, Manifests, Request, State
from pellucid.restoration.on_cluster import iter_restore_on
from pellucid.restoration.restore import open_manifests, restore
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.run_status import read_status
from pellucid.restoration.sessions import Outcome
from pellucid.restoration.settings import Settings
from pellucid.storage import objects
from pellucid.storage.urls import Url, locate
from simulated_ray import SimulatedRay

LOADING = Loading("srcnn-x2", device="cpu")


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return load("srcnn-x2", device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """20 pictures, and a damaged one."""
    rng = np.random.default_rng(0)
    for number in range(20):
        samples = rng.integers(0, 256, (12, 20 + number, 3), np.uint8)
        images.write(Picture(samples), tmp_path / "in" / f"{number:02}.png")
    content = (tmp_path / "in" / "00.png").read_bytes()
    (tmp_path / "in" / "damaged.png").write_bytes(content[:60])
    return tmp_path / "in"


def _collect(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def _run(
    pictures: Path, out: Path, restorer: Restorer, loading: Loading = LOADING, **options: Any
) -> list[Outcome]:
    settings = options.pop("settings", Settings())
    jobs = planning.plan(pictures, out, model=restorer.name)
    return list(iter_restore_on("ray", jobs, restorer, loading, settings, **options))


def test_results_and_reports_are_those_of_one_process(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    one = {outcome.source: outcome for outcome in restore(pictures, restorer, tmp_path / "one")}
    seen: list[float] = []
    outcomes = _run(pictures, tmp_path / "ray", restorer, progress=lambda position: seen.append(position.num_done))
    assert _collect(tmp_path / "ray") == _collect(tmp_path / "one") and len(simulated_ray.started) == 2
    assert {outcome.source: str(outcome.error) for outcome in outcomes} == {
        source: str(outcome.error) for source, outcome in one.items()
    }
    assert seen == list(range(1, 22))
    (status,) = read_status(tmp_path / "ray")
    assert [len(status.select(kind)) for kind in ("restored", "failed", "missing")] == [20, 1, 0]

    simulated_ray.actors.clear()
    again = _run(pictures, tmp_path / "ray", restorer)
    assert sum(outcome.is_skipped for outcome in again) == 20
    assert len(simulated_ray.actors) == 1  # only for the damaged one
    # Results of a cluster are results for one process, and the other way round.
    assert sum(outcome.is_skipped for outcome in restore(pictures, restorer, tmp_path / "ray")) == 20
    assert sum(outcome.is_skipped for outcome in _run(pictures, tmp_path / "one", restorer)) == 20


def test_sheets_are_those_of_one_process(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    settings = Settings(compare=True)
    restore(pictures, restorer, tmp_path / "one", settings)
    _run(pictures, tmp_path / "ray", restorer, settings=settings)
    assert len(_collect(tmp_path / "one")) == 40 and _collect(tmp_path / "ray") == _collect(tmp_path / "one")


def test_other_files_are_only_replaced_if_asked(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "03.png").write_bytes(b"mine")
    failed = [outcome for outcome in _run(pictures, out, restorer) if outcome.error is not None]
    assert sorted(outcome.source.name for outcome in failed if outcome.source) == ["03.png", "damaged.png"]
    assert (out / "03.png").read_bytes() == b"mine"
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    _run(pictures, out, restorer, overwrite=True)
    assert all((out / name).stat().st_mtime_ns > before for name, before in written.items())
    restore(pictures, restorer, tmp_path / "one")
    assert _collect(out) == _collect(tmp_path / "one")


def test_a_changed_picture_is_restored_again(
    simulated_ray: SimulatedRay, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    _run(pictures, tmp_path / "out", restorer)
    images.write(images.read(pictures / "19.png"), pictures / "00.png", overwrite=True)
    outcomes = _run(pictures, tmp_path / "out", restorer)
    assert sum(outcome.is_skipped for outcome in outcomes) == 19
    assert _collect(tmp_path / "out")["00.png"] == _collect(tmp_path / "out")["19.png"]


def test_relative_paths_work_in_other_folders(
    simulated_ray: SimulatedRay,
    pictures: Path,
    restorer: Restorer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(pictures)  # the processes have been started elsewhere
    _run(Path(), Path("../out"), restorer)
    assert len(_collect(tmp_path / "out")) == 20
    assert to_absolute(Path("x")) == pictures / "x"


def test_results_of_a_dead_process_are_found(pictures: Path, restorer: Restorer, tmp_path: Path) -> None:
    """What it had finished is not done again."""
    (outcome, *_) = restore([pictures / "00.png"], restorer, tmp_path / "out")
    jobs = planning.plan([pictures / "00.png", pictures / "01.png"], tmp_path / "out", model=restorer.name)
    manifests = open_manifests(jobs, restorer, Settings(), False, journal="ray-1")
    run = on_cluster._Run(manifests, jobs, {}, None)
    found = run._recover(jobs[0])
    assert found is not None and found.target == outcome.target and found.megapixels == outcome.megapixels
    assert run._recover(jobs[1]) is None


def test_processes_without_access_or_with_other_models_are_refused(
    pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    jobs = planning.plan(pictures, tmp_path / "out", model=restorer.name)
    request = open_manifests(jobs, restorer, Settings(), False).request
    arguments = (restorer, Settings(), request, False, 1)
    assignment = on_cluster._Assignment("ray-1", LOADING, *arguments)
    assignment.folders = (tmp_path / "out",)
    with pytest.raises(ClusterError, match=f"has no access to {tmp_path}/out of this computer"):
        pickle.loads(pickle.dumps(assignment))()
    assignment.folders = ()
    pickle.loads(pickle.dumps(assignment))().close()
    other = on_cluster._Assignment("ray-1", Loading("srcnn-x3", device="cpu"), *arguments)
    with pytest.raises(ClusterError, match="another model of the name srcnn-x3, or runs it otherwise"):
        other()
    with pytest.raises(ArgumentError, match="single file; omit {on}|omit on"):
        _run(pictures / "00.png", tmp_path / "one.png", restorer)


def test_paths_of_models_become_absolute(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").touch()
    settled = Loading("mine.safetensors+srcnn-x2", networks=["a/net.py"]).settle(restorer)
    assert settled.model == f"{tmp_path}/mine.safetensors+srcnn-x2" and settled.networks == [
        f"{tmp_path}/a/net.py"
    ]
    assert settled.fingerprint == restorer.fingerprint()
    Path("srcnn-x2").touch()  # hides no model
    assert Loading("srcnn-x2").settle(restorer).model == "srcnn-x2"
    assert Loading("./srcnn-x2+srcnn-x3").settle(restorer).model == f"{tmp_path}/srcnn-x2+srcnn-x3"
    assert Loading("s3://b/a+b.safetensors").settle(restorer).model == "s3://b/a+b.safetensors"
    assert [Loading("m", device=device).num_gpus for device in ("auto", "cpu", "cuda", "cuda:1")] == [
        None,
        0,
        1,
        1,
    ]


def test_a_directed_manifest_knows_what_it_is_told(tmp_path: Path, pictures: Path) -> None:
    out, source = tmp_path / "out", pictures / "00.png"
    out.mkdir()
    whole = Manifest(out, Request({"strength": "1.0"}))
    (out / "part").write_bytes(b"a result")
    whole.record(source, [*_stamp(source)], out / "00.png", out / "part")
    (out / "part").rename(out / "00.png")
    directed = Manifest(out, Request({"strength": "1.0"}, journal="ray-1-2"), is_directed=True)
    entry = whole.find_entry(out / "00.png")
    assert entry is not None
    directed.learn_entry(entry)
    assert directed.state(source, out / "00.png") is State.DONE
    assert directed.state(source, out / "01.png") is State.MISSING
    (out / "00.png").write_bytes(b"something else")
    assert directed.state(source, out / "00.png") is State.FOREIGN


def _stamp(path: Path) -> list[int | str]:
    from pellucid.restoration.entries import stamp

    return stamp(path)


def test_a_directed_manifest_does_not_list_a_bucket(
    bucket: Bucket, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = locate(bucket.url)
    assert isinstance(folder, Url)
    target, source = folder / "00.png", pictures / "00.png"
    whole = Manifest(folder, Request({"strength": "1.0"}, journal="ray-1"))
    whole.record(source, _stamp(source), target, source)
    monkeypatch.setattr(objects, "list_objects", _refuse)
    directed = Manifest(folder, Request({"strength": "1.0"}, journal="ray-1-2"), is_directed=True)
    assert directed.state(source, target) is State.MISSING  # as it has been told
    directed.refresh(target)
    # The manifest of the process that made it is not stored yet; the result itself says what it was made of.
    assert directed.state(source, target) is State.DONE
    images.write(images.read(pictures / "19.png"), source, overwrite=True)
    other = Manifest(folder, Request({"strength": "1.0"}, journal="ray-1-3"), is_directed=True)
    other.refresh(target)
    assert other.state(source, target) is State.FOREIGN
    assert isinstance(other._ledger, BucketLedger)


def _refuse(*_: object) -> None:
    raise AssertionError("listed")


def test_manifests_of_a_team_share_their_claims(bucket: Bucket, pictures: Path) -> None:
    """A process of the same team may make what another one, which has died, has claimed."""
    jobs = planning.plan([pictures / "00.png", pictures / "01.png"], f"{bucket.url}/out", model="m")
    dead, mine = (Manifests(Request({}, journal=name), False, team="ray-1") for name in ("ray-1-a", "ray-1-b"))
    other = Manifests(Request({}), False)
    assert dead.claim(jobs[0]) and mine.claim(jobs[0]) and not other.claim(jobs[0])
    for manifests in (dead, mine, other):
        manifests.close()


def test_buckets(
    simulated_ray: SimulatedRay, bucket: Bucket, pictures: Path, restorer: Restorer, tmp_path: Path
) -> None:
    bucket.upload(pictures, "in")
    restore(pictures, restorer, tmp_path / "one")
    jobs = planning.plan(f"{bucket.url}/in", f"{bucket.url}/out", model=restorer.name)
    outcomes = list(iter_restore_on("ray", jobs, restorer, LOADING, Settings()))
    assert sum(outcome.error is None for outcome in outcomes) == 20
    assert {name: bucket.get(f"out/{name}") for name in _collect(tmp_path / "one")} == _collect(tmp_path / "one")
    jobs = planning.plan(f"{bucket.url}/in", f"{bucket.url}/out", model=restorer.name)
    again = list(iter_restore_on("ray", jobs, restorer, LOADING, Settings()))
    assert sum(outcome.is_skipped for outcome in again) == 20


def test_a_shared_input_is_absolute(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    shared, path = SharedInput.prepare(".")
    assert path == Path() and shared == SharedInput(pictures)
    os.chdir("/")
    assert shared.as_local() == pictures
    with pytest.raises(ClusterError, match="has no access to /gone of this computer"):
        SharedInput(Path("/gone")).as_local()
