"""ONNX files of other programs: exact in tiles, in the colors and the range that they need, or refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import cli
from pellucid.backends import probing
from pellucid.backends.foreign_graphs import ForeignBackend
from pellucid.backends.graph_memory import count_bytes_per_pixel
from pellucid.errors import ArgumentError, PellucidError, RecipeError, WeightsError
from pellucid.pictures.color import rgb_to_ycbcr
from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import resize

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import onnx_files  # noqa: E402  # after the packages that it needs

RNG = np.random.default_rng(0)
PICTURE = RNG.random((61, 90, 3), np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _run_directly(path: Path, planes: np.ndarray) -> np.ndarray:
    """The graph in ONNX Runtime, without pellucid."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: planes})[0]


@pytest.mark.parametrize("save", [onnx_files.save_smoothing, onnx_files.save_enlarging, onnx_files.save_strided])
def test_tiles_equal_the_graph_on_the_whole_picture(save: Callable[[Path], Path], tmp_path: Path) -> None:
    path = save(tmp_path / "other.onnx")
    restorer = pellucid.load(path, range="0..1")
    given = PICTURE[:60, :88]  # multiples of 4
    expected = _run_directly(path, given.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    for tile_px in (16, 40, 200):
        np.testing.assert_allclose(restorer.restore(given, tile_px=tile_px), expected, rtol=0, atol=2e-6)


def test_sides_that_the_graph_does_not_accept_are_padded(tmp_path: Path) -> None:
    restorer = pellucid.load(onnx_files.save_strided(tmp_path / "other.onnx"), range="0..1")
    whole = restorer.restore(PICTURE)
    assert whole.shape == PICTURE.shape
    np.testing.assert_allclose(restorer.restore(PICTURE, tile_px=20), whole, rtol=0, atol=2e-6)


def test_colors_and_range_are_those_of_the_network(tmp_path: Path) -> None:
    graph = onnx_files.Graph()  # adds 0.1, 0.2 and 0.3 to the three channels
    shift = graph.constant(np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 3, 1, 1))
    path = graph.save(tmp_path / "other.onnx", graph.node("Add", "x", shift))
    given = np.full((8, 8, 3), 0.5, np.float32)

    def shifts(**keywords: str) -> list[float]:
        return [float(value) for value in pellucid.load(path, **keywords).restore(given)[4, 4] - 0.5]

    assert shifts(range="0..1") == pytest.approx([0.1, 0.2, 0.3], abs=1e-6)
    assert shifts(range="0..1", colors="bgr") == pytest.approx([0.3, 0.2, 0.1], abs=1e-6)
    assert shifts(range="0..255") == pytest.approx([0.1 / 255, 0.2 / 255, 0.3 / 255], abs=1e-6)
    assert shifts(range="-1..1") == pytest.approx([0.05, 0.1, 0.15], abs=1e-6)


def test_a_range_that_does_not_fit_is_not_assumed(tmp_path: Path) -> None:
    graph = onnx_files.Graph()  # the square root of x / 255, times 255: nearly white if x is from 0 to 1
    white = graph.constant(np.float32(255))
    clipped = graph.node("Relu", "x")
    rooted = graph.node("Sqrt", graph.node("Mul", clipped, white))
    mixed = graph.node("Add", graph.node("Mul", "x", graph.constant(np.float32(0.9))), graph.node(
        "Mul", rooted, graph.constant(np.float32(0.1))
    ))  # fmt: skip
    path = graph.save(tmp_path / "other.onnx", mixed)
    restorer = pellucid.load(path)
    assert restorer.recipe.parameters["range"] == "0..255"
    assert "assumed: colors=rgb and range=0..255" in restorer.describe_backends()[0]


def test_files_that_return_nan_are_refused(tmp_path: Path) -> None:
    graph = onnx_files.Graph()
    zero = graph.node("Sub", "x", "x")
    path = graph.save(tmp_path / "nan.onnx", graph.node("Div", zero, zero))
    with pytest.raises(WeightsError, match="returns NaN or infinity"):
        pellucid.load(path)


def test_pictures_that_do_not_resemble_their_input_need_a_range(tmp_path: Path) -> None:
    graph = onnx_files.Graph()
    path = graph.save(tmp_path / "other.onnx", graph.node("Neg", "x"))
    with pytest.raises(
        WeightsError, match="do not resemble its input in any range .*state one: the range can be 0..1"
    ):
        pellucid.load(path)
    restored = pellucid.load(path, range="0..1").restore(PICTURE)
    np.testing.assert_allclose(restored, -PICTURE, rtol=0, atol=1e-6)


def test_one_plane_that_enlarges_is_luma(tmp_path: Path) -> None:
    path = onnx_files.save_enlarging(tmp_path / "other.onnx", planes=1, scale=3)
    restorer = pellucid.load(path, range="0..1")
    assert restorer.recipe.parameters["colors"] == "y"
    restored = torch.from_numpy(restorer.restore(PICTURE, tile_px=25)).permute(2, 0, 1)[None]
    ycbcr = rgb_to_ycbcr(torch.from_numpy(PICTURE).permute(2, 0, 1)[None])
    luma = torch.from_numpy(_run_directly(path, ycbcr[:, :1].numpy()))
    found = rgb_to_ycbcr(restored)
    torch.testing.assert_close(found[:, :1], luma, rtol=0, atol=2e-6)
    torch.testing.assert_close(found[:, 1:], resize(ycbcr[:, 1:], 3), rtol=0, atol=2e-6)
    plane_by_plane = pellucid.load(path, range="0..1", colors="gray").restore(PICTURE)
    expected = _run_directly(path, PICTURE.transpose(2, 0, 1)[:, None])[:, 0].transpose(1, 2, 0)
    np.testing.assert_allclose(plane_by_plane, expected, rtol=0, atol=2e-6)


def test_channels_last_and_half_precision_are_read_from_the_file(tmp_path: Path) -> None:
    graph = onnx_files.Graph()
    half = graph.node("Mul", "x", graph.constant(np.float16(0.5)))
    path = graph.save(tmp_path / "other.onnx", half, shape=("n", "h", "w", 3), dtype=onnx.TensorProto.FLOAT16)
    restored = pellucid.load(path, range="0..1").restore(PICTURE)
    np.testing.assert_allclose(restored, PICTURE / 2, rtol=0, atol=1e-3)


def test_a_batch_of_one_takes_planes_one_by_one(tmp_path: Path) -> None:
    graph = onnx_files.Graph()
    path = graph.save(tmp_path / "other.onnx", graph.conv("x", 1, 1), shape=(1, 1, "h", "w"))
    restored = pellucid.load(path, range="0..1", colors="gray").restore(PICTURE)
    expected = np.stack([_run_directly(path, PICTURE[None, None, :, :, i])[0, 0] for i in range(3)], axis=-1)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=2e-6)


def test_a_network_that_sees_the_whole_picture_has_no_tiles(tmp_path: Path) -> None:
    path = onnx_files.save_global(tmp_path / "other.onnx")
    restorer = pellucid.load(path, range="0..1")
    assert "depends on the whole picture" in restorer.describe_backends()[0]
    expected = _run_directly(path, PICTURE.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    np.testing.assert_allclose(restorer.restore(PICTURE), expected, rtol=0, atol=2e-6)
    with pytest.raises(ArgumentError, match="depends on the whole picture.*omit tile_px, or set halo_px"):
        restorer.restore(PICTURE, tile_px=32)
    approximate = restorer.restore(PICTURE, tile_px=32, halo_px=8)
    assert 0 < abs(approximate - expected).max() < 0.2


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_files.save_enlarging(tmp_path / "other.onnx")
    first = ForeignBackend(path)
    monkeypatch.setattr(probing, "measure_reach", None)  # calling it would fail
    again = ForeignBackend(path)
    assert (again.scale, again.halo, again.multiple) == (first.scale, first.halo, first.multiple) == (4, 2, 1)
    with pytest.raises(TypeError):  # another range
        ForeignBackend(path, range="0..255")


def test_fingerprints_differ_with_the_file_and_its_keywords(tmp_path: Path) -> None:
    one = onnx_files.save_smoothing(tmp_path / "one.onnx")
    other = onnx_files.save_enlarging(tmp_path / "other.onnx")
    backends = [ForeignBackend(one), ForeignBackend(one, colors="bgr"), ForeignBackend(other)]
    assert len({backend.fingerprint() for backend in backends}) == 3


def test_weights_may_be_in_another_file(tmp_path: Path) -> None:
    path = onnx_files.save_smoothing(tmp_path / "inside.onnx")
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = pellucid.load(outside, range="0..1")
    np.testing.assert_array_equal(found.restore(PICTURE), pellucid.load(path, range="0..1").restore(PICTURE))
    before = found.fingerprint()
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    assert pellucid.load(outside, range="0..1").fingerprint() != before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(WeightsError, match=r"its weights are in weights\.bin, which is not next to it"):
        pellucid.load(outside, range="0..1")


def test_memory_is_that_of_the_features_that_exist_at_the_same_time(tmp_path: Path) -> None:
    # The output of a convolution and of its ReLU, 6 planes each; 48 planes, and as many samples when enlarged.
    assert count_bytes_per_pixel(onnx_files.save_smoothing(tmp_path / "a.onnx")) == 4 * 12
    assert count_bytes_per_pixel(onnx_files.save_enlarging(tmp_path / "b.onnx")) == 4 * 96


def test_files_that_take_no_picture_are_refused_in_one_line(tmp_path: Path) -> None:
    def check(message: str, **options: object) -> None:
        graph = onnx_files.Graph()
        path = graph.save(tmp_path / "other.onnx", graph.node("Identity", "x"), **options)  # type: ignore[arg-type]
        with pytest.raises(PellucidError, match=message) as error:
            pellucid.load(path)
        assert "\n" not in str(error.value)

    check(r"takes 2 inputs \(x, y\); one picture is needed", more_inputs=["y"])
    check(r"only takes pictures of n x 3 x 224 x 224", shape=("n", 3, 224, 224))
    check("takes pictures of 4 channels", shape=("n", 4, "h", "w"))
    check(r"takes tensor\(uint8\) of", dtype=onnx.TensorProto.UINT8)
    check(r"takes tensor\(float\) of n x 3", shape=("n", 3))
    path = onnx_files.save_smoothing(tmp_path / "other.onnx")
    with pytest.raises(RecipeError, match="other.onnx has no keyword 'color'; did you mean colors"):
        pellucid.load(path, color="bgr")
    with pytest.raises(RecipeError, match="range=2 is not possible"):
        pellucid.load(path, range=2)
    with pytest.raises(RecipeError, match=r"takes 3 channels, so its colors can be rgb or bgr, not y"):
        pellucid.load(path, colors="y")
    for keywords in ({"backend": "openvino"}, {"precision": "bfloat16"}):
        with pytest.raises(WeightsError, match="other.onnx, a file of another program"):
            pellucid.load(path, **keywords)


@pytest.mark.parametrize(
    ("kind", "options", "returned", "message"),
    [
        ("ReduceMean", {"keepdims": 0}, [], "the output has 0 dimensions; a picture has 4"),
        ("Concat", {"axis": 1}, [1, 2, "h", "w"], "takes pictures of 1 channel and returns 2"),
        ("Nothing", {"domain": "own"}, [1, 1, "h", "w"], r"can load: [^\[]*Nothing"),
    ],
)
def test_graphs_that_return_no_picture_are_one_line(
    kind: str, options: dict[str, Any], returned: list[int | str], message: str, tmp_path: Path
) -> None:
    of, helper = onnx.TensorProto.FLOAT, onnx.helper
    given = helper.make_tensor_value_info("x", of, [1, 1, "h", "w"])
    output = helper.make_tensor_value_info("y", of, returned)
    sources = ["x", "x"] if kind == "Concat" else ["x"]
    graph = helper.make_graph([helper.make_node(kind, sources, ["y"], **options)], "g", [given], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match=message) as raised:
        pellucid.load(tmp_path / "other.onnx")
    assert "\n" not in str(raised.value) and "ONNXRuntimeError" not in str(raised.value)


def test_chains_route_keywords_to_the_file(tmp_path: Path) -> None:
    path = onnx_files.save_smoothing(tmp_path / "other.onnx")
    chain = pellucid.load(f"{path}+srcnn-x2", range="0..1")
    picture = Picture((PICTURE * 255).astype(np.uint8))
    first = pellucid.load(path, range="0..1").restore(picture.as_depth("float32"))
    expected = pellucid.load("srcnn-x2").restore(first).as_depth("uint8")
    np.testing.assert_array_equal(chain.restore(picture).samples, expected.samples)


def test_the_command_line_states_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = onnx_files.save_enlarging(tmp_path / "other.onnx", scale=2)
    pellucid.write(Picture((PICTURE * 255).astype(np.uint8)), tmp_path / "a.png")
    command = ["pellucid", "restore", str(tmp_path / "a.png"), "--model", str(path), "--set", "range=0..1"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert "enlarges 2 times, sees 2 px far; assumed: colors=rgb" in " ".join(capsys.readouterr().err.split())
    given = pellucid.read(tmp_path / "a.png").to_tensor()
    expected = _run_directly(path, given.numpy()).clip(0, 1) * 255
    restored = pellucid.read(tmp_path / "out" / "a.png").samples.transpose(2, 0, 1)[None]
    assert restored.shape == (1, 3, 122, 180) and abs(restored - expected).max() <= 0.501
