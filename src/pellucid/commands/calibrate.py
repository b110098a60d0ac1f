"""`pellucid calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import Json, check_overwrite
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_line,
    print_table,
    print_warning,
    progress,
    show_progress,
    table,
    write_json,
)
from pellucid.system.signals import defer_sigint

if TYPE_CHECKING:
    from pellucid.degradations.camera_files import CameraProfile


def calibrate(
    flats: Annotated[
        Path,
        typer.Argument(
            metavar="FLATS",
            help="Folder of RAW files of an evenly lit surface, out of focus: of each ISO, two or more of the "
            "same exposure, from dark to almost white.",
        ),
    ],
    darks: Annotated[
        Path,
        typer.Argument(
            metavar="DARKS", help="Folder of RAW files with the lens covered: of each ISO, two or more."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the profile, e.g. camera.json.", show_default="none")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also plot the measurements into this .png, .pdf or .svg.", show_default="none"
        ),
    ] = None,
    json_file: Json = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of --out, --plot and --json.")
    ] = False,
) -> None:
    """Measure the noise of your own camera, for recipes that take camera=FILE.

    Gain, read noise and row noise over ISO, by the photon transfer method: from the differences of pairs of equal
    exposures.
    """
    with defer_sigint():
        from pellucid.degradations.calibrate import calibrate as measure
        from pellucid.degradations.calibration_plot import plot_calibration
        from pellucid.system import figures, files

    check_overwrite(overwrite, {"--out": out, "--plot": plot, "--json": json_file})
    if out is not None:
        if out.suffix != ".json":
            raise typer.BadParameter(f"--out {out} does not end in .json")
        files.check_overwrite(out, overwrite=overwrite)
    if plot is not None:
        figures.check_figure(plot, overwrite=overwrite)
    with progress() as bar:
        found = measure(flats, darks, progress=show_progress(bar, "measuring"))
    for message in found.messages:
        print_warning(message)
    if out is not None:
        found.profile.write(out, overwrite=overwrite)
    if plot is not None:
        plot_calibration(found, plot, overwrite=overwrite)
    if json_file is not None:
        write_json(json_file, found.profile.to_json(), overwrite=overwrite)
    if not is_stdout(json_file):
        _print(found.profile)


def _print(profile: "CameraProfile") -> None:
    print_line(f"{profile.camera}, black {profile.black:g}, white {profile.white:g}")
    rows = table(
        "ISO", "levels per electron", "read, electrons", "row, electrons", "black", "frames",
        right=range(6),
    )  # fmt: skip
    for one in profile.isos:
        add_row(
            rows,
            f"{one.iso:g}",
            f"{one.gain:.4g}",
            f"{one.read / one.gain:.3g}",
            f"{one.row / one.gain:.3g}",
            f"{one.black:.1f}",
            str(one.num_flats + one.num_darks),
        )
    print_table(rows)
