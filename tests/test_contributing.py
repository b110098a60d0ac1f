"""The worked example in CONTRIBUTING.md: its network file works as it is printed there."""

import os
import re
import shutil
import subprocess
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


def read_example() -> str:
    """The network file in CONTRIBUTING.md."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert found is not None
    return textwrap.dedent(found[1])


@pytest.fixture
def unsharp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as a further file of the folder `networks`."""
    (tmp_path / "unsharp.py").write_text(read_example())
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(tmp_path)])
    yield
    sys.modules.pop("pellucid.networks.unsharp", None)
    vars(networks).pop("unsharp", None)


@pytest.mark.usefixtures("unsharp")
def test_the_recipe_is_found_by_its_name() -> None:
    assert "unsharp.gaussian_blur" in registry.list_names()
    result = CliRunner().invoke(app, ["recipes", "unsharp.gaussian_blur"], env={"COLUMNS": "200"})
    assert result.exit_code == 0 and "standard deviation of the noise" in result.output


def test_the_commands_of_the_example_pass_as_written(tmp_path: Path) -> None:
    """In a copy of the package: `pytest tests/test_networks.py -k unsharp`, and the tests of restoration."""
    source, copy = Path(networks.__file__).parent.parent, tmp_path / "pellucid"
    copy.mkdir()
    for path in source.iterdir():
        if path.name != "networks":
            (copy / path.name).symlink_to(path)
    shutil.copytree(source / "networks", copy / "networks")
    (copy / "networks" / "unsharp.py").write_text(read_example())
    tests = ["tests/test_networks.py", "tests/restoration/test_restorer.py", "-k", "unsharp"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and re.search(r"^([5-9]|\d\d) passed", result.stdout, re.MULTILINE), (
        result.stdout
    )


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
