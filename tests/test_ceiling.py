"""The memory ceiling, enforced and measured from outside: in a child process, by the kernel."""

import sys
from pathlib import Path

import numpy as np
import pytest

import watching
from pellucid import checkpoint, images, recipe
from pellucid.picture import Picture

CEILING = 620_000_000
"""Of which Python, PyTorch and libvips take 260 MB before any work."""
LIMIT_DATA = 1_100_000_000
"""Private memory that the kernel gives at all: what is reserved but never touched counts in it, too."""


def _restore(source: Path, weights: Path, *options: str) -> tuple[int, int, str]:
    """(exit status, peak resident bytes, what was said) of the command line."""
    said = source.with_name("said")
    command = [sys.executable, "-m", "pellucid", "restore", str(source), "--model", str(weights), *options]
    status, peak = watching.run(command, said, data_limit_bytes=LIMIT_DATA)
    return status, peak, said.read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is counted otherwise")
def test_a_large_scan_stays_below_the_ceiling(tmp_path: Path) -> None:
    """24 megapixels are 144 MB, their result as much, and one layer of the network 384 MB a color plane."""
    chosen = recipe.find("dncnn.gaussian", depth=2, width=4)
    weights = tmp_path / "thin.safetensors"
    checkpoint.save(weights, chosen.network(), checkpoint.Card(chosen.name, chosen.parameters, "none", "none"))
    rows = np.random.default_rng(0).integers(0, 65536, (50, 6000, 3), np.uint16)
    images.write(Picture(np.tile(rows, (80, 1, 1))), tmp_path / "scan.tif")
    status, peak, said = _restore(tmp_path / "scan.tif", weights, "--memory", "620MB")
    assert status == 0, said
    assert peak < CEILING
    result = images.read(tmp_path / "scan-restored.tif")
    assert (result.height, result.width, result.dtype) == (4000, 6000, "uint16")
    # What repeats in the scan repeats in the result, whatever tiles it fell into.
    assert np.array_equal(result.samples[50:1000], result.samples[100:1050])

    status, _, said = _restore(
        tmp_path / "scan.tif", weights, "--memory", "100MB", "--out", str(tmp_path / "b.tif")
    )
    assert status == 1 and "needs at least" in said
