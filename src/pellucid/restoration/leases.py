"""Which process makes which result in a bucket, so that processes on several computers share the work.

A claim is an object that only one process can create. Its owner renews it while it works. A claim that has not
changed for a minute, by the clock of the process that waits, is expired, and another process may take it over. If
a claim is ever lost, the only effect is that work is done twice, because results never replace each other.
"""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from threading import Event, Lock, Thread

from pellucid.errors import OutputError, StorageError
from pellucid.restoration.entries import PARTS
from pellucid.storage import objects
from pellucid.storage.urls import Tag, Url

RENEW_EVERY_S = 15.0
LEASE_S = 60.0
"""A claim expires if it has not changed for this long."""

_NUM_RELEASERS = 4


class Leases:
    """The claims of this process on results in a folder of a bucket.

    team: the name of a group of processes that are never assigned the same result at the same time. They take over
        each other's claims at once, because the earlier owner has died, or will notice that it lost the claim.
    """

    def __init__(self, folder: Url, team: str | None = None) -> None:
        self._folder, self._team = folder / PARTS / "claims", team
        self._owner = secrets.token_hex(8) if team is None else f"{team}/{secrets.token_hex(8)}"
        self._held: dict[str, Tag] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        self._lock, self._is_closed = Lock(), Event()
        self._renewer = Thread(target=self._renew_all, name="claims", daemon=True)
        self._releasers = ThreadPoolExecutor(_NUM_RELEASERS)

    def check(self) -> None:
        """Raise StorageError if claims cannot be stored."""
        self.take("")
        self.release("")

    def take(self, key: str) -> bool:
        """Claim the result with this key; False if another process has claimed it. May be called repeatedly."""
        with self._lock:
            if key in self._held:
                return True
            if not self._renewer.is_alive():
                self._renewer.start()
        url = self._url(key)
        if self._try(key, lambda: objects.put_new(self._content(), url)):
            return True
        found = objects.stat(url)
        if found is None:  # released in the meantime
            return self._try(key, lambda: objects.put_new(self._content(), url))
        if self._is_of_team(url):
            return self._try(key, lambda: objects.put(self._content(), url, e_tag=found.e_tag))
        e_tag, since_s = self._seen.get(key, ("", 0.0))
        if e_tag != found.e_tag:
            self._seen[key] = found.e_tag, time.monotonic()
            return False
        if time.monotonic() - since_s < LEASE_S:
            return False
        return self._try(key, lambda: objects.put(self._content(), url, e_tag=found.e_tag))

    def release(self, key: str) -> None:
        """Other processes may claim the result again. Does not wait for the server."""
        with self._lock:
            is_held = self._held.pop(key, None) is not None
        if is_held:
            self._releasers.submit(self._delete, self._url(key))

    def close(self) -> None:
        """Release all claims."""
        self._is_closed.set()
        for key in list(self._held):
            self.release(key)
        self._releasers.shutdown()
        if self._renewer.is_alive():
            self._renewer.join()

    def _is_of_team(self, url: Url) -> bool:
        if self._team is None:
            return False
        try:
            return objects.read(url)[0].startswith(f"{self._team}/".encode())
        except StorageError:  # released in the meantime
            return False

    def _try(self, key: str, store: Callable[[], Tag]) -> bool:
        """Whether the claim could be stored."""
        try:
            tag = store()
        except OutputError:  # another process was faster
            return False
        with self._lock:
            self._held[key] = tag
        return True

    def _renew_all(self) -> None:
        while not self._is_closed.wait(RENEW_EVERY_S):
            with self._lock:
                held = list(self._held.items())
            for key, tag in held:
                self._renew(key, tag)

    def _renew(self, key: str, tag: Tag) -> None:
        try:
            renewed = objects.put(self._content(), self._url(key), e_tag=tag.e_tag)
        except OutputError:  # taken over, or released just now
            with self._lock:
                self._held.pop(key, None)
        except StorageError:  # the network may be back the next time
            pass
        else:
            with self._lock:
                if key in self._held:
                    self._held[key] = renewed

    def _content(self) -> bytes:
        """Different each time, so that the e-tag changes."""
        return f"{self._owner} {secrets.token_hex(8)}\n".encode()

    def _url(self, key: str) -> Url:
        return self._folder / sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]

    def _delete(self, url: Url) -> None:
        """Delete a claim, unless another process has taken it over in the meantime."""
        with suppress(StorageError):  # an abandoned claim expires
            if objects.read(url)[0].startswith(self._owner.encode()):
                objects.delete(url)
