"""Inputs that all processes of a run read: files that the computers share, or copies of what is in a bucket."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pellucid.errors import ClusterError
from pellucid.storage import cache
from pellucid.storage.urls import Location, Url, locate


@dataclass(frozen=True)
class SharedInput:
    """A file or a folder, pickled for the processes.

    place: an absolute path, or a URL. fingerprint: of the content of the bucket at the start; "" for a path.
    """

    place: Location
    fingerprint: str = ""

    @classmethod
    def prepare(cls, place: str | Location) -> tuple[Self, Path]:
        """The input, and its path on this computer, which directs the run. Raises errors of `cache.as_local`."""
        place = locate(place)
        if isinstance(place, Path):
            return cls(to_absolute(place)), place
        copy = cache.copy_to_cache(place)
        return cls(place, copy.fingerprint), copy.path

    def as_local(self) -> Path:
        """The path on the computer of this process.

        Raises ClusterError if this computer has no access to it, or if the bucket has changed since the start.
        """
        if isinstance(self.place, Url):
            copy = cache.copy_to_cache(self.place)
            if copy.fingerprint != self.fingerprint:
                raise ClusterError(f"{self.place} has changed since this run began", hint="run it again")
            return copy.path
        if not self.place.exists():
            raise no_access(self.place)
        return self.place


def no_access(place: Path) -> ClusterError:
    """The error for a file or folder that the computer of this process does not share."""
    return ClusterError(
        f"{platform.node()} has no access to {place} of this computer",
        hint="use a folder that all computers share under the same path, or a bucket",
    )


def to_absolute(place: Path) -> Path:
    """An absolute path with its links, for a process in another folder."""
    return Path(os.path.abspath(place))  # noqa: PTH100  # Path's own resolves links
