"""A lock on a folder in a bucket, with a lease, because machines can die or lose their connection at any time.

The owner renews FOLDER/owner.json every few seconds. If it has not done so for a minute, another process may
become the owner.
"""

import json
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from pellucid.errors import OutputError, StorageError
from pellucid.storage import objects
from pellucid.storage.urls import Tag, Url

RENEW_EVERY_S = 10.0
LEASE_S = 60.0
"""How long an owner that does not renew its lease is waited for, by the clock of the process that waits."""
POLL_EVERY_S = 2.0


class Ownership:
    """The right of this process to write a folder.

    doing: a participle for messages, e.g. "trained". number: counts the owners of the folder, from 1.
    """

    def __init__(self, folder: Url, doing: str, *, file: str = "owner.json") -> None:
        self.number = 0
        self._folder, self._doing, self._url = folder, doing, folder / file
        self._token = secrets.token_hex(8)
        self._tag: Tag | None = None
        self._is_lost = False
        self._is_closed = Event()
        self._renewer = Thread(target=self._renew, name="owner of the run", daemon=True)

    def take(self, log: Callable[[str], None]) -> None:
        """Become the owner. Raises OutputError if another process is the owner and still renews its lease.

        log: called with a line before waiting for an owner that may have ended.
        """
        found = self._read()
        waits_until_s = time.monotonic() + LEASE_S
        if found is not None and not found[0]["has_ended"]:
            host = found[0]["host"]
            log(f"{self._folder} was {self._doing} on {host} and did not end there; waiting up to {LEASE_S:.0f} s")
            while (now := self._read()) is not None and now[1] == found[1] and time.monotonic() < waits_until_s:
                time.sleep(min(POLL_EVERY_S, LEASE_S / 10))
            if now is not None and now[1] != found[1] and not now[0]["has_ended"]:
                raise self._describe_other(now[0])
            found = now
        self.number = 1 if found is None else found[0]["number"] + 1
        try:
            content = self._content()
            self._tag = objects.put_new(content, self._url) if found is None else self._replace(content, found[1])
        except OutputError:  # another process was faster
            other = self._read()
            raise self._describe_other({"host": "another machine"} if other is None else other[0]) from None
        self._renewer.start()

    def check(self) -> None:
        """Raise OutputError if another process has taken over."""
        if self._is_lost:
            raise OutputError(
                f"another process has taken over {self._folder}, because this one seemed to have ended",
                hint="nothing more is written there",
            )

    def confirm(self) -> None:
        """Ask the server, and raise OutputError if another process has taken over."""
        found = self._read()
        self._is_lost = self._is_lost or found is None or found[0]["process"] != self._token
        self.check()

    def release(self, within_s: float | None = None) -> None:
        """Record that this owner has ended, so that the next one need not wait for the lease to expire.

        within_s: give up after this time, e.g. if the server does not answer.
        """
        self._is_closed.set()
        ending = Thread(target=self._end, name="end of the ownership", daemon=True)
        ending.start()
        ending.join(within_s)

    def _end(self) -> None:
        if self._renewer.is_alive():
            self._renewer.join()
        if self._tag is not None and not self._is_lost:
            with suppress(OutputError, StorageError):  # then the next owner waits
                self._replace(self._content(has_ended=True), self._tag)

    def _renew(self) -> None:
        while not self._is_closed.wait(min(RENEW_EVERY_S, LEASE_S / 4)):
            assert self._tag is not None
            try:
                self._tag = self._replace(self._content(), self._tag)
            except OutputError:
                self._is_lost = True
                return
            except StorageError:  # the network may be back the next time
                continue

    def _replace(self, content: bytes, tag: Tag) -> Tag:
        return objects.put(content, self._url, e_tag=tag.e_tag)

    def _read(self) -> tuple[dict[str, Any], Tag] | None:
        if objects.stat(self._url) is None:
            return None
        content, tag = objects.read(self._url)
        try:
            found = json.loads(content)
            return {
                "number": int(found["number"]),
                "host": str(found["host"]),
                "has_ended": bool(found["has_ended"]),
                "process": str(found["process"]),
            }, tag
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"{self._url} is damaged", hint="delete it if no other process uses the folder"
            ) from error

    def _describe_other(self, owner: dict[str, Any]) -> OutputError:
        return OutputError(
            f"{self._folder} is being {self._doing} on {owner['host']}", hint="choose another {out}"
        )

    def _content(self, *, has_ended: bool = False) -> bytes:
        """Another one each time, so that the e-tag changes."""
        content = {
            "number": self.number,
            "host": platform.node(),
            "has_ended": has_ended,
            "process": self._token,
            "change": secrets.token_hex(4),
        }
        return json.dumps(content).encode()
