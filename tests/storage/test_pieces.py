"""Against a real server: pieces that are interrupted, damaged, or of objects that change meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from object_server import Bucket
from pellucid.errors import StorageError
from pellucid.storage import cache, objects, pieces
from pellucid.storage.urls import Tag, Url, locate

CONTENT = np.random.default_rng(0).bytes(10_500)


@pytest.fixture(autouse=True)
def _small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the pieces begin that are fetched."""
    starts: list[int] = []
    read_range = objects.read_range

    def remember(url: Url, start: int, stop: int) -> tuple[bytes, Tag]:
        starts.append(start)
        return read_range(url, start, stop)

    monkeypatch.setattr(objects, "read_range", remember)
    return starts


def _put(bucket: Bucket, content: bytes = CONTENT) -> Url:
    bucket.put("large", content)
    url = locate(f"{bucket.url}/large")
    assert isinstance(url, Url)
    return Url(url.scheme, url.bucket, url.key, tag=objects.stat(url))


def _fetch(url: Url, path: Path) -> int:
    """Returns the number of bytes that progress counted."""
    counted: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        pieces.fetch_pieces(url, path, pool, counted.append)
    return sum(counted)


def _fetch_a_part(url: Url, path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        read_range = objects.read_range

        def fail(url: Url, start: int, stop: int) -> tuple[bytes, Tag]:
            if start == 6000:
                raise StorageError("gone")
            return read_range(url, start, stop)

        patch.setattr(objects, "read_range", fail)
        with pytest.raises(StorageError, match="gone"):
            _fetch(url, path)


def test_missing_and_damaged_pieces_are_fetched(bucket: Bucket, tmp_path: Path, fetched: list[int]) -> None:
    url, path = _put(bucket), tmp_path / "copy"
    _fetch_a_part(url, path)
    done = [1000 * json.loads(line)[0] for line in Path(f"{path}.pieces").read_text().splitlines()[1:]]
    damaged = done[0]
    with path.open("r+b") as file:  # as after a power failure
        file.seek(damaged + 10)
        file.write(b"\0\0\0\0")
    assert 500 <= pieces.count_missing_bytes(url, path) < 10_500
    fetched.clear()
    assert _fetch(url, path) == len(CONTENT) and path.read_bytes() == CONTENT
    assert {*fetched} == {*range(0, 10_500, 1000)} - {*done} | {damaged}
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["copy"]


def test_pieces_of_another_object_are_not_used(bucket: Bucket, tmp_path: Path) -> None:
    url, path = _put(bucket), tmp_path / "copy"
    _fetch_a_part(url, path)
    other = _put(bucket, CONTENT[::-1])
    with pytest.raises(pieces.ChangedError):
        _fetch(url, path)
    assert _fetch(other, path) == len(CONTENT) and path.read_bytes() == CONTENT[::-1]
    bucket.server.request("DELETE", url.key)
    for fetch in (lambda: _fetch(url, path), lambda: pieces.fetch_whole(url, path)):
        with pytest.raises(pieces.ChangedError):
            fetch()


def test_a_copy_continues_after_kill_9(bucket: Bucket, tmp_path: Path, fetched: list[int]) -> None:
    _put(bucket)
    code = f"""
import time
from pellucid.storage import cache, objects, pieces
cache.NUM_PARALLEL, pieces.PIECE_BYTES, real = 1, 1000, objects.read_range
def slow(url, start, stop):
    time.sleep(0 if start < 4000 else 60)
    return real(url, start, stop)
objects.read_range = slow
cache.as_local("{bucket.url}/large")
"""
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and child.poll() is None:
        logs = [*(tmp_path / "cache").rglob("*.pieces")]
        if logs and logs[0].read_bytes().count(b"\n") == 5:
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert cache.as_local(f"{bucket.url}/large").read_bytes() == CONTENT
    assert sorted(fetched) == [*range(4000, 10_500, 1000)]
    assert not [*(tmp_path / "cache").rglob("unfinished")]


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_copy_is_never_a_mixture(bucket: Bucket, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a folder is copied, another program replaces all of it."""
    names = ("a", "b", "c")
    for name in names:
        bucket.put(f"set/{name}", b"1" * size)
    monkeypatch.setattr(cache, "NUM_PARALLEL", 1)
    add, versions = cache._Copies.add, [b"2" * size]

    def replace_all(copies: cache._Copies, name: str, url: Url) -> None:
        add(copies, name, url)
        if versions:
            content = versions.pop()
            for other in names:
                bucket.put(f"set/{other}", content)

    monkeypatch.setattr(cache._Copies, "add", replace_all)
    folder = cache.as_local(f"{bucket.url}/set")
    assert {path.read_bytes() for path in folder.iterdir()} == {b"2" * size}
    versions += [bytes([65 + number]) * size for number in range(9)]
    bucket.put("set/a", b"3" * size)
    bucket.put("set/b", b"3" * size)
    with pytest.raises(StorageError, match="/set is changed again and again while it is copied; try again when"):
        cache.as_local(f"{bucket.url}/set")
