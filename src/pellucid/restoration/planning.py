"""Plans which file becomes which result, before any file is read."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pellucid.errors import ArgumentError, DataError, OutputError, PellucidError, PictureError, StorageError
from pellucid.pictures import formats, images
from pellucid.pictures.finding import Found, describe_ignored, find_objects, find_pictures
from pellucid.pictures.formats import SUFFIXES
from pellucid.restoration import entries, ledgers, sheets
from pellucid.storage import objects
from pellucid.storage.urls import Location, RealNames, Url, is_folder, is_url, is_within, locate
from pellucid.system import files, name_patterns
from pellucid.system.arguments import check_fields, checks_types
from pellucid.system.shards import Shard
from pellucid.system.wording import format_count


@dataclass(frozen=True, slots=True)
class Job:
    """One file to restore, and the file to write, on this computer or elsewhere.

    root: the folder with the manifest; None if the result is not recorded. mask: a picture that is white where to
        restore; None restores everything.
    target_of_model: the file to write if `target` is a result of another model; None adds the name of the model to
        that of `target`.
    """

    source: Location
    target: Location
    root: Location | None = None
    mask: Location | None = None
    target_of_model: Location | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        """The path of the result, relative to its folder of results."""
        if self.root is None:
            return self.target.name
        if isinstance(self.target, Url) and isinstance(self.root, Url):
            return self.target.relative_to(self.root).as_posix()
        return Path(str(self.target)).relative_to(str(self.root)).as_posix()

    @property
    def is_local(self) -> bool:
        """Whether all of its files are on this computer."""
        return not any(isinstance(place, Url) for place in (self.source, self.target, self.mask))


class Plan(list[Job]):
    """The jobs, and which other files the folders contain.

    ignored: number of files that are not pictures, by suffix. num_excluded: pictures left out by patterns.
    num_results: pictures left out because they were made from other pictures of this plan.
    problems: errors of inputs that do not exist or contain no pictures, and of folders that cannot be read; see
        `strict` of `plan`.
    shard: the shard that the jobs belong to. whole: the jobs of all shards, for the names of results.
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


def _check_no_pattern(out: str | Location) -> None:
    """Raise ArgumentError if `out` is meant as a pattern, which would become the name of a folder."""
    if any(f"{{{key}}}" in str(out) for key in name_patterns.KEYS) and not _is_file(locate(out)):
        raise ArgumentError(f"{out} is a pattern for names; it would be a folder", hint="give it as {name}")


@dataclass(frozen=True)
class _Naming:
    """How results are named; see `plan`."""

    format: str | None
    template: str | None
    model: str
    overwrite: bool

    def __post_init__(self) -> None:
        if self.template is not None:
            filled = self._fill(images.result_name("a.png", self.format))
            name_patterns.check_visible(self.template, filled)
            if formats.known_format(Path(filled).suffix) is None:
                raise ArgumentError(
                    f"{self.template!r} gives names like {filled}, without the suffix of a format; "
                    "it can end with {suffix}",
                    hint="change {name}",
                )
            if self.format is not None and images.result_name(filled, self.format) != filled:
                raise ArgumentError(
                    f"{self.template!r} gives names like {filled}, but the format is {self.format}",
                    hint="change {name}",
                )

    def name(self, source: Location) -> str:
        """The name of a result in a folder."""
        plain = images.result_name(source.name, self.format, source=_content_of(source))
        return plain if self.template is None else self._fill(plain)

    def plan_next_to(self, source: Location) -> Job:
        """A result next to its input: NAME-restored.EXT, or NAME-MODEL.EXT if that will be replaced.

        `Manifests.settle_names` chooses the second name if the first one is a result of another model.
        """
        if isinstance(source, Url):
            objects.check_can_write(source)
        if self.template is not None:
            return Job(source, source.with_name(self.name(source)), source.parent)
        plain = images.result_name(
            f"{source.stem}-restored{source.suffix}", self.format, source=_content_of(source)
        )
        usual = source.with_name(plain)
        of_model = source.with_name(f"{source.stem}-{self.model}{usual.suffix}")
        replaces = self.model and self.overwrite and _exists(of_model)
        return Job(source, of_model if replaces else usual, source.parent, target_of_model=of_model)

    def _fill(self, plain: str) -> str:
        """Fill the template. plain: the name that the result would have without a template."""
        path = Path(plain)
        return name_patterns.fill_pattern(self.template or "", path.stem, path.suffix, self.model)


@checks_types(except_for=["inputs"])
def plan(
    inputs: str | Location | Sequence[str | Location],
    out: str | Location | None = None,
    *,
    format: str | None = None,
    include: str | Collection[str] = (),
    exclude: str | Collection[str] = (),
    name: str | None = None,
    model: str = "",
    mask: str | Location | None = None,
    overwrite: bool = False,
    strict: bool = True,
    shard: Shard | None = None,
) -> Plan:
    """Plan which file becomes which result.

    inputs: files, folders and patterns (scans/**/*.tif). In folders, the content of a file decides whether it is a
        picture; pictures that cannot be read are planned too, so that they are reported. URLs (s3://bucket/scans)
        can be files and folders, without patterns; there, the suffix decides.
    out: for one file, a path with a suffix is the file to write; otherwise, and with a slash at its end, it is a
        folder. Default: a file becomes
        NAME-restored.EXT next to it, or NAME-MODEL.EXT if another model has used that name, and a folder becomes
        FOLDER-restored.
        Results of earlier runs are not used as inputs again if their own inputs are among the inputs.
    format: png, tiff, jpeg, webp, bmp, ppm, jxl, jp2 or dng; default: that of each input, by its content.
    include, exclude: patterns for pictures in folders, relative to the folder: *.jpg for names at any depth,
        scans/*.tif, **/raw/*. Case is ignored.
    name: pattern for the names of results, e.g. "{stem}-{model}{suffix}", whose suffix includes the dot. With it,
        `out` may be the folder of the inputs. model: the name of the model.
    mask: a picture that is white where pictures must be restored, see `Restorer.restore`; or a folder of them with
        the names of the pictures.
    overwrite: whether existing results will be replaced; the names of results depend on it.
    strict: whether to raise an error if an input does not exist or contains no pictures.
    shard: select only this shard of the pictures, by a hash of the path of each result in its folder. Together,
        all shards have the same results, with the same names, as one process.

    Unless `strict` is False, raises PictureError if an input does not exist and DataError if a folder contains no
    pictures. Raises ArgumentError if a result cannot have this name, and OutputError if two results would have the
    same name or a result would overwrite an input.
    """
    given = _list_inputs(inputs)
    include, exclude = _list_patterns(include), _list_patterns(exclude)
    arguments = {
        "inputs": [to_absolute_text(one) for one in given],
        "out": None if out is None else to_absolute_text(out),
        "format": format,
        "include": include,
        "exclude": exclude,
        "name": name,
        "model": model,
        "mask": None if mask is None else to_absolute_text(mask),
        "overwrite": overwrite,
    }
    naming = _Naming(format, name, model, overwrite)
    if out is not None:
        _check_no_pattern(out)
    ignored, num_excluded, hidden = Counter[str](), 0, set[Location]()
    found, problems = _expand_all(given)
    if problems and strict:
        raise problems[0]
    if not found:
        return Plan([], {}, 0, 0, problems, shard, arguments)
    is_file_to_write, given_out = names_file(out), out
    out = None if out is None else _locate_results(out)
    if (include or exclude) and not problems and not any(map(is_folder, found)):
        raise ArgumentError(
            "patterns are for folders, and no folder was given",
            hint=f"omit {{{'include' if include else 'exclude'}}}",
        )
    if len(found) == 1 and not problems and not is_folder(found[0]) and (out is None or is_file_to_write):
        if out is not None and name is not None:
            raise ArgumentError(f"{out} is a file to write", hint="omit {name}, or give a folder as {out}")
        jobs = [naming.plan_next_to(found[0]) if out is None else Job(found[0], check_format(out, format))]
    elif (
        out is not None and not is_folder(out) and ((is_file_to_write and out.suffix in SUFFIXES) or _is_file(out))
    ):
        is_one = len(found) == 1 and not is_folder(found[0]) and not _has_slash(given_out)
        needed = "end with the suffix of a format" if is_one else "be a folder"
        if isinstance(out, Path) and out.exists() and not out.is_file():
            raise OutputError(f"{out} is a device or a pipe", hint="{out} can be -, standard output", out=None)
        if not _is_file(out):
            raise ArgumentError(f"{out} is the name of a file", hint=f"{{out}} must {needed}")
        raise OutputError(f"{out} is a file", hint=f"{{out}} must {needed}")
    else:
        jobs = []
        for path in found:
            if is_folder(path):
                try:
                    folder = _find_in_folder(path, out, include, exclude, problems)
                except DataError as error:
                    problems.append(error)
                    continue
                jobs += _plan_folder(path, folder.pictures, out, naming)
                ignored.update(folder.ignored)
                num_excluded += folder.num_excluded
                hidden |= folder.hidden
            else:
                jobs.append(naming.plan_next_to(path) if out is None else Job(path, out / naming.name(path), out))
        if problems and strict:
            raise problems[0]
        jobs = _make_unique(jobs)
        if out is None:
            jobs = _without_results(jobs)
    num_found = len(jobs)
    if len(jobs) > 1 or any(map(is_folder, found)):
        jobs = _without_earlier_results(jobs, found, hidden)
    if not jobs and num_found:
        raise DataError(
            f"only before/after sheets were found ({format_count(num_found, 'picture')})",
            hint="give one of them as a file",
        )
    check(jobs)
    jobs = jobs if mask is None else _add_masks(jobs, mask, found)
    return Plan(jobs, ignored, num_excluded, num_found - len(jobs), problems, shard, arguments)


def _list_inputs(inputs: Any) -> list[str | Location]:
    """One input or several. Raises PictureError for other types."""
    given = [inputs] if isinstance(inputs, str | Path | Url) or not isinstance(inputs, Iterable) else [*inputs]
    for one in given:
        if not isinstance(one, str | Path | Url):
            raise PictureError(f"an input of type {type(one).__name__}; a path or a URL is needed")
    return given


def to_absolute_text(place: str | Location) -> str:
    """An absolute path or a URL, as text, which is valid in any working directory."""
    return str(place) if is_url(place) else os.path.abspath(str(place))  # noqa: PTH100  # Path's own resolves links


def names_file(out: str | Location | None) -> bool:
    """Whether `out` is the file to write for one input: a suffix, no slash at its end, and not a folder."""
    place = None if out is None or _has_slash(out) else locate(out)
    return place is not None and bool(place.suffix) and not is_folder(place)


def _has_slash(place: str | Location | None) -> bool:
    """Whether a name, as it was given, ends with a slash, which only folders have."""
    return isinstance(place, str) and place.endswith(("/", os.sep))


def _expand_all(names: Iterable[str | Location]) -> tuple[list[Location], list[PellucidError]]:
    """The files and folders of all names and patterns, and the errors of names that do not exist."""
    found: list[Location] = []
    problems: list[PellucidError] = []
    for name in names:
        try:
            place = locate(name) if str(name) else name
            found += [_find_url(place)] if isinstance(place, Url) else expand(str(name))
        except (PictureError, StorageError) as error:
            problems.append(error)
    return found, problems


def _locate_results(out: str | Location) -> Location:
    """The file or folder for results. Raises OutputError if it cannot be written to."""
    place = locate(out)
    if place.name.lower() in SUFFIXES and not is_folder(place):
        raise OutputError(f"{place} is only the suffix of a name", hint="{out} needs the name of a file or folder")
    if isinstance(place, Url):
        objects.check_can_write(place)
    else:
        files.check_name(place)
    return place


def _find_url(url: Url) -> Url:
    """An object, or the folder of this name."""
    if url.is_folder:
        return url
    tag = objects.stat(url)
    if tag is not None:
        return replace(url, tag=tag)
    if not url.is_web and objects.contains_objects(url):
        return url.as_folder()
    is_pattern = glob.has_magic(url.name) and not url.is_web
    raise StorageError(
        f"{url} does not exist",
        hint="patterns are for folders: {include}" if is_pattern else "check the name",
    )


def _content_of(source: Location) -> Path | None:
    """The file whose content decides the format of a result; None for objects, whose names decide it."""
    return None if isinstance(source, Url) else source


def _exists(place: Location) -> bool:
    return objects.stat(place) is not None if isinstance(place, Url) else os.path.lexists(place)


def _is_file(place: Location) -> bool:
    """Whether the name is taken, so that no folder can have it; in buckets, both can exist."""
    return not isinstance(place, Url) and os.path.lexists(place)


def check_format(out: Location, format: str | None) -> Location:
    """The file to write, if its suffix is that of the format. Raises ArgumentError if it is not."""
    formats.format_by_suffix(out)
    expected = out.name if format is None else images.result_name(out.name, format)
    if expected != out.name:
        renamed = out.with_name(expected)
        raise ArgumentError(f"{out} ends in {out.suffix}, but the format is {format}; name it {renamed}")
    return out


def expand(name: str) -> list[Path]:
    """A file or folder, or everything that a pattern matches. Raises PictureError if there is none."""
    if not name:
        raise PictureError("an empty name among the inputs; a picture or a folder is needed")
    if os.path.lexists(name):
        return [Path(name)]
    found: list[str] = []
    if glob.has_magic(name):
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # Path's takes no absolute patterns
        if not found:
            raise PictureError(f"no file matches {name}", hint="check the pattern")
    if not found:
        raise PictureError(f"{name} does not exist", hint="check the name")
    return [Path(path) for path in found]


def _find_in_folder(
    given: Location,
    out: Location | None,
    include: Sequence[str],
    exclude: Sequence[str],
    problems: list[PellucidError],
) -> Found[Any]:
    """The contents of a folder, without a nested folder of results of an earlier run.

    problems: the list to which errors of unreadable folders are added. Raises DataError if there are no pictures.
    """
    unreadable: list[PellucidError] = []
    results = _folder_next_to(given) if out is None else out
    names = RealNames()
    is_nested = _is_inside(results, given, names)
    found: Found[Any] = (
        find_objects(given, include=include, exclude=exclude)
        if isinstance(given, Url)
        else find_pictures(given, include=include, exclude=exclude, problems=unreadable)
    )
    pictures = tuple(path for path in found.pictures if not (is_nested and _is_inside(path, results, names)))
    if unreadable and not pictures:
        raise unreadable[0]
    problems += unreadable
    if not pictures:
        reason = describe_ignored(found.ignored)
        if found.num_excluded:
            raise DataError(
                f"{given} contains {format_count(found.num_excluded, 'picture')}, all left out by the patterns",
                hint="change {include} or {exclude}",
            )
        raise DataError(f"{given} contains no pictures{f' ({reason})' if reason else ''}")
    return replace(found, pictures=pictures)


def _plan_folder(
    given: Location, pictures: Iterable[Location], out: Location | None, naming: _Naming
) -> Iterator[Job]:
    folder = _folder_next_to(given) if out is None else out
    for source in pictures:
        yield Job(source, folder / _relative(source, given).with_name(naming.name(source)), folder)


def _list_patterns(patterns: str | Collection[str]) -> list[str]:
    """The patterns as a list; one text is one pattern, not one for each of its letters."""
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _relative(source: Location, folder: Location) -> PurePosixPath:
    """The name of a picture within a folder."""
    if isinstance(source, Url) and isinstance(folder, Url):
        return source.relative_to(folder)
    assert isinstance(source, Path) and isinstance(folder, Path)
    return PurePosixPath(source.relative_to(folder).as_posix())


def _make_unique(jobs: Sequence[Job]) -> list[Job]:
    """If a.jpg and a.tif would both become a.png, they become a.jpg.png and a.tif.png.

    A picture that is given twice, e.g. by its name and in its folder, is one job.
    """
    jobs = list(dict.fromkeys(jobs))
    count = Counter(job.target for job in jobs)
    return [
        job if count[job.target] == 1 else replace(job, target=_with_both_suffixes(job), target_of_model=None)
        for job in jobs
    ]


def _with_both_suffixes(job: Job) -> Location:
    if job.source.suffix == job.target.suffix:
        return job.target
    return job.target.with_name(f"{job.target.stem}{job.source.suffix}{job.target.suffix}")


def _without_results(jobs: Sequence[Job]) -> list[Job]:
    """The jobs without results of an earlier run that are next to their inputs and match the same pattern."""
    names = RealNames()
    targets = {names.find(job.target) for job in jobs}
    return [job for job in jobs if names.find(job.source) not in targets]


def _without_earlier_results(
    jobs: Sequence[Job], inputs: Sequence[Location], hidden: Iterable[Location]
) -> list[Job]:
    """The jobs without before/after sheets, and without results, by a manifest, of other inputs of this plan.

    hidden: hidden folders that were found in buckets; those of manifests are among them.
    """
    names = RealNames()
    places = [names.find(job.source) for job in jobs]
    sources = set(places)
    folders: set[Location] = {place.parent for place in hidden if place.name == entries.PARTS}
    above: set[Location] = {parent for place in inputs if isinstance(place, Url) for parent in place.parents}
    own = {os.path.dirname(place) for place in sources if not is_url(place)}  # noqa: PTH120  # of `Path`, slower
    folders |= {parent for folder in own for parent in (Path(folder), *Path(folder).parents)}
    results = {
        result
        for folder in folders | above
        for result, source in ledgers.find_results(
            folder, [job.source for job in jobs], may_be_refused=folder in above - folders
        )
        if source in sources and source != result
    }
    return [
        job for job, place in zip(jobs, places, strict=True) if place not in results and not _is_sheet(job.source)
    ]


def _is_sheet(source: Location) -> bool:
    return isinstance(source, Path) and sheets.is_sheet(source)


def _add_masks(jobs: Sequence[Job], given: str | Location, inputs: Sequence[Location]) -> list[Job]:
    """The jobs with their masks: the same for all, or those of a folder, matched by name without the suffix.

    A missing mask is reported when its picture is read. Raises DataError if all are missing.
    """
    mask = locate(given)
    if isinstance(mask, Url):
        mask = _find_url(mask)
    if not is_folder(mask):
        if isinstance(mask, Path):
            files.read_head(mask)
        return [replace(job, mask=mask) for job in jobs]
    found = {_relative(path, mask): path for path in _find_masks(mask)}
    by_stem = {path.with_suffix(""): found[path] for path in found}
    names = [_name_in(inputs, job.source) for job in jobs]
    masks = [found.get(name) or by_stem.get(name.with_suffix("")) for name in names]
    if jobs and not any(masks):
        raise DataError(
            f"{mask} contains no mask with the name of a picture; a mask for {names[0]} has the same name"
        )
    return [replace(job, mask=own or mask / name) for job, own, name in zip(jobs, masks, names, strict=True)]


def _find_masks(folder: Location) -> Sequence[Location]:
    if isinstance(folder, Url):
        return find_objects(folder, takes_raw=False).pictures
    return find_pictures(folder, takes_raw=False).pictures


def _name_in(inputs: Sequence[Location], source: Location) -> PurePosixPath:
    """The path of a picture relative to the input folder that contains it, or else its name."""
    folders = (place for place in inputs if is_folder(place) and is_within(source, place))
    return _relative(source, next(folders, source.parent))


def _is_inside(path: Location, folder: Location, names: RealNames) -> bool:
    is_remote = isinstance(path, Url) or isinstance(folder, Url)
    outer = names.find(folder).rstrip("/") + "/" if is_remote else names.find_folder(str(folder)) + os.sep
    return names.find(path).startswith(outer)


def _folder_next_to(folder: Location) -> Location:
    if isinstance(folder, Url):
        if not folder.key:
            raise OutputError(f"{folder} is a whole bucket", hint="choose a folder by {out}")
        return folder.with_name(f"{folder.name}-restored").as_folder()
    named = folder if folder.name else folder.resolve()
    if not named.name or named.name == "..":
        raise OutputError(f"{folder} has no name that -restored can be added to", hint="choose a folder by {out}")
    return named.with_name(f"{named.name}-restored")


def check(jobs: Sequence[Job]) -> None:
    """Raise OutputError if a result would overwrite an input or another result."""
    names = RealNames()
    sources = {names.find(job.source) for job in jobs}
    taken: dict[str, Location] = {}
    for job in jobs:
        target = names.find(job.target)
        if target in sources:
            raise OutputError(f"{job.target} is one of the inputs", hint="choose another {out} or {name}")
        if target in taken:
            raise OutputError(
                f"{taken[target]} and {job.source} would both become {job.target}",
                hint="restore them into different folders, or choose another {name}",
            )
        taken[target] = job.source
