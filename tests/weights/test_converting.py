"""Conversion of the authors' weight files."""

from pathlib import Path

import pytest
import torch

from pellucid.errors import OutputError, RecipeError, WeightsError
from pellucid.weights import checkpoint
from pellucid.weights.converting import convert


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A small DnCNN as SaoYan saves it: no biases, batch norm in the middle."""
    torch.manual_seed(0)
    state = {"module.dncnn.0.weight": torch.randn(4, 1, 3, 3), "module.dncnn.2.weight": torch.randn(4, 4, 3, 3)}
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        state[f"module.dncnn.3.{leaf}"] = torch.rand(4)
    state["module.dncnn.5.weight"] = torch.randn(1, 4, 3, 3)
    torch.save(state, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_the_metadata_describe_the_weights(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    metadata = convert(theirs, "dncnn.gaussian", out, license="GPL-3.0", sigma_255="15", depth=3, width=4)
    assert metadata == checkpoint.read_metadata(out)
    assert metadata.parameters == {
        "sigma_255": 15,
        "initialize": "released",
        "channels": 1,
        "depth": 3,
        "width": 4,
        "batch_norm": True,
        "bias": False,
    }
    assert "net.pth" in metadata.provenance and metadata.license == "GPL-3.0"


def test_errors_name_the_problem_and_nothing_is_written(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    with pytest.raises(WeightsError, match=r"does not fit dncnn.gaussian.*layers\.\d+\.conv\.weight"):
        convert(theirs, "dncnn.gaussian", out)
    with pytest.raises(RecipeError, match="did you mean dncnn.gaussian"):
        convert(theirs, "dncnn.gausian", out)
    with pytest.raises(WeightsError):
        convert(theirs, "srcnn.paper", out)
    assert not out.exists()
    with pytest.raises(OutputError, match="is the input itself"):
        convert(theirs, "dncnn.gaussian", theirs, overwrite=True, depth=3, width=4)
    out.touch()
    with pytest.raises(OutputError, match="exists"):
        convert(theirs, "dncnn.gaussian", out, depth=3, width=4)
