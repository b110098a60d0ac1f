"""Graphs of ordinary weights: made once, kept, rebuilt when broken; and the choice of the fastest."""

import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import small_models
from pellucid.backends import graphs, selection
from pellucid.backends.model import Model
from pellucid.backends.selection import BackendChoice
from pellucid.errors import MissingExtraError, OutputError, PellucidError
from pellucid.pictures.picture import Picture
from pellucid.restoration import restorer
from pellucid.weights.checkpoint import WeightsMetadata

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return small_models.save_weights(tmp_path, "dncnn.gaussian")


def plan(seed: int = 0) -> Model:
    chosen, network = small_models.build("dncnn.gaussian")
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Model.of(network, chosen, WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0"))


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "graphs").glob("*.onnx"))


PICTURE = Picture(np.random.default_rng(0).random((30, 40, 3), np.float32))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_run_in_other_runtimes(weights: Path, backend: str) -> None:
    found = restorer.load(weights, backend=backend).restore(PICTURE).samples
    wanted = restorer.load(weights, device="cpu").restore(PICTURE).samples
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_torch_computes_in_half_precision(weights: Path) -> None:
    half = restorer.load(weights, device="cpu", precision="bfloat16")
    wanted = restorer.load(weights, device="cpu").restore(PICTURE).samples
    assert half.backend.name == "torch bfloat16 on cpu"
    assert 0 < np.abs(half.restore(PICTURE).samples - wanted).max() < 0.05


def test_a_graph_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = selection.graph(plan())
    monkeypatch.setattr(graphs, "to_onnx", None)  # calling it now fails
    assert selection.graph(plan()) == first and kept(cache) == [first]


def test_other_weights_have_another_graph(cache: Path) -> None:
    assert selection.graph(plan()) != selection.graph(plan(seed=1))
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("damage", [b"", b"broken"])
def test_a_broken_graph_is_made_anew(cache: Path, damage: bytes) -> None:
    path = selection.graph(plan())
    whole = path.read_bytes()
    path.write_bytes(damage or whole[:-9] + b"123456789")
    assert selection.graph(plan()).read_bytes() == whole and kept(cache) == [path]


def _make(cache: Path) -> str:
    torch.set_num_threads(1)
    return str(selection.graph(plan()))


def test_processes_that_ask_at_once_get_one_graph(cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        made = pool.map(_make, [cache] * 3)
    assert len(set(made)) == 1 and len(kept(cache)) == 1


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="the cache .*file cannot be written: .*PELLUCID_CACHE names another"):
        selection.graph(plan())


# Auto


def test_auto_takes_the_fastest_that_agrees(monkeypatch: pytest.MonkeyPatch, weights: Path, cache: Path) -> None:
    seconds = {"torch float32": 8.0, "torch bfloat16": 1.0, "onnxruntime float32": 4.0, "openvino float32": 5.0}
    monkeypatch.setattr(selection, "_seconds", lambda run, _: seconds[run.name.removesuffix(" on cpu")])
    ways = [tuple(name.split()) for name in seconds]
    monkeypatch.setattr(selection, "ways_of", lambda _: iter(ways))
    monkeypatch.setattr(selection, "LEAST_DB", 100)  # which bfloat16 does not reach
    chosen = restorer.load(weights, device="cpu", backend="auto")
    assert chosen.backend.name == "onnxruntime float32 on cpu"
    assert chosen.choice is not None and str(chosen.choice).startswith("onnxruntime in float32: 2.0x as fast")
    assert restorer.load(weights, device="cpu", backend="torch", precision="auto").backend.name.startswith(
        "torch float32"
    )
    monkeypatch.setattr(selection, "_measured", None)  # calling it now fails
    assert restorer.load(weights, device="cpu", backend="auto").choice == chosen.choice


def test_auto_works_as_it_is_measured_here(weights: Path) -> None:
    chosen = restorer.load(weights, device="cpu", precision="auto")
    assert chosen.choice is not None and chosen.choice.psnr_db >= selection.LEAST_DB
    wanted = restorer.load(weights, device="cpu").restore(PICTURE).samples
    np.testing.assert_allclose(chosen.restore(PICTURE).samples, wanted, rtol=0, atol=0.02)


def test_a_broken_choice_is_made_anew(weights: Path, cache: Path) -> None:
    restorer.load(weights, device="cpu", backend="openvino", precision="auto")
    (noted,) = (cache / "choices").glob("*.json")
    noted.write_text('{"backend": "openvino"}')
    restorer.load(weights, device="cpu", backend="openvino", precision="auto")
    assert BackendChoice(**json.loads(noted.read_text())).backend == "openvino"


def test_auto_takes_what_is_installed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    chosen = restorer.load(weights, device="cpu", backend="auto", precision="float32")
    assert chosen.backend.name == "torch float32 on cpu"
    with pytest.raises(MissingExtraError, match=r"pip install 'pellucid\[openvino\]'"):
        restorer.load(weights, backend="openvino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "no backend 'tensorrt'"),
        ({"precision": "float8"}, "no precision 'float8'"),
        ({"precision": "int8"}, "int8 is calibrated on pictures: 'pellucid export"),
        ({"backend": "onnxruntime", "precision": "bfloat16"}, "onnxruntime computes in float32 here"),
        ({"backend": "openvino", "device": "cuda:7"}, "device 'cuda:7'"),
    ],
)
def test_wrong_wishes_are_one_line(weights: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(PellucidError, match=message) as raised:
        restorer.load(weights, **options)
    assert "\n" not in str(raised.value)
