"""What people read about how a file was read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.domains import RGB, Domain, PackedRaw
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


@pytest.mark.parametrize("domain", [PackedRaw("bayer"), RGB()])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page": 2}, "which has one picture; omit page"),
        ({"white": 4095.0}, "which has its own white level; omit white"),
        ({"page": 2, "white": 4095.0}, "which has its own white level; omit white"),
        ({"page": 1, "white": 4095.0}, "which has its own white level; omit white"),
    ],
)
def test_options_for_developed_pictures_are_refused_for_camera_raw(
    domain: Domain, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_dng(tmp_path / "x.dng", ("RG", "GB"))
    with pytest.raises(PictureError, match=message):
        read_degraded(path, domain, **options)
    assert read_degraded(path, domain, page=1)[0].width == 40


def test_a_mosaic_with_other_filters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="this recipe needs RBGBRG/"):
        read_degraded(write_dng(tmp_path / "x.dng", ("RG", "GB")), PackedRaw("xtrans"))
