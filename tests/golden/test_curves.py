"""Loss curves of short trainings of every network, compared with recorded ones.

A refactoring must not change them. After an intended change, `PELLUCID_WRITE_CURVES=1 pytest
tests/golden/test_curves.py` records them again.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.data.store import Kind
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.pictures.samples import Samples
from pellucid.recipes import registry
from pellucid.training.train import train

FILE = Path(__file__).with_name("curves.json")
NUM_STEPS = 12
TOLERANCE = 2e-3
"""Relative. Other processors sum in another order, and the difference grows a little in each step; a change of the
training, the batches or a schedule shows in the first digits."""

TINY: dict[str, dict[str, Any]] = {
    "srcnn.paper": {"batch_size": 4},
    "srcnn.tuned": {"batch_size": 4, "patch_px": 32, "warmup_steps": 4, "lr": 1e-4},
    "dncnn.gaussian": {"depth": 4, "width": 8, "batch_size": 4},
    "dncnn.blind": {"depth": 4, "width": 8, "batch_size": 4, "initialize": "zero-last"},
    "dncnn.three_tasks": {"depth": 4, "width": 8, "batch_size": 4},
    "mimo_unet.gopro": {"num_blocks": 1, "batch_size": 2, "patch_px": 32},
    "mimo_unet.synthetic": {"num_blocks": 1, "width": 8, "batch_size": 2, "patch_px": 32, "warmup_steps": 4},
    "sid_unet.sony": {"patch_px": 32},
    "sid_unet.fuji": {"patch_px": 48},
    "sid_unet.any_camera": {"width": 8, "batch_size": 2, "patch_px": 32, "warmup_steps": 4},
}


def scene(seed: int, channels: int) -> Samples:
    """Waves, computed with integers, so that all machines have the same picture."""
    rows, cols = np.mgrid[:72, :90]
    planes = [
        (rows * (3 + seed) + channel * 40) % 97 + (cols * (5 + 2 * seed)) % 83 + (rows * cols // 7) % 60
        for channel in range(channels)
    ]
    return np.stack(planes, axis=-1).astype("uint8")


KINDS: dict[str, Kind] = {"clean": "clean", "pairs": "pairs", "bayer": "raw", "xtrans": "raw"}


def write(folder: Path, kind: str) -> Path:
    stamp = Stamp(1, 2, "3")
    facts: dict[str, Any] = {"black_level": [[16, 16], [16, 16]], "white_level": 255}
    with StoreWriter(folder / kind, {}) as writer:
        planned = []
        for i in range(3):
            writer.put(f"clean{i}", stamp, scene(i, 1 if kind == "clean" else 3))
            if kind == "clean":
                planned.append(Planned(f"{i}", f"clean{i}"))
            elif kind == "pairs":
                writer.put(f"blur{i}", stamp, np.roll(scene(i, 3), 2, 1))
                planned.append(Planned(f"{i}", f"clean{i}", f"blur{i}"))
            else:
                pattern = ["RG", "GB"] if kind == "bayer" else list(XTRANS_ROWS)
                levels = facts if kind == "bayer" else {**facts, "black_level": [[16] * 6] * 6}
                writer.put(
                    f"short{i}", stamp, scene(i, 1)[..., 0] // 4 + 16, metadata={"pattern": pattern} | levels
                )
                planned.append(Planned(f"{i}", f"clean{i}", f"short{i}", 4.0))
        writer.finish(KINDS[kind], planned, [])
    return folder / kind


XTRANS_ROWS = ("RBGBRG", "GGRGGB", "GGBGGR", "BRGRBG", "GGBGGR", "GGRGGB")


def curve(name: str, folder: Path) -> list[float]:
    made = registry.find(name, **TINY[name], num_steps=NUM_STEPS)
    kind = {"mimo_unet.gopro": "pairs", "sid_unet.sony": "bayer", "sid_unet.fuji": "xtrans"}.get(name, "clean")
    losses: list[float] = []
    train(
        made,
        write(folder, kind),
        folder / "run",
        device="cpu",
        tune=False,
        progress=lambda status: losses.append(status.loss),
    )
    return losses


@pytest.mark.parametrize("name", TINY)
def test_the_loss_curve_is_the_recorded_one(name: str, tmp_path: Path) -> None:
    losses = curve(name, tmp_path)
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("PELLUCID_WRITE_CURVES"):
        known[name] = [float(f"{loss:.7g}") for loss in losses]
        FILE.write_text(json.dumps(known, indent=1) + "\n")
    np.testing.assert_allclose(losses, known[name], rtol=TOLERANCE)
