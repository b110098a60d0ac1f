"""Figures drawn by matplotlib (extra `plot`)."""

import io
import logging
from pathlib import Path
from typing import Any

from pellucid.errors import ArgumentError, MissingExtraError
from pellucid.system.files import check_overwrite, write_atomic

_SUFFIXES = (".png", ".pdf", ".svg")


def check_figure(path: Path, *, overwrite: bool) -> None:
    """Raise ArgumentError or OutputError, before any work, if a figure cannot have this name.

    Raises MissingExtraError without matplotlib.
    """
    if path.suffix not in _SUFFIXES:
        raise ArgumentError(f"{path} is not a .png, .pdf or .svg file")
    check_overwrite(path, overwrite=overwrite)
    make_figure(1, 1)


def make_figure(width: float, height: float) -> Any:
    """An empty figure, in inches. Raises MissingExtraError without matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home folder, it gives advice
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plotting", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def write_figure(figure: Any, path: Path, *, overwrite: bool) -> None:
    """Write a figure in the format of the suffix, completely or not at all. Raises OutputError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=120)
    write_atomic(path, buffer.getvalue(), overwrite=overwrite)
