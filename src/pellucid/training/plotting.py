"""Plots of trainings: loss and PSNR against steps, all runs in the same axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.errors import MissingExtraError, OutputError
from pellucid.system.files import check_overwrite, write_atomic
from pellucid.training.run_folder import describe_run, read_metrics

CURVES = {"loss": "loss", "psnr_db": "PSNR in dB"}


def plot(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> None:
    """Plot the loss and, where validated, the PSNR of run folders.

    out: a .png, .pdf or .svg. overwrite: replace `out` if it exists.
    Raises OutputError if a folder is not a run folder or has no metrics yet, or if `out` exists or cannot be
    written; MissingExtraError without matplotlib (extra `plot`).
    """
    out = Path(out)
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise OutputError(f"{out} is not a .png, .pdf or .svg file")
    check_overwrite(out, overwrite=overwrite)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plotting", "plot") from error
    names = [Path(folder).resolve().name for folder in folders]
    labels = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    curves = {label: _read_curves(Path(folder)) for label, folder in zip(labels, folders, strict=True)}
    shown = [key for key in CURVES if any(run[key] for run in curves.values())]
    figure = Figure(figsize=(6 * len(shown), 4), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, {name: run[key] for name, run in curves.items()}, key)
    write_atomic(out, _encode(figure, out.suffix[1:]), overwrite=overwrite)


def _read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each quantity, without steps whose value was not finite."""
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


def _encode(figure: Any, kind: str) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()
