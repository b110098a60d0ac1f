"""Our weight files: what is saved is loaded, and damage and malice are refused."""

import hashlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid.errors import OutputError, PellucidError, RecipeError, WeightsError
from pellucid.recipes import registry
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata, fill, fingerprint, load, read_metadata, save

SMALL: dict[str, Any] = {"depth": 3, "width": 4}


def small_metadata(**changes: Any) -> WeightsMetadata:
    """Metadata of a small DnCNN."""
    entries = {
        "recipe": "dncnn.gaussian",
        "parameters": dict(registry.find("dncnn.gaussian", **SMALL).parameters),
        "provenance": "a test, with ünïcode",
        "license": "CC0-1.0",
        "scores": ({"data": "Set12", "keywords": {}, "psnr_db": 30.5},),
    }
    return WeightsMetadata(**{**entries, **changes})


def network(name: str = "dncnn.gaussian", seed: int = 0, **parameters: Any) -> nn.Module:
    torch.manual_seed(seed)
    made = cast(nn.Module, registry.find(name, **(parameters or SMALL)).network())
    for key, value in made.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 2)
    return made.eval()


def rewrite(path: Path, *, tensors: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """The same file with another header, or other tensors and their hash."""
    header = read_header(path)
    if tensors is not None:
        header["sha256"] = fingerprint(tensors)
    header |= changes
    save_file(load_file(path) if tensors is None else tensors, path, metadata={"pellucid": json.dumps(header)})
    return path


def read_header(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return cast(dict[str, Any], json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["pellucid"]))


def refuse(path: Path, kind: type[PellucidError] = WeightsError) -> str:
    with pytest.raises(kind) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good weight file."""
    target = tmp_path / "a.safetensors"
    save(target, network(), small_metadata())
    return target


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dncnn.gaussian", SMALL),
        ("dncnn.gaussian", {**SMALL, "batch_norm": False}),
        ("srcnn.paper", {"scale": 3, "mapping_px": 1}),
        ("mimo_unet.gopro", {"num_blocks": 1}),
        ("sid_unet.sony", {"up_bias": True}),
    ],
)
def test_what_is_saved_is_loaded(tmp_path: Path, name: str, parameters: dict[str, Any]) -> None:
    saved = network(name, **parameters)
    given = small_metadata(recipe=name, parameters=dict(registry.find(name, **parameters).parameters))
    save(tmp_path / "a.safetensors", saved, given)
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.metadata == given
    assert (loaded.recipe.name, loaded.recipe.parameters) == (name, given.parameters)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    planes = next(tensor for tensor in saved.state_dict().values()).shape[1]
    if name.startswith("mimo"):
        planes = 3
    picture = torch.rand(1, planes, 16, 20)
    with torch.inference_mode():
        assert torch.equal(loaded.network(picture), saved(picture))


def test_weights_are_hashed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fingerprint(network().state_dict())
    calls: list[object] = []

    def count(tensors: dict[str, Tensor]) -> str:
        calls.append(tensors)
        return fingerprint(tensors)

    monkeypatch.setattr(checkpoint, "fingerprint", count)
    assert load(path).sha256 == expected and len(calls) == 1


def test_the_fingerprint_of_loaded_weights_is_that_of_their_float32_tensors(path: Path) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in load_file(path).items()}
    loaded = load(rewrite(path, tensors=halves))
    assert loaded.stored_sha256 == fingerprint(halves)
    assert loaded.sha256 == fingerprint(loaded.network.state_dict()) != loaded.stored_sha256


def test_the_header_is_read_without_the_weights(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(checkpoint, "_read_tensors", fail)
    monkeypatch.setattr(checkpoint, "find", fail)
    assert read_metadata(path) == small_metadata()


def test_the_file_is_plain_safetensors(path: Path) -> None:
    tensors = load_file(path)
    assert tensors.keys() == network().state_dict().keys()
    header = read_header(path)
    assert (header["format"], header["recipe"], header["license"]) == (1, "dncnn.gaussian", "CC0-1.0")


def test_the_fingerprint_covers_names_types_shapes_and_values() -> None:
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3)}
    expected = hashlib.sha256()
    expected.update(b"a torch.int64 ()\n" + struct.pack("<q", 3))
    expected.update(b"b torch.float32 (2,)\n" + struct.pack("<ff", 1, 2))
    assert fingerprint(tensors) == expected.hexdigest()
    assert fingerprint(dict(reversed(tensors.items()))) == fingerprint(tensors)
    others = [
        {**tensors, "b": torch.tensor([2.0, 1.0])},
        {**tensors, "b": torch.tensor([[1.0, 2.0]])},
        {**tensors, "b": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"c": tensors["b"], "a": tensors["a"]},
        {"a": tensors["a"]},
    ]
    assert len({fingerprint(other) for other in (tensors, *others)}) == 6


def test_keywords_may_be_changed_when_loading(path: Path) -> None:
    loaded = load(path, sigma_255=50)
    assert loaded.recipe.parameters["sigma_255"] == 50
    assert loaded.metadata.parameters["sigma_255"] == 25
    with pytest.raises(RecipeError, match="has no keyword 'sigma'"):
        load(path, sigma=50)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_loaded_as_float32(path: Path, dtype: torch.dtype) -> None:
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    loaded = load(rewrite(path, tensors=tensors)).network
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, tensors[name].float() if dtype.is_floating_point else tensors[name])
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def test_a_network_of_half_precision_is_saved(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        save(tmp_path / f"{dtype}.safetensors", network().to(dtype), small_metadata())
        loaded = load(tmp_path / f"{dtype}.safetensors").network
        assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def test_a_file_is_overwritten_only_on_request(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        save(path, network(seed=1), small_metadata())
    assert path.read_bytes() == before
    save(path, network(seed=1), small_metadata(), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize("offset", [-1, -100, -900])
def test_a_flipped_bit_is_detected(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    assert "damaged" in refuse(path)
    assert read_metadata(path) == small_metadata()


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert "is empty" in refuse(path) if part == 0 else "not a complete safetensors file" in refuse(path)
    with pytest.raises(WeightsError):
        read_metadata(path)


@pytest.mark.parametrize("num_bytes", [1, 7, 8, 9, 20])
def test_a_file_of_a_few_bytes_is_refused(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])
    assert "not a complete safetensors file" in refuse(path)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff" * 100, b"{}", struct.pack("<Q", 2**62) + b"{}", bytes(64)],
)
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refuse(path)


def test_trailing_bytes_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    refuse(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refuse(tmp_path / "none.safetensors")
    assert "is a folder" in refuse(tmp_path)


def test_other_safetensors_are_refused_with_a_hint(path: Path) -> None:
    save_file(load_file(path), path)
    assert "pellucid convert" in refuse(path)
    save_file(load_file(path), path, metadata={"format": "pt"})
    assert "without pellucid's header" in refuse(path)


def test_a_newer_format_asks_for_an_update(path: Path) -> None:
    assert "update pellucid" in refuse(rewrite(path, format=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "new"},
        {"format": None},
        {"parameters": None},
        {"parameters": 5},
        {"parameters": "text"},
        {"scores": None},
        {"scores": [1]},
        {"scores": 3},
    ],
)
def test_an_invalid_header_entry_is_refused(path: Path, changes: dict[str, Any]) -> None:
    assert "header" in refuse(rewrite(path, **changes))


@pytest.mark.parametrize("key", ["format", "recipe", "parameters", "provenance", "license", "scores", "sha256"])
def test_a_missing_header_entry_is_refused(path: Path, key: str) -> None:
    header = read_header(path)
    del header[key]
    save_file(load_file(path), path, metadata={"pellucid": json.dumps(header)})
    assert key in refuse(path)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "null", "7", '"text"', "{}", "[" * 100_000, '{"format":' * 50_000]
)
def test_a_header_that_is_not_a_json_object_is_refused(path: Path, text: str) -> None:
    save_file(load_file(path), path, metadata={"pellucid": text})
    assert "header" in refuse(path)


@pytest.mark.parametrize("name", ["os.system", "dncnn._as_published", "dncnn.nn", "", "../x.y", "a" * 10_000])
def test_a_malicious_recipe_name_is_refused_and_imports_nothing(path: Path, name: str) -> None:
    registry.list_names()
    rewrite(path, recipe=name)
    before = set(sys.modules)
    assert "no recipe" in refuse(path, WeightsError)
    assert set(sys.modules) == before


@pytest.mark.parametrize("key", ["sigma", "name", "path", "recipe", "source", "self", "a" * 10_000, "two\nlines"])
def test_an_unknown_keyword_is_refused(path: Path, key: str) -> None:
    message = refuse(rewrite(path, parameters={**small_metadata().parameters, key: 1}), WeightsError)
    assert "has no keyword" in message


@pytest.mark.parametrize("value", [-1, 1e999, "two\nlines", "9" * 5000, None, [], {}])
def test_an_impossible_value_is_refused(path: Path, value: Any) -> None:
    assert "sigma_255" in refuse(rewrite(path, parameters={"sigma_255": value}), WeightsError)


def test_other_exported_files_are_named(tmp_path: Path) -> None:
    for name in ("a.pt2", "a.mindir", "a.bin", "a.xml"):
        (tmp_path / name).write_bytes(b"exported")
    assert "a.pt2 is an exported model for other programs; give the weights" in refuse(tmp_path / "a.pt2")
    assert "a.mindir is an exported model for other programs" in refuse(tmp_path / "a.mindir")
    assert "a.bin is a part of an exported model; give a.xml" in refuse(tmp_path / "a.bin")


def test_up_to_two_tensors_that_do_not_fit_are_named(path: Path) -> None:
    tensors = load_file(path)
    last = "layers.2.conv.bias"
    assert tensors.pop(last).shape == (1,)
    message = refuse(rewrite(path, tensors=tensors))
    assert f"{last} (1,) missing" in message
    assert "dncnn.gaussian" in message
    assert "more" not in message

    tensors |= {f"extra{i}": torch.zeros(i) for i in range(5)}
    tensors["layers.0.conv.weight"] = torch.zeros(4, 1, 5, 5)
    message = refuse(rewrite(path, tensors=tensors))
    assert "layers.0.conv.weight is (4, 1, 5, 5), not (4, 1, 3, 3)" in message
    assert message.count(";") == 2
    assert message.endswith("and 5 more")


def test_tensors_of_another_size_are_not_loaded(path: Path) -> None:
    message = refuse(rewrite(path, parameters={**small_metadata().parameters, "width": 8}))
    assert "layers.0.conv.weight is (4, 1, 3, 3), not (8, 1, 3, 3)" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_of_other_types_are_refused(path: Path, dtype: torch.dtype) -> None:
    tensors = load_file(path)
    tensors["layers.0.conv.weight"] = tensors["layers.0.conv.weight"].to(dtype)
    assert "layers.0.conv.weight" in refuse(rewrite(path, tensors=tensors))


def test_old_batch_norms_without_counters_are_loaded(path: Path) -> None:
    tensors = {name: t for name, t in load_file(path).items() if not name.endswith("num_batches_tracked")}
    assert len(tensors) == len(load_file(path)) - 1
    loaded = load(rewrite(path, tensors=tensors)).network
    picture = torch.rand(1, 1, 9, 9)
    with torch.inference_mode():
        assert torch.equal(loaded(picture), network()(picture))


def test_fill_does_not_change_the_given_tensors() -> None:
    tensors = dict(network().state_dict())
    before = fingerprint(tensors)
    filled = fill(registry.find("dncnn.gaussian", **SMALL), tensors, source="here")
    assert fingerprint(tensors) == before
    assert isinstance(filled, nn.Module)
    assert fingerprint(filled.state_dict()) == before
    with pytest.raises(WeightsError, match=r"^here does not fit dncnn.gaussian"):
        fill(registry.find("dncnn.gaussian", **SMALL), {}, source="here")


def test_a_file_without_permission_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"as safetensors reports it")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(WeightsError, match=r"w\.safetensors cannot be read: Permission denied"):
        checkpoint.load(path)
