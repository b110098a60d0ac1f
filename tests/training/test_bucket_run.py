"""Runs in a bucket: another machine resumes them, and only one process at a time can change them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load

from object_server import Bucket
from pellucid.errors import OutputError, StorageError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.storage import objects, ownership
from pellucid.storage.ownership import Ownership
from pellucid.storage.urls import Url, locate
from pellucid.training import bucket_run
from pellucid.training.bucket_run import BucketRun, open_bucket_run
from pellucid.training.recorder import Recorder
from pellucid.training.train import Status, train
from pellucid.weights.checkpoint import fingerprint

NUM_STEPS = 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without copies; owners that ended are taken over soon; a checkpoint after every third step."""
    monkeypatch.setattr(ownership, "LEASE_S", 1.0)
    monkeypatch.setattr(bucket_run, "RETRY_AFTER_S", (0.01,))
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "first"))
    monkeypatch.setattr(Recorder, "is_due", lambda recorder: recorder._learner.step % 3 == 0)
    return tmp_path / "first"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = Picture(rng.integers(0, 256, (48, 48, 1), np.uint8))
        images.write(picture, tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


def tiny(num_steps: int = NUM_STEPS) -> Recipe:
    return registry.find("dncnn.gaussian", depth=3, width=4, batch_size=2, patch_px=16, num_steps=num_steps)


def run(data: Path | str, out: Path | Url, **options: Any) -> Path:
    return train(tiny(), data, out, device="cpu", **{"tune": False, **options})


def url_of(bucket: Bucket) -> Url:
    url = locate(f"{bucket.url}/run")
    assert isinstance(url, Url)
    return url


def state_of(bucket: Bucket) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(bucket.get("run/latest.json"))
    return state


def digest(weights: bytes) -> str:
    return fingerprint(load(weights))


class Crash(Exception):  # noqa: N818  # not an error of the package
    pass


def crash_at(step: int) -> Any:
    def progress(status: Status) -> None:
        if status.step == step:
            raise Crash

    return progress


def test_pictures_and_run_in_a_bucket(
    bucket: Bucket, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(pictures, "pictures")
    expected = digest(run(pictures, tmp_path / "plain").read_bytes())
    lines: list[str] = []
    written = run(f"{bucket.url}/pictures", url_of(bucket), log=lines.append)
    assert digest(written.read_bytes()) == digest(bucket.get("run/weights.safetensors")) == expected
    state = state_of(bucket)
    assert state["step"] == NUM_STEPS and state["owner"] == 1
    assert json.loads(bucket.get("run/owner.json"))["has_ended"]
    assert bucket.get("run/metrics.jsonl") == (written.parent / "metrics.jsonl").read_bytes()
    stored = objects.list_objects(url_of(bucket) / "state")
    assert sorted(url.relative_to(url_of(bucket)).as_posix() for url in stored) == sorted(
        file["key"] for file in state["files"].values()
    )
    assert not (written.parent.parent / "snapshots").exists() or not [*written.parents[1].glob("snapshots/*")]
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "second"))
    again = run(f"{bucket.url}/pictures", url_of(bucket), log=lines.append)
    assert again.is_relative_to(tmp_path / "second") and again.read_bytes() == written.read_bytes()
    assert f"{bucket.url}/run: all steps are done ({NUM_STEPS})" in lines and state_of(bucket)["owner"] == 2


def test_another_machine_resumes_after_an_interruption(
    bucket: Bucket, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(run(pictures, tmp_path / "plain").read_bytes())
    lines: list[str] = []
    for number, step in enumerate((4, 11, 20)):
        monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / f"machine{number}"))
        with pytest.raises(Crash):
            run(pictures, url_of(bucket), log=lines.append, progress=crash_at(step))
        assert state_of(bucket)["step"] == step // 3 * 3
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "last machine"))
    assert digest(run(pictures, url_of(bucket), log=lines.append).read_bytes()) == expected
    resumed = [line.rpartition(" ")[2] for line in lines if "resuming" in line]
    assert resumed == ["3", "9", "18"]


def test_a_mixed_store_in_a_bucket(bucket: Bucket, pictures: Path, tmp_path: Path) -> None:
    images.write(Picture(np.full((48, 48, 1), 99, np.uint8)), tmp_path / "more" / "gray.png")
    bucket.upload(tmp_path / "more", "more")
    expected = digest(run(pictures, tmp_path / "plain", mix={str(tmp_path / "more"): 0.5}).read_bytes())
    mix = {f"{bucket.url}/more": 0.5}
    with pytest.raises(Crash):
        run(pictures, url_of(bucket), progress=crash_at(10), mix=mix)
    lines: list[str] = []
    assert digest(run(pictures, url_of(bucket), log=lines.append, mix=mix).read_bytes()) == expected
    assert f"{bucket.url}/more: 50.0% of the patches, 1 picture, degraded by the recipe" in lines
    assert digest(run(pictures, tmp_path / "alone").read_bytes()) != expected


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    bucket: Bucket, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(run(pictures, tmp_path / "plain").read_bytes())
    with pytest.raises(Crash):
        run(pictures, url_of(bucket), progress=crash_at(10))
    key = f"run/{state_of(bucket)['files']['checkpoints/step-000000009.safetensors']['key']}"
    bucket.put(key, bucket.get(key)[:-1] + b"?")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "second"))
    lines: list[str] = []
    assert digest(run(pictures, url_of(bucket), log=lines.append).read_bytes()) == expected
    assert any("is missing or damaged" in line and "previous checkpoint" in line for line in lines)
    assert any(line.endswith("resuming from step 6") for line in lines)


_TRAINING = """
import sys
from pathlib import Path
from pellucid.storage.urls import locate
from pellucid.storage import ownership
ownership.LEASE_S = 1.0
sys.path[:0] = sys.argv[3:]
from test_bucket_run import Recorder, run
Recorder.is_due = lambda recorder: recorder._learner.step % 3 == 0
run(Path(sys.argv[1]), locate(sys.argv[2]), progress=lambda status: print(status.step, flush=True))
"""


def test_killed_at_any_moment_and_resumed_on_other_machines_the_weights_are_equal(
    bucket: Bucket, pictures: Path, tmp_path: Path
) -> None:
    expected = digest(run(pictures, tmp_path / "plain").read_bytes())
    rng, num_kills = random.Random(0), 0
    for number in range(20):
        environment = {**os.environ, "PELLUCID_CACHE": str(tmp_path / f"machine{number}")}
        process = subprocess.Popen(
            [sys.executable, "-c", _TRAINING, str(pictures), str(url_of(bucket)), *sys.path],
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        if num_kills < 3 and process.stdout.readline():
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.stdout.close()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
        num_kills += 1
    assert num_kills and state_of(bucket)["step"] == NUM_STEPS
    assert digest(bucket.get("run/weights.safetensors")) == expected


def test_copies_of_an_earlier_step_are_replaced_even_if_all_steps_are_done(
    bucket: Bucket, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the last state and its copies."""
    with monkeypatch.context() as killed:
        killed.setattr(BucketRun, "_put_copies", lambda *arguments: None)
        written = run(pictures, url_of(bucket))
    bucket.put("run/weights.safetensors", b"those of an earlier step")
    run(pictures, url_of(bucket))
    assert bucket.get("run/weights.safetensors") == written.read_bytes()
    assert json.loads(bucket.get("run/metrics.jsonl").splitlines()[-1])["step"] == NUM_STEPS


def _write_files(folder: Path, content: bytes = b"weights") -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text('{"format": 1, "identity": {}}')
    (folder / "weights.safetensors").write_bytes(content)


def _wait_for_uploads(opened: BucketRun) -> None:
    while opened.behind_s:
        time.sleep(0.01)


def test_a_process_that_seemed_to_have_ended_cannot_change_the_run(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ownership, "_renew", lambda self: None)  # as if its machine slept
    lines: list[str] = []
    with pytest.raises(OutputError, match="another process has taken over"), ExitStack() as stack:
        first = stack.enter_context(open_bucket_run(url_of(bucket), lines.append))
        _write_files(first.folder)
        first.save(1)
        _wait_for_uploads(first)
        monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "second"))
        with open_bucket_run(url_of(bucket), lines.append):
            _write_files(first.folder, b"late")
            first.save(2)
            _wait_for_uploads(first)
            assert (state_of(bucket)["step"], state_of(bucket)["owner"]) == (1, 2)
            first.check()
    assert "waiting up to 1 s" in lines[0] and bucket.get("run/weights.safetensors") == b"weights"
    assert any("has step 1; the later ones are only in" in line for line in lines)


def test_a_run_has_one_owner(bucket: Bucket) -> None:
    with ExitStack() as stack:
        stack.enter_context(open_bucket_run(url_of(bucket), print))
        with pytest.raises(OutputError, match="is being trained on"):
            stack.enter_context(open_bucket_run(url_of(bucket), print))
    with open_bucket_run(url_of(bucket), print) as again:  # at once, since the first one has ended
        assert again.behind_s == 0 and state_of(bucket)["owner"] == 2


def test_failed_uploads_are_repeated(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with open_bucket_run(url_of(bucket), lines.append) as opened:
        _write_files(opened.folder)
        with _broken_network(monkeypatch):
            opened.save(1)
            while len(lines) < 3:
                time.sleep(0.01)
        assert state_of(bucket)["step"] == 0
    assert "step 1 is not uploaded: no network; trying again in 0 s" in lines
    assert state_of(bucket)["step"] == 1 and bucket.get("run/weights.safetensors") == b"weights"


def test_what_is_not_uploaded_is_named_and_uploaded_by_the_same_command(
    bucket: Bucket, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digest(run(pictures, tmp_path / "plain").read_bytes())
    monkeypatch.setattr(bucket_run, "FLUSH_S", 0.2)
    lines: list[str] = []
    with _broken_network(monkeypatch, key="/state/"), pytest.raises(Crash):
        run(pictures, url_of(bucket), log=lines.append, progress=crash_at(11))
    assert lines[-1].startswith(f"{bucket.url}/run/ has step 0; the later ones are only in ")
    assert state_of(bucket)["step"] == 0
    steps: list[int] = []
    with _broken_network(monkeypatch, key="/state/"), pytest.raises(StorageError, match="the same command"):
        run(pictures, url_of(bucket), log=lines.append, progress=lambda status: steps.append(status.step))
    assert steps == list(range(10, NUM_STEPS + 1))  # from the checkpoint of step 9, which is only here
    written = run(pictures, url_of(bucket), log=lines.append, progress=lambda status: steps.append(-1))
    assert digest(written.read_bytes()) == expected and -1 not in steps
    assert digest(bucket.get("run/weights.safetensors")) == expected and state_of(bucket)["step"] == NUM_STEPS


def test_a_stopped_training_ends_in_time_although_the_server_hangs(
    bucket: Bucket, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
from pellucid.training import bucket_run
bucket_run.FLUSH_S = 3.0
from pellucid.cli import main
main()
"""
    given = ("dncnn.gaussian", "depth=3", "width=4", "batch_size=2", "patch_px=16", "num_steps=100000")
    options = ("--data", str(pictures), "--out", str(url_of(bucket)), "--tune", "off", "--save-every", "0")
    process = subprocess.Popen([sys.executable, "-c", code, "train", *given, *options], stderr=subprocess.PIPE)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and not bucket.exists("run/weights.safetensors"):
        time.sleep(0.02)
    with bucket.server.paused():
        start_s = time.monotonic()
        process.terminate()
        _, output = process.communicate(timeout=60)
        assert time.monotonic() - start_s < 3 + 5
    assert process.returncode == 143
    assert b"the later ones are only in" in output and b"the same command resumes from here" in output


@contextmanager
def _broken_network(monkeypatch: pytest.MonkeyPatch, key: str = "/run/") -> Iterator[None]:
    original = objects.put

    def put(content: Any, url: Url, **options: Any) -> Any:
        if key in str(url) and not str(url).endswith("owner.json"):
            raise StorageError("no network")
        return original(content, url, **options)

    with monkeypatch.context() as context:
        context.setattr(objects, "put", put)
        yield


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("photo.png", b"?", "contains other objects"),
        ("latest.json", b"{", "is damaged"),
        ("latest.json", b'{"format": 9, "step": 0, "files": {}}', "format 9; this version reads format 1"),
        (
            "latest.json",
            b'{"format": 1, "step": 0, "files": {"../x.png": {"key": "state/x", "sha256": ""}}}',
            "is damaged",
        ),
        ("owner.json", b"[]", "is damaged"),
    ],
)
def test_other_and_damaged_folders_are_refused(bucket: Bucket, name: str, content: bytes, message: str) -> None:
    bucket.put(f"run/{name}", content)
    with pytest.raises((OutputError, StorageError), match=message), open_bucket_run(url_of(bucket), print):
        pass


def test_web_servers_are_not_written_to(pictures: Path) -> None:
    with pytest.raises(OutputError, match="is on a web server"):
        train(tiny(), pictures, "https://example.org/run")
