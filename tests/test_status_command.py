"""`pellucid restore --shard` and `pellucid status` as users see them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.system.shards import Shard
from test_cli import Terminal
from test_cli_restore import run as run  # the fixture


def _make_many(count: int = 12, side_px: int = 40) -> None:
    rng = np.random.default_rng(0)
    for i in range(count):
        images.write(Picture(rng.integers(0, 256, (side_px, side_px, 3), np.uint8)), Path("many") / f"{i:02}.png")


def _start(shard: str, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "pellucid",
        "restore",
        "many",
        "--model",
        "dn",
        "--out",
        "out",
        "--shard",
        shard,
    ]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _read(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}


def test_shards_and_their_status(run: Terminal) -> None:
    _make_many()
    Path("many/broken.png").write_bytes(Path("many/00.png").read_bytes()[:100])
    assert run("restore many --model dn --out one").code == 1
    first = run("restore many --model dn --out out --shard 1/2")
    num_first = len(_read("out"))
    assert 0 < num_first < 12 and f"shard 1/2: {num_first + 1} of 13 pictures" in first.err
    status = run("status out")
    assert status.code == 1 and f"out: dn: {num_first} of 13 pictures restored, " in status.out
    assert f"missing: {Path('many').resolve()}" in status.err and "shards 1/2" in status.out
    run("restore many --model dn --out out --shard 2/2")
    assert _read("one") == _read("out")
    status = run("status out --json status.json --report report.json")
    assert status.code == 1 and "12 of 13 pictures restored, 1 failed" in status.out and "broken.png" in status.err
    (found,) = json.loads(Path("status.json").read_text())
    assert (found["num_restored"], found["num_failed"], found["num_missing"]) == (12, 1, 0)
    assert found["failed"][0]["source"].endswith("broken.png")
    report = json.loads(Path("report.json").read_text())
    assert [one["status"] for one in report["pictures"]] == ["restored"] * 12 + ["failed"]
    images.write(images.read("many/00.png"), Path("many/broken.png"), overwrite=True)
    run("restore many --model dn --out out --shard 1/2")
    assert run("status out").code == 0
    assert run("status out --json status.json").code == 1  # it exists
    assert run("status out --report report.json").code == 0  # it is a report


def test_results_that_were_replaced_or_exist_already_are_named(run: Terminal) -> None:
    _make_many(3)
    run("restore many --model dn --out out")
    Path("out/01.png").write_bytes(Path("many/01.png").read_bytes())
    status = run("status out")
    assert status.code == 1 and "missing: " in status.err
    assert "out/01.png is not the file that was written: replaced, changed or copied" in status.err
    run("restore many --model dn --out out --json report.json")
    assert "out/01.png exists; --overwrite replaces it" in run("status out").err  # not overwrite=True
    assert "--overwrite replaces it" in Path("report.json").read_text()
    Path("out/.pellucid.jsonl").write_text("{{{")
    assert "is damaged; 'pellucid restore --overwrite' makes all of it again" in run("status out").err


def test_runs_of_one_model_are_told_apart(run: Terminal) -> None:
    _make_many(2)
    run("restore many --model dn --out out")
    run("restore many --model dn --out out --strength 0.5 --overwrite")
    status = run("status out")
    assert "out: dn (strength=1.0): 0 of 2 pictures restored, 2 missing" in status.out
    assert "out: dn (strength=0.5): 2 of 2 pictures restored" in status.out
    assert "out/00.png is now the result with other settings" in status.err
    report = run("status out --report report.json")
    assert report.code == 1 and "results of 2 runs: dn (strength=1.0); dn (strength=0.5);" in report.err


def test_shards_of_a_store(run: Terminal) -> None:
    _make_many()
    assert run("prepare folder many --out s --shard 1/2").code == 0
    status = run("status s")
    assert status.code == 1 and "of 12 files decoded, " in status.out and "missing: " in status.err
    assert "after shards, run it without --shard" in run("prepare check s").err
    assert "12 files, " in run("prepare folder many --out s --shard 2/2").out
    assert "s: 12 of 12 files decoded, shards 1-of-2, 2-of-2; the command without" in run("status s").out
    assert "0 files decoded by this run" in run("prepare folder many --out s").out
    status = run("status s --json -")
    assert status.code == 0 and json.loads(status.out)["num_decoded"] == 12
    again = run("prepare folder many --out s --shard 2/2")
    assert again.code == 0 and "s is finished; there is nothing to do for shard 2/2" in again.out


def test_shards_of_an_evaluation(run: Terminal) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        images.write(Picture(rng.integers(0, 256, (20, 20, 1), np.uint8)), Path("gray") / f"{i}.png")
    num_first = sum(Shard(1, 2).takes(f"{i}.png") for i in range(6))
    command = "evaluate dn --data gray --seeds 2"
    first = run(f"{command} --record scores --shard 1/2")
    assert first.code == 0 and f"dn, shard 1/2: {num_first} pictures scored; after all shards" in first.out
    assert f"scores: dn: {num_first} of 6 pictures scored, {6 - num_first} missing" in run("status scores").out
    assert run(f"{command} --record scores --shard 2/2").code == 0
    assert run("status scores").code == 0
    merged = run(f"{command} --record scores --json merged.json")
    assert "from earlier runs: 12 scores" in merged.err and merged.out == run(f"{command} --json one.json").out
    assert Path("merged.json").read_text() == Path("one.json").read_text()
    assert "--shard needs --record FOLDER" in run(f"{command} --shard 1/2").err
    assert "--json and --shard exclude" in run(f"{command} --record scores --shard 1/2 --json x").err


def test_a_shard_of_nothing_is_done(run: Terminal) -> None:
    codes = [run(f"restore album --model dn --out out --shard {i}/9").code for i in range(1, 10)]
    assert codes == [0] * 9 and sorted(path.name for path in Path("out").rglob("*.*") if path.is_file())[-2:] == [
        "a.png",
        "b.tif",
    ]


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (
            "restore album --model dn --shard 4/3",
            2,
            "shard 4/3 does not exist; shards are numbered from 1/3 to 3/3",
        ),
        ("restore album --model dn --shard x", 2, "'x' is not a shard; --shard is I/N, e.g. 3/16"),
        ("restore album --model dn --shard env", 2, "not a task of an array: none of SLURM_ARRAY_TASK_ID"),
        ("restore album --model dn --preview --shard 1/2", 2, "--preview only draws a sheet; omit --shard"),
        ("prepare folder album --out s --shard 1/2 --overwrite", 2, "--overwrite and --shard exclude each other"),
        ("prepare folder --shard 1/2", 2, "folder needs a SOURCE"),
        ("status nothing", 1, "nothing does not exist"),
        ("status album", 1, "album contains no manifest of 'pellucid restore'"),
        ("status album --json - --report -", 2, "would both be standard output"),
    ],
)
def test_what_is_wrong_is_one_line(run: Terminal, command: str, code: int, message: str) -> None:
    result = run(command)
    assert result.code == code and message in result.err and result.err.count("\n") == 1


def test_shards_are_killed_repeated_and_run_twice_at_once(run: Terminal) -> None:
    _make_many(16, 200)
    run("restore many --model dn --out one --ensemble")
    killed = _start("1/2", "--ensemble")
    while killed.poll() is None and not _read("out"):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    processes = [_start(shard, "--ensemble") for shard in ("1/2", "1/2", "2/2")]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], printed
    assert _read("one") == _read("out")
    assert run("status out").code == 0
