"""Which file becomes which result, before any of them is read."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any

from pellucid.errors import ArgumentError, DataError, OutputError, PellucidError, PictureError
from pellucid.pictures import images
from pellucid.pictures.finding import Found, describe_ignored, find_pictures
from pellucid.pictures.formats import SUFFIXES
from pellucid.restoration import entries, sheets
from pellucid.system import files
from pellucid.system.shards import Shard


@dataclass(frozen=True)
class Job:
    """One file to restore, and the file to write.

    root: the folder with the manifest, if there is one. mask: a picture that is white where to restore, if any.
    """

    source: Path
    target: Path
    root: Path | None = None
    mask: Path | None = None

    @property
    def name(self) -> str:
        """The path of the result in its folder of results."""
        return self.target.name if self.root is None else self.target.relative_to(self.root).as_posix()


class Plan(list[Job]):
    """The jobs, and what else the folders contain.

    ignored: number of files that are not pictures, by suffix. num_excluded: pictures left out by patterns.
    num_results: pictures left out because they were made from other pictures of this plan.
    problems: inputs that do not exist or contain no pictures, among others that do; see `strict` of `plan`.
    shard: the part of the work that the jobs are. whole: the jobs of all shards, on which names of results depend.
    arguments: those of `plan`.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        ignored: Mapping[str, int],
        num_excluded: int,
        num_results: int = 0,
        problems: Iterable[PellucidError] = (),
        shard: Shard | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.whole = list(jobs)
        super().__init__(job for job in self.whole if shard is None or shard.takes(job.name))
        self.problems = tuple(problems)
        self.shard, self.arguments = shard, arguments
        self.ignored, self.num_excluded, self.num_results = ignored, num_excluded, num_results


@dataclass(frozen=True)
class _Naming:
    """How results are named; see `plan`."""

    format: str | None
    template: str | None
    model: str
    overwrite: bool

    def __post_init__(self) -> None:
        if self.template is not None:
            filled = self._fill("a.png")
            if {"/", "\\", "\0"} & {*filled} or filled.startswith("."):
                raise ArgumentError(
                    f"{self.template!r} does not give names of visible files", hint="{out} is for folders"
                )

    def name(self, source: Path) -> str:
        """The name of a result in a folder."""
        plain = images.result_name(source.name, self.format, source=source)
        return plain if self.template is None else self._fill(plain)

    def name_next_to(self, source: Path) -> Path:
        """A result next to its input: NAME-restored.EXT, or NAME-MODEL.EXT if that exists."""
        if self.template is not None:
            return source.with_name(self.name(source))
        plain = images.result_name(f"{source.stem}-restored{source.suffix}", self.format, source=source)
        usual = source.with_name(plain)
        own = source.with_name(f"{source.stem}-{self.model}{usual.suffix}")
        uses_own = self.model and os.path.lexists(own if self.overwrite else usual)
        return own if uses_own else usual

    def _fill(self, plain: str) -> str:
        """The template for a result that would be called `plain` without it."""
        path, filled = Path(plain), ""
        known = {"stem": path.stem, "suffix": path.suffix, "model": self.model}
        try:
            for text, key, form, conversion in Formatter().parse(self.template or ""):
                if form or conversion or key not in (None, *known):
                    raise ValueError
                filled += text + known.get(key or "", "")
        except ValueError:
            raise ArgumentError(
                f"{self.template!r} is not a pattern for names; it can contain {{stem}}, {{model}}, {{suffix}}",
                hint="change {name}",
            ) from None
        return filled


def plan(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    format: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    name: str | None = None,
    model: str = "",
    mask: str | Path | None = None,
    overwrite: bool = False,
    strict: bool = True,
    shard: Shard | None = None,
) -> Plan:
    """Plan which file becomes which result.

    inputs: files, folders and patterns (scans/**/*.tif). In folders, the content of a file decides whether it is a
        picture; pictures that cannot be read are planned too, so that they are reported.
    out: for one file, a path with a suffix is the file to write; otherwise it is a folder. Default: a file becomes
        NAME-restored.EXT next to it, or NAME-MODEL.EXT if that exists, and a folder becomes FOLDER-restored.
        Results of earlier runs are not used as inputs again, if what they were made from is an input, too.
    format: png, tiff, jpeg, webp, bmp, ppm, jxl or jp2; default: that of each input, by its content.
    include, exclude: patterns for pictures in folders, relative to the folder: *.jpg for names at any depth,
        scans/*.tif, **/raw/*. Upper and lower case are the same.
    name: pattern for the names of results, e.g. "{stem}-{model}{suffix}", whose suffix includes the dot. With it,
        `out` may be the folder of the inputs. model: the name of the model.
    mask: a picture that is white where pictures must be restored, see `Restorer.restore`; or a folder of them with
        the names of the pictures.
    overwrite: whether existing results will be replaced, which names depend on.
    strict: whether an input that does not exist or contains no pictures is an error, although others are planned.
    shard: only this part of the pictures, by a hash of the path of each result in its folder. Everything else is
        as without it, so that the results of all shards are those of one process.

    Raises PictureError if an input does not exist, DataError if a folder contains no pictures, and OutputError if
    two results would have the same name or a result would overwrite an input.
    """
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    arguments = {
        "inputs": [_to_absolute(one) for one in given],
        "out": None if out is None else _to_absolute(out),
        "format": format,
        "include": list(include),
        "exclude": list(exclude),
        "name": name,
        "model": model,
        "mask": None if mask is None else _to_absolute(mask),
        "overwrite": overwrite,
    }
    naming = _Naming(format, name, model, overwrite)
    ignored, num_excluded = Counter[str](), 0
    found, problems = _expand_all(given)
    if problems and (strict or not found):
        raise problems[0]
    out = None if out is None else Path(out)
    if out is not None:
        files.check_name(out)
    if (
        len(found) == 1
        and not problems
        and not found[0].is_dir()
        and (out is None or (out.suffix and not is_folder(out)))
    ):
        if out is not None and name is not None:
            raise ArgumentError(f"{out} is a file to write", hint="omit {name}, or give a folder as {out}")
        jobs = [Job(found[0], naming.name_next_to(found[0]) if out is None else check_format(out, format))]
    elif out is not None and not is_folder(out) and (os.path.lexists(out) or out.suffix in SUFFIXES):
        raise OutputError(f"{out} is a file", hint="for folders and several pictures, {out} must be a folder")
    else:
        jobs = []
        for path in found:
            if path.is_dir():
                try:
                    folder = _find_in_folder(path, out, include, exclude)
                except DataError as error:
                    problems.append(error)
                    continue
                jobs += _plan_folder(path, folder.pictures, out, naming)
                ignored.update(folder.ignored)
                num_excluded += folder.num_excluded
            else:
                target = naming.name_next_to(path) if out is None else out / naming.name(path)
                jobs.append(Job(path, target, target.parent))
        if problems and (strict or not jobs):
            raise problems[0]
        jobs = _make_unique(jobs)
        if out is None:
            jobs = _without_results(jobs)
    num_found = len(jobs)
    if len(jobs) > 1 or any(path.is_dir() for path in found):
        jobs = _without_earlier_results(jobs)
    if not jobs and num_found:
        raise DataError(f"all {num_found} pictures are before/after sheets", hint="give one of them as a file")
    check(jobs)
    jobs = jobs if mask is None else _add_masks(jobs, Path(mask), found)
    return Plan(jobs, ignored, num_excluded, num_found - len(jobs), problems, shard, arguments)


def _to_absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # Path's own resolves links


def _expand_all(names: Iterable[str | Path]) -> tuple[list[Path], list[PellucidError]]:
    """The files and folders of all names and patterns, and the errors of names that do not exist."""
    found: list[Path] = []
    problems: list[PellucidError] = []
    for name in names:
        try:
            found += _expand(name)
        except PictureError as error:
            problems.append(error)
    return found, problems


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


def _plan_folder(given: Path, pictures: Iterable[Path], out: Path | None, naming: _Naming) -> Iterator[Job]:
    folder = _folder_next_to(given) if out is None else out
    for source in pictures:
        yield Job(source, folder / source.relative_to(given).with_name(naming.name(source)), folder)


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


def _without_earlier_results(jobs: Sequence[Job]) -> list[Job]:
    """Without pictures that a manifest knows as results of other inputs of this plan, and without sheets."""
    sources = {os.path.realpath(job.source) for job in jobs}
    folders = {parent for source in sources for parent in Path(source).parents}
    results = {
        str(result)
        for folder in folders
        for result, source in entries.list_results(folder)
        if str(source) in sources and source != result
    }
    return [job for job in jobs if os.path.realpath(job.source) not in results and not sheets.is_sheet(job.source)]


def _add_masks(jobs: Sequence[Job], mask: Path, inputs: Sequence[Path]) -> list[Job]:
    """The jobs with their masks: one for all, or those of the same names in a folder, whatever their format.

    A mask that is missing is reported when its picture is read. Raises DataError if all are.
    """
    if not is_folder(mask):
        files.read_head(mask)
        return [replace(job, mask=mask) for job in jobs]
    found = {path.relative_to(mask): path for path in find_pictures(mask, takes_raw=False).pictures}
    by_stem = {path.with_suffix(""): found[path] for path in found}
    names = [_name_in(inputs, job.source) for job in jobs]
    masks = [found.get(name) or by_stem.get(name.with_suffix("")) for name in names]
    if jobs and not any(masks):
        raise DataError(
            f"{mask} contains no mask with the name of a picture", hint=f"a mask for {names[0]} has the same name"
        )
    return [replace(job, mask=own or mask / name) for job, own, name in zip(jobs, masks, names, strict=True)]


def _name_in(inputs: Sequence[Path], source: Path) -> Path:
    """The path of a picture in the folder that was given, or its name."""
    folder = next((path for path in inputs if path.is_dir() and source.is_relative_to(path)), source.parent)
    return source.relative_to(folder)


def _is_inside(path: Path, folder: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


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
            raise OutputError(f"{job.target} is one of the inputs", hint="choose another {out} or {name}")
        if target in taken:
            raise OutputError(
                f"{taken[target]} and {job.source} would both become {job.target}",
                hint="restore them into different folders",
            )
        taken[target] = job.source
