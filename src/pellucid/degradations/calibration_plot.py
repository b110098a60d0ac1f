"""The photon transfer curves of a camera, and its noise over ISO, as a figure."""

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.degradations.calibrate import Calibration
from pellucid.degradations.camera_files import IsoNoise
from pellucid.degradations.frame_pairs import QUANTIZATION
from pellucid.system.figures import make_figure, write_figure

_MAX_POINTS = 1000
"""Points drawn of each ISO."""


def plot_calibration(calibration: Calibration, out: Path, *, overwrite: bool = False) -> None:
    """Draw variance over signal with the fitted lines, and gain, read noise and row noise over ISO.

    Raises OutputError and MissingExtraError as `system.figures` does.
    """
    figure = make_figure(12, 4.5)
    curves, over_iso = figure.subplots(1, 2)
    figure.suptitle(calibration.profile.camera)
    for one in calibration.profile.isos:
        _draw_curve(curves, calibration, one)
    curves.set(
        xscale="log", yscale="log", xlabel="signal above black in levels", ylabel="variance in levels squared"
    )
    isos = [one.iso for one in calibration.profile.isos]
    for name, label in (
        ("gain", "gain: levels per electron"),
        ("read", "read noise in levels"),
        ("row", "row noise in levels"),
    ):
        over_iso.plot(isos, [getattr(one, name) for one in calibration.profile.isos], marker="o", label=label)
    over_iso.set(xscale="log", yscale="log", xlabel="ISO")
    for axes in (curves, over_iso):
        axes.grid(alpha=0.3)
        axes.legend()
    write_figure(figure, out, overwrite=overwrite)


def _draw_curve(axes: Any, calibration: Calibration, one: IsoNoise) -> None:
    tiles = calibration.tiles[one.iso]
    order = np.argsort(tiles.signal)
    shown = order[:: max(1, len(order) // _MAX_POINTS)]
    (dots,) = axes.plot(tiles.signal[shown], tiles.variance[shown], ".", markersize=2, alpha=0.5)
    signal = np.geomspace(tiles.signal.min(), tiles.signal.max(), 50)
    model = one.gain * signal + one.read**2 + one.row**2 + QUANTIZATION
    axes.plot(signal, model, color=dots.get_color(), label=f"ISO {one.iso:g}: {one.gain:.3g} levels per electron")
