"""`pellucid restore --device A,B`: one process for each device, with the results and the report of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import pellucid
from child_processes import interruptible
from pellucid.errors import ArgumentError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.restoration import entries
from pellucid.weights import checkpoint
from test_cli import Terminal


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """In a folder with six pictures and a damaged one in `album`, one picture elsewhere, and a model named dn."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", *(f"album/{i}.png" for i in range(6))):
        images.write(Picture(rng.integers(0, 256, (24, 31, 3), np.uint8)), tmp_path / name)
    (tmp_path / "album" / "damaged.png").write_bytes((tmp_path / "photo.png").read_bytes()[:60])
    torch.manual_seed(0)
    chosen = registry.find("dncnn.gaussian", depth=3, width=4)
    metadata = checkpoint.WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0")
    checkpoint.save(tmp_path / "models" / "dn.safetensors", chosen.network(), metadata)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return Terminal(monkeypatch, capsys)


def _read_report(path: str) -> Any:
    """Without times, and with names of results instead of their paths."""
    report = json.loads(Path(path).read_text())
    for picture in report["pictures"]:
        picture["network_s"] = picture["network_s"] > 0
        picture["target"] = Path(picture["target"]).name
    return report


def _collect(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}


def test_results_and_report_are_those_of_one_process(run: Terminal) -> None:
    one = run("restore album photo.png --model dn --device cpu --out one --json one.json")
    several = run("restore album photo.png --model dn --device cpu,cpu --out several --json several.json")
    assert (one.code, one.out, one.err) == (several.code, several.out, several.err)
    assert several.code == 1 and "7 of 8 pictures restored by dn" in several.out
    assert _collect("one") == _collect("several") and len(_collect("one")) == 7
    assert _read_report("one.json") == _read_report("several.json")
    assert [path.name for path in Path("several").glob(".*")] == [entries.NAME]

    Path("several/3.png").unlink()
    again = run("restore album photo.png --model dn --device cpu,cpu --out several")
    assert "1 of 8 pictures restored by dn, 6 already exist" in again.out
    assert _collect("one") == _collect("several")
    status = run("status several")
    assert "7 of 8 pictures restored" in status.out and "1 failed" in status.out


def test_overwriting_and_shards(run: Terminal) -> None:
    Path("album/damaged.png").unlink()
    shard = run("restore album --model dn --device cpu,cpu --out out --shard 1/2")
    rest = run("restore album --model dn --device cpu --out out --shard 2/2")
    assert shard.code == rest.code == 0
    whole = run("restore album --model dn --device cpu --out out")
    assert "0 of 6 pictures restored by dn, 6 already exist" in whole.out
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert run("restore album --model dn --device cpu,cpu --out out --overwrite").code == 0
    assert len(before) == 6 and all(path.stat().st_mtime_ns > time_ns for path, time_ns in before.items())


def test_one_picture_is_restored_by_the_first_device(run: Terminal) -> None:
    result = run("restore photo.png --model dn --device cpu,cpu --out a.png")
    assert (result.code, result.out) == (0, "a.png\n")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (
            "restore album --model dn --device cpu,cpu:5 --out o",
            1,
            "device 'cpu:5' cannot be used here; available: ",
        ),
        ("restore album --model dn --device cpu,foo --out o", 1, "device 'foo' cannot be used here; available: "),
        (
            "restore album --model dn --device cpu, --out o",
            2,
            "'cpu,' is not a list of devices; --device can be all",
        ),
        ("restore album --model dn --device all,cpu --out o", 2, "'all,cpu' is not a list of devices"),
        ("restore album --model dn --device cpu,cpu --on ray", 2, "--device cpu,cpu must be one device"),
        (
            "bench dn --device cpu,cpu",
            2,
            "which only `pellucid restore` uses; choose one of them",
        ),
        ("evaluate dn --data album --device all", 2, "--device all means several devices"),
        ("serve --device cpu,cpu", 2, "--device cpu,cpu means several devices"),
    ],
)
def test_what_is_not_possible_is_one_line(run: Terminal, command: str, code: int, message: str) -> None:
    result = run(command)
    assert result.code == code and message in result.err and result.err.count("\n") == 1, result.err
    assert not Path("o").exists()


def test_all_are_the_accelerators_of_this_computer(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    result = run("restore album --model dn --device all --out o")
    expected = "pellucid: no accelerator was found on this computer; --device can be cpu\n"
    assert (result.code, result.err) == (1, expected)
    from pellucid.backends.backend import list_devices

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    for num_found, expected_names in ((1, ["cuda"]), (3, ["cuda:0", "cuda:1", "cuda:2"])):
        monkeypatch.setattr(torch.accelerator, "device_count", lambda num_found=num_found: num_found)
        assert list_devices("all") == expected_names


def test_python_functions_use_one_device() -> None:
    for name in ("cpu,cpu", "all"):
        with pytest.raises(ArgumentError, match=f"device '{name}' means several devices"):
            pellucid.load("srcnn-x2", device=name)


def _start_many() -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
    """A command that works for some seconds, after its first result, and its two processes."""
    for i in range(24):
        samples = np.random.default_rng(i).integers(0, 256, (200, 200, 3), np.uint8)
        images.write(Picture(samples), Path("many") / f"{i:02}.png", overwrite=True)
    command = [sys.executable, "-m", "pellucid", "restore", "many", "--model", "dn", "--ensemble"]
    process = subprocess.Popen(
        interruptible([*command, "--device", "cpu,cpu", "--json", "report.json"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        start_new_session=True,
    )
    deadline_s = time.monotonic() + 60
    while not list(Path().glob("many-restored/*.png")) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return process, psutil.Process(process.pid).children()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_after_a_stop_no_process_is_left_and_the_same_command_resumes(run: Terminal, stop: signal.Signals) -> None:
    process, children = _start_many()
    os.killpg(process.pid, stop)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop and "the same command resumes" in err, err
    assert len(children) == 2 and not any(child.is_running() for child in children)
    assert [path.name for path in Path("many-restored").glob(".*")] == [entries.NAME]
    done = _collect("many-restored")
    assert 0 < len(done) < 24 and len(_read_report("report.json")["pictures"]) <= len(done)
    result = run("restore many --model dn --ensemble --device cpu")
    assert result.code == 0 and f"{len(done)} already exist" in result.out


def test_pictures_of_a_process_that_was_killed_are_restored_by_others(run: Terminal) -> None:
    process, children = _start_many()
    assert len(children) == 2
    for child in children:
        child.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "pellucid: " not in err, err
    report = _read_report("report.json")
    assert [picture["status"] for picture in report["pictures"]] == ["restored"] * 24
    assert run("restore many --model dn --ensemble --device cpu --out one").code == 0
    assert _collect("one") == _collect("many-restored")
