"""Which places the batches of clients may read and write: those below prefixes that the operator has allowed."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from pellucid.errors import ArgumentError, OutputError
from pellucid.storage.urls import Location, Url, is_within, locate

MAX_CHARACTERS = 2000
"""Of the name of a place."""


class AllowedPlaces:
    """The folders and buckets that batches may use.

    prefixes: of buckets (s3://bucket/, s3://bucket/folder), or absolute paths of folders. A prefix ends where a
        part of a name ends: s3://bucket/in allows s3://bucket/in/a.png, and not s3://bucket/in-2.
    private: a folder of this computer that no place may contain or be in.

    Raises ArgumentError for a prefix that cannot be used.
    """

    def __init__(self, prefixes: Sequence[str], private: Path) -> None:
        self._private = Path(os.path.realpath(private))
        self._prefixes = [self._parse(prefix) for prefix in prefixes]

    def __bool__(self) -> bool:
        return bool(self._prefixes)

    @property
    def uses_buckets(self) -> bool:
        return any(isinstance(prefix, Url) for prefix in self._prefixes)

    def check_input(self, text: str) -> str:
        """The file or folder that a client names, as `restore` takes it. A link of this computer is followed.

        Raises ArgumentError if it cannot be a place, and OutputError if it is not allowed.
        """
        place = self._check(text)
        if isinstance(place, Path) and not os.path.lexists(place):  # `restore` would take it for a pattern
            raise ArgumentError(f"{text} does not exist")
        return str(place)

    def check_results(self, text: str) -> str:
        """The same of a folder for results, which need not exist; with a slash at its end."""
        place = self._check(text)
        return str(place.as_folder()) if isinstance(place, Url) else f"{place}{os.sep}"

    def _check(self, text: str) -> Location:
        place = _locate(text)
        if isinstance(place, Url) and place.is_web:
            raise ArgumentError(
                f"{text} is on a web server; batches use buckets", hint="name a folder in a bucket"
            )
        if not any(is_within(place, prefix) for prefix in self._prefixes):
            raise OutputError(f"{text} is not in a place that the operator of this service allows")
        if isinstance(place, Path) and is_within(place, self._private):
            raise OutputError(f"{text} is not in a place that the operator of this service allows")
        return place

    def _parse(self, prefix: str) -> Location:
        try:
            place = _locate(prefix)
        except ArgumentError as error:
            raise ArgumentError(str(error), hint="change {allow_urls}") from None
        if isinstance(place, Url):
            if place.is_web:
                raise ArgumentError(f"{prefix} is on a web server", hint="{allow_urls} can be e.g. s3://bucket/")
            return place
        if is_within(self._private, place) or is_within(place, self._private):
            raise ArgumentError(
                f"{prefix} and the folder of the service, {self._private}, contain each other",
                hint="change {allow_urls} or {data}",
            )
        return place


def _locate(text: str) -> Location:
    """A URL in a bucket, or an absolute path without links. Raises ArgumentError for anything else."""
    if not text or len(text) > MAX_CHARACTERS:
        raise ArgumentError(f"a place of {len(text)} characters; from 1 to {MAX_CHARACTERS} are possible")
    if not is_clean(text):
        raise ArgumentError(f"{text!r} contains a control character")
    place = locate(text)
    if isinstance(place, Url):
        if not place.is_web and any(_is_upwards(part) for part in place.key.split("/")):
            raise ArgumentError(f"{text!r} has a part that means another folder, e.g. %2e%2e")
        if "\\" in _decode(place.key):
            raise ArgumentError(f"{text!r} contains a backslash, which some servers take for a slash")
        return place
    if not place.is_absolute() or ".." in place.parts:
        raise ArgumentError(f"{text!r} is neither a URL nor an absolute path without ..; e.g. s3://bucket/folder")
    return Path(os.path.realpath(place))


def is_clean(text: str) -> bool:
    """Whether a text can be an argument of a process, and is one line: no control characters, valid Unicode."""
    return not any(ord(one) < 32 or ord(one) == 127 or 0xD800 <= ord(one) <= 0xDFFF for one in text)


def _is_upwards(part: str) -> bool:
    """Whether a server that decodes names, once or several times, would read . or .. in a part."""
    return bool({".", ".."} & set(_decode(part).split("/")))


def _decode(text: str) -> str:
    """Without percent signs that stand for a character, even if they were encoded several times."""
    while (decoded := unquote(text)) != text:
        text = decoded
    return text
