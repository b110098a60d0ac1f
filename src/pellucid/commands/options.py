"""Options that several commands share, and how their values are parsed."""

import inspect
import math
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.commands.terminal import (
    MessageStyle,
    is_stdout,
    print_detail,
    print_info,
    progress,
    set_message_style,
    show_progress,
)
from pellucid.errors import ArgumentError, OutputError
from pellucid.system.device_names import names_several

if TYPE_CHECKING:
    from pellucid.system import shards

Parameters = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Keywords of the recipe, e.g. sigma_255=25. See 'pellucid recipes NAME'."
    ),
]


def _check_single_device(name: str) -> str:
    """Raise ArgumentError for the names of several devices."""
    if names_several(name):
        raise ArgumentError(
            f"--device {name[:80]} means several devices, which only `pellucid restore` uses; choose one of them"
        )
    return name


Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        callback=_check_single_device,
        help="Where the network runs: auto, cpu, cuda, cuda:1, mps, ... Exported models: see docs/export.md.",
    ),
]
_BACKENDS = "torch, onnxruntime, openvino, or auto: the fastest of them, by rule; see docs/export.md."
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="BACKEND",
        help=_BACKENDS,
        show_default="torch, or the runtime of an exported MODEL",
    ),
]
FastBackend = Annotated[
    str | None,
    typer.Option(
        metavar="BACKEND",
        help=_BACKENDS,
        show_default="auto; torch with --precision, --on or several devices; or the runtime of an exported MODEL",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="PRECISION",
        help="float32, bfloat16, float16 or auto.",
        show_default="float32, or the precision of an exported MODEL",
    ),
]
Exact = Annotated[
    bool,
    typer.Option("--exact", help="Compute in torch float32, like 'evaluate': the same results on all machines."),
]
White = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="Value of white in the files, e.g. 4095 for 12 bits in 16-bit samples.",
        show_default="as specified by the file, or that of its data type",
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON; - writes only JSON to standard output."
    ),
]
NetworkFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="FILE.py",
        help="Python file with your own networks and recipes; runs as code. Repeatable.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Process only shard I of N, from 1/N to N/N. 'env' reads I and N from the environment variables of a "
        "Slurm array or another cluster, 'env/N' only I. See docs/scaling.md.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="CLUSTER",
        help="Work in processes of Ray: 'ray' starts it on this computer; otherwise the address of a cluster, "
        "e.g. ray://HOST:10001. See docs/scaling.md.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="With --on: maximum number of worker processes.", show_default="as many as fit"
    ),
]
OverwriteJson = Annotated[bool, typer.Option("--overwrite", help="Replace the file of --json.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]


_REPORTS = frozenset({"json_file", "csv_file", "report"})
"""Parameters whose value is the file of a report."""

_OWN_FILES = re.compile(
    r"\.pellucid.*|(run|index)\.json|(metrics|sources)\.jsonl|samples-\d+\.bin|weights\.safetensors"
)
"""Names of files that commands make in the folder of --out, as records of what is in it."""

_MAX_DIGITS = 7
"""The most digits of a side of a picture in pixels."""


def with_messages(command: Callable[..., None]) -> Callable[..., None]:
    """A command that also has the options for messages, which all commands share."""
    panel = "Messages"
    extra = {
        "quiet": Annotated[
            bool,
            typer.Option(
                "--quiet", "-q", help="Print only warnings and errors as messages.", rich_help_panel=panel
            ),
        ],
        "verbose": Annotated[
            bool,
            typer.Option("--verbose", "-v", help="Print details: causes, time, memory.", rich_help_panel=panel),
        ],
        "log_format": Annotated[
            Literal["text", "json"],
            typer.Option(help="json: print each message as a JSON object in a line.", rich_help_panel=panel),
        ],
    }
    defaults = {"quiet": False, "verbose": False, "log_format": "text"}

    def run(*, quiet: bool, verbose: bool, log_format: str, **arguments: Any) -> None:
        if quiet and verbose:
            raise typer.BadParameter("--quiet and --verbose exclude each other")
        set_message_style(MessageStyle(quiet, verbose, log_format == "json"))
        start_s = time.monotonic()
        command(**arguments)
        print_detail(f"{time.monotonic() - start_s:.1f} s, {_describe_versions()}")

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, annotation in extra.items()
    ]
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), *added])
    run.__annotations__ = {
        parameter.name: parameter.annotation for parameter in signature.parameters.values()
    } | extra
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def _describe_versions() -> str:
    from importlib.metadata import version

    from pellucid.system import memory

    used_mb = memory.used_bytes() / 1e6
    return f"{used_mb:.0f} MB of memory; pellucid {version('pellucid')}, torch {version('torch')}"


def check_arguments(args: Sequence[str]) -> None:
    """Raise typer.BadParameter for an empty argument, which would be the current folder."""
    for option, text in zip(("", *args), args, strict=False):
        name, equals, value = text.partition("=") if text.startswith("--") else (option, "=", text)
        where = f"{name}: " if name.startswith("-") else "one of the arguments is "
        if equals and not value:
            raise typer.BadParameter(f"{where}an empty text; omit it, or give a value")


def check_repeated(parameters: Sequence[Any], args: Sequence[str]) -> None:
    """Raise typer.BadParameter for an option that is given twice but has one value, so that none is ignored."""
    known = {option: parameter for parameter in parameters for option in parameter.opts if option.startswith("-")}
    given: dict[str, str] = {}
    rest = iter(args)
    for text in rest:
        if text == "--":
            return
        option, equals, value = text.partition("=")
        parameter = known.get(option)
        if parameter is None or parameter.is_flag:
            continue
        value = value if equals else next(rest, "")
        if parameter.name in given and not parameter.multiple:
            raise typer.BadParameter(f"{option} {value}: {option} {given[parameter.name]} is given, too; omit one")
        given[parameter.name] = value


def refuse(reason: str, **given: object) -> None:
    """Raise typer.BadParameter if an option is given that cannot have an effect."""
    used = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False)]
    if used:
        raise typer.BadParameter(f"{reason}; omit {', '.join(used)}")


def settle_backend(
    backend: str | None, precision: str | None, *, exact: bool, models: Sequence[str], is_distributed: bool
) -> tuple[str | None, str | None]:
    """The backend and the precision in which pictures are restored: "auto" unless the options say otherwise.

    is_distributed: whether other computers or devices compute, too, which may have other runtimes.
    """
    if exact:
        from pellucid.weights.checkpoint import EXPORTED_SUFFIXES

        refuse("--exact is --backend torch --precision float32", backend=backend, precision=precision)
        parts = [part for one in models for part in ([one] if Path(one).is_file() else one.split("+"))]
        exported = [part for part in parts if part.lower().endswith(tuple(EXPORTED_SUFFIXES))]
        if exported:
            raise typer.BadParameter(f"--exact is for weight files; {exported[0]} computes as it was exported")
        return "torch", "float32"
    is_default = backend is None and precision is None and not is_distributed
    return ("auto", None) if is_default else (backend, precision)


def check_overwrite(overwrite: bool, files: Mapping[str, Path | None]) -> None:
    """Raise typer.BadParameter for --overwrite without any of the files that it is for, by their options."""
    if overwrite and all(path is None or is_stdout(path) for path in files.values()):
        raise typer.BadParameter(f"--overwrite only replaces the file of {' or '.join(files)}; omit it")


def check_results(parameters: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Check, before any work, where a report in JSON or CSV goes.

    Raises ArgumentError if it would replace the value of another parameter, e.g. the input, and OutputError if it
    cannot be written.
    """
    from pellucid.system import files

    options = {
        parameter.name: parameter.opts[0] if parameter.opts[0].startswith("-") else "an input"
        for parameter in parameters
    }
    places = [
        (name, os.path.realpath(str(path)))
        for name, value in values.items()
        for path in (value if isinstance(value, list | tuple) else [value])
        if isinstance(path, str | Path)
    ]
    for name in sorted(_REPORTS & values.keys()):
        path = values[name]
        if path is None or is_stdout(path):
            continue
        is_in_out = os.path.realpath(path.parent) == os.path.realpath(str(values.get("out")))
        if _OWN_FILES.fullmatch(path.name) and (is_in_out or path.name.startswith(".") or path.exists()):
            raise OutputError(f"{path} is a name of pellucid's own records", hint="choose another name")
        others = [other for other, place in places if other != name and place == os.path.realpath(path)]
        if others:
            raise ArgumentError(f"{path} is also {options[others[0]]}", hint="choose another name for the report")
        if values.get("overwrite") and path.is_file() and not _is_report(path, is_csv=name == "csv_file"):
            raise OutputError(f"{path} is a file, but not a report", hint="choose another name for the report")
        if name != "report":  # of restored pictures: a report of an earlier run is replaced
            check = files.check_writable if path.parent.is_dir() else files.check_overwrite
            check(path, overwrite=values["overwrite"])


def _is_report(path: Path, *, is_csv: bool) -> bool:
    """Whether a file may be an earlier report, which --overwrite replaces. Other files have a name by mistake."""
    from pellucid.system.files import is_json

    if not is_csv:
        return is_json(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        return False
    return not text or "," in text


def check_urls(parameters: Sequence[Any], values: Mapping[str, Any], takes_urls: Collection[str]) -> None:
    """Raise typer.BadParameter for a URL as the value of a parameter that does not accept URLs.

    parameters: of the command, as typer has them. takes_urls: names of those that take URLs.
    """
    for parameter in parameters:
        value = values.get(parameter.name)
        for text in map(str, value if isinstance(value, list | tuple) else [value]):
            if parameter.name not in takes_urls and (match := re.match("([a-z][a-z0-9+.-]+):/+", text, re.I)):
                # A Path has lost a slash; file:///a starts with three.
                root = "/" if match[1].lower() == "file" else ""
                whole = f"{match[1]}://{root}{text[match.end() :]}"
                where = f"{parameter.opts[0]}: " if parameter.opts[0].startswith("-") else ""
                raise typer.BadParameter(
                    f"{where}{whole} is a URL; only files and folders of this computer are supported here"
                )


def as_local(place: str) -> Path:
    """A local path as it is, or a local copy of what a URL names, downloaded with a progress bar."""
    from pellucid.storage import cache

    with progress() as bar:
        return cache.as_local(place, show_progress(bar, f"fetching {place}"))


def add_networks(paths: Sequence[str] | None) -> None:
    """Run network files outside of the package, and say so."""
    from pellucid.recipes import network_files, registry

    for path in paths or ():
        added = network_files.add_network(path)
        names = [name for name in registry.list_names() if name.startswith(f"{added.name}.")]
        print_info(f"{path} runs as code (SHA-256 {added.sha256[:12]}): {', '.join(names) or 'it has no recipes'}")


def parse_shard(text: str | None) -> "shards.Shard | None":
    """The part of the work that --shard names."""
    from pellucid.system.shards import Shard

    return None if text is None else Shard.parse(text)


def check_cluster(on: str | None, *, processes: int | None, shard: str | None) -> None:
    """Raise ArgumentError if --on is not a cluster, and typer.BadParameter for options that do not go with it."""
    if on is None:
        refuse("without --on, there is one process", processes=processes)
    else:
        from pellucid.clusters.connection import check_address

        check_address(on)
        refuse("--on divides the work itself", shard=shard)


def parse_keywords(
    pairs: Sequence[str] | None, *, options: Sequence[str] = (), reserved: Sequence[str] = ()
) -> dict[str, Any]:
    """Recipe keywords from KEY=VALUE texts; values stay text.

    options: names of the command's options, which are reported instead of being read as keywords.
    reserved: names of arguments of the Python function that are neither.
    """
    parameters: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} does not have the form KEY=VALUE, e.g. sigma_255=25")
        if key in options:
            raise typer.BadParameter(f"{key} is an option, not a keyword: use --{key}")
        if key in reserved:
            raise typer.BadParameter(f"{key} is not a keyword of a recipe")
        if key in parameters:
            raise typer.BadParameter(f"{pair}: {key}={parameters[key]} is given, too; omit one")
        parameters[key] = value
    return parameters


def parse_mix(texts: Sequence[str] | None) -> dict[str, float]:
    """Places and their shares from STORE=SHARE texts."""
    mix: dict[str, float] = {}
    for text in texts or ():
        place, _, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not place or not 0 < share < 1:
            raise typer.BadParameter(
                f"--mix {text}: expected a store and its share of the patches, above 0 and below 1, "
                "e.g. gopro.store=0.4"
            )
        if place in mix:
            raise typer.BadParameter(f"--mix {text}: {place}={mix[place]:g} is given, too; omit one")
        mix[place] = share
    return mix


def parse_bytes(text: str, option: str = "--memory") -> int:
    """An amount of memory or disk space in bytes. 2GB and 800m are decimal, 1.5GiB is binary."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    # ByteSize ignores what follows a number that it understands: for it, "5.GB" and "5,5GB" are 5 bytes.
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\.?\s*((?:[kmgt]i?)?)b?\s*", text, re.ASCII | re.IGNORECASE)
    try:
        size = TypeAdapter(ByteSize).validate_python("" if match is None else f"{match[1]}{match[2]}B")
    except (ValidationError, OverflowError):
        size = ByteSize(0)
    if size < 1:
        raise typer.BadParameter(f"{option} {text}: expected a size above 0, e.g. 2GB or 800MB")
    return size


def parse_exposure(ratio: str, reference: Path | None) -> "float | Path | Literal['auto']":
    """The value of `Settings.exposure`, from the options --exposure-ratio and --reference."""
    if reference is not None:
        if ratio != "auto":
            raise typer.BadParameter("--exposure-ratio and --reference exclude each other; use one of them")
        return reference
    if ratio == "auto":
        return "auto"
    try:
        number = float(ratio)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1e6:
        raise typer.BadParameter(f"--exposure-ratio {ratio}: expected auto or a number above 0, at most 1000000")
    return number


def _check_digits(option: str, text: str) -> None:
    """Raise typer.BadParameter for a number of pixels that no picture has."""
    if re.search(rf"\d{{{_MAX_DIGITS + 1}}}", text):
        raise typer.BadParameter(f"{option} {text}: at most {10**_MAX_DIGITS - 1:,} pixels are possible")


def parse_size(text: str) -> tuple[int | None, int | None]:
    """The value of `Settings.size` from WIDTHxHEIGHT, WIDTHx or xHEIGHT."""
    _check_digits("--size", text)
    match = re.fullmatch(r"([1-9]\d*)?x([1-9]\d*)?", text.strip().lower(), re.ASCII)
    if match is None or match[0] == "x":
        raise typer.BadParameter(f"--size {text}: expected a size in pixels, e.g. 3000x2000, 3000x or x2000")
    width, height = (None if side is None else int(side) for side in match.groups())
    return width, height


def check_scale(scale: float | None, size: str | None) -> None:
    """Raise typer.BadParameter for an impossible --scale, and for --scale together with --size."""
    if scale is not None and not 0 < scale <= 1000:
        raise typer.BadParameter(f"--scale {scale:g}: expected a number above 0, at most 1000")
    if scale is not None and size is not None:
        raise typer.BadParameter("--scale and --size exclude each other; use one of them")


def parse_crop(text: str) -> tuple[int, int, int, int]:
    """The value of `Settings.crop` from X,Y,WIDTH,HEIGHT."""
    _check_digits("--crop", text)
    match = re.fullmatch(r"(\d+),(\d+),([1-9]\d*),([1-9]\d*)", text.replace(" ", ""), re.ASCII)
    if match is None:
        raise typer.BadParameter(f"--crop {text}: expected x, y, width and height in pixels, e.g. 100,50,640,480")
    x, y, width, height = map(int, match.groups())
    return x, y, width, height
