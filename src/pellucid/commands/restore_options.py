"""The options of `pellucid restore`, in the order of its help."""

from pathlib import Path
from typing import Annotated

import typer

_FILES, _RESULTS, _TRYING = "Files", "Results", "Trying out"
_RAW, _EFFORT = "Camera RAW", "Memory and time"

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Pictures, folders of them, or patterns, e.g. 'scans/**/*.tif'; - is standard input. Also URLs of "
        "pictures and folders, e.g. s3://bucket/scans.",
    ),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        metavar="NAME_OR_FILE",
        help="Name of a model (see 'pellucid models') or path of a weight file; A+B runs A, then B. "
        "Repeatable with --preview.",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="File to write (for one picture), or folder, also as a URL; - is standard output.",
        show_default="NAME-restored next to each input",
    ),
]

# Files

Name = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Names of results, e.g. '{stem}-{model}{suffix}'; then --out may be the folder of the inputs.",
        show_default="as the inputs; next to them {stem}-restored{suffix}",
        rich_help_panel=_FILES,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--json",
        "--report",
        metavar="FILE",
        help="Write what happened to every picture, as JSON; - is standard output, without any other text.",
        rich_help_panel=_FILES,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Of the pictures in folders only these, e.g. `*.tif` or `scans/*`; repeatable.",
        show_default="all",
        rich_help_panel=_FILES,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Not these pictures in folders, e.g. '**/raw/*'; repeatable.",
        rich_help_panel=_FILES,
    ),
]
Sidecars = Annotated[
    bool,
    typer.Option(
        "--sidecars",
        help="Add the XMP in files next to the pictures (NAME.xmp, NAME.EXT.xmp) to the results.",
        rich_help_panel=_FILES,
    ),
]
Page = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Restore only this page of a TIFF; the first one is 1.",
        show_default="all pages, written as pages",
        rich_help_panel=_FILES,
    ),
]
# Results

Scale = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="How many times as long the sides of results are, e.g. 1.5: enlarged by the model, then reduced.",
        show_default="that of the model",
        rich_help_panel=_RESULTS,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Size that results fit into, e.g. 3000x2000, 3000x or x2000; as --scale.",
        rich_help_panel=_RESULTS,
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="A picture, white where to restore, black where not; or a folder of them, named as the inputs.",
        rich_help_panel=_RESULTS,
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="X",
        help="0 is the input (enlarged bicubically, if the model enlarges), 1 the full effect.",
        rich_help_panel=_RESULTS,
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Mean over all eight rotations and reflections; takes eight times as long.",
        rich_help_panel=_RESULTS,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A keyword of the recipe, e.g. scale=3; repeatable.",
        rich_help_panel=_RESULTS,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="png, tiff, jpeg, webp, bmp, ppm, jxl or jp2.",
        show_default="that of the input",
        rich_help_panel=_RESULTS,
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        metavar="N",
        help="Quality of JPEG, and of WebP and JPEG XL, which it makes lossy.",
        show_default="that of the input",
        rich_help_panel=_RESULTS,
    ),
]
BitDepth = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        help="8, 16 or 32 (floating point).",
        show_default="that of the input",
        rich_help_panel=_RESULTS,
    ),
]

# Trying out

Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Only draw a sheet of telling parts of each picture, before and after each --model.",
        rich_help_panel=_TRYING,
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Write such a sheet next to each result, NAME-compare.png.",
        rich_help_panel=_TRYING,
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,W,H",
        help="Restore only this part of the picture, in its pixels; the same as in the whole result.",
        rich_help_panel=_TRYING,
    ),
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only print which file would become which result.",
        rich_help_panel=_TRYING,
    ),
]

# Camera RAW

ExposureRatio = Annotated[
    str,
    typer.Option(
        metavar="RATIO",
        help="Brighten as if the exposure had been RATIO times longer; auto estimates it.",
        rich_help_panel=_RAW,
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Brighten to the exposure of this RAW file instead.",
        rich_help_panel=_RAW,
    ),
]

# Memory and time

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="CLUSTER",
        help="Restore in processes of Ray: 'ray' on this computer, or the address of a cluster, e.g. "
        "ray://HOST:10001. See docs/scaling.md.",
        rich_help_panel=_EFFORT,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --on: the most processes.",
        show_default="as many as fit",
        rich_help_panel=_EFFORT,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit of the process, e.g. 2GB; with --on, of each.",
        show_default="half of the free memory",
        rich_help_panel=_EFFORT,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of pictures to decode, and to encode, while another one is in the network.",
        rich_help_panel=_EFFORT,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PX",
        help="Side of the tiles. Affects time and memory, not the result.",
        show_default="as large as is fast and fits the memory",
        rich_help_panel=_EFFORT,
    ),
]
Halo = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="PX",
        help="How far around each tile the picture is read. Less is faster, but not exact.",
        show_default="as far as the network sees: exact",
        rich_help_panel=_EFFORT,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Give up a picture that takes longer; checked after each tile.",
        rich_help_panel=_EFFORT,
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Refuse larger pictures before they are decoded.",
        show_default="500 million",
        rich_help_panel=_EFFORT,
    ),
]
