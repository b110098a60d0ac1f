"""Large arrays are in memory-mapped files, which take memory only for the parts in use, unless memory is free."""

import errno
import os

import numpy as np
import pytest

from large_arrays import is_in_file
from pellucid.errors import OutputError
from pellucid.system import control_groups, memory


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


SIZE = 50 * 2**20


def _allocate() -> np.ndarray:
    return memory.allocate((SIZE,), "uint8")


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit under which large arrays share three times SIZE."""
    monkeypatch.setattr(memory, "used_bytes", lambda: 10**8)
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**50)
    return 10**8 + memory.SPARED_BYTES + 3 * 8 * SIZE


def test_large_arrays_are_in_memory_up_to_their_share(plenty: int) -> None:
    before = _allocate()
    with memory.sharing_free_memory(plenty):
        arrays = [_allocate() for _ in range(4)]
        assert [is_in_file(array) for array in arrays] == [False, False, False, True]
        assert memory.share_bytes() == 3 * SIZE and memory.unused_share_bytes() == 0
        del arrays[0]
        with memory.sharing_free_memory(plenty - 8 * SIZE):
            assert is_in_file(_allocate())
        assert not is_in_file(_allocate())
    assert memory.share_bytes() == 0
    assert is_in_file(_allocate()) and is_in_file(before)


def test_memory_is_returned_after_the_last_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**50)
    with memory.sharing_free_memory(memory.used_bytes() + 2 * memory.SPARED_BYTES):
        first, second = _allocate(), _allocate()
        first[:] = 7
        second[:] = 8
        view = first[::-1].reshape(2, -1)[:, 3:]
        del first, second
        used = memory.used_bytes()
    assert used - memory.used_bytes() > SIZE * 0.9
    assert not is_in_file(view) and (view == 7).all()
    used = memory.used_bytes()
    del view
    assert used - memory.used_bytes() > SIZE * 0.9


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_the_next_array_of_a_size_gets_the_memory_of_the_last(plenty: int) -> None:
    with memory.sharing_free_memory(plenty):
        array = _allocate()
        address, view = _address(array), array.view("uint16")[5:]
        del array
        assert _address(_allocate()) != address  # the view still uses it
        del view
        again = memory.allocate((SIZE // 4, 2), "uint16")
        assert _address(again) == address and again.flags.writeable
        assert memory.taken_bytes() == 2 * SIZE  # one is kept


def test_kept_memory_makes_room_for_arrays_of_other_sizes(plenty: int) -> None:
    with memory.sharing_free_memory(plenty):
        arrays = [_allocate() for _ in range(3)]
        del arrays
        assert memory.unused_share_bytes() == 0
        longer = memory.allocate((SIZE + 1,), "uint8")
        assert not is_in_file(longer) and memory.taken_bytes() == 2 * SIZE + 1
        with memory.sharing_free_memory(plenty - 8 * SIZE):
            assert memory.taken_bytes() == SIZE + 1
            del longer
            assert memory.taken_bytes() == SIZE + 1
        memory.stop_sharing()
        assert memory.taken_bytes() == 0


def test_what_is_not_free_is_not_shared(plenty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: memory.SPARED_BYTES + 8 * SIZE - 1)
    with memory.sharing_free_memory(plenty):
        assert is_in_file(_allocate())
    with memory.sharing_free_memory(10**8 + memory.SPARED_BYTES):
        assert is_in_file(memory.allocate((memory.LARGE_BYTES,), "uint8"))


def test_after_sharing_has_stopped_arrays_are_in_files(plenty: int) -> None:
    with memory.sharing_free_memory(plenty):
        memory.stop_sharing()
        assert is_in_file(_allocate()) and memory.unused_share_bytes() == 0
    with memory.sharing_free_memory(plenty):
        assert not is_in_file(_allocate())


def test_without_memory_arrays_are_in_files(plenty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(num_bytes: int) -> None:
        raise OSError(errno.ENOMEM, f"no {num_bytes} bytes")

    monkeypatch.setattr(memory, "_map_memory", refuse)
    with memory.sharing_free_memory(plenty):
        assert is_in_file(_allocate())


def test_collecting_garbage_does_not_block(plenty: int) -> None:
    """A generator that is collected while the lock is held ends its context in the same thread."""
    with memory._MEMORY_MAPS._lock, memory.sharing_free_memory(plenty):
        assert memory.share_bytes() > 0


@pytest.mark.parametrize("num_bytes", [0, 1, 10**9, 2**30, 2**30 + 1, 10**10])
def test_what_others_need_is_left_to_them(num_bytes: int, plenty: int) -> None:
    limit = memory.limit_besides_share(num_bytes)
    with memory.sharing_free_memory(limit):
        assert num_bytes <= limit - 10**8 - memory.unused_share_bytes() <= num_bytes + 2


def test_a_full_temporary_folder_gives_a_one_line_error(low_limit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        OutputError, match=": No space left on device; set the environment variable TMPDIR to another folder"
    ):
        memory.allocate((100, 100), "uint8")


def test_a_requested_limit_is_lowered_to_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda: 10**8)
    assert memory.limit_bytes(2**60) == 2**60
    monkeypatch.setattr(control_groups, "allowed_bytes", lambda: 10**9)
    assert (memory.limit_bytes(5 * 10**8), memory.limit_bytes(2**60)) == (5 * 10**8, 11 * 10**8)


def test_a_limit_that_the_machine_does_not_have_is_not_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda: 10**8)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**9)
    assert memory.hint_at(10**9) == {"hint": "{memory_bytes} is enough", "memory_bytes": 1_100_000_000}
    found = memory.hint_at(1_010_000_000)
    assert found["hint"] == "{memory_bytes} is enough, but this process can only get 1100 MB here"
    assert found["memory_bytes"] == 1_120_000_000


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems limit the address space")
def test_the_limit_of_the_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    addressed = memory.find_this_process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (addressed + 10**8, resource.RLIM_INFINITY))
    assert memory.free_bytes() == pytest.approx(10**8, abs=5e7)


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


def test_a_recent_limit_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, measured = 100.0, iter([5, 6])
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    monkeypatch.setattr(memory, "limit_bytes", lambda requested_bytes: requested_bytes + next(measured))
    limit = memory.RecentLimit(10)
    assert limit.measure() == limit.measure() == 15
    now_s += 0.2
    assert limit.measure() == 16
