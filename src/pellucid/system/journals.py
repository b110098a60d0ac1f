"""Files of JSON lines that grow by one line at a time, and survive any interruption."""

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor

from pellucid.system.files import check_own


class Journal:
    """A file to which this process adds lines. Nothing is created before the first line.

    is_shared: whether other processes add lines to the same file, which local disks keep apart. Otherwise, the
    file belongs to this process alone: if another process writes it already, the name gets a number, as in
    3-of-16-2.jsonl, and where files cannot be locked, e.g. on some network shares, a random one.
    """

    def __init__(self, path: Path, *, is_shared: bool = False) -> None:
        self._path, self._is_shared = path, is_shared
        self._file: IO[bytes] | None = None

    def add(self, content: Mapping[str, Any]) -> None:
        """Add a line. Raises OSError if it cannot be written."""
        line = f"\n{json.dumps(content)}\n".encode()  # an interruption may have truncated the line before
        if self._is_shared:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            check_own(self._path)
            with self._path.open("ab", buffering=0) as file:
                file.write(line)
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_own(self._path)
        self._file.write(line)

    def close(self) -> None:
        """Let other processes use the file."""
        if self._file is not None:
            self._file.close()
        self._file = None


class JournalReader:
    """Reads journals, and later what was added to them since."""

    def __init__(self) -> None:
        self._ends: dict[Path, int] = {}

    def read_new(self, path: Path) -> Iterator[dict[str, Any]]:
        """The objects in the lines that are new. Lines that are not complete or not JSON objects are left out."""
        start = self._ends.get(path, 0)
        if not path.is_file():  # opening a pipe would wait
            return
        try:
            file = path.open("rb")
        except OSError:
            return
        with file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):  # another process may still write it
                    return
                self._ends[path] = self._ends.get(path, 0) + len(line)
                found = _parse(line)
                if isinstance(found, dict):
                    yield found


def _parse(line: bytes) -> Any:
    """The content of a line; None if it is not JSON."""
    try:
        return json.loads(line.decode(errors="replace"))
    except ValueError:
        return None


def _open_own(path: Path) -> IO[bytes]:
    number = 1
    while True:
        name = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        check_own(name)
        file = name.open("ab", buffering=0)
        try:
            is_locked = lock_descriptor(file.fileno(), blocking=False)
        except OSError:
            file.close()
            return path.with_stem(f"{path.stem}-{secrets.token_hex(4)}").open("xb", buffering=0)
        if is_locked:
            return file
        file.close()
        number += 1
