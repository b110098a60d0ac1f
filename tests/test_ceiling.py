"""The memory limit, enforced and measured by the kernel, in a child process."""

import sys
from pathlib import Path

import numpy as np
import pytest

import child_processes
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.weights import checkpoint

CEILING = 620_000_000
"""Python, PyTorch and libvips take 260 MB of it before any work."""
LIMIT_DATA = 1_100_000_000
"""Limit of private memory, enforced by the kernel. Memory that is reserved but never used counts, too."""


SHARING = "from pellucid.system import memory; memory.SPARED_BYTES = 0; from pellucid.__main__ import main; main()"
"""Large pictures share the memory even if little is free."""


def _restore(source: Path, weights: Path, *options: str, is_shared: bool = False) -> tuple[int, int, str]:
    """(exit status, peak resident bytes, output) of the command line."""
    output = source.with_name("output")
    program = ["-c", SHARING] if is_shared else ["-m", "pellucid"]
    command = [sys.executable, *program, "restore", str(source), "--model", str(weights), *options]
    status, peak = child_processes.run(command, output, data_limit_bytes=LIMIT_DATA)
    return status, peak, output.read_text()


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured differently")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small network: the test is about the memory around it."""
    chosen = registry.find("dncnn.gaussian", depth=2, width=4)
    path = tmp_path / "thin.safetensors"
    checkpoint.save(
        path, chosen.network(), checkpoint.WeightsMetadata(chosen.name, chosen.parameters, "none", "none")
    )
    return path


def _scan(height: int, width: int, dtype: str) -> Picture:
    """Rows that repeat every 50, so that it is quick to make and to compress."""
    rows = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (50, width, 3), dtype)
    return Picture(np.tile(rows, (height // 50, 1, 1)))


def test_large_scan_stays_below_the_limit(tmp_path: Path, weights: Path) -> None:
    """24 megapixels are 144 MB, and so is the result; one layer of the network is 384 MB per color plane."""
    images.write(_scan(4000, 6000, "uint16"), tmp_path / "scan.tif")
    status, peak, output = _restore(tmp_path / "scan.tif", weights, "--memory", "620MB")
    assert status == 0, output
    assert peak < CEILING
    result = images.read(tmp_path / "scan-restored.tif")
    assert (result.height, result.width, result.dtype) == (4000, 6000, "uint16")
    # Rows that repeat in the scan repeat in the result, in whichever tiles they are.
    assert np.array_equal(result.samples[50:1000], result.samples[100:1050])


@pytest.mark.parametrize("is_shared", [False, True])
def test_many_pictures_in_flight_stay_below_the_limit(is_shared: bool, tmp_path: Path, weights: Path) -> None:
    """Six pictures decoded, restored and encoded at once take 300 MB more than one after the other."""
    images.write(_scan(3000, 3000, "uint8"), tmp_path / "album" / "0.png")
    for i in range(1, 6):
        (tmp_path / "album" / f"{i}.png").hardlink_to(tmp_path / "album" / "0.png")
    options = "--memory", "620MB", "--workers", "6"
    status, peak, output = _restore(tmp_path / "album", weights, *options, is_shared=is_shared)
    assert status == 0, output
    assert peak < CEILING
    assert len(list((tmp_path / "album-restored").glob("*.png"))) == 6


def test_picture_that_cannot_be_encoded_below_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, weights: Path
) -> None:
    """Writing lossless WebP takes 32 bytes per pixel."""
    images.write(_scan(3000, 4000, "uint8"), tmp_path / "scan.png")
    status, peak, output = _restore(tmp_path / "scan.png", weights, "--memory", "620MB", "--format", "webp")
    assert status == 1 and peak < CEILING
    assert "needs more than the memory limit of 620 MB" in output
