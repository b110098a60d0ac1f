"""Finding pictures in folders by their content, and counting the files that are not pictures."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pellucid.errors import DataError, PellucidError
from pellucid.pictures import kinds
from pellucid.pictures.formats import OTHER_SUFFIXES, RAW_SUFFIXES, SUFFIXES
from pellucid.storage import objects
from pellucid.storage.urls import Location, Url
from pellucid.system import files
from pellucid.system.wording import format_count

_MAX_KINDS = 6
"""How many suffixes of ignored files are listed."""


_Place = TypeVar("_Place", bound=Location)


@dataclass(frozen=True)
class Found(Generic[_Place]):
    """What a folder contains.

    pictures: sorted by path. ignored: number of other files, by suffix. num_excluded: of pictures left out.
    hidden: folders whose names begin with a dot; only of buckets.
    """

    pictures: tuple[_Place, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    num_excluded: int = 0
    hidden: frozenset[_Place] = frozenset()


def find_pictures(
    folder: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    takes_raw: bool = True,
    problems: list[PellucidError] | None = None,
) -> Found[Path]:
    """All pictures below a folder, whatever their suffix; also damaged ones, and formats that are not read.

    include, exclude: patterns, see `matches`. takes_raw: False ignores camera RAW files.
    Skips hidden files and folders, and does not follow linked folders. Raises DataError if it is not a folder. A
    folder in it that cannot be read is a DataError, too, which is added to `problems`, if given, and not raised.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; a folder of pictures is needed")
    pictures, ignored, num_excluded = [], Counter[str](), 0
    for path in files.find_files(folder, problems):
        name = path.relative_to(folder).as_posix()
        if not is_picture(path, takes_raw=takes_raw):
            ignored[path.suffix.lower() or "without suffix"] += 1
        elif (include and not matches(name, include)) or matches(name, exclude):
            num_excluded += 1
        else:
            pictures.append(path)
    return Found(tuple(sorted(pictures)), dict(ignored), num_excluded)


def find_objects(
    folder: Url, *, include: Sequence[str] = (), exclude: Sequence[str] = (), takes_raw: bool = True
) -> Found[Url]:
    """All pictures below a folder in a bucket, by their suffix: asking for the content of each takes too long.

    Arguments are those of `find_pictures`; hidden names are skipped, too.
    """
    suffixes = SUFFIXES | OTHER_SUFFIXES | (RAW_SUFFIXES if takes_raw else frozenset())
    pictures, ignored, num_excluded, hidden = [], Counter[str](), 0, set()
    for url in objects.list_objects(folder):
        name = url.relative_to(folder).as_posix()
        if name.startswith(".") or "/." in name:
            hidden.add(url.parent)
            continue
        if url.suffix.lower() not in suffixes:
            ignored[url.suffix.lower() or "without suffix"] += 1
        elif (include and not matches(name, include)) or matches(name, exclude):
            num_excluded += 1
        else:
            pictures.append(url)
    pictures.sort(key=lambda url: url.key)
    return Found(tuple(pictures), dict(ignored), num_excluded, frozenset(hidden))


def is_picture(path: Path, *, takes_raw: bool = True) -> bool:
    """Whether a file is a picture by its content, or by its suffix, in which case reading it reports the damage.

    takes_raw: whether camera RAW files count.
    """
    kind = kinds.find_kind(path)
    if kind is not None:
        return takes_raw or kind.loader != kinds.RAW
    return path.suffix.lower() in SUFFIXES | OTHER_SUFFIXES | (RAW_SUFFIXES if takes_raw else frozenset())


def matches(name: str, patterns: Collection[str]) -> bool:
    """Whether a relative path, or a folder in it, matches a pattern like *.jpg, scans/*.tif or **/raw.

    `*` is any part of a name, `**/` any folders, `?` any character. A pattern without "/" matches names at any
    depth. Upper and lower case are the same.
    """
    parts = name.split("/")
    candidates = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(_to_regex(pattern).fullmatch(candidate) for pattern in patterns for candidate in candidates)


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """E.g. "not pictures, ignored: 3 .txt, 1 .mp4"; "" if there are none."""
    counts = Counter(ignored).most_common()
    listed = [f"{count} {suffix}" for suffix, count in counts[:_MAX_KINDS]]
    others = sum(count for _, count in counts[_MAX_KINDS:])
    listed += [format_count(others, "other")] if others else []
    return f"not pictures, ignored: {', '.join(listed)}" if listed else ""


def _to_regex(pattern: str) -> re.Pattern[str]:
    pattern = pattern.strip("/").removeprefix("./")
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.IGNORECASE | re.DOTALL)
