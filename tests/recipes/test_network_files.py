"""Network files outside of the package: they run only if the user names them, and weight files remember them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pellucid import networks
from pellucid.backends.eager import TorchBackend
from pellucid.cli import app
from pellucid.errors import PellucidError, WeightsError
from pellucid.evaluation.evaluate import evaluate
from pellucid.exporting.export import export
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import network_files, registry
from pellucid.recipes.network_files import add_network
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer, load
from pellucid.weights import checkpoint

SOURCE = '''
from torch import Tensor, nn

from pellucid.degradations.standard import GaussianNoise
from pellucid.domains import Gray
from pellucid.recipes.losses import mean_absolute
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol, recipe
from pellucid.recipes.schedules import Constant


class Scaling(Network):
    scale, multiple, halo = 1, 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, degraded: Tensor) -> Tensor:
        return self.layer(degraded)


@recipe
def plain() -> Recipe:
    """Multiplies."""
    noise = GaussianNoise(9)
    training = {"optimizer": Adam(lr=1e-3), "schedule": Constant()}
    return Recipe(
        patch_px=16,
        batch_size=2,
        num_steps=2,
        network=Scaling,
        domain=Gray(),
        degradation=noise,
        loss=mean_absolute,
        protocol=ScoringProtocol(noise),
        **training,
    )
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A network file that is not added yet."""
    monkeypatch.setattr(network_files, "_added", {})
    (tmp_path / "scaling.py").write_text(SOURCE)
    yield tmp_path / "scaling.py"
    sys.modules.pop("pellucid.networks.scaling", None)
    vars(networks).pop("scaling", None)


def save_weights(file: Path) -> Path:
    add_network(file)
    recipe = registry.find("scaling.plain")
    metadata = checkpoint.WeightsMetadata(
        recipe.name, recipe.parameters, "random", "CC0", network_sha256=recipe.network_sha256
    )
    checkpoint.save(file.with_name("w.safetensors"), recipe.network(), metadata)
    return file.with_name("w.safetensors")


def test_recipes_of_an_added_file_have_names(file: Path) -> None:
    assert "scaling.plain" not in registry.list_names()
    added = add_network(str(file))
    assert "scaling.plain" in registry.list_names() and registry.summarize("scaling.plain") == "Multiplies."
    assert registry.find("scaling.plain", num_steps=7).num_steps == 7
    assert registry.find("scaling.plain").network_sha256 == added.sha256
    assert add_network(file) is added


def test_weights_remember_their_network_file_and_never_run_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_weights(file)
    restorer = load(path, device="cpu")
    assert restorer.overrides() == []
    monkeypatch.setattr(network_files, "_added", {})
    with pytest.raises(WeightsError, match=r"needs the network file scaling\.py \(SHA-256 [0-9a-f]{12}\)"):
        load(path)
    file.write_text(SOURCE + "\n# changed")
    add_network(file)
    (line,) = load(path, device="cpu").overrides()
    assert "scaling.py has changed since the weights were trained" in line


def test_a_graph_is_used_only_with_the_network_file_of_its_weights(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, graph = save_weights(file), file.with_name("w.onnx")
    export(weights, graph)
    assert load(graph).recipe.name == "scaling.plain"
    monkeypatch.setattr(network_files, "_added", {})
    with pytest.raises(WeightsError, match=r"w\.onnx needs the network file scaling\.py \(SHA-256 [0-9a-f]{12}\)"):
        load(graph)
    file.write_text(SOURCE + "\n# changed")
    added = add_network(file)
    for use in (lambda: load(graph), lambda: export(weights, file.with_name("new.onnx"))):
        with pytest.raises(WeightsError, match=f"needs .* not that of SHA-256 {added.sha256[:12]}"):
            use()
    assert not file.with_name("new.onnx").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("stop.py", "raise SystemExit(0)", "line 1: SystemExit: 0"),
        ("none.py", None, "does not exist"),
        ("dncnn.py", "", "there is another network dncnn; rename the file"),
        ("My-net.py", "", "is not a network file"),
        ("mine.txt", "", "is not a network file"),
        ("mine.py", "x = 1\nx = (", r"line 2: SyntaxError: '\(' was never closed$"),
        ("mine.py", "\n\n1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("mine.py", "import nothing_of_this_name", "line 1: ModuleNotFoundError"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(file: Path, name: str, content: str | None, message: str) -> None:
    path = file.parent / "more" / name
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(PellucidError, match=message):
        add_network(path)
    assert "mine" not in network_files.added_networks() and "pellucid.networks.mine" not in sys.modules


def test_two_files_cannot_have_the_same_name(file: Path) -> None:
    add_network(file)
    other = file.parent / "other" / "scaling.py"
    other.parent.mkdir()
    other.write_text(SOURCE + "\n")
    with pytest.raises(PellucidError, match="there is another network scaling"):
        add_network(other)


def test_commands_run_the_file_only_if_it_is_named(file: Path) -> None:
    folder = file.parent
    for i in range(2):
        samples = np.random.default_rng(i).integers(0, 256, (20, 24, 1), np.uint8)
        images.write(Picture(samples), folder / "data" / f"{i}.png")
    run = CliRunner().invoke
    train = ["train", "scaling.plain", "--data", f"{folder}/data", "--out", f"{folder}/run", "--tune", "off"]
    assert "no recipe 'scaling.plain'" in str(run(app, train).exception)
    result = run(app, [*train, "--network", str(file)])
    assert result.exit_code == 0, result.output
    assert f"{file} runs as code" in result.stderr and "scaling.plain" in result.stderr
    weights = f"{folder}/run/weights.safetensors"
    named = ["--network", str(file)]
    assert run(app, ["evaluate", weights, "--data", f"{folder}/data", *named]).exit_code == 0
    assert run(app, ["restore", f"{folder}/data/0.png", "--model", weights, *named]).exit_code == 0
    assert checkpoint.read_metadata(Path(weights)).network_sha256 == add_network(file).sha256


def test_the_network_of_a_restorer_is_a_differentiable_module(file: Path) -> None:
    restorer = load(save_weights(file), device="cpu")
    assert isinstance(restorer.network, torch.nn.Module)
    degraded = torch.rand(1, 1, 6, 7, requires_grad=True)
    restorer.network(degraded).sum().backward()
    weight = restorer.network.state_dict()["layer.weight"]
    assert degraded.grad is not None and torch.equal(degraded.grad, weight.expand(1, 1, 6, 7))
    restorer.network.requires_grad_()
    restorer.network(torch.rand(1, 1, 6, 7)).sum().backward()
    assert all(parameter.grad is not None for parameter in restorer.network.parameters())


def test_each_network_of_a_chain_has_its_own_model() -> None:
    recipe = registry.find("dncnn.gaussian", depth=3, width=4)
    restorer = Restorer("x", recipe, TorchBackend(recipe.network(), "cpu"))
    assert restorer.network(torch.rand(1, 1, 5, 5)).shape == (1, 1, 5, 5)
    with pytest.raises(PellucidError, match="is a chain of models"):
        _ = Restorer.chain([restorer, restorer]).network


def test_results_of_a_changed_file_are_not_those_of_the_former_one(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither graphs in the cache nor finished results are used after a change of the code."""
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    path = save_weights(file)
    picture, found = np.full((8, 9), 0.75, np.float32), []
    images.write(Picture.from_array(picture), tmp_path / "x.tif")
    (tmp_path / "data").mkdir()
    images.write(Picture.from_array(picture), tmp_path / "data" / "x.tif")
    for change in ("self.layer(degraded)", "1 - self.layer(degraded)"):
        monkeypatch.setattr(network_files, "_added", {})
        file.write_text(SOURCE.replace("return self.layer(degraded)", f"return {change}"))
        add_network(file)
        loaded = [load(path, backend=backend, device="cpu") for backend in ("torch", "onnxruntime")]
        found.append(([one.restore(picture) for one in loaded], loaded[0]))
    (first, before), (second, after) = found
    np.testing.assert_allclose(second, 1 - np.array(first), atol=1e-6)
    assert before.fingerprint() != after.fingerprint()
    record = tmp_path / "record.jsonl"
    scores = [evaluate(one, tmp_path / "data", record=record).by_seed[0][0].psnr_db for one in (before, after)]
    assert scores[0] != scores[1]
    (outcome,) = restore(tmp_path / "x.tif", before, tmp_path / "out")
    assert not outcome.error
    (outcome,) = restore(tmp_path / "x.tif", after, tmp_path / "out")
    assert "exists and was made by another model or with other settings" in str(outcome.error)
