"""Which file becomes which result, before any of them is read."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pellucid.errors import DataError, OutputError, PictureError
from pellucid.pictures import images
from pellucid.pictures.finding import Found, describe_ignored, find_pictures
from pellucid.pictures.formats import SUFFIXES
from pellucid.system import files


@dataclass(frozen=True)
class Job:
    """One file to restore, and the file to write. root: the folder with the manifest, if there is one."""

    source: Path
    target: Path
    root: Path | None = None


class Plan(list[Job]):
    """The jobs, and what else the folders contain.

    ignored: number of files that are not pictures, by suffix. num_excluded: pictures left out by patterns.
    """

    def __init__(self, jobs: Iterable[Job], ignored: Mapping[str, int], num_excluded: int) -> None:
        super().__init__(jobs)
        self.ignored, self.num_excluded = ignored, num_excluded


def plan(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    format: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Plan:
    """Plan which file becomes which result.

    inputs: files, folders and patterns (scans/**/*.tif). In folders, the content of a file decides whether it is a
        picture; pictures that cannot be read are planned too, so that they are reported.
    out: for one file, a path with a suffix is the file to write; otherwise it is a folder. Default: a file becomes
        NAME-restored.EXT next to it, and a folder becomes FOLDER-restored. Results next to their inputs are not
        used as inputs again.
    format: png, tiff, jpeg, webp, bmp, ppm, jxl or jp2; default: that of each input, by its content.
    include, exclude: patterns for pictures in folders, relative to the folder: *.jpg for names at any depth,
        scans/*.tif, **/raw/*. Upper and lower case are the same.

    Raises PictureError if an input does not exist, DataError if a folder contains no pictures, and OutputError if
    two results would have the same name or a result would overwrite an input.
    """
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    ignored, num_excluded = Counter[str](), 0
    found = [path for name in given for path in _expand(name)]
    out = None if out is None else Path(out)
    if out is not None:
        files.check_name(out)
    if len(found) == 1 and not found[0].is_dir() and (out is None or (out.suffix and not is_folder(out))):
        jobs = [Job(found[0], _name_next_to(found[0], format) if out is None else check_format(out, format))]
    elif out is not None and not is_folder(out) and (os.path.lexists(out) or out.suffix in SUFFIXES):
        raise OutputError(f"{out} is a file", hint="for folders and several pictures, {out} must be a folder")
    else:
        jobs = []
        for path in found:
            if path.is_dir():
                folder = _find_in_folder(path, out, include, exclude)
                jobs += _plan_folder(path, folder.pictures, out, format)
                ignored.update(folder.ignored)
                num_excluded += folder.num_excluded
            else:
                name = images.result_name(path.name, format, source=path)
                target = _name_next_to(path, format) if out is None else out / name
                jobs.append(Job(path, target, target.parent))
        jobs = _make_unique(jobs)
        if out is None:
            jobs = _without_results(jobs)
    check(jobs)
    return Plan(jobs, ignored, num_excluded)


def is_folder(path: Path) -> bool:
    """Whether it is a folder; False for names that are too long, too."""
    return os.path.isdir(path)  # noqa: PTH112  # Path's own raises on names too long


def check_format(out: Path, format: str | None) -> Path:
    """The file to write, if its suffix fits the format. Raises OutputError if it does not."""
    expected = out.name if format is None else images.result_name(out.name, format)
    if expected != out.name:
        raise OutputError(f"{out} ends in {out.suffix}, but the format is {format}; name it {expected}")
    return out


def _expand(name: str | Path) -> list[Path]:
    """A file or folder, or everything that a pattern matches."""
    if not str(name):
        raise PictureError("an empty name among the inputs; a picture or a folder is needed")
    if os.path.lexists(name):
        return [Path(name)]
    found: list[str] = []
    if glob.has_magic(str(name)):
        found = sorted(glob.glob(str(name), recursive=True))  # noqa: PTH207  # Path's takes no absolute patterns
    if not found:
        raise PictureError(f"{name} does not exist")
    return [Path(path) for path in found]


def _find_in_folder(given: Path, out: Path | None, include: Sequence[str], exclude: Sequence[str]) -> Found:
    """What a folder contains, without the results of an earlier run, if their folder is inside."""
    results = _folder_next_to(given) if out is None else out
    is_nested = _is_inside(results, given)
    found = find_pictures(given, include=include, exclude=exclude)
    pictures = tuple(path for path in found.pictures if not (is_nested and _is_inside(path, results)))
    if not pictures:
        reason = describe_ignored(found.ignored)
        if found.num_excluded:
            raise DataError(
                f"{given} contains {found.num_excluded} pictures, all left out by the patterns",
                hint="change {include} or {exclude}",
            )
        raise DataError(f"{given} contains no pictures{f' ({reason})' if reason else ''}")
    return replace(found, pictures=pictures)


def _plan_folder(given: Path, pictures: Iterable[Path], out: Path | None, format: str | None) -> Iterator[Job]:
    folder = _folder_next_to(given) if out is None else out
    for source in pictures:
        name = images.result_name(source.name, format, source=source)
        yield Job(source, folder / source.relative_to(given).with_name(name), folder)


def _make_unique(jobs: Sequence[Job]) -> list[Job]:
    """If a.jpg and a.tif would both become a.png, they become a.jpg.png and a.tif.png."""
    count = Counter(job.target for job in jobs)
    return [job if count[job.target] == 1 else replace(job, target=_with_both_suffixes(job)) for job in jobs]


def _with_both_suffixes(job: Job) -> Path:
    if job.source.suffix == job.target.suffix:
        return job.target
    return job.target.with_name(f"{job.target.stem}{job.source.suffix}{job.target.suffix}")


def _without_results(jobs: Sequence[Job]) -> list[Job]:
    """Without the results of an earlier run next to their inputs, which a pattern may match, too."""
    targets = {os.path.realpath(job.target) for job in jobs}
    return [job for job in jobs if os.path.realpath(job.source) not in targets]


def _is_inside(path: Path, folder: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _name_next_to(path: Path, format: str | None) -> Path:
    return path.with_name(images.result_name(f"{path.stem}-restored{path.suffix}", format, source=path))


def _folder_next_to(folder: Path) -> Path:
    named = folder if folder.name else folder.resolve()
    if not named.name or named.name == "..":
        raise OutputError(f"{folder} has no name that -restored can be added to", hint="choose a folder by {out}")
    return named.with_name(f"{named.name}-restored")


def check(jobs: Sequence[Job]) -> None:
    """Raise OutputError if a result would overwrite an input or another result."""
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.realpath(job.target)
        if target in sources:
            raise OutputError(f"{job.target} is one of the inputs", hint="choose another {out}")
        if target in taken:
            raise OutputError(
                f"{taken[target]} and {job.source} would both become {job.target}",
                hint="restore them into different folders",
            )
        taken[target] = job.source
