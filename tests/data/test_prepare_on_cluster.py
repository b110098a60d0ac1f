"""Decoding in several processes: the store is that of one process, to the bit. Ray is simulated."""

import filecmp
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import write_noise, write_pictures
from typer.testing import CliRunner

from object_server import Bucket
from pellucid import cli
from pellucid.clusters.inputs import SharedInput
from pellucid.data import on_cluster, preparing
from pellucid.data.on_cluster import _Assignment, prepare_on
from pellucid.data.preparing import prepare, prepare_shard
from pellucid.data.store_parts import list_parts, open_part
from pellucid.data.store_status import read_store_status
from pellucid.errors import ClusterError, DataError, OutputError, StorageError
from pellucid.pictures import images
from pellucid.storage import objects
from pellucid.storage.urls import Url, locate
from pellucid.system.shards import Shard
from simulated_ray import SimulatedRay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_pictures(tmp_path / "in")
    for i in range(30):
        write_noise(folder / f"n{i:02}.png", 20 + i, 30, 3, seed=100 + i)
    (folder / "bad.png").write_text("hello")
    shutil.copy(folder / "n03.png", folder / "twin.png")
    return folder


def _list(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _assert_equal(one: Path, other: Path) -> None:
    names = ["index.json", "samples-00000.bin"]
    assert _list(one) == _list(other)
    assert filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def test_the_store_is_that_of_one_process(simulated_ray: SimulatedRay, folder: Path, tmp_path: Path) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    seen: list[tuple[int, int]] = []
    found = prepare_on(
        "ray", "folder", [folder], tmp_path / "ray", progress=lambda done, total: seen.append((done, total))
    )
    assert len(simulated_ray.started) == 2 and seen[-1] == (len(seen), len(seen))
    assert found.num_decoded == one.num_decoded and found.messages == one.messages
    assert found.store.fingerprint == one.store.fingerprint and found.store.left_out == one.store.left_out
    assert "bad.png" in dict(found.store.left_out)
    _assert_equal(one.store.folder, found.store.folder)

    simulated_ray.actors.clear()
    again = prepare_on("ray", "folder", [folder], tmp_path / "ray")
    assert again.num_decoded == 0 and not simulated_ray.actors
    (folder / "n03.png").unlink()
    write_noise(folder / "n03.png", 33, 30, 3, seed=1)
    with pytest.raises(OutputError, match="1 source differs \\(new, changed or missing\\), e.g. n03.png"):
        prepare_on("ray", "folder", [folder], tmp_path / "ray")
    assert prepare_on("ray", "folder", [folder], tmp_path / "ray", overwrite=True).num_decoded == one.num_decoded


def test_a_file_that_ends_its_process_is_left_out(
    simulated_ray: SimulatedRay, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    monkeypatch.setattr(on_cluster, "_Assignment", Deadly)
    found = prepare_on("ray", "folder", [folder], tmp_path / "ray")
    left_out = dict(found.store.left_out)
    assert "in which it was decoded has ended 3 times: it was killed" in left_out.pop("n07.png")
    assert left_out == dict(one.store.left_out) and len(found.store) == len(one.store) - 1
    assert found.store.check() == []


class Deadly(_Assignment):
    """Decoding one file ends the process. Of a module that the process imports, unlike a patch."""

    def __call__(self) -> Any:
        read = images.read

        def read_or_die(path: Any, **keywords: Any) -> Any:
            if Path(path).name == "n07.png":
                os.kill(os.getpid(), signal.SIGKILL)
            return read(path, **keywords)

        images.read = read_or_die
        return super().__call__()


def test_an_interrupted_run_resumes(
    simulated_ray: SimulatedRay, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)

    def interrupt(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    out = tmp_path / "ray"
    with pytest.raises(KeyboardInterrupt):
        prepare_on("ray", "folder", [folder], out, progress=interrupt)
    assert not simulated_ray.living
    status = read_store_status(out)
    num_files = len(one.store) + len(one.store.left_out)
    assert 12 <= status.num_decoded + len(status.failed) < num_files
    assert not status.is_finished and not status.shards
    assert len(status.missing) == num_files - status.num_decoded - len(status.failed)
    prepare_shard("folder", [folder], out, Shard(1, 4))  # shards may help
    decoded: list[int] = []
    found = prepare_on("ray", "folder", [folder], out, progress=lambda done, total: decoded.append(total))
    assert decoded[-1] < num_files - status.num_decoded and found.store.fingerprint == one.store.fingerprint
    _assert_equal_but_order(one.store, found.store)
    assert _list(out) == _list(one.store.folder)  # no parts are left


def test_what_a_killed_process_had_not_stored_is_decoded_here(
    simulated_ray: SimulatedRay, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    decode_on = on_cluster._decode_on

    def lose_part(*arguments: Any) -> Any:
        failures = decode_on(*arguments)
        largest = max(list_parts(tmp_path / "ray"), key=lambda part: sum(f.stat().st_size for f in part.iterdir()))
        shutil.rmtree(largest)
        return failures

    monkeypatch.setattr(on_cluster, "_decode_on", lose_part)
    found = prepare_on("ray", "folder", [folder], tmp_path / "ray")
    assert found.store.fingerprint == one.store.fingerprint
    _assert_equal_but_order(one.store, found.store)


def _assert_equal_but_order(one: Any, other: Any) -> None:
    assert one.names == other.names
    for i in range(len(one)):
        assert np.array_equal(one.target(i), other.target(i))


def test_processes_without_access_are_refused(folder: Path, tmp_path: Path) -> None:
    shared, _ = SharedInput.prepare(folder)
    gone = _Assignment("ray-1", "folder", [SharedInput(folder / "gone")], tmp_path / "out", 1, {}, 1)
    with pytest.raises(ClusterError, match=f"has no access to {tmp_path}/out of this computer"):
        gone()
    planned = preparing.plan_preparation("folder", [folder], tmp_path / "out", 1, {})
    with open_part(tmp_path / "out", "ray-1", planned.request, planned.facts, []):
        pass
    with pytest.raises(ClusterError, match="gone of this computer"):
        gone()
    worker = _Assignment("ray-1", "folder", [shared], tmp_path / "out", 1, {}, 1)()
    with pytest.raises(ClusterError, match="has no file other.png, which this computer has"):
        list(worker.work(["n01.png", "other.png"]))
    worker.close()


@pytest.fixture
def new_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Continues with an empty cache."""

    def use(name: str) -> None:
        monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / name))

    use("first")
    return use


def _list_bucket(bucket: Bucket, name: str) -> list[str]:
    folder = locate(f"{bucket.url}/{name}")
    assert isinstance(folder, Url)
    return sorted(url.relative_to(folder).as_posix() for url in objects.list_objects(folder))


NAMES = ["index.json", "samples-00000.bin", "sources.jsonl"]


def test_a_store_in_a_bucket(
    simulated_ray: SimulatedRay,
    bucket: Bucket,
    folder: Path,
    tmp_path: Path,
    new_machine: Callable[[str], None],
) -> None:
    bucket.upload(folder, "in")
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    arguments: Any = ("ray", "folder", [f"{bucket.url}/in"], f"{bucket.url}/store")
    found = prepare_on(*arguments)
    assert len(simulated_ray.started) == 2
    assert found.num_decoded == one.num_decoded and found.store.fingerprint == one.store.fingerprint
    assert dict(found.store.left_out).keys() == dict(one.store.left_out).keys()
    assert _list_bucket(bucket, "store") == [".owner.json", *NAMES]  # no parts
    name = "samples-00000.bin"
    assert bucket.get(f"store/{name}") == (one.store.folder / name).read_bytes()

    new_machine("second")
    lines: list[str] = []
    again = prepare_on(*arguments, log=lines.append)
    assert again.num_decoded == 0 and again.store.fingerprint == one.store.fingerprint
    assert len(simulated_ray.started) == 2 and "is finished; a copy of it is compared" in lines[0]
    bucket.put("in/n03.png", (folder / "n04.png").read_bytes())
    with pytest.raises(OutputError, match="store is finished, but 1 source differs \\(new, changed or missing\\)"):
        prepare_on(*arguments)


def test_parts_in_a_bucket_are_used_by_another_machine(
    simulated_ray: SimulatedRay,
    bucket: Bucket,
    folder: Path,
    tmp_path: Path,
    new_machine: Callable[[str], None],
) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)

    def interrupt(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    arguments: Any = ("ray", "folder", [folder], f"{bucket.url}/store")
    with pytest.raises(KeyboardInterrupt):
        prepare_on(*arguments, progress=interrupt)
    assert not simulated_ray.living
    samples = [name for name in _list_bucket(bucket, "store") if name.endswith(".bin")]
    assert len(samples) >= 3 and all(name.startswith(".parts/") for name in samples)
    bucket.put(f"store/{samples[0]}", b"damaged")
    (folder / "n29.png").unlink()

    new_machine("second")
    decoded: list[int] = []
    found = prepare_on(*arguments, progress=lambda done, total: decoded.append(total))
    assert decoded[-1] < 36 - 4  # of about 36 files, 12 or more were done, 4 of them damaged
    (tmp_path / "one-less").mkdir()
    one = prepare("folder", [folder], tmp_path / "one-less", workers=1)
    assert found.store.fingerprint == one.store.fingerprint
    assert _list_bucket(bucket, "store") == [".owner.json", *NAMES]

    other = prepare_on(*arguments, min_px=10, overwrite=True)  # other settings
    assert len(other.store) < len(one.store)


def test_without_access_to_the_bucket_nothing_starts(
    simulated_ray: SimulatedRay, bucket: Bucket, folder: Path, new_machine: Callable[[str], None]
) -> None:
    simulated_ray.environment = {"AWS_SECRET_ACCESS_KEY": "wrong"}  # of the other computers
    with pytest.raises(StorageError, match="a process on the cluster: .* does not accept the credentials"):
        prepare_on("ray", "folder", [folder], f"{bucket.url}/store")
    assert _list_bucket(bucket, "store") == []


def test_nothing_to_store_is_an_error(simulated_ray: SimulatedRay, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_text("hello")
    with pytest.raises(DataError, match="0 of 1 item could be stored, e.g. bad.png"):
        prepare_on("ray", "folder", [tmp_path / "in"], tmp_path / "out")


def test_the_command(simulated_ray: SimulatedRay, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ray"
    arguments = ["prepare", "folder", str(folder), "--out", str(out), "--on", "ray", "--workers", "2"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0 and "files decoded by this run" in result.output, result.output
    assert simulated_ray.options["num_cpus"] == 2 and len(simulated_ray.started) == 1
    assert prepare("folder", [folder], out).num_decoded == 0
