"""Other runtimes give PyTorch's results at every size, also in tiles; errors are one line."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import small_models
from pellucid.backends import parity, runtimes
from pellucid.backends.backend import Backend
from pellucid.backends.eager import TorchBackend
from pellucid.backends.metadata import STORED_WEIGHTS
from pellucid.errors import (
    ArgumentError,
    MissingExtraError,
    NotEnoughMemoryError,
    PellucidError,
    PictureError,
    WeightsError,
)
from pellucid.exporting import export as exporting
from pellucid.pictures.camera.packing import BAYER
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration import restorer
from pellucid.restoration.one_picture import restore_crop
from pellucid.restoration.restore import check_files
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.settings import Settings

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SUFFIXES = (".onnx", ".xml")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every small network in both formats, by NAME.SUFFIX."""
    folder = tmp_path_factory.mktemp("models")
    written = {}
    for name in small_models.RECIPES:
        weights = small_models.save_weights(folder, name)
        for suffix in SUFFIXES:
            written[f"{name}{suffix}"] = exporting.export(weights, folder / f"{name}{suffix}").path
    return written


@pytest.fixture(scope="module")
def restorers(files: dict[str, Path]) -> dict[str, Restorer]:
    return {name: restorer.load(path) for name, path in files.items()}


ALL = [f"{name}{suffix}" for name in small_models.RECIPES for suffix in SUFFIXES]


def make_degraded(chosen: Restorer, height: int, width: int, channels: int = 3) -> Picture | Mosaic:
    rng = np.random.default_rng(height * width)
    if chosen.recipe.domain.takes_mosaic:
        return Mosaic(rng.random((height + 2, width + 2), np.float32), BAYER, 0.0, 1.0)
    return Picture(rng.random((height, width, channels), np.float32))


@pytest.mark.parametrize("name", ALL)
def test_an_exported_file_restores_as_its_weights_do(
    files: dict[str, Path], restorers: dict[str, Restorer], name: str
) -> None:
    exported, original = restorers[name], restorer.load(files[name].with_suffix(".safetensors"), device="cpu")
    assert exported.metadata is not None and original.metadata is not None
    assert (exported.metadata.license, exported.metadata.scores) == ("CC0", original.metadata.scores)
    assert exported.recipe.parameters == original.recipe.parameters
    for size in ((1, 1), (23, 40), (64, 64)):
        picture = make_degraded(original, *size)
        found, wanted = (chosen.restore(picture).samples for chosen in (exported, original))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile_px=st.integers(12, 60))
def test_tiles_equal_the_whole_picture_within_1e_6(
    restorers: dict[str, Restorer], name: str, height: int, width: int, tile_px: int
) -> None:
    picture = make_degraded(restorers[name], height, width)
    whole, tiled = (restorers[name].restore(picture, tile_px=side).samples for side in (10_000, tile_px))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-6)


def test_all_three_are_backends(files: dict[str, Path]) -> None:
    path = files["srcnn.paper.onnx"]
    metadata = runtimes.read_metadata(path)
    _, network = metadata.resolve(source=path)
    chosen, weights = small_models.build("srcnn.paper")
    backends: list[Backend] = [
        TorchBackend(weights, "cpu"),
        runtimes.OnnxBackend(path, metadata, network),
        runtimes.OpenVinoBackend(path, metadata, network),
    ]
    degraded = parity.synthetic_inputs(chosen, 48)
    wanted = backends[0](degraded)
    shape = (1, 1, 400, 400)
    exact_bytes = backends[0].working_bytes(shape)
    for backend in backends:
        assert (backend.scale, backend.multiple, backend.halo) == (1, 1, 6)
        assert backend.device.type == "cpu"
        torch.testing.assert_close(backend(degraded), wanted, rtol=0, atol=2e-6)
        for available_bytes in (0, exact_bytes, 10**12):
            found_bytes = backend.working_bytes(shape, available_bytes=available_bytes)
            assert found_bytes == backends[0].working_bytes(shape, available_bytes=available_bytes)
    assert len({backend.fingerprint() for backend in backends}) == len({backend.name for backend in backends}) == 3


@pytest.fixture
def openvino_provider(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """ONNX Runtime as if it had the provider openvino; returns with which providers sessions were opened."""
    import onnxruntime

    opened: list[object] = []

    class Session:
        def __init__(self, path: str, options: object, providers: list[tuple[str, dict[str, str]]]) -> None:
            opened.append(providers[0][0])
            self._session = original(path, options, providers=["CPUExecutionProvider"])
            self._providers = [provider for provider, _ in providers]

        def get_providers(self) -> list[str]:
            return self._providers

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    original, names = onnxruntime.InferenceSession, ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    return opened


def test_a_file_on_another_device_is_compared_with_the_cpu(
    files: dict[str, Path],
    restorers: dict[str, Restorer],
    openvino_provider: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = files["srcnn.paper.onnx"]
    found = restorer.load(path, device="openvino")
    assert openvino_provider == ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    assert found.backend.name == "onnxruntime float32 on openvino"
    assert found.fingerprint() != restorers["srcnn.paper.onnx"].fingerprint()
    picture = make_degraded(found, 30, 20)
    np.testing.assert_array_equal(
        found.restore(picture).samples, restorers["srcnn.paper.onnx"].restore(picture).samples
    )
    monkeypatch.setattr(parity, "compare", lambda *_: parity.Agreement(0.1, 30.0, 1))
    with pytest.raises(PellucidError, match=r"on openvino have a PSNR of only 30.0 dB against those on the CPU"):
        restorer.load(path, device="openvino")


@pytest.mark.parametrize("name", ["dncnn.gaussian.xml", "dncnn.gaussian.onnx"])
def test_several_threads_can_use_a_restorer(files: dict[str, Path], name: str) -> None:
    chosen = restorer.load(files[name])
    pictures = [np.random.default_rng(seed).integers(0, 256, (90, 100), np.uint8) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(chosen.restore, pictures))
    assert all(np.array_equal(one, chosen.restore(given)) for one, given in zip(found, pictures, strict=True))


@pytest.mark.parametrize("name", ["dncnn.gaussian.xml", "dncnn.gaussian.onnx"])
def test_a_restorer_that_cannot_be_pickled_says_so(files: dict[str, Path], name: str) -> None:
    with pytest.raises(PellucidError, match="cannot be pickled; load it again where it is needed"):
        pickle.dumps(restorer.load(files[name]))


def test_the_fingerprint_changes_with_the_file(files: dict[str, Path], tmp_path: Path) -> None:
    path = files["srcnn.paper.xml"]
    before = restorer.load(path).backend.fingerprint()
    for suffix in (".xml", ".bin"):
        (tmp_path / path.with_suffix(suffix).name).write_bytes(path.with_suffix(suffix).read_bytes())
    assert restorer.load(tmp_path / path.name).backend.fingerprint() == before
    text = (tmp_path / path.name).read_text()
    (tmp_path / path.name).write_text(text.replace("</net>", " </net>"))
    assert restorer.load(tmp_path / path.name).backend.fingerprint() != before


def test_changed_weights_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    message = "its weights do not have the hash in its metadata; export it again"
    model = onnx.load(files["dncnn.gaussian.onnx"])
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights.flat[0] += 1
    model.graph.initializer[0].raw_data = weights.tobytes()
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(WeightsError, match=message):
        restorer.load(tmp_path / "changed.onnx")
    path = files["dncnn.gaussian.xml"]
    (tmp_path / "changed.xml").write_bytes(path.read_bytes())
    content = bytearray(path.with_suffix(".bin").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        restorer.load(tmp_path / "changed.xml")


def test_openvino_runs_onnx_files(files: dict[str, Path]) -> None:
    chosen = restorer.load(files["dncnn.gaussian.onnx"], backend="openvino")
    assert chosen.backend.name == "openvino float32 on cpu"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dncnn.gaussian.xml", {"backend": "onnxruntime"}, "runs in openvino, not in onnxruntime"),
        ("dncnn.gaussian.onnx", {"backend": "torch"}, "runs in onnxruntime or openvino, not in torch"),
        ("dncnn.gaussian.onnx", {"backend": "tensorrt"}, "no backend 'tensorrt'; known: auto, torch"),
        ("dncnn.gaussian.onnx", {"precision": "bfloat16"}, "computes in float32, not bfloat16"),
        ("dncnn.gaussian.onnx", {"depth": 5}, "; export it again"),
        ("dncnn.gaussian.onnx", {"sigma": 5}, "has no keyword"),
    ],
)
def test_wrong_arguments_raise_a_one_line_error(
    files: dict[str, Path], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PellucidError, match=message) as raised:
        restorer.load(files[name], **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_with_a_fixed_shape_restores_larger_pictures_in_windows(
    suffix: str, files: dict[str, Path], tmp_path: Path
) -> None:
    weights = files["dncnn.gaussian.onnx"].with_suffix(".safetensors")
    free = restorer.load(weights)
    height, width = 2 * free.halo_px + 8, 2 * free.halo_px + 5
    path = exporting.export(weights, tmp_path / f"a{suffix}", shape=(2, 1, height, width)).path
    fixed = restorer.load(path)
    degraded = make_degraded(fixed, 3 * height + 1, 2 * width + 3, channels=1)
    wanted = free.restore(degraded).samples
    np.testing.assert_allclose(fixed.restore(degraded).samples, wanted, atol=2e-6)
    found = fixed.restore(degraded, ensemble=True, tile_px=2 * height).samples
    np.testing.assert_allclose(found, free.restore(degraded, ensemble=True).samples, atol=2e-6)


def test_parts_of_a_picture_are_restored_by_a_file_with_a_fixed_shape(
    files: dict[str, Path], tmp_path: Path
) -> None:
    weights = files["dncnn.gaussian.onnx"].with_suffix(".safetensors")
    fixed = restorer.load(exporting.export(weights, tmp_path / "a.onnx", shape=(1, 1, 40, 40)).path)
    degraded = make_degraded(fixed, 90, 100, channels=1)
    whole = restorer.load(weights).restore(degraded).samples
    found = restore_crop(fixed, degraded, 50, 60, 10, 20).samples
    np.testing.assert_allclose(found, whole[60:80, 50:60], atol=2e-6)


class Scarce(runtimes.OnnxBackend):
    """A backend on a machine without memory for more than this many pixels."""

    def __call__(self, degraded: torch.Tensor) -> torch.Tensor:
        if degraded.shape[-1] * degraded.shape[-2] > 75 * 75:
            raise NotEnoughMemoryError("not enough memory for a tile")
        return super().__call__(degraded)


@pytest.mark.parametrize("size", [(81, 81), (60, 100), (200, 90)])
def test_smaller_tiles_still_contain_a_fixed_shape(
    size: tuple[int, int], files: dict[str, Path], tmp_path: Path
) -> None:
    weights = files["dncnn.gaussian.onnx"].with_suffix(".safetensors")
    fixed = restorer.load(exporting.export(weights, tmp_path / "a.onnx", shape=(1, 1, 40, 40)).path)
    fixed.models[0].backend.__class__ = Scarce
    degraded = make_degraded(fixed, *size, channels=1)
    wanted = restorer.load(weights).restore(degraded).samples
    np.testing.assert_allclose(fixed.restore(degraded).samples, wanted, atol=2e-6)


def test_a_file_with_a_fixed_shape_refuses_small_pictures_and_small_tiles(
    files: dict[str, Path], tmp_path: Path
) -> None:
    weights = files["dncnn.gaussian.onnx"].with_suffix(".safetensors")
    fixed = restorer.load(exporting.export(weights, tmp_path / "a.onnx", shape=(1, 1, 40, 50)).path)
    with pytest.raises(PictureError, match="width of the network's input is 49 px.* for 50, which is more"):
        fixed.restore(make_degraded(fixed, 60, 49, channels=1))
    with pytest.raises(PictureError, match="width .* 49 px"):  # transposed by the ensemble
        fixed.restore(make_degraded(fixed, 49, 60, channels=1), ensemble=True)
    with pytest.raises(ArgumentError, match="tiles of 99 px are too small .* tile_px=100 is large enough"):
        fixed.restore(make_degraded(fixed, 60, 60, channels=1), tile_px=99)
    with pytest.raises(ArgumentError, match="tiles of 99 px are too small"):  # before any work
        next(check_files([], fixed, Settings(tile_px=99), overwrite=False))
    with pytest.raises(NotEnoughMemoryError, match="smallest tile"):
        fixed.restore(make_degraded(fixed, 600, 600, channels=1), memory_bytes=10**6)


def write_foreign(path: Path) -> None:
    """An ONNX file of another program."""
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [info], [out])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def test_other_files_raise_a_one_line_error(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["srcnn.paper.onnx"].read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "alone.xml").write_bytes(files["srcnn.paper.xml"].read_bytes())
    (tmp_path / "text.xml").write_text("<net>")
    (tmp_path / "text.bin").touch()
    (tmp_path / "folder.xml").mkdir()
    expected = {
        "cut.onnx": "is not a model that onnx can load",
        "text.onnx": "is not a model that onnx can load",
        "empty.onnx": r"empty.onnx is empty; export or copy it again$",
        "alone.xml": "needs alone.bin, the file with its weights, next to it",
        "text.xml": r"is not a model that openvino can load: (?!Exception).*; export or copy it again$",
        "folder.xml": "is a folder",
        "absent.onnx": "does not exist",
    }
    for name, message in expected.items():
        with pytest.raises(WeightsError, match=message) as raised:
            restorer.load(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_weights_in_other_files_are_rejected(files: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(files["srcnn.paper.onnx"])
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="elsewhere.bin", size_threshold=0)
    with pytest.raises(WeightsError, match="refers to weights in other files"):
        restorer.load(tmp_path / "a.onnx")


def test_a_foreign_graph_with_our_metadata_raises_a_one_line_error(files: dict[str, Path], tmp_path: Path) -> None:
    model, other = onnx.load(files["srcnn.paper.onnx"]), tmp_path / "a.onnx"
    write_foreign(other)
    changed = onnx.load(other)
    changed.metadata_props.extend(e for e in model.metadata_props if not e.key.endswith(STORED_WEIGHTS))
    onnx.save(changed, other)
    with pytest.raises(PellucidError, match="onnxruntime cannot run the model"):
        restorer.load(other).restore(Picture(np.zeros((4, 4, 1), np.uint8)))


def test_tiles_shrink_when_memory_runs_out(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = restorer.load(files["dncnn.gaussian.onnx"])
    picture = make_degraded(chosen, 50, 60, 1)
    wanted = chosen.restore(picture).samples
    assert isinstance(chosen.backend, runtimes.OnnxBackend)
    run = chosen.backend._run

    def run_in_little_memory(part: Any) -> Any:
        if part.shape[-1] > 40:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return run(part)

    monkeypatch.setattr(chosen.backend, "_run", run_in_little_memory)
    np.testing.assert_allclose(chosen.restore(picture).samples, wanted, rtol=0, atol=1e-6)
    with pytest.raises(NotEnoughMemoryError, match="smaller tiles"):
        chosen.backend(torch.zeros(1, 1, 50, 60))


@pytest.mark.parametrize(
    ("suffix", "package"), [(".onnx", "onnxruntime"), (".onnx", "onnx"), (".xml", "openvino")]
)
def test_a_missing_package_is_named_with_the_pip_command(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, suffix: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pellucid\[(onnx|openvino)\]'"):
        restorer.load(files[f"srcnn.paper{suffix}"])


def test_a_precision_that_the_runtime_does_not_compute_in_is_named(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = small_models.save_weights(tmp_path, "srcnn.paper")
    monkeypatch.setattr(runtimes, "supported_precisions", lambda device: {"f32"})
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    line = "openvino computes in float32: this CPU does not support bfloat16"
    chosen = restorer.load(weights, device="cpu", backend="openvino", precision="bfloat16")
    assert chosen.describe_backends() == [line]
    assert Restorer.of([*chosen.models, *chosen.models]).describe_backends() == [f"{chosen.name}: {line}"] * 2
    half = exporting.export(weights, tmp_path / "half.onnx", precision="float16")
    assert half.note is not None and half.note.startswith("onnxruntime computes float16 in float32")
    assert not restorer.load(files["srcnn.paper.onnx"]).describe_backends()
    monkeypatch.setattr(runtimes, "supported_precisions", lambda device: {"f32", "bf16"})
    chosen = restorer.load(weights, device="cpu", backend="openvino", precision="bfloat16")
    assert not chosen.describe_backends()
