"""Conversion of the authors' weight files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pellucid.errors import OutputError, RecipeError, WeightsError
from pellucid.recipes.registry import find
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
    metadata = convert(theirs, "dncnn.gaussian", out, license="GPL-3.0", sigma_255="15")
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
    with pytest.raises(WeightsError, match=r"net.pth has depth=3, not 17; omit depth"):
        convert(theirs, "dncnn.gaussian", out, depth=17)
    with pytest.raises(RecipeError, match="did you mean dncnn.gaussian"):
        convert(theirs, "dncnn.gausian", out)
    with pytest.raises(WeightsError):
        convert(theirs, "srcnn.paper", out)
    assert not out.exists()
    with pytest.raises(OutputError, match="is the input itself"):
        convert(theirs, "dncnn.gaussian", theirs, overwrite=True)
    out.touch()
    with pytest.raises(OutputError, match="exists"):
        convert(theirs, "dncnn.gaussian", out)


PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "network.",
    "net.",
    "generator.",
    "module._orig_mod.",
    "model.net.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_prefixes_of_wrappers_do_not_matter(theirs: Path, tmp_path: Path, prefix: str, suffix: str) -> None:
    state = torch.load(theirs, weights_only=True)
    wrapped = {prefix + name.removeprefix("module."): tensor for name, tensor in state.items()}
    source = tmp_path / f"wrapped.{suffix}"
    save_file(wrapped, source) if suffix == "safetensors" else torch.save(wrapped, source)
    convert(theirs, "dncnn.gaussian", tmp_path / "plain.safetensors")
    convert(source, "dncnn.gaussian", tmp_path / "ours.safetensors")
    plain, ours = (checkpoint.load(tmp_path / f"{name}.safetensors") for name in ("plain", "ours"))
    assert ours.sha256 == plain.sha256


def nest(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {name: state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(2)}}}}


@pytest.mark.parametrize("name", ["params", "state_dict", "model_state_dict", "model", "generator", "my_network"])
def test_state_dicts_are_found_inside_checkpoints(theirs: Path, tmp_path: Path, name: str) -> None:
    torch.save(nest(name)(torch.load(theirs, weights_only=True)), tmp_path / "nested.pth")
    assert convert(tmp_path / "nested.pth", "dncnn.gaussian", tmp_path / "o.safetensors").parameters["depth"] == 3


def test_averaged_weights_are_preferred_and_other_networks_are_left_out(theirs: Path, tmp_path: Path) -> None:
    state = torch.load(theirs, weights_only=True)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"params": zeros, "params_ema": state}, tmp_path / "ema.pth")
    gan = {f"generator.{name.removeprefix('module.')}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": gan | {"discriminator.0.weight": torch.zeros(2)}}, tmp_path / "gan.pth")
    for name in ("ema", "gan"):
        convert(tmp_path / f"{name}.pth", "dncnn.gaussian", tmp_path / f"{name}.safetensors")
        loaded = checkpoint.load(tmp_path / f"{name}.safetensors")
        assert torch.equal(loaded.network.state_dict()["layers.0.conv.weight"], state["module.dncnn.0.weight"])
    torch.save({"first": state, "second": zeros}, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match=r"contains several networks \(first, second\)"):
        convert(tmp_path / "two.pth", "dncnn.gaussian", tmp_path / "two.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(theirs: Path, tmp_path: Path, value: float) -> None:
    state = torch.load(theirs, weights_only=True)
    state["module.dncnn.2.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="dncnn.2.weight has 1 NaN or infinite values of 144"):
        convert(tmp_path / "bad.pth", "dncnn.gaussian", tmp_path / "o.safetensors")


def test_the_hints_do_not_lead_in_a_circle(theirs: Path, tmp_path: Path) -> None:
    save_file(torch.load(theirs, weights_only=True), tmp_path / "st.safetensors")
    with pytest.raises(WeightsError, match="of another program.*`pellucid convert` makes a weight file of it"):
        checkpoint.load(tmp_path / "st.safetensors")
    convert(tmp_path / "st.safetensors", "dncnn.gaussian", tmp_path / "o.safetensors")
    with pytest.raises(WeightsError, match="is a weight file of pellucid already"):
        convert(tmp_path / "o.safetensors", "dncnn.gaussian", tmp_path / "p.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "o.safetensors").read_bytes()[:-9])
    with pytest.raises(WeightsError, match="not a complete safetensors file .*; copy it again"):
        checkpoint.load(tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match="is not a weight file of pellucid"):
        checkpoint.load(theirs)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_state_dict_with_our_own_names_is_converted(suffix: str, tmp_path: Path) -> None:
    recipe = find("dncnn.gaussian", depth=3, width=4)
    state = {name: tensor.contiguous() for name, tensor in recipe.network().state_dict().items()}
    source, out = tmp_path / f"mine{suffix}", tmp_path / "out.safetensors"
    save_file(state, source) if suffix == ".safetensors" else torch.save(state, source)
    convert(source, "dncnn.gaussian", out, depth=3, width=4)
    loaded = checkpoint.load(out).network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    with pytest.raises(WeightsError, match=r"does not fit dncnn.gaussian .* depth=17"):
        convert(source, "dncnn.gaussian", tmp_path / "other.safetensors")
