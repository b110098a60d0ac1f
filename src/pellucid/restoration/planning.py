"""Which file becomes which, before any is read."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pellucid.errors import DataError, OutputError, PictureError
from pellucid.pictures import images

TAKEN_SUFFIXES = images.SUFFIXES | images.RAW_SUFFIXES | images.OTHER_SUFFIXES
"""Of the files in a folder: what can be read, and what should be but cannot, to be named at the end."""


@dataclass(frozen=True)
class Job:
    """One picture to restore, and where it goes. root: the folder that remembers what is done, if any."""

    source: Path
    target: Path
    root: Path | None = None


def plan(inputs: Sequence[str | Path], out: str | Path | None = None, *, format: str | None = None) -> list[Job]:
    """Which file becomes which: files, folders and patterns (scans/**/*.tif) in, a file or a folder out.

    Without out, a file goes beside itself as NAME-restored.EXT, and a folder to FOLDER-restored; with out, one
    file goes there under a name that has a suffix, and into a folder otherwise. Results beside their inputs are
    no inputs themselves.

    format: png, jpeg, tiff, ...; that of each input when None.
    Raises when an input does not exist, two results would have one name, or a result would replace a source.
    """
    given = [path for name in inputs for path in _expanded(name)]
    out = None if out is None else Path(out)
    if len(given) == 1 and not given[0].is_dir() and (out is None or (out.suffix and not out.is_dir())):
        jobs = [Job(given[0], _beside(given[0], format) if out is None else _agreeing(out, format))]
    elif out is not None and not out.is_dir() and (os.path.lexists(out) or out.suffix in images.SUFFIXES):
        raise OutputError(f"{out} is a file; for folders and several pictures, --out is a folder")
    else:
        jobs = _told_apart([job for path in given for job in _jobs(path, out, format)])
        if out is None:
            jobs = _without_results(jobs)
    _check(jobs)
    return jobs


def _expanded(name: str | Path) -> list[Path]:
    """A file or folder, or all that a pattern stands for."""
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


def _jobs(given: Path, out: Path | None, format: str | None) -> Iterator[Job]:
    if not given.is_dir():
        target = _beside(given, format) if out is None else out / images.result_name(given.name, format)
        yield Job(given, target, target.parent)
        return
    folder = _folder_beside(given) if out is None else out
    # Results of an earlier run may lie below the folder they came from.
    inside = _lies_in(folder, given)
    found = [path for path in images.find(given, TAKEN_SUFFIXES) if not (inside and _lies_in(path, folder))]
    if not found:
        raise DataError(f"{given} holds no pictures ({', '.join(sorted(images.SUFFIXES))})")
    for source in found:
        name = images.result_name(source.name, format)
        yield Job(source, folder / source.relative_to(given).with_name(name), folder)


def _told_apart(jobs: Sequence[Job]) -> list[Job]:
    """Pictures that differ by their suffix only keep it, where all become one format: a.jpg.png, a.tif.png."""
    count = Counter(job.target for job in jobs)
    return [job if count[job.target] == 1 else replace(job, target=_with_both_suffixes(job)) for job in jobs]


def _with_both_suffixes(job: Job) -> Path:
    if job.source.suffix == job.target.suffix:
        return job.target
    return job.target.with_name(f"{job.target.stem}{job.source.suffix}{job.target.suffix}")


def _without_results(jobs: Sequence[Job]) -> list[Job]:
    """Without what an earlier run has put beside its input, where a pattern catches it, too."""
    targets = {os.path.realpath(job.target) for job in jobs}
    return [job for job in jobs if os.path.realpath(job.source) not in targets]


def _lies_in(path: Path, folder: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _agreeing(out: Path, format: str | None) -> Path:
    """The file to write, if its name and the format asked for are of one kind."""
    wanted = out.name if format is None else images.result_name(out.name, format)
    if wanted != out.name:
        raise OutputError(f"{out} ends in {out.suffix}, and the format asked for is {format}; name it {wanted}")
    return out


def _beside(path: Path, format: str | None) -> Path:
    return path.with_name(images.result_name(f"{path.stem}-restored{path.suffix}", format))


def _folder_beside(folder: Path) -> Path:
    named = folder if folder.name else folder.resolve()
    if not named.name or named.name == "..":
        raise OutputError(f"{folder} has no name to put -restored behind; say with --out where results go")
    return named.with_name(f"{named.name}-restored")


def _check(jobs: Sequence[Job]) -> None:
    """Refuse what would replace a source or another result."""
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.realpath(job.target)
        if target in sources:
            raise OutputError(f"{job.target} is the input itself; choose another --out")
        if target in taken:
            raise OutputError(
                f"{taken[target]} and {job.source} would both become {job.target}; "
                f"restore them into different folders"
            )
        taken[target] = job.source
