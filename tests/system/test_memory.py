"""Large arrays lie in files: they hold what is written, and take memory only where they are looked at."""

import errno
import os

import numpy as np
import pytest

from pellucid.errors import OutputError
from pellucid.system import memory


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE_BYTES", 1000)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_large_array_holds_what_is_written(low_limit: None, dtype: str) -> None:
    written = np.random.default_rng(0).integers(0, 255, (50, 40, 3)).astype(dtype)
    array = memory.empty(written.shape, dtype)
    array[:] = written
    memory.forget(array[3:5, ::-1])
    assert array.dtype == dtype
    assert np.array_equal(array, written)


def test_forgetting_a_small_array_changes_nothing() -> None:
    array = np.arange(6).reshape(2, 3)
    memory.forget(array[:, 1:])
    assert array.sum() == 15


def test_what_is_forgotten_takes_no_memory() -> None:
    before = memory.taken_bytes()
    array = memory.empty((200, 2**20), "uint8")
    array[:] = 1
    written = memory.taken_bytes()
    memory.forget(array)
    assert written - before > 150e6
    assert memory.taken_bytes() - before < 50e6


def test_no_room_is_one_line(low_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device; TMPDIR names another folder"):
        memory.empty((100, 100), "uint8")


def test_a_container_limits_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        def __init__(self, text: str) -> None:
            self.text = text

        def read_text(self) -> str:
            return self.text

    monkeypatch.setattr(memory, "_CGROUP_LIMIT", Fixed("1000000"))
    monkeypatch.setattr(memory, "_CGROUP_TAKEN", Fixed("400000"))
    monkeypatch.setattr(memory, "_CGROUP_PARTS", Fixed("anon 7"))
    assert memory.free_bytes() == 600000
    # Copies of files are given back on demand.
    monkeypatch.setattr(memory, "_CGROUP_PARTS", Fixed("anon 7\ninactive_file 200000\nactive_file 100000"))
    assert memory.free_bytes() == 900000
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", Fixed("max"))
    assert memory.free_bytes() > 600000


def test_strips_cover_every_row_once(low_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STRIP_BYTES", 100)
    for shape in ((1, 7, 3), (20, 7, 3), (21, 500, 1)):
        array = memory.empty(shape, "uint8")
        rows = [row for strip in memory.strips(array, array) for row in range(strip.start, strip.stop)]
        assert rows == list(range(shape[0]))


def test_one_run_is_the_same_array_or_a_copy(low_limit: None) -> None:
    array = np.arange(6000, dtype=np.uint16).reshape(40, 50, 3)
    assert memory.in_one_run(array) is array
    copy = memory.in_one_run(array[::-1, 3:])
    assert copy.flags.c_contiguous
    assert np.array_equal(copy, array[::-1, 3:])
