"""Graphs are created once and kept, and replaced if damaged; "auto" selects the fastest backend."""

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


def make_model(seed: int = 0) -> Model:
    chosen, network = small_models.build("dncnn.gaussian")
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Model.of(network, chosen, WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0"))


def cached_graphs(cache: Path) -> list[Path]:
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


def test_a_graph_is_created_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = selection.cache_graph(make_model())
    monkeypatch.setattr(graphs, "to_onnx", None)  # calling it would fail
    assert selection.cache_graph(make_model()) == first and cached_graphs(cache) == [first]


def test_other_weights_have_another_graph(cache: Path) -> None:
    assert selection.cache_graph(make_model()) != selection.cache_graph(make_model(seed=1))
    assert len(cached_graphs(cache)) == 2


@pytest.mark.parametrize("damage", [b"", b"broken"])
def test_a_damaged_graph_is_created_again(cache: Path, damage: bytes) -> None:
    path = selection.cache_graph(make_model())
    whole = path.read_bytes()
    path.write_bytes(damage or whole[:-9] + b"123456789")
    assert selection.cache_graph(make_model()).read_bytes() == whole and cached_graphs(cache) == [path]


def _cache_graph(cache: Path) -> str:
    torch.set_num_threads(1)
    return str(selection.cache_graph(make_model()))


def test_simultaneous_processes_share_one_graph(cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        paths = pool.map(_cache_graph, [cache] * 3)
    assert len(set(paths)) == 1 and len(cached_graphs(cache)) == 1


def test_a_cache_that_cannot_be_written_raises_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        OutputError,
        match="the cache .*cache cannot be written: Not a directory; set the environment variable",
    ):
        selection.cache_graph(make_model())


# Auto


def test_auto_selects_the_fastest_accurate_backend(
    monkeypatch: pytest.MonkeyPatch, weights: Path, cache: Path
) -> None:
    seconds = {"torch float32": 8.0, "torch bfloat16": 1.0, "onnxruntime float32": 4.0, "openvino float32": 5.0}
    monkeypatch.setattr(selection, "_time_s", lambda run, _: seconds[run.name.removesuffix(" on cpu")])
    candidates = [tuple(name.split()) for name in seconds]
    monkeypatch.setattr(selection, "list_candidates", lambda _: iter(candidates))
    monkeypatch.setattr(selection, "AUTO_MIN_PSNR_DB", 100)  # bfloat16 does not reach this
    chosen = restorer.load(weights, device="cpu", backend="auto")
    assert chosen.backend.name == "onnxruntime float32 on cpu"
    assert chosen.choice is not None and str(chosen.choice).startswith(
        "onnxruntime float32: 2.0x speedup over torch"
    )
    assert restorer.load(weights, device="cpu", backend="torch", precision="auto").backend.name.startswith(
        "torch float32"
    )
    monkeypatch.setattr(selection, "_measure_fastest", None)  # calling it would fail
    assert restorer.load(weights, device="cpu", backend="auto").choice == chosen.choice


def test_auto_works_with_real_measurements(weights: Path) -> None:
    chosen = restorer.load(weights, device="cpu", precision="auto")
    assert chosen.choice is not None and chosen.choice.psnr_db >= selection.AUTO_MIN_PSNR_DB
    wanted = restorer.load(weights, device="cpu").restore(PICTURE).samples
    np.testing.assert_allclose(chosen.restore(PICTURE).samples, wanted, rtol=0, atol=0.02)


def test_a_damaged_choice_is_replaced(weights: Path, cache: Path) -> None:
    restorer.load(weights, device="cpu", backend="openvino", precision="auto")
    (path,) = (cache / "choices").glob("*.json")
    path.write_text('{"backend": "openvino"}')
    restorer.load(weights, device="cpu", backend="openvino", precision="auto")
    assert BackendChoice(**json.loads(path.read_text())).backend == "openvino"


def test_auto_uses_only_installed_packages(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ({"precision": "int8"}, "int8 needs calibration on pictures.*; `pellucid export`"),
        (
            {"backend": "onnxruntime", "precision": "bfloat16"},
            "onnxruntime runs weight files in float32, not in bfloat16",
        ),
        ({"backend": "openvino", "device": "cuda:7"}, "device 'cuda:7'"),
    ],
)
def test_wrong_arguments_raise_a_one_line_error(weights: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(PellucidError, match=message) as raised:
        restorer.load(weights, **options)
    assert "\n" not in str(raised.value)
