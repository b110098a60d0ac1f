"""Curves of trainings: loss and PSNR against steps, runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.errors import MissingExtraError, OutputError
from pellucid.system.files import check_overwrite, write_atomic
from pellucid.training.run_folder import describe_run, read_metrics

CURVES = {"loss": "loss", "psnr_db": "PSNR in dB"}


def plot(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> None:
    """Draw the curves of some run folders into a PNG, PDF or SVG.

    Raises OutputError when a folder is of no training or has no steps yet, or when `out` cannot be written;
    MissingExtraError without matplotlib.
    """
    out = Path(out)
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise OutputError(f"{out}: curves are drawn as .png, .pdf or .svg")
    check_overwrite(out, overwrite=overwrite)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing curves", "plot") from error
    curves = {Path(folder).name: _curves(Path(folder)) for folder in folders}
    shown = [key for key in CURVES if any(run[key] for run in curves.values())]
    figure = Figure(figsize=(6 * len(shown), 4), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, {name: run[key] for name, run in curves.items()}, key)
    write_atomic(out, _encoded(figure, out.suffix[1:]), overwrite=overwrite)


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each quantity. Steps whose value was not finite are left out."""
    describe_run(folder)
    lines = read_metrics(folder)
    curves = {
        key: [(line["step"], float(line[key])) for line in lines if line.get(key) is not None] for key in CURVES
    }
    if not any(curves.values()):
        raise OutputError(f"{folder} has no metrics yet")
    return curves


def _draw(axes: Any, runs: dict[str, list[tuple[int, float]]], key: str) -> None:
    for name, points in runs.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 60 else None)
    axes.set_xlabel("step")
    axes.set_ylabel(CURVES[key])
    if key == "loss":
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()


def _encoded(figure: Any, kind: str) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()
