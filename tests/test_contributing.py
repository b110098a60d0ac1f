"""The worked example in CONTRIBUTING.md: its network file works as it is printed there."""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pellucid import networks
from pellucid.cli import app
from pellucid.recipes import registry
from pellucid.recipes.network import Network

ROOT = Path(__file__).parent.parent


@pytest.fixture
def unsharp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as a further file of the folder `networks`."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "unsharp.py").write_text(textwrap.dedent(found[1]))
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(tmp_path)])
    yield
    sys.modules.pop("pellucid.networks.unsharp", None)
    vars(networks).pop("unsharp", None)


@pytest.mark.usefixtures("unsharp")
def test_the_recipe_is_found_by_its_name() -> None:
    assert "unsharp.gaussian_blur" in registry.list_names()
    result = CliRunner().invoke(app, ["recipes", "unsharp.gaussian_blur"], env={"COLUMNS": "200"})
    assert result.exit_code == 0 and "standard deviation of the noise" in result.output


@pytest.mark.usefixtures("unsharp")
def test_the_halo_is_as_large_as_needed() -> None:
    network = registry.find("unsharp.gaussian_blur").network()
    assert isinstance(network, Network)
    degraded = torch.rand(1, 1, 9, 9, requires_grad=True)
    network(degraded)[0, 0, 4, 4].backward()
    assert degraded.grad is not None
    rows = degraded.grad[0, 0].any(dim=1).nonzero()
    assert (rows.min().item(), rows.max().item()) == (4 - network.halo, 4 + network.halo)
    assert network(torch.rand(1, 1, 1, 1)).shape == (1, 1, 1, 1)
