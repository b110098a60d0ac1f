"""URLs of objects and folders in buckets, with the pure operations of `pathlib` that names need."""

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pellucid.errors import ArgumentError

BUCKET_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az"}
"""Schemes of buckets, and how each is written in messages."""

WEB_SCHEMES = ("http", "https")
"""Schemes of servers that files are only read from."""

_MAX_FOLDERS = 4096
"""How many real paths of folders are remembered; files are listed folder by folder."""

_USER = re.compile(r"//[^/]*@")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # two letters or more: C:/ is a drive


class Tag(NamedTuple):
    """Identifies the content of an object. e_tag: as the server gives it, or the time of the last change."""

    e_tag: str
    size_bytes: int

    def differs_from(self, other: "Tag") -> bool:
        """Whether the content is another one; False if one of the two has no e-tag and the sizes are the same."""
        has_e_tags = self.e_tag.endswith('"') and other.e_tag.endswith('"')
        return self.size_bytes != other.size_bytes or (has_e_tags and self.e_tag != other.e_tag)


@dataclass(frozen=True, slots=True)
class Url:
    """An object in a bucket, or a folder: a prefix of the names of objects. Nothing here asks the server.

    key: the name of the object, exactly as the bucket has it: nothing in it is decoded, so it may contain %, ? and
        #. "" for the whole bucket. Of http and https, the path with its query, as it is sent.
    is_folder: whether it was written with a slash at the end, or is known to be a folder.
    tag: of its content when it was listed; None if it was not.
    """

    scheme: str
    bucket: str
    key: str
    is_folder: bool = field(default=False, compare=False)
    tag: Tag | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for part in (self.scheme, self.bucket, self.key):
            if not isinstance(part, str):
                raise ArgumentError(f"a part of a URL is of type {type(part).__name__}; text is needed")

    def __str__(self) -> str:
        slash = "/" if self.is_folder and self.key else ""
        return f"{self.scheme}://{self.bucket}/{self.key}{slash}"

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which is read-only."""
        return self.scheme in WEB_SCHEMES

    @property
    def name(self) -> str:
        key = self.key.partition("?")[0] if self.is_web else self.key
        return key.rstrip("/").rpartition("/")[2]  # a fifth of the time of `pathlib`, for millions of names

    @property
    def stem(self) -> str:
        name = self.name
        return name[: len(name) - len(_suffix(name))]

    @property
    def suffix(self) -> str:
        return _suffix(self.name)

    @property
    def parent(self) -> "Url":
        return self._with_key(self.key.rpartition("/")[0], is_folder=True)

    @property
    def parents(self) -> tuple["Url", ...]:
        """The folders around it, from the nearest to the bucket."""
        return () if not self.key else (self.parent, *self.parent.parents)

    def with_name(self, name: str) -> "Url":
        return self.parent / name

    def as_folder(self) -> "Url":
        return self._with_key(self.key, is_folder=True)

    def __truediv__(self, relative: str | PurePosixPath) -> "Url":
        """The object of this name in the folder."""
        return self._with_key(f"{self.key}/{_to_posix(relative)}" if self.key else _to_posix(relative))

    def relative_to(self, folder: "Url") -> PurePosixPath:
        """The name within a folder. Raises ValueError if it is not in the folder."""
        if not self.is_relative_to(folder):
            raise ValueError(f"{self} is not in {folder}")
        return PurePosixPath(self.key[len(folder.key) :].lstrip("/"))

    def is_relative_to(self, folder: "Url") -> bool:
        """Whether it is in the folder, or is the folder."""
        if not isinstance(folder, Url):
            raise ArgumentError(f"folder is {folder!r}; a pellucid.Url is needed")
        if (self.scheme, self.bucket) != (folder.scheme, folder.bucket):
            return False
        return not folder.key or self.key == folder.key or self.key.startswith(f"{folder.key}/")

    def _with_key(self, key: str, *, is_folder: bool = False) -> "Url":
        return Url(self.scheme, self.bucket, key, is_folder or not key)


Location = Path | Url
"""Where a file is: on this computer, or in a bucket or on a web server."""


def is_url(text: object) -> bool:
    """Whether a text is a URL, or a path that was one: `Path` makes one slash of two."""
    return _SCHEME.match(str(text)) is not None


def locate(text: str | Location) -> Location:
    """The location that a text names. Raises ArgumentError for other types, and for URLs that are not
    supported or not complete.
    """
    if isinstance(text, Url):
        return text
    if not isinstance(text, str | os.PathLike):
        raise ArgumentError(f"a path is of type {type(text).__name__}; text or a Path is needed")
    if (match := _SCHEME.match(str(text))) is None:
        return Path(text)
    if isinstance(text, Path):
        raise ArgumentError(f"{text} is a URL as a Path, which loses a slash", hint="give the URL as a text")
    scheme, rest = match[1].lower(), text[match.end() :]
    known = {**BUCKET_SCHEMES, **{name: name for name in WEB_SCHEMES}}
    bucket, _, key = rest.removeprefix("/").partition("/")
    if scheme not in known or not rest.startswith("/"):
        raise ArgumentError(
            f"{_USER.sub('//...@', text)} is a URL of another kind than s3://, gs://, az://, http:// and https://",
            hint="give the path of the file" if scheme == "file" else "",
        )
    if "@" in bucket:
        raise ArgumentError(
            f"{_USER.sub('//...@', text)} contains a user or a password, which would be in messages and files",
            hint="use a URL without them",
        )
    if not bucket:
        raise ArgumentError(f"{text} has no name of a {'server' if scheme in WEB_SCHEMES else 'bucket'}")
    if scheme in WEB_SCHEMES:
        return Url(scheme, bucket, key)
    is_folder = key.endswith("/") or not key
    key = key.removesuffix("/")
    if key and not all(is_part(part) for part in key.split("/")):
        raise ArgumentError(
            f"{text!r} has a part that is empty, . or .., or contains a control character, which is not supported"
        )
    return Url(known[scheme], bucket, key, is_folder)


def is_part(part: str) -> bool:
    """Whether a part of a key between slashes can be used: not empty, not . or .., without control characters."""
    return part not in ("", ".", "..") and not any(
        ord(character) < 32 or character == "\x7f" for character in part
    )


def is_folder(location: Location) -> bool:
    """Whether it is a folder; False for names that are too long, too. A URL says so without asking the server."""
    if isinstance(location, Url):
        return location.is_folder
    return os.path.isdir(location)  # noqa: PTH112  # Path's own raises on names too long


def is_within(location: Location, folder: Location) -> bool:
    """Whether a name begins with that of the folder, or is the same; see `Path.is_relative_to`."""
    if isinstance(location, Url):
        return isinstance(folder, Url) and location.is_relative_to(folder)
    return isinstance(folder, Path) and location.is_relative_to(folder)


def real_name(location: Location) -> str:
    """A text that is the same for all names of one file."""
    return (
        f"{location.scheme}://{location.bucket}/{location.key}"
        if isinstance(location, Url)
        else os.path.realpath(location)
    )


class RealNames:
    """`real_name` of many files: the real path of each folder is found once, and the names in it are joined.

    It is for one listing or one run, in which no folder is replaced by a link.
    """

    def __init__(self) -> None:
        self._real_folders = lru_cache(_MAX_FOLDERS)(os.path.realpath)

    def find(self, location: Location) -> str:
        """See `real_name`."""
        if isinstance(location, Url) or os.name == "nt":  # Windows also finds the true case of the name
            return real_name(location)
        folder, name = os.path.split(location)
        if name in ("", os.curdir, os.pardir):
            return real_name(location)
        path = os.path.join(self.find_folder(folder), name)  # noqa: PTH118  # slower by `Path`
        return os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114  # slower by `Path`

    def find_folder(self, folder: str) -> str:
        """The real path of a folder of this computer."""
        return self._real_folders(folder)


def _suffix(name: str) -> str:
    """As `pathlib` has it: not of names that begin or end with their only dot."""
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


def _to_posix(relative: str | PurePosixPath) -> str:
    return relative if isinstance(relative, str) else relative.as_posix()
