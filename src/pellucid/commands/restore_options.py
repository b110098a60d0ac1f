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
        help="Name of a model (see 'pellucid models') or path of a weight file; A+B runs A, then B; auto: what "
        "'pellucid advise' says about each picture. Repeatable with --preview.",
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
        show_default="that of the input; {stem}-restored{suffix} for results next to it",
        rich_help_panel=_FILES,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--json",
        "--report",
        metavar="FILE",
        help="Write the outcome of every picture as JSON; - writes only JSON to standard output.",
        rich_help_panel=_FILES,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Restore only these pictures of folders, e.g. `*.tif` or `scans/*`; repeatable.",
        show_default="all",
        rich_help_panel=_FILES,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Skip these pictures of folders, e.g. '**/raw/*'; repeatable.",
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
        help="Scale factor of results, e.g. 1.5: the result of the model is reduced to it.",
        show_default="that of the model",
        rich_help_panel=_RESULTS,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Largest size of results, e.g. 3000x2000, 3000x or x2000; reduces them like --scale.",
        rich_help_panel=_RESULTS,
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Picture that is white where to restore and black elsewhere; or a folder of such masks, with the "
        "names of the inputs.",
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
        help="Self-ensemble: average over all eight rotations and reflections. Takes eight times as long.",
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
        help="png, tiff, jpeg, webp, bmp, ppm, jxl, jp2 or dng.",
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
        help="Quality of JPEG, or of lossy WebP and JPEG XL.",
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
        help="Only draw a sheet for each picture: a few crops, before and after each --model.",
        rich_help_panel=_TRYING,
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Also draw such a sheet next to each result, NAME-compare.png.",
        rich_help_panel=_TRYING,
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,W,H",
        help="Restore only this part, in pixels of the input. Identical to the same part of the whole result.",
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

Devices = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE[,...]",
        help="Where the network runs: auto, cpu, cuda, cuda:1, mps, ... Exported models: see docs/export.md. "
        "Several, e.g. cuda:0,cuda:1, share the pictures, in one process each; all: all accelerators of this "
        "computer.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="CLUSTER",
        help="Restore in worker processes of Ray: 'ray' starts it on this computer; otherwise the address of a "
        "cluster, e.g. ray://HOST:10001. See docs/scaling.md.",
        rich_help_panel=_EFFORT,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --on: maximum number of worker processes.",
        show_default="as many as fit",
        rich_help_panel=_EFFORT,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit of the process, e.g. 2GB; with --on and several devices, of each worker process.",
        show_default="half of the free memory",
        rich_help_panel=_EFFORT,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of threads that decode, and that encode, while another picture is in the network.",
        rich_help_panel=_EFFORT,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PX",
        help="Side of the tiles. Affects time and memory, not the result.",
        show_default="chosen for speed within the memory limit",
        rich_help_panel=_EFFORT,
    ),
]
Halo = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="PX",
        help="Number of pixels that are read around each tile. Fewer are faster, but not exact.",
        show_default="the reach of the network: exact",
        rich_help_panel=_EFFORT,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Give up a picture that takes longer; checked after each tile but the last.",
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
