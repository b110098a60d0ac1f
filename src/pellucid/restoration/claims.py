"""Which process makes which result, so that several processes on one folder share the work.

A claim is a lock on one byte of a file in the folder of results. The system releases it when the process ends,
however it ends. Where files cannot be locked, e.g. on some network shares, every claim is granted.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from zlib import crc32

NAME = ".pellucid.lock"
"""Name of the file. It is empty, and removed by the last process that has claims."""


class Claims:
    """The claims of this process on results in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path, self._descriptor, self._has_made_folder = folder / NAME, -1, False
        self._lock = Lock()

    def take(self, key: str) -> bool:
        """Claim the result with this key; False if another process has claimed it. Taking it twice is no error."""
        with self._lock:
            try:
                self._open()
                while _lock_byte(self._descriptor, _place(key)):
                    if os.fstat(self._descriptor).st_nlink:
                        return True
                    self._close()  # another process has removed the file in the meantime
                    self._open()
                return False
            except OSError:
                return True

    def release(self, key: str) -> None:
        """Other processes may claim the result again."""
        with self._lock, suppress(OSError):
            if self._descriptor >= 0:
                _unlock_byte(self._descriptor, _place(key))

    def close(self) -> None:
        """Release all claims, and remove the file, and a folder without results, if no other process uses it."""
        with self._lock, suppress(OSError):
            if self._descriptor < 0:
                return
            is_last = _lock_all(self._descriptor)
            if is_last and sys.platform == "win32":
                self._close()  # an open file cannot be removed there
            if is_last:
                self._path.unlink()
            self._close()
            if is_last and self._has_made_folder:
                self._path.parent.rmdir()

    def _open(self) -> None:
        if self._descriptor < 0:
            self._has_made_folder |= not self._path.parent.exists()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _place(key: str) -> int:
    """The byte of a key. Two keys that share one are only made one after the other."""
    return crc32(key.encode(errors="surrogateescape")) % 2**31


if sys.platform == "win32":
    import msvcrt

    def _lock_byte(descriptor: int, place: int) -> bool:
        os.lseek(descriptor, place, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock_byte(descriptor: int, place: int) -> None:
        os.lseek(descriptor, place, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _lock_all(descriptor: int) -> bool:
        return True  # removing the file fails while another process has it open

else:
    import fcntl

    def _lock_byte(descriptor: int, place: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock_byte(descriptor: int, place: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)

    def _lock_all(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True
