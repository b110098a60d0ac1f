"""What people read about how a file was read."""

from pathlib import Path

import numpy as np
import pytest

from pellucid.domains import PackedRaw
from pellucid.errors import PictureError
from pellucid.pictures.camera import dng
from pellucid.pictures.picture import Mosaic
from pellucid.restoration.reading import read_degraded


def write_dng(path: Path, pattern: tuple[str, ...]) -> Path:
    samples = np.random.default_rng(0).integers(600, 16384, (30, 40), np.uint16)
    path.write_bytes(dng.encode(Mosaic(samples, pattern, 512.0, 16383.0)))
    return path


@pytest.mark.parametrize(
    ("pattern", "size"), [(("RG", "GB"), None), (("GR", "BG"), "38 x 30"), (("BG", "GR"), "38 x 28")]
)
def test_a_mosaic_that_is_cut_is_noted(pattern: tuple[str, ...], size: str | None, tmp_path: Path) -> None:
    _, notes = read_degraded(write_dng(tmp_path / "x.dng", pattern), PackedRaw("bayer"), exposure=1.0)
    cut = [note for note in notes if note.startswith("cut ")]
    assert len(cut) == (size is not None)
    assert size is None or cut[0].startswith(f"cut from 40 x 30 to {size} px, ")


def test_a_mosaic_with_other_filters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="this recipe needs RBGBRG/"):
        read_degraded(write_dng(tmp_path / "x.dng", ("RG", "GB")), PackedRaw("xtrans"))
