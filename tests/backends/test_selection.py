"""Graphs are created once and kept, and replaced if damaged; "auto" selects the fastest backend."""

import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import small_models
from pellucid.backends import graphs, runtimes, selection
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


@pytest.fixture
def with_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graph runtimes are candidates for the small network, too."""
    monkeypatch.setattr(selection, "has_template", lambda _: True)


ALL = [
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
]


@pytest.mark.usefixtures("with_template")
@pytest.mark.parametrize(
    ("missing", "chosen"),
    [
        ((), "openvino float32"),
        (("openvino float32",), "onnxruntime float32"),
        (("openvino float32", "onnxruntime float32"), "torch float32"),
    ],
)
def test_auto_takes_the_first_backend_by_rule(
    monkeypatch: pytest.MonkeyPatch, weights: Path, missing: tuple[str, ...], chosen: str
) -> None:
    found = [candidate for candidate in ALL if " ".join(candidate) not in missing]
    monkeypatch.setattr(selection, "list_candidates", lambda _: iter(found))
    loaded = restorer.load(weights, device="cpu", backend="auto")
    assert loaded.backend.name == f"{chosen} on cpu"
    assert loaded.choice is not None and str(loaded.choice).startswith(chosen)
    monkeypatch.setattr(selection, "_compare_candidates", None)  # calling it would fail
    assert restorer.load(weights, device="cpu", backend="auto").choice == loaded.choice


@pytest.mark.usefixtures("with_template")
def test_auto_refuses_backends_that_are_not_close(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setattr(selection, "AUTO_MIN_PSNR_DB", 1000)
    loaded = restorer.load(weights, device="cpu", backend="auto", precision="auto")
    assert loaded.backend.name == "torch float32 on cpu"
    monkeypatch.setattr(selection, "list_candidates", lambda _: iter([("torch", "bfloat16")]))
    with pytest.raises(
        PellucidError, match=r"^torch bfloat16 reaches \d\d\.\d dB against torch float32, less than"
    ) as raised:
        restorer.load(weights, device="cpu", backend="auto", precision="bfloat16")
    assert "use it anyway by backend='torch'" in str(raised.value)


def test_graph_runtimes_are_candidates_only_if_the_graph_ships(weights: Path) -> None:
    assert restorer.load(weights, device="cpu", backend="auto").backend.name == "torch float32 on cpu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "capture", None)  # calling it would fail
        shipped = restorer.load("srcnn-x2", device="cpu", backend="auto")
    assert shipped.backend.name.startswith("openvino")


@pytest.mark.usefixtures("with_template")
def test_half_precision_is_chosen_on_request_and_accepts_only_its_own_results(
    monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    monkeypatch.setattr(selection, "list_candidates", lambda _: iter(ALL))
    loaded = restorer.load(weights, device="cpu", precision="auto")
    assert loaded.backend.name == "openvino bfloat16 on cpu"
    assert loaded.accepted_fingerprints() == [loaded.fingerprint()]
    exact = restorer.load(weights, device="cpu", backend="auto")
    assert loaded.fingerprint() not in exact.accepted_fingerprints()


@pytest.mark.usefixtures("with_template")
def test_a_runtime_that_does_not_work_is_passed_over(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PellucidError("broken")

    before = restorer.load(weights, device="cpu", backend="auto")
    assert before.backend.name.startswith("openvino")  # this choice is kept
    monkeypatch.setattr(selection, "cache_graph", fail)
    assert restorer.load(weights, device="cpu", backend="auto").backend.name == "torch float32 on cpu"
    with pytest.raises(PellucidError, match="broken"):
        restorer.load(weights, device="cpu", backend="openvino")


@pytest.mark.usefixtures("with_template")
def test_a_runtime_that_cannot_be_imported_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise MissingExtraError("OpenVINO", "openvino")

    monkeypatch.setattr(runtimes, "import_optional", fail)
    assert ("openvino", "float32") not in [*selection.list_candidates("cpu")]


@pytest.mark.usefixtures("with_template")
def test_auto_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "file" / "cache"))
    assert restorer.load(weights, device="cpu", backend="auto").backend.name == "torch float32 on cpu"


@pytest.mark.parametrize("size", [(36, 4), (64, 1), (1, 64), (128, 4)])
def test_narrow_pictures_are_right_in_half_precision(size: tuple[int, int]) -> None:
    """OpenVINO's kernels for AMX are wrong for a single column; this needs a processor that has them."""
    half = restorer.load("mimo-unet-small", device="cpu", backend="openvino", precision="bfloat16")
    wanted = restorer.load("mimo-unet-small", device="cpu")
    picture = Picture(np.random.default_rng(0).random((*size, 3), np.float32))
    np.testing.assert_allclose(half.restore(picture).samples, wanted.restore(picture).samples, rtol=0, atol=0.05)


def test_the_choice_accepts_results_of_all_candidates() -> None:
    shipped = restorer.load("srcnn-x2", device="cpu", backend="auto")
    accepted = shipped.accepted_fingerprints()
    for backend in selection.BACKENDS:
        assert restorer.load("srcnn-x2", device="cpu", backend=backend).fingerprint() in accepted
    assert restorer.load("srcnn-x3", device="cpu").fingerprint() not in accepted
    exact = restorer.load("srcnn-x2", device="cpu")
    assert exact.accepted_fingerprints() == [exact.fingerprint()]


def test_auto_works_without_patches(weights: Path) -> None:
    chosen = restorer.load(weights, device="cpu", precision="auto")
    assert chosen.choice is not None and chosen.choice.psnr_db >= selection.AUTO_MIN_PSNR_DB
    wanted = restorer.load(weights, device="cpu").restore(PICTURE).samples
    np.testing.assert_allclose(chosen.restore(PICTURE).samples, wanted, rtol=0, atol=0.02)


@pytest.mark.usefixtures("with_template")
def test_a_damaged_choice_is_replaced(weights: Path, cache: Path) -> None:
    restorer.load(weights, device="cpu", backend="openvino", precision="auto")
    (path,) = (cache / "choices").glob("*.json")
    path.write_text('{"backend": "openvino"}')
    restorer.load(weights, device="cpu", backend="openvino", precision="auto")
    assert BackendChoice(**json.loads(path.read_text())).backend == "openvino"


@pytest.mark.usefixtures("with_template")
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
