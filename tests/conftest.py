"""What all tests share: one thread, repeatable examples, and the folder of real pictures and weights."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from pellucid.pictures import images
from pellucid.pictures.picture import Picture

# Tests import ONNX Runtime by themselves, too; it would report to its makers from a thread of its own.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Most maps here are tiny: a second thread gains little, and on a busy machine each one waits for the other
# (test_networks.py on two busy cores: 21 s with one thread, 254 s with two).
torch.set_num_threads(1)

settings.register_profile(
    "pellucid",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pellucid")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder that PELLUCID_DATA names."""
    folder = os.environ.get("PELLUCID_DATA")
    if not folder:
        pytest.skip("needs PELLUCID_DATA, the folder of real pictures and weights")
    return Path(folder)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures at two depths of folder, one broken file between them."""
    folder = tmp_path / "album"
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.tif", "deep/c.png"):
        images.write(Picture(rng.integers(0, 256, (20, 31, 3), np.uint8)), folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:150])
    return folder
