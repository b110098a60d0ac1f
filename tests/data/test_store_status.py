"""Shards of a store: together they make the store of one process, whatever happens to them."""

import filecmp
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_sources import write_noise, write_pictures

from pellucid.data import store
from pellucid.data.preparing import prepare, prepare_shard
from pellucid.data.store_parts import part_folder
from pellucid.data.store_status import read_store_status
from pellucid.errors import OutputError
from pellucid.system.shards import Shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_pictures(tmp_path / "in")
    for i in range(12):
        write_noise(folder / f"n{i}.png", 20 + i, 30, 3, seed=100 + i)
    (folder / "bad.png").write_text("hello")
    shutil.copy(folder / "n3.png", folder / "twin.png")
    return folder


def _prepare_parts(folder: Path, out: Path, count: int) -> int:
    return sum(prepare_shard("folder", [folder], out, Shard(i, count)).num_decoded for i in range(1, count + 1))


def _same(one: Path, other: Path) -> bool:
    names = ["index.json", "samples-00000.bin"]
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def test_shards_make_the_store_of_one_process_to_the_bit(folder: Path, tmp_path: Path) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    assert _prepare_parts(folder, tmp_path / "s", 4) == 16
    assert _prepare_parts(folder, tmp_path / "s", 4) == 0
    merged = prepare("folder", [folder], tmp_path / "s")
    assert merged.num_decoded == 0 and "16 files decoded by shards" in merged.messages
    assert merged.store.fingerprint == one.store.fingerprint and merged.store.left_out == one.store.left_out
    assert _same(one.store.folder, merged.store.folder) and merged.store.check() == []
    assert _list_names(tmp_path / "s") == _list_names(tmp_path / "one")
    assert prepare_shard("folder", [folder], tmp_path / "s", Shard(1, 4)).is_finished


def test_shards_of_other_data_are_kept(folder: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other", tmp_path / "s"
    other.mkdir()
    write_noise(other / "else.png", 30, 30, 3, seed=1)
    _prepare_parts(folder, out, 2)
    with pytest.raises(
        OutputError, match=r"s/shard-1-of-2 contains other data that is decoded already, e.g. "
    ) as caught:
        prepare("folder", [other], out)
    assert caught.value.parameters == {"overwrite": True}
    assert prepare("folder", [folder], out).num_decoded == 0
    prepare("folder", [other], out, overwrite=True)


def test_what_shards_lack_or_have_damaged_is_decoded(folder: Path, tmp_path: Path) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    for i in (1, 3):
        prepare_shard("folder", [folder], tmp_path / "s", Shard(i, 3))
    damaged = store.shard_path(part_folder(tmp_path / "s", Shard(1, 3).label), 0)
    content = bytearray(damaged.read_bytes())
    content[0] ^= 1
    damaged.write_bytes(content)
    missing = {name for name in one.store.names if Shard(2, 3).takes(name)}
    merged = prepare("folder", [folder], tmp_path / "s")
    assert merged.num_decoded >= len(missing) + 1 and merged.store.fingerprint == one.store.fingerprint


def test_a_file_that_has_changed_since_its_shard_is_decoded_again(folder: Path, tmp_path: Path) -> None:
    _prepare_parts(folder, tmp_path / "s", 2)
    (folder / "n5.png").unlink()
    write_noise(folder / "n5.png", 40, 40, 3, seed=7)
    merged = prepare("folder", [folder], tmp_path / "s")
    assert merged.num_decoded == 1
    assert merged.store.fingerprint == prepare("folder", [folder], tmp_path / "one").store.fingerprint


def test_shards_of_other_settings_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    prepare_shard("folder", [folder], tmp_path / "s", Shard(1, 2))
    with pytest.raises(OutputError, match="a store made with other settings"):
        prepare_shard("folder", [folder], tmp_path / "s", Shard(2, 2), min_px=4)
    with pytest.raises(OutputError, match="a store made with other settings"):
        prepare("folder", [folder], tmp_path / "s", min_px=4)


def test_the_status_counts_all_shards(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    _ = [prepare_shard("folder", [folder], out, Shard(i, 3)) for i in (1, 2)]
    status = read_store_status(out)
    expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    missing = {name for name in expected if Shard(3, 3).takes(name)}
    assert set(status.missing) == missing and status.shards == ("1-of-3", "2-of-3")
    assert status.num_decoded + len(status.failed) == len(expected) - len(missing)
    prepare_shard("folder", [folder], out, Shard(3, 3))
    status = read_store_status(out)
    assert (status.num_decoded, [name for name, _ in status.failed], status.missing) == (16, ["bad.png"], ())
    prepare("folder", [folder], out)
    assert read_store_status(out).is_finished


KILLED = """
import sys
from pellucid.data.preparing import prepare_shard
from pellucid.system.shards import Shard
print("ready", flush=True)
prepare_shard("folder", [sys.argv[1]], sys.argv[2], Shard(1, 2))
"""


def test_a_shard_is_killed_and_run_twice_at_once(folder: Path, tmp_path: Path) -> None:
    one = prepare("folder", [folder], tmp_path / "one", workers=1)
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "s")]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert killed.stdout is not None and killed.stdout.readline() == b"ready\n"
    time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    prepare_shard("folder", [folder], tmp_path / "s", Shard(2, 2))
    merged = prepare("folder", [folder], tmp_path / "s")
    assert merged.num_decoded == 0 and _same(one.store.folder, merged.store.folder)


def _list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
