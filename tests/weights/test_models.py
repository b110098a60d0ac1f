"""Weight files by name."""

import os
from pathlib import Path

import pytest
import torch

from pellucid.errors import WeightsError
from pellucid.recipes import registry
from pellucid.weights import checkpoint, models


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path))
    tiny = registry.find("dncnn.gaussian", depth=2, width=1)
    torch.manual_seed(0)
    metadata = checkpoint.WeightsMetadata(tiny.name, tiny.parameters, "random", "CC0")
    checkpoint.save(tmp_path / "mine.safetensors", tiny.network(), metadata)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_shipped_models_come_first(user_folder: Path) -> None:
    names = [(model.name, model.is_shipped) for model in models.list_models()]
    assert names[-2:] == [("junk", False), ("mine", False)]
    assert all(is_shipped for _, is_shipped in names[:-2])


def test_a_model_is_found_by_name_or_path(user_folder: Path) -> None:
    assert models.find_model("mine") == user_folder / "mine.safetensors"
    assert models.find_model(user_folder / "mine.safetensors") == user_folder / "mine.safetensors"
    assert models.find_model("elsewhere.safetensors") == Path("elsewhere.safetensors")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_files_and_folders_do_not_hide_models(
    kind: str, user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").touch() if kind == "file" else Path("mine").mkdir()
    assert models.find_model("mine") == user_folder / "mine.safetensors"
    assert models.find_model("./mine") == Path("mine")
    assert models.find_model(Path("mine")) == (
        Path("mine") if kind == "file" else user_folder / "mine.safetensors"
    )


@pytest.mark.parametrize("name", ["", "min", "../mine", "mine\n", "x" * 5000])
def test_an_unknown_name_is_a_one_line_error_with_the_nearest(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        checkpoint.load(models.find_model(name))
    assert len(str(caught.value)) < 400 or "/" in name
    if name == "min":
        assert "did you mean mine" in str(caught.value)


def test_unreadable_files_are_listed_with_their_error(user_folder: Path) -> None:
    found = {model.name: metadata for model, metadata in models.list_metadata()}
    assert isinstance(found["junk"], WeightsError)
    assert isinstance(found["mine"], checkpoint.WeightsMetadata) and found["mine"].license == "CC0"


def test_the_folder_of_users_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", "no/such/folder")
    assert all(model.is_shipped for model in models.list_models())
    monkeypatch.setenv("PELLUCID_MODELS", __file__)
    with pytest.raises(WeightsError, match=r"test_models\.py is a file"):
        models.list_models()
    monkeypatch.delenv("PELLUCID_MODELS")
    assert models.user_folder() == Path.home() / ".pellucid" / "models"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_devices_are_not_weight_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "srcnn-x2").mkdir()
    assert models.find_model("srcnn-x2").name == "srcnn-x2.safetensors"  # a folder of this name does not hide it
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(WeightsError, match=f"{name} is a device or pipe, not a weight file"):
            checkpoint.read_metadata(models.find_model(name))
