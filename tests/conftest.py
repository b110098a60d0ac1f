"""What all tests share: few threads, repeatable examples, and the folder of real pictures and weights."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(2)

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
