"""Files of other frameworks: real ones, ones made here byte by byte, damaged ones and malicious ones."""

import collections
import io
import os
import pickle
import random
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save as serialize
from scipy.io import savemat
from torch.nn import functional as F

from pellucid.errors import MissingExtraError, WeightsError
from pellucid.weights.foreign import pickles, reading
from pellucid.weights.foreign.crc32c import crc32c
from pellucid.weights.foreign.reading import ForeignWeights

DATA = Path(__file__).parent / "foreign"


def read_bytes(folder: Path, content: bytes, name: str = "weights.bin") -> ForeignWeights:
    (folder / name).write_bytes(content)
    return reading.read(folder / name)


def assert_same(theirs: ForeignWeights, expected: dict[str, Any]) -> None:
    assert theirs.tensors.keys() == expected.keys()
    for name, tensor in theirs.tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])


def values(name: str, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    with np.load(DATA / name) as stored:
        return {key: stored[key] for key in stored.files if key not in without}


# Real files of the other frameworks


def test_mindspore_file_without_its_optimizer_state() -> None:
    theirs = reading.read(DATA / "dncnn.ckpt")
    assert theirs.framework == "MindSpore"
    assert_same(theirs, values("dncnn.npz", without=("x", "y")))


def test_mindspore_file_with_a_checksum_and_tensors_in_several_records() -> None:
    assert (DATA / "srcnn.ckpt").read_bytes().count(b"conv1.weight") > 1
    assert_same(reading.read(DATA / "srcnn.ckpt"), values("srcnn.npz"))


@pytest.mark.parametrize("name", ["sid_protocol2", "sid_protocol4", "sid_nested"])
def test_paddle_file(name: str) -> None:
    theirs = reading.read(DATA / f"{name}.pdparams")
    assert theirs.framework == "PaddlePaddle"
    assert_same(theirs, values("sid.npz"))


SID = DATA / "sid_tensorflow"


@pytest.mark.parametrize(
    "name", ["", "model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt.meta"]
)
def test_tensorflow_checkpoint_by_any_of_its_names(name: str) -> None:
    theirs = reading.read(SID / name)
    assert (theirs.framework, theirs.path) == ("TensorFlow", SID / "model.ckpt.index")
    assert sorted(theirs.tensors) == [
        *("Variable.weight", "Variable_1.weight", "g_conv1_1.bias", "g_conv1_1.weight", "half.weight")
    ]


def test_tensorflow_layouts() -> None:
    """TensorFlow's own output, by torch with the tensors that were read."""
    tensors, values = reading.read(SID).tensors, np.load(DATA / "sid_tensorflow.npz")
    features = torch.from_numpy(values["x"]).permute(0, 3, 1, 2)
    features = F.conv2d(features, tensors["g_conv1_1.weight"], tensors["g_conv1_1.bias"], padding=1).relu()
    for name in ("Variable.weight", "Variable_1.weight"):
        features = F.conv_transpose2d(features, tensors[name], stride=2)
    np.testing.assert_allclose(features.permute(0, 2, 3, 1).numpy(), values["y"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("index", lambda content: content[:30] + b"?" + content[31:], "checksum of its index differs"),
        ("data", lambda content: content[:9] + b"?" + content[10:], "checksum of Variable differs"),
        ("data", lambda content: content[:-2000], "ends before"),
        ("data", None, "model.ckpt.data-00000-of-00001, which contains Variable, is not next to it"),
    ],
)
def test_damaged_tensorflow_checkpoints(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes] | None, reason: str
) -> None:
    for path in SID.iterdir():
        content = path.read_bytes()
        if f".{name}" not in path.name:
            (tmp_path / path.name).write_bytes(content)
        elif change is not None:
            (tmp_path / path.name).write_bytes(change(content))
    with pytest.raises(WeightsError, match=reason):
        reading.read(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 511, 512, 513, 5000, 99_999])
def test_crc32c_is_the_bitwise_definition(size: int) -> None:
    content, crc = random.Random(size).randbytes(size), 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    assert crc32c(content) == crc ^ 0xFFFFFFFF
    assert crc32c(b"123456789") == 0xE3069283  # of the catalog of CRC algorithms


# Files made here


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def block(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def record(name: str, shape: tuple[int, ...], dtype: str, content: bytes) -> bytes:
    dimensions = b"".join(b"\x08" + varint(size) for size in shape)
    tensor = dimensions + block(2, dtype.encode()) + block(3, content)
    return block(1, block(1, name.encode()) + block(2, tensor))


def mindspore_file() -> bytes:
    weight = np.arange(6, dtype="<f4")
    return record("conv1.weight", (2, 3), "Float32", weight.tobytes()) + record(
        "conv1.bias", (2,), "Float16", np.array([1, 2], "<f2").tobytes()
    )


def paddle_file(protocol: int = 4) -> bytes:
    state = {"conv1.weight": np.arange(6, dtype="f4").reshape(2, 3), "conv1.bias": np.ones(2, "f4")}
    return pickle.dumps({**state, "StructuredToParameterName@@": {"conv1.weight": "w_0"}}, protocol)


def torch_file(loaded: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(loaded, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def state_dict() -> dict[str, torch.Tensor]:
    return {"conv1.weight": torch.arange(6.0).reshape(2, 3), "conv1.bias": torch.ones(2)}


def matlab5_file(*, compressed: bool = True) -> bytes:
    file = io.BytesIO()
    savemat(file, {"weights_conv1": np.arange(6.0).reshape(2, 3)}, do_compression=compressed)
    return file.getvalue()


def put_text(group: h5py.Group, name: str, text: str) -> None:
    group[name] = np.array([[ord(letter)] for letter in text], dtype="u2")


def matconvnet_file(layers: list[tuple[str, list[Any]]], **options: float) -> bytes:
    """layers: kind and its arrays as MATLAB indexes them, which HDF5 shows in reverse."""
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as hdf5:
        references = np.empty((len(layers), 1), dtype=h5py.ref_dtype)
        for index, (kind, arrays) in enumerate(layers):
            layer = hdf5.create_group(f"#refs#/layer{index}")
            put_text(layer, "type", kind)
            weights = np.empty((len(arrays), 1), dtype=h5py.ref_dtype)
            for number, array in enumerate(arrays):
                stored = hdf5.create_dataset(f"#refs#/weights{index}_{number}", data=np.asarray(array).T)
                weights[number, 0] = stored.ref
            if arrays:
                layer.create_dataset("weights", data=weights, dtype=h5py.ref_dtype)
            for option, value in options.items():
                layer[option] = np.array([[value]])
            references[index, 0] = layer.ref
        hdf5.create_dataset("net/layers", data=references, dtype=h5py.ref_dtype)
    content = bytearray(file.getvalue())
    content[:10] = b"MATLAB 7.3"
    return bytes(content)


def small_matconvnet_file() -> bytes:
    """A 3 x 3 convolution with 1 input and 2 outputs, then batch norm."""
    filters = np.zeros((3, 3, 1, 2), "f4")
    filters[0, 2, 0, 1] = 5  # first row, last column, second output
    biases = np.array([[1], [2]], "f4")
    moments = np.array([[0.5, 2], [0.25, 3]], "f4")  # one row per channel: mean, deviation
    ones = np.ones((2, 1), "f4")
    return matconvnet_file([("conv", [filters, biases]), ("bnorm", [ones, ones, moments]), ("relu", [])])


def safetensors_with_header(num_bytes: int) -> bytes:
    """A valid file whose header is padded to this length."""
    content = serialize(state_dict())
    (length,) = struct.unpack_from("<Q", content)
    return struct.pack("<Q", num_bytes) + content[8 : 8 + length].ljust(num_bytes) + content[8 + length :]


FILES: dict[str, Callable[[], bytes]] = {
    "mindspore": mindspore_file,
    "paddle": paddle_file,
    "torch": lambda: torch_file(state_dict()),
    "torch_legacy": lambda: torch_file(state_dict(), zipped=False),
    "matlab5": matlab5_file,
    "matlab5_plain": lambda: matlab5_file(compressed=False),
    "matlab73": small_matconvnet_file,
    "safetensors": lambda: serialize(state_dict()),
    # With headers whose lengths look like the beginnings of other formats.
    "safetensors_like_mindspore": lambda: safetensors_with_header(0x010A),
    "safetensors_like_pickle": lambda: safetensors_with_header(0x0280),
    "tensorflow": lambda: (DATA / "sid_tensorflow" / "model.ckpt.index").read_bytes(),
}


@pytest.mark.parametrize("kind", FILES)
def test_exactly_one_format_recognizes_a_file(kind: str) -> None:
    assert [known.recognize(FILES[kind]()) for known in reading.list_foreign_formats()].count(True) == 1


def test_formats_are_the_modules_that_have_one() -> None:
    frameworks = sorted({known.framework for known in reading.list_foreign_formats()})
    assert frameworks == ["MATLAB", "MindSpore", "PaddlePaddle", "PyTorch", "TensorFlow"]


def test_mindspore_records_made_by_hand(tmp_path: Path) -> None:
    theirs = read_bytes(tmp_path, mindspore_file())
    assert_same(theirs, {"conv1.weight": [[0, 1, 2], [3, 4, 5]], "conv1.bias": [1, 2]})
    assert theirs.tensors["conv1.bias"].dtype == torch.float16


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_paddle_of_older_numpy(tmp_path: Path, protocol: int) -> None:
    content = paddle_file(protocol)
    if protocol < 4:  # where a name is a line; from 4 on its length is stored too
        assert b"numpy._core.multiarray" in content
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    expected = {"conv1.weight": [[0, 1, 2], [3, 4, 5]], "conv1.bias": [1, 1]}
    assert_same(read_bytes(tmp_path, content), expected)


def test_paddle_in_column_major_order(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4))
    assert_same(read_bytes(tmp_path, pickle.dumps({"a.weight": array}, 4)), {"a.weight": array})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", [None, "model", "state_dict", "params", "params_ema"])
def test_torch_state_dict_alone_or_nested(tmp_path: Path, key: str | None, zipped: bool) -> None:
    state = collections.OrderedDict((f"module.{name}", value) for name, value in state_dict().items())
    loaded = {key: state, "epoch": 3} if key else state
    theirs = read_bytes(tmp_path, torch_file(loaded, zipped=zipped))
    assert theirs.framework == "PyTorch"
    assert_same(theirs, {name: tensor.numpy() for name, tensor in state_dict().items()})


def test_torch_state_dict_next_to_those_of_optimizer_and_schedule(tmp_path: Path) -> None:
    layer = torch.nn.Conv2d(1, 2, 3)
    adam = torch.optim.Adam(layer.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [1, 2])
    adam.step()
    content = torch_file(
        {"model": layer.state_dict(), "optimizer": adam.state_dict(), "scheduler": schedule.state_dict()}
    )
    assert read_bytes(tmp_path, content).tensors.keys() == {"weight", "bias"}


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab5(tmp_path: Path, compressed: bool) -> None:
    theirs = read_bytes(tmp_path, matlab5_file(compressed=compressed))
    assert theirs.framework == "MATLAB"
    assert_same(theirs, {"weights_conv1": [[0, 1, 2], [3, 4, 5]]})


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab5_agrees_with_scipy(tmp_path: Path, compressed: bool) -> None:
    arrays = {
        "cube": np.random.default_rng(0).normal(size=(3, 4, 5)),
        "f": np.array([[1.5], [2]], np.float32),
        "whole": np.arange(300.0).reshape(3, 100),
        "long_name_of_a_variable": np.array([[0.1]]),
    }
    others = {
        "text": "words",
        "cell": np.array([1, "a"], object),
        "struct": {"a": 1},
        "int": np.array([1], np.int32),
        "z": 1j,
    }
    savemat(tmp_path / "a.mat", {**others, **arrays}, do_compression=compressed)
    theirs = reading.read(tmp_path / "a.mat")
    assert_same(theirs, arrays)
    assert theirs.tensors["f"].dtype == torch.float32


def test_matlab5_big_endian_and_whole_numbers(tmp_path: Path) -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    matrix = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">II", 2, 3))
    matrix += struct.pack(">HH", 1, 1) + b"w\0\0\0" + element(2, bytes([0, 3, 1, 4, 2, 5]))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    assert_same(read_bytes(tmp_path, header + element(14, matrix)), {"w": [[0, 1, 2], [3, 4, 5]]})


def test_matlab73_axes(tmp_path: Path) -> None:
    tensors = read_bytes(tmp_path, small_matconvnet_file()).tensors
    assert tensors["net.layers.1.weight"].shape == (2, 1, 3, 3)
    assert tensors["net.layers.1.weight"].nonzero().tolist() == [[1, 0, 0, 2]]
    assert tensors["net.layers.1.bias"].tolist() == [1, 2]
    assert tensors["net.layers.2.moments"].tolist() == [[0.5, 0.25], [2, 3]]


def test_matlab73_drops_the_last_axis_of_one(tmp_path: Path) -> None:
    filters = np.zeros((3, 3, 2), "f4")
    filters[0, 2, 1] = 5
    content = matconvnet_file([("conv", [filters, np.zeros((1, 1), "f4")])], stride=1, dilate=1)
    weight = read_bytes(tmp_path, content).tensors["net.layers.1.weight"]
    assert weight.shape == (1, 2, 3, 3)
    assert weight.nonzero().tolist() == [[0, 1, 0, 2]]


# Damaged files


def refusal(folder: Path, content: bytes, name: str = "weights.bin") -> str:
    with pytest.raises(WeightsError) as caught:
        read_bytes(folder, content, name)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / name) in message
    return message


def test_missing_empty_and_special_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"").endswith("is empty")
    for path, reason in [
        (tmp_path / "none.pth", "does not exist"),
        (tmp_path, "is a folder"),
        (Path(os.devnull), "is not a regular file"),
    ]:
        with pytest.raises(WeightsError, match=reason):
            reading.read(path)


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.mat", "a.pdparams"])
@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"hello", b"\x00", b"cos\nsystem\n(S'x'\ntR."]
)
def test_files_of_other_kinds_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    message = refusal(tmp_path, content, name)
    assert "begins with" in message and "b'" not in message


@pytest.mark.parametrize("kind", FILES)
def test_truncated_files_are_refused_or_read_correctly(tmp_path: Path, kind: str) -> None:
    content = FILES[kind]()
    step = max(1, len(content) // 97)
    # After its last tensor a format may end with padding, or with content that is not read.
    for size in range(0, len(content) - len(content) // 8, step):
        try:
            theirs = read_bytes(tmp_path, content[:size])
        except WeightsError:
            continue
        whole = read_bytes(tmp_path, content).tensors
        assert all(torch.equal(tensor, whole[name]) for name, tensor in theirs.tensors.items()), size


@pytest.mark.parametrize("kind", FILES)
def test_files_with_altered_bytes_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(60):
        content = bytearray(FILES[kind]())
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        try:
            read_bytes(tmp_path, bytes(content))
        except WeightsError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", FILES)
def test_random_bytes_after_a_valid_beginning_are_refused(tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    for start in (8, 20, 128, 200):
        refusal(tmp_path, FILES[kind]()[:start] + rng.randbytes(500))


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(200):
        refusal(tmp_path, rng.choice([b"", b"\n", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"]) + rng.randbytes(99))


@pytest.mark.parametrize("kind", FILES)
def test_files_that_end_early_are_truncated_or_damaged(tmp_path: Path, kind: str) -> None:
    content = FILES[kind]()
    message = refusal(tmp_path, content[: len(content) // 2])
    if kind.startswith("torch"):
        assert message.endswith("weight file: it is truncated or damaged")


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    assert "contains no tensors" in refusal(tmp_path, torch_file({"epoch": 3}))
    assert "contains a list" in refusal(tmp_path, torch_file([torch.ones(1)]))
    assert "int64" in refusal(tmp_path, torch_file({"conv1.weight": torch.ones(1, dtype=torch.int64)}))
    assert "not a plain tensor" in refusal(tmp_path, torch_file({"a.b": torch.ones(1, device="meta")}))


def test_mindspore_errors_are_specific(tmp_path: Path) -> None:
    good = record("a.b", (1,), "Float32", bytes(4))
    for content, reason in [
        (record("a.b", (2,), "Float32", bytes(4)), r"declares \(2,\) of Float32 but has 4 bytes"),
        (record("a.b", (1,), "Int4", bytes(4)), "type 'Int4'"),
        (good + record("a.b", (2,), "Float32", bytes(4)), "parts of a.b differ"),
        (good + block(2, b""), "a field 2"),
        (good + b"\x0d1234", "a number where bytes are expected"),
        (good + b"\x0b1234", "wire type 3"),
        (good + b"\x0a" + b"\xff" * 11, "more than ten bytes"),
        (good + b"crc_num" + bytes(10), "checksum differs"),
    ]:
        with pytest.raises(WeightsError, match=reason):
            read_bytes(tmp_path, content)


def test_matlab73_errors_are_specific(tmp_path: Path) -> None:
    filters, biases = np.zeros((3, 3, 1, 2), "f4"), np.zeros((2, 1), "f4")
    assert "'pool'" in refusal(tmp_path, matconvnet_file([("pool", [])]))
    assert "layer 2 has 1 arrays of weights, not 3" in refusal(
        tmp_path, matconvnet_file([("conv", [filters, biases]), ("bnorm", [biases])])
    )
    assert "layer 1 has 3 arrays of weights, not 2" in refusal(
        tmp_path, matconvnet_file([("conv", [filters, biases, biases])])
    )
    assert "dilate other than 1" in refusal(tmp_path, matconvnet_file([("conv", [filters, biases])], dilate=2))
    other = io.BytesIO()
    with h5py.File(other, "w") as file:
        file["data"] = np.ones(3)
    assert "it has data, not the net.layers" in refusal(tmp_path, other.getvalue())


def test_missing_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_matconvnet_file()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"reading MATLAB files .*pellucid\[convert\]"):
        read_bytes(tmp_path, content)


# Malicious files


class Attack:
    """Unpickling this would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.pdparams", "a.ckpt"])
@pytest.mark.parametrize("write", ["pickle2", "pickle4", "torch", "torch_legacy"])
def test_code_in_pickles_is_not_run(tmp_path: Path, name: str, write: str) -> None:
    target = tmp_path / "made"
    loaded = {"conv1.weight": torch.ones(1).numpy(), "attack": Attack(target)}
    if write.startswith("pickle"):
        content = pickle.dumps(loaded, int(write[-1]))
    else:
        content = torch_file({"attack": Attack(target)}, zipped=write == "torch")
    message = refusal(tmp_path, content, name)
    assert f"{os.name}.system" in message
    assert "it was not run" in message
    assert not target.exists()


@pytest.mark.parametrize(
    "asked",
    [b"builtins\neval", b"builtins\ngetattr", b"numpy\nload", b"numpy.core.multiarray\nscalar", b"posix\nsystem"],
)
def test_other_classes_and_functions_are_refused(tmp_path: Path, asked: bytes) -> None:
    assert asked.replace(b"\n", b".").decode() in refusal(tmp_path, b"\x80\x02c" + asked + b"\n.")


def test_a_pickle_cannot_alter_the_reader(tmp_path: Path) -> None:
    # BUILD with (None, {...}) sets attributes on the object below it.
    for asked in (b"_codecs\nencode", b"numpy\ndtype", b"numpy\nndarray", b"collections\nOrderedDict"):
        refusal(tmp_path, b"\x80\x02c" + asked + b"\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.")
    assert_same(
        read_bytes(tmp_path, paddle_file(2)), {"conv1.weight": [[0, 1, 2], [3, 4, 5]], "conv1.bias": [1, 1]}
    )


def chunked_zeros(size: int) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as hdf5:
        huge = hdf5.create_dataset("huge", (size,), "f4", chunks=(1024,), compression="gzip")
        layer = hdf5.create_group("layer")
        put_text(layer, "type", "conv")
        layer.create_dataset("weights", data=np.array([huge.ref, huge.ref], h5py.ref_dtype), dtype=h5py.ref_dtype)
        hdf5.create_dataset("net/layers", data=np.array([layer.ref], h5py.ref_dtype), dtype=h5py.ref_dtype)
    return file.getvalue()


def many_layers() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as hdf5:
        hdf5.create_dataset("net/layers", (2**40,), h5py.ref_dtype, chunks=(1024,))
    return file.getvalue()


def compressed_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    return file.getvalue()


def compressed_matlab5() -> bytes:
    compressor = zlib.compressobj()
    packed = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(9)) + compressor.flush()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return header + struct.pack("<II", 15, len(packed)) + packed


def pickled_array(shape: tuple[int, ...]) -> bytes:
    array = np.zeros(1, "f4")
    state = (1, shape, array.dtype, False, bytes(4))
    return pickle.dumps({"a.weight": _Rebuilt(array.__reduce__()[:2], state)}, 2)


class _Rebuilt:
    def __init__(self, made: Any, state: Any) -> None:
        self.made, self.state = made, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (*self.made, self.state)


def nested_tuples(count: int = 2_000_000) -> bytes:
    return b"\x80\x02})" + b"\x85" * count + b"Ns."


def with_pickle(content: bytes) -> bytes:
    """A torch archive that contains another pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(state_dict()))) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


HUGE: dict[str, Callable[[], bytes]] = {
    "mindspore record": lambda: b"\x0a" + varint(2**60) + b"xx",
    "mindspore tensor": lambda: record("a.b", (2**30, 2**30), "Float32", bytes(4)),
    "mindspore negative": lambda: record("a.b", (2**64 - 1, 2**64 - 1), "Float32", bytes(4)),
    "pickle memo": lambda: b"\x80\x02}r\xff\xff\xff\xff.",
    "pickle text memo": lambda: b"\x80\x02}p9999999999\n.",
    "pickle bytes": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"xx.",
    "pickle bytearray": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"xx.",
    "pickle frame": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",
    "pickle array": lambda: pickled_array((2**40,)),
    "pickle nested": nested_tuples,
    "torch nested": lambda: with_pickle(nested_tuples()),
    "torch legacy nested": lambda: pickles.TORCH_MAGIC + b"\x80\x02M\xe9\x03." + nested_tuples(),
    "torch repeated": lambda: torch_file({"a.b": torch.ones(1).expand(2**40)}),
    "torch compressed": compressed_archive,
    "matlab73 dataset": lambda: chunked_zeros(2**38),
    "matlab73 layers": many_layers,
    "matlab5 compressed": compressed_matlab5,
}


@pytest.mark.parametrize("kind", HUGE)
def test_huge_declared_sizes_are_refused_quickly(tmp_path: Path, kind: str) -> None:
    content = HUGE[kind]()
    assert len(content) < 3_000_000
    start = time.process_time()  # others may use the machine
    refusal(tmp_path, content)
    assert time.process_time() - start < 5


def test_as_many_nested_tuples_as_are_allowed_do_not_crash(tmp_path: Path) -> None:
    for content in (nested_tuples(pickles.MAX_TUPLES), with_pickle(nested_tuples(pickles.MAX_TUPLES))):
        assert "contains no tensors" in refusal(tmp_path, content)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.ckpt").open("wb") as file:
        file.truncate(reading.MAX_BYTES + 1)
    with pytest.raises(WeightsError, match="larger than 1024 MiB"):
        reading.read(tmp_path / "huge.ckpt")
