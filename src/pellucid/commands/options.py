"""Options that several commands share, and how their values are parsed."""

import inspect
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.commands.terminal import (
    MessageStyle,
    print_detail,
    print_info,
    progress,
    set_message_style,
    show_progress,
)

if TYPE_CHECKING:
    from pellucid.system import shards

Parameters = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Keywords of the recipe, e.g. sigma_255=25. See 'pellucid recipes NAME'."
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="Where the network runs: auto, cpu, cuda, cuda:1, mps, ...")
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="BACKEND",
        help="torch, onnxruntime, openvino, or auto: the fastest with 60 dB PSNR or more against float32 torch.",
        show_default="torch, or the runtime of an exported MODEL",
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
White = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="Value of white in the files, e.g. 4095 for 12 bits in 16-bit samples.",
        show_default="as the file specifies it, or that of its type",
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON; - is standard output, without any other text."
    ),
]
NetworkFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="FILE.py",
        help="Run this network file, which has recipes of your own; repeatable.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Do part I of N, from 1/N to N/N; 'env' takes both from the variables of a Slurm array or another "
        "cluster, and 'env/N' the part only. See docs/scaling.md.",
    ),
]
OverwriteJson = Annotated[bool, typer.Option("--overwrite", help="Replace the file of --json.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]


_MAX_DIGITS = 7
"""Of a side of a picture, in pixels."""


def with_messages(command: Callable[..., None]) -> Callable[..., None]:
    """A command that also has the options for messages, which all commands share."""
    panel = "Messages"
    extra = {
        "quiet": Annotated[
            bool,
            typer.Option(
                "--quiet", "-q", help="Print warnings and errors only, no progress.", rich_help_panel=panel
            ),
        ],
        "verbose": Annotated[
            bool,
            typer.Option("--verbose", "-v", help="Print details: causes, time, memory.", rich_help_panel=panel),
        ],
        "log_format": Annotated[
            Literal["text", "json"],
            typer.Option(help="json: each message is a JSON object in a line.", rich_help_panel=panel),
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
        where = f"{name}: " if name.startswith("-") else ""
        if equals and not value:
            raise typer.BadParameter(f"{where}an empty text; omit it, or give a value")


def check_urls(parameters: Sequence[Any], values: Mapping[str, Any], takes_urls: Collection[str]) -> None:
    """Raise typer.BadParameter for a URL as the value of a parameter that takes none.

    parameters: of the command, as typer has them. takes_urls: names of those that take URLs.
    """
    for parameter in parameters:
        value = values.get(parameter.name)
        for text in map(str, value if isinstance(value, list | tuple) else [value]):
            if parameter.name not in takes_urls and (match := re.match("([a-z][a-z0-9+.-]+):/+", text, re.I)):
                whole = f"{match[1]}://{text[match.end() :]}"  # a Path has lost a slash
                where = f"{parameter.opts[0]}: " if parameter.opts[0].startswith("-") else ""
                raise typer.BadParameter(
                    f"{where}{whole} is a URL; only files and folders of this computer are supported here"
                )


def bring(place: str) -> Path:
    """The file or folder on this computer: itself, or a copy of what is behind a URL, fetched with progress."""
    from pellucid.storage import cache

    with progress() as bar:
        return cache.bring(place, show_progress(bar, f"fetching {place}"))


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


def parse_keywords(pairs: Sequence[str] | None, *, options: Sequence[str] = ()) -> dict[str, Any]:
    """Recipe keywords from KEY=VALUE texts; values stay text.

    options: names of the command's options, which are reported instead of being read as keywords.
    """
    parameters = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} does not have the form KEY=VALUE, e.g. sigma_255=25")
        if key in options:
            raise typer.BadParameter(f"{key} is an option, not a keyword: use --{key}")
        parameters[key] = value
    return parameters


def parse_bytes(text: str) -> int:
    """An amount of memory in bytes. 2GB and 800m are decimal, 1.5GiB is binary."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    # ByteSize ignores what follows a number that it understands: for it, "5.GB" and "5,5GB" are 5 bytes.
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\.?\s*((?:[kmgt]i?)?)b?\s*", text, re.ASCII | re.IGNORECASE)
    try:
        return TypeAdapter(ByteSize).validate_python("" if match is None else f"{match[1]}{match[2]}B")
    except (ValidationError, OverflowError):
        raise typer.BadParameter(f"--memory {text}: expected an amount of memory, e.g. 2GB or 800MB") from None


def parse_exposure(ratio: str, reference: Path | None) -> "float | Path | Literal['auto']":
    """The value of `Settings.exposure` from the options --exposure-ratio and --reference."""
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
    if not 0 < number < math.inf:
        raise typer.BadParameter(f"--exposure-ratio {ratio}: expected auto or a number greater than 0, e.g. 100")
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
    """Raise typer.BadParameter for a --scale that is not possible, also next to --size."""
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
