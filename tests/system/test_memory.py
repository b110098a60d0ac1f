"""Large arrays are in memory-mapped files, which take memory only for the parts in use, unless memory is free."""

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
def test_a_large_array_keeps_its_values(low_limit: None, dtype: str) -> None:
    written = np.random.default_rng(0).integers(0, 255, (50, 40, 3)).astype(dtype)
    array = memory.allocate(written.shape, dtype)
    array[:] = written
    memory.release(array[3:5, ::-1])
    assert array.dtype == dtype
    assert np.array_equal(array, written)


def test_releasing_a_small_array_changes_nothing() -> None:
    array = np.arange(6).reshape(2, 3)
    memory.release(array[:, 1:])
    assert array.sum() == 15


def test_a_released_array_takes_no_memory() -> None:
    before = memory.used_bytes()
    array = memory.allocate((200, 2**20), "uint8")
    array[:] = 1
    written = memory.used_bytes()
    memory.release(array)
    assert written - before > 150e6
    assert memory.used_bytes() - before < 50e6


def _is_in_file(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, memory.FileMap)


def test_large_arrays_are_in_memory_up_to_a_quarter_of_what_is_free() -> None:
    size = 50 * 2**20
    limit = memory.used_bytes() + memory.SPARED_BYTES + 4 * 2 * size + 2**24  # this process may grow meanwhile
    before = memory.allocate((size,), "uint8")
    with memory.sharing_free_memory(limit):
        assert 2 * size <= memory.shared_bytes() <= 2 * size + 2**22
        arrays = [memory.allocate((size,), "uint8") for _ in range(3)]
        arrays[0][:] = 7
        first = arrays[0][::-1].reshape(2, -1)
        arrays[0] = first[:, 3:]
        del first
        assert [_is_in_file(array) for array in arrays] == [False, False, True]
        assert _is_in_file(memory.allocate((size,), "uint8"))
        used = memory.used_bytes()
        assert (arrays.pop(0) == 7).all()
        assert used - memory.used_bytes() > size * 0.9
        assert not _is_in_file(memory.allocate((size,), "uint8"))
        with memory.sharing_free_memory(limit - 4 * size):
            assert _is_in_file(memory.allocate((size,), "uint8"))
        assert not _is_in_file(memory.allocate((size,), "uint8"))
    assert memory.shared_bytes() == 0
    assert _is_in_file(memory.allocate((size,), "uint8")) and _is_in_file(before)


def test_scarce_memory_is_not_shared() -> None:
    with memory.sharing_free_memory(memory.used_bytes() + memory.SPARED_BYTES):
        assert _is_in_file(memory.allocate((memory.LARGE_BYTES,), "uint8"))


@pytest.mark.parametrize("num_bytes", [0, 1, 10**9, 2**30, 2**30 + 1, 10**10])
def test_what_others_need_is_left_to_them(num_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda: 10**8)
    limit = 10**8 + memory.add_share(num_bytes)
    with memory.sharing_free_memory(limit):
        assert num_bytes <= limit - 10**8 - memory.shared_bytes() <= num_bytes + 2


def test_a_full_temporary_folder_gives_a_one_line_error(low_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        OutputError, match=": No space left on device; set the environment variable TMPDIR to another folder"
    ):
        memory.allocate((100, 100), "uint8")


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        def __init__(self, text: str) -> None:
            self.text = text

        def read_text(self) -> str:
            return self.text

    monkeypatch.setattr(memory, "_CGROUP_LIMIT", Fixed("1000000"))
    monkeypatch.setattr(memory, "_CGROUP_USED", Fixed("400000"))
    monkeypatch.setattr(memory, "_CGROUP_STATISTICS", Fixed("anon 7"))
    assert memory.free_bytes() == 600000
    # The page cache is freed on demand.
    monkeypatch.setattr(memory, "_CGROUP_STATISTICS", Fixed("anon 7\ninactive_file 200000\nactive_file 100000"))
    assert memory.free_bytes() == 900000
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", Fixed("max"))
    assert memory.free_bytes() > 600000


def test_strips_cover_every_row_once(low_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STRIP_BYTES", 100)
    for shape in ((1, 7, 3), (20, 7, 3), (21, 500, 1)):
        array = memory.allocate(shape, "uint8")
        rows = [row for strip in memory.strips(array, array) for row in range(strip.start, strip.stop)]
        assert rows == list(range(shape[0]))


def test_as_contiguous_copies_only_if_needed(low_limit: None) -> None:
    array = np.arange(6000, dtype=np.uint16).reshape(40, 50, 3)
    assert memory.as_contiguous(array) is array
    copy = memory.as_contiguous(array[::-1, 3:])
    assert copy.flags.c_contiguous
    assert np.array_equal(copy, array[::-1, 3:])
