"""Plots of trainings: loss and PSNR against steps or time, all runs in the same axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pellucid.errors import OutputError
from pellucid.system.figures import check_figure, make_figure, write_figure
from pellucid.training.comparing import hours_at_steps, name_runs, read_known_metrics
from pellucid.training.run_folder import describe_run

CURVES = {"loss": "loss", "psnr_db": "PSNR in dB"}
AXES = {"step": "step", "time": "hours of training, without validation"}

Curve = list[tuple[float, float]]


def plot(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    against: Literal["step", "time"] = "step",
    overwrite: bool = False,
) -> None:
    """Plot the loss and, where validated, the PSNR of run folders.

    out: a .png, .pdf or .svg. against: step, or time: hours of training, without validations and interruptions.
    overwrite: replace `out` if it exists.
    Raises OutputError if a folder is not a run folder, has no metrics yet or no recorded speed, or if `out` exists
    or cannot be written; MissingExtraError without matplotlib (extra `plot`).
    """
    out = Path(out)
    check_figure(out, overwrite=overwrite)
    names = name_runs(folders)
    curves = {name: _read_curves(Path(folder), against) for name, folder in zip(names, folders, strict=True)}
    shown = [key for key in CURVES if any(run[key] for run in curves.values())]
    figure = make_figure(6 * len(shown), 4)
    for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, {name: run[key] for name, run in curves.items()}, key)
        axes.set_xlabel(AXES[against])
    write_figure(figure, out, overwrite=overwrite)


def _read_curves(folder: Path, against: Literal["step", "time"]) -> dict[str, Curve]:
    """(step or hours, value) of each quantity, without steps whose value was not finite."""
    description = describe_run(folder)
    lines = read_known_metrics(folder)
    places: dict[int, float] = {line["step"]: float(line["step"]) for line in lines}
    if against == "time":
        places = hours_at_steps(lines, int(description.get("training", {}).get("batch_size", 0)))
        if not places:
            raise OutputError(f"{folder} has no recorded speed", hint="plot it against steps")
    curves: dict[str, Curve] = {
        key: [(places[line["step"]], float(line[key])) for line in lines if _is_shown(line, key, places)]
        for key in CURVES
    }
    if not any(curves.values()):
        raise OutputError(f"{folder} has no metrics yet")
    return curves


def _is_shown(line: dict[str, Any], key: str, places: dict[int, float]) -> bool:
    return line.get(key) is not None and line["step"] in places


def _draw(axes: Any, runs: dict[str, Curve], key: str) -> None:
    for name, points in runs.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 60 else None)
    axes.set_ylabel(CURVES[key])
    if key == "loss" and any(value > 0 for points in runs.values() for _, value in points):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
