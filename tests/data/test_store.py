"""The store: samples are the same in every process; damage is an error of one line."""

import errno
import json
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data import store, store_writer
from pellucid.data.store import Store
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.errors import DataError, OutputError
from pellucid.pictures.samples import Samples

STAMP = Stamp(1, 2, "3")
METADATA: dict[str, Any] = {"pattern": ["RG", "GB"], "black_level": [[512, 512], [512, 511]], "white_level": 16383}


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def clean_store(folder: Path, *arrays: Samples) -> Store:
    with StoreWriter(folder, {}) as writer:
        for i, samples in enumerate(arrays):
            writer.put(f"{i}.png", STAMP, samples)
        return writer.finish("clean", [Planned(key, key) for key in writer.records], [])


def raw_store(folder: Path) -> Store:
    with StoreWriter(folder, {}) as writer:
        writer.put("long", STAMP, noise(8, 6, 3, dtype="uint16"))
        for short in ("a", "b"):
            writer.put(short, STAMP, noise(8, 6, dtype="uint16", seed=ord(short)), metadata=METADATA)
        items = [Planned("a", "long", "a", 100.0), Planned("b", "long", "b", 300.0, misaligned=True)]
        return writer.finish("raw", items, [("c", "damaged")])


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])), min_size=1, max_size=6
    ),
    dtype=st.sampled_from(["uint8", "uint16"]),
    shard_bytes=st.integers(1, 600),
)
def test_stored_arrays_are_read_back(
    shapes: list[tuple[int, int, int]], dtype: str, shard_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    arrays = [noise(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]
    folder = tmp_path_factory.mktemp("store") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_writer, "SHARD_BYTES", shard_bytes)
        made = clean_store(folder, *arrays)
    assert made.kind == "clean" and len(made) == len(shapes)
    assert made.sizes == tuple((height, width) for height, width, _ in shapes)
    assert made.num_bytes == sum(samples.nbytes for samples in arrays)
    for i, samples in enumerate(arrays):
        assert made.target(i).dtype == samples.dtype
        assert np.array_equal(made.target(i), samples)
        assert not made.target(i).flags.writeable
    assert made.check() == []
    assert all(
        path.stat().st_size <= max(shard_bytes, max(a.nbytes for a in arrays)) for path in folder.glob("*.bin")
    )


def test_a_store_of_pairs_has_targets_and_degraded_pictures(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.put("t", STAMP, noise(8, 8, 3))
        writer.put("d", STAMP, noise(4, 4, 3, seed=1))
        made = writer.finish("pairs", [Planned("x.png", "t", "d")], [])
    assert np.array_equal(made.degraded(0), noise(4, 4, 3, seed=1))
    assert made.target(0).shape == (8, 8, 3)
    with pytest.raises(DataError, match="kind 'pairs' and contains no mosaics"):
        made.mosaic(0)


def test_a_raw_store_has_mosaics_that_share_a_target(tmp_path: Path) -> None:
    made = raw_store(tmp_path / "s")
    mosaic = made.mosaic(1)
    assert np.array_equal(mosaic.samples, noise(8, 6, dtype="uint16", seed=ord("b")))
    assert mosaic.pattern == ("RG", "GB") and mosaic.exposure_ratio == 300
    assert np.array_equal(mosaic.black_level, METADATA["black_level"])
    assert mosaic.white_level == 16383
    assert made.scenes[0] == made.scenes[1]
    assert made.num_bytes == 8 * 6 * 2 * (3 + 1 + 1)
    assert [made.is_misaligned(i) for i in range(2)] == [False, True]
    assert made.left_out == (("c", "damaged"),)


def test_take_gives_the_first_items(tmp_path: Path) -> None:
    made = clean_store(tmp_path / "s", *(noise(4, 4, 1, seed=i) for i in range(3)))
    first = made.take(2)
    assert first.names == ("0.png", "1.png") and len(made) == 3
    assert first.num_bytes == 32
    assert first.fingerprint != made.fingerprint == made.take(9).fingerprint
    with pytest.raises(DataError, match="at least 1"):
        made.take(0)


def test_the_fingerprint_depends_on_content_but_not_on_order(tmp_path: Path) -> None:
    """Threads put arrays in any order. A different pixel makes a different data set."""
    first, second = noise(4, 4, 1), noise(4, 4, 1, seed=1)
    items = [Planned("0.png", "0.png"), Planned("1.png", "1.png")]
    with StoreWriter(tmp_path / "other-order", {}) as writer:
        writer.put("1.png", STAMP, second)
        writer.put("0.png", STAMP, first)
        reordered = writer.finish("clean", items, [])
    made = clean_store(tmp_path / "s", first, second)
    assert made.fingerprint == reordered.fingerprint
    assert made.fingerprint != clean_store(tmp_path / "other", first, first).fingerprint


def _sum_of(made: Store) -> int:
    return int(made.target(1).sum())


def test_other_processes_read_the_same_samples(tmp_path: Path) -> None:
    made = clean_store(tmp_path / "s", noise(4, 4, 1), noise(5, 5, 3, seed=1)).take(2)
    expected = _sum_of(made)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_sum_of, [made, made]) == [expected, expected]
    copy = pickle.loads(pickle.dumps(made.take(1)))
    assert len(copy) == 1 and copy.fingerprint == made.take(1).fingerprint


def test_arrays_stay_valid_when_pages_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = clean_store(tmp_path / "s", noise(64, 64, 3), noise(64, 64, 3, seed=1))
    monkeypatch.setattr(store, "RESIDENT_BYTES", 1)
    first = made.target(0)
    assert np.array_equal(made.target(1), noise(64, 64, 3, seed=1))
    assert np.array_equal(first, noise(64, 64, 3))


def test_a_folder_that_is_not_a_store_gives_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        store.open(tmp_path / "none")
    with pytest.raises(DataError, match="is not a store"):
        store.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        store.open(tmp_path / "file")
    with StoreWriter(tmp_path / "unfinished", {}) as writer:
        writer.put("a", STAMP, noise(2, 2, 1))
    with pytest.raises(DataError, match="unfinished store; the command that started it resumes it"):
        store.open(tmp_path / "unfinished")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"version": 1', '"version": 2', "version 2; this pellucid reads version 1"),
        ('"pellucid store"', '"another store"', "not the index of a store"),
        ('"kind": "clean"', '"kind": "dirty"', "damaged store"),
        ("[[0, 0, ", "[[7, 0, ", "damaged store"),
        ("[[0, 0, ", "[[0, -64, ", "damaged store"),
        ("[4, 4, 1]", "[4, 400, 1]", "damaged store"),
        ("[4, 4, 1]", '["4", 4, 1]', "damaged store"),
        ('"0.png", 0', '"0.png", 5', "damaged store"),
        ('"items"', '"goods"', "damaged store"),
        ("{", "", "not JSON"),
    ],
)
def test_a_damaged_index_gives_an_error_of_one_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    clean_store(tmp_path / "s", noise(4, 4, 1))
    path = tmp_path / "s" / "index.json"
    text = json.dumps(json.loads(path.read_text()))
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(DataError, match=message) as caught:
        store.open(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    clean_store(tmp_path / "s", noise(4, 4, 1))
    shard = tmp_path / "s" / "samples-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="samples-00000.bin has 15 bytes instead of 16"):
        store.open(tmp_path / "s")
    shard.unlink()
    with pytest.raises(DataError, match="samples-00000.bin cannot be read"):
        store.open(tmp_path / "s")


def test_a_changed_sample_is_found(tmp_path: Path) -> None:
    clean_store(tmp_path / "s", noise(4, 4, 1), noise(4, 4, 1, seed=1))
    shard = tmp_path / "s" / "samples-00000.bin"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert store.open(tmp_path / "s").check() == ["1.png"]
    found = store.open(tmp_path / "s")
    found.target(0)
    with pytest.raises(DataError, match=r"samples of 1\.png are damaged; make the store again"):
        found.target(1)


def test_writing_resumes_after_a_truncated_record(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", {"kind": "clean"}) as writer:
        writer.put("a", STAMP, noise(4, 4, 1))
        writer.put("b", STAMP, noise(4, 4, 1, seed=1))
    journal = tmp_path / "s" / "sources.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    with StoreWriter(tmp_path / "s", {"kind": "clean"}) as writer:
        assert list(writer.records) == ["a"]
        writer.put("c", STAMP, noise(3, 3, 1, seed=2))
    with StoreWriter(tmp_path / "s", {"kind": "clean"}) as writer:
        assert list(writer.records) == ["a", "c"]
        made = writer.finish("clean", [Planned("a", "a"), Planned("c", "c")], [])
    assert np.array_equal(made.target(0), noise(4, 4, 1))
    assert np.array_equal(made.target(1), noise(3, 3, 1, seed=2))


class SmallDisk:
    """Writes seven bytes at a time, up to a size, like a disk that is nearly full."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size

    def write(self, content: Any) -> int:
        if self.file.tell() + 7 > self.size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(content[:7])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk_loses_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StoreWriter._open_samples
    monkeypatch.setattr(StoreWriter, "_open_samples", lambda self: SmallDisk(real(self), 100))
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.put("a", STAMP, noise(8, 8, 1))
        with pytest.raises(OutputError, match="No space left on device; finished files are kept"):
            writer.put("b", STAMP, noise(8, 8, 1, seed=1))
    assert (tmp_path / "s" / "samples-00000.bin").stat().st_size == 64
    monkeypatch.undo()
    with StoreWriter(tmp_path / "s", {}) as writer:
        assert list(writer.records) == ["a"]
        writer.put("b", STAMP, noise(8, 8, 1, seed=1))
        made = writer.finish("clean", [Planned("a", "a"), Planned("b", "b")], [])
    assert made.check() == [] and np.array_equal(made.target(0), noise(8, 8, 1))


def test_nothing_is_overwritten_by_default(tmp_path: Path) -> None:
    clean_store(tmp_path / "s", noise(4, 4, 1))
    with pytest.raises(OutputError, match="other settings"):
        StoreWriter(tmp_path / "s", {"kind": "pairs"})
    with StoreWriter(tmp_path / "s", {"kind": "pairs"}, overwrite=True) as writer:
        assert writer.records == {} and not writer.is_finished
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(OutputError, match="contains files, but is not a store"):
        StoreWriter(tmp_path / "mine", {}, overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_a_store_that_another_process_starts_meanwhile_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears between two looks at the folder."""
    list_folder = Path.iterdir

    def start(folder: Path) -> Iterator[Path]:
        monkeypatch.undo()
        StoreWriter(folder, {}).__exit__(None, None, None)
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", start)
    (tmp_path / "s").mkdir()
    with StoreWriter(tmp_path / "s", {}) as writer:
        assert not writer.is_finished


def test_two_processes_cannot_write_at_once(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with StoreWriter(tmp_path / "s", {}), pytest.raises(OutputError, match="another process"):
        StoreWriter(tmp_path / "s", {})


def test_a_pipe_in_place_of_the_index_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(DataError, match=r"index.json cannot be read: it is a device or a pipe$"):
        store.open(tmp_path)
