"""Data sets as published, and their keywords."""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import noise, write_noise, write_pictures, zip_folder

from pellucid.data import datasets, registry
from pellucid.data.preparing import prepare
from pellucid.errors import ArgumentError, DataError
from pellucid.pictures.camera import dng
from pellucid.pictures.picture import Mosaic


def test_pairs_are_matched_by_name(tmp_path: Path) -> None:
    for name, height in (("a", 8), ("b", 8), ("c", 9), ("e", 8)):
        write_noise(tmp_path / "low" / f"{name}.png", height // 2, 4, 3, seed=height)
    for i, name in enumerate("abcd"):
        write_noise(tmp_path / "high" / f"{name}.jpg", 8 + (name == "c"), 8, 3, seed=i)
    (tmp_path / "high" / "b.jpg").write_text("bad")
    made = prepare("pairs", [tmp_path / "low", tmp_path / "high"], tmp_path / "s").store
    assert made.kind == "pairs" and made.names == ("a.png",)
    assert np.array_equal(made.degraded(0), noise(4, 4, 3, seed=8)) and made.sizes == ((8, 8),)
    reasons = dict(made.left_out)
    assert "contains no picture of its name" in reasons["degraded/e.png"]
    assert "contains no picture of its name" in reasons["target/d.jpg"]
    assert "not a PNG" in reasons["target/b.jpg"] and "could not be decoded" in reasons["b.png"]
    assert "not a multiple" in reasons["c.png"]
    with pytest.raises(ArgumentError, match="two sources"):
        prepare("pairs", [tmp_path / "low"], tmp_path / "t")


def write_gopro(root: Path) -> Path:
    for i, (split, folder) in enumerate(
        (s, f) for s in ("train", "test") for f in ("blur", "blur_gamma", "sharp")
    ):
        for frame in range(2):
            write_noise(root / split / f"GOPR_{split}" / folder / f"00{frame}.png", 4, 6, 3, seed=10 * i + frame)
    return root


def test_gopro_split_and_blur(tmp_path: Path) -> None:
    root = write_gopro(tmp_path / "GOPRO_Large")
    archive = zip_folder(root.parent, tmp_path.parent / f"{tmp_path.name}.zip")
    train = prepare("gopro", [root], tmp_path / "train").store
    assert train.names == ("train/GOPR_train/blur/000.png", "train/GOPR_train/blur/001.png")
    assert np.array_equal(train.degraded(1), noise(4, 6, 3, seed=1))
    assert np.array_equal(train.target(1), noise(4, 6, 3, seed=21))
    gamma = prepare("gopro", [archive], tmp_path / "test", split="test", blur="blur_gamma").store
    assert np.array_equal(gamma.degraded(0), noise(4, 6, 3, seed=40))
    only_test = prepare("gopro", [root / "test"], tmp_path / "only", split="test").store
    assert len(only_test) == 2
    with pytest.raises(DataError, match="'train' has no pictures"):
        prepare("gopro", [root / "test"], tmp_path / "none")
    with pytest.raises(ArgumentError, match="gopro: split=val is not possible; expected train or test"):
        prepare("gopro", [root], tmp_path / "none", split="val")


def write_raw(path: Path, seed: int) -> None:
    """A small DNG, named like a file of See in the Dark; LibRaw recognizes it by its content."""
    samples = noise(32, 48, dtype="uint16", seed=seed) // 8 + 600
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dng.encode(Mosaic(samples, ("RG", "GB"), 512.0, 16383.0, white_balance=(2.0, 1.0, 1.5))))


def write_sid(root: Path) -> Path:
    for scene in ("00001", "00002", "10034", "10003"):
        write_raw(root / "Sony" / "long" / f"{scene}_00_10s.ARW", int(scene))
        write_raw(root / "Sony" / "short" / f"{scene}_00_0.1s.ARW", int(scene) + 1)
        write_raw(root / "Sony" / "short" / f"{scene}_00_0.033s.ARW", int(scene) + 2)
        write_raw(root / "Sony" / "short" / f"{scene}_01_0.1s.ARW", int(scene) + 3)
    return root


def test_see_in_the_dark_without_lists(tmp_path: Path) -> None:
    root = write_sid(tmp_path / "dataset")
    prepared = prepare("sid-sony", [root], tmp_path / "train")
    made = prepared.store
    assert made.kind == "raw" and "there is no Sony_train_list.txt" in prepared.messages[0]
    assert made.names == tuple(f"Sony/short/0000{i}_00_{s}s.ARW" for i in (1, 2) for s in ("0.033", "0.1"))
    assert made.scenes[0] == made.scenes[1] != made.scenes[2]
    mosaic = made.mosaic(0)
    assert mosaic.exposure_ratio == 300 and made.mosaic(1).exposure_ratio == pytest.approx(100)
    assert np.array_equal(mosaic.samples, noise(32, 48, dtype="uint16", seed=3) // 8 + 600)
    assert mosaic.pattern == ("RG", "GB") and mosaic.black_level == 512 and mosaic.white_level == 16383
    assert made.target(0).shape == (32, 48, 3) and made.target(0).dtype == np.uint16


def test_names_that_declare_an_exposure_of_no_time_are_not_exposures(tmp_path: Path) -> None:
    root = tmp_path / "Sony"
    for name in (
        "long/00001_00_10s.ARW",
        "short/00001_00_0.1s.ARW",
        "short/00002_00_0s.ARW",
        "long/00002_00_0s.ARW",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    planned = registry.plan("sid-sony", [tmp_path], {})
    assert [item.name for item in planned.items] == ["Sony/short/00001_00_0.1s.ARW"]


def test_see_in_the_dark_is_developed_as_its_authors_do(tmp_path: Path) -> None:
    rawpy = pytest.importorskip("rawpy")
    root = write_sid(tmp_path / "dataset")
    made = prepare("sid-sony", [root], tmp_path / "s").store
    with rawpy.imread(str(root / "Sony" / "long" / "00001_00_10s.ARW")) as raw:
        expected = raw.postprocess(use_camera_wb=True, half_size=False, no_auto_bright=True, output_bps=16)
    assert np.array_equal(made.target(0), expected)


def test_see_in_the_dark_with_its_lists(tmp_path: Path) -> None:
    root = write_sid(tmp_path / "dataset")
    rows = ["10034_00_0.1s", "10034_01_0.1s", "10003_00_0.033s", "10003_00_0.04s"]
    lines = [f"./Sony/short/{row}.ARW ./Sony/long/{row[:5]}_00_10s.ARW ISO200 F8" for row in rows]
    (root / "Sony_test_list.txt").write_text("\n".join(lines))
    prepared = prepare("sid-sony", [root], tmp_path / "s", split="test")
    made = prepared.store
    assert made.names == ("Sony/short/10003_00_0.033s.ARW", "Sony/short/10034_00_0.1s.ARW")
    assert [made.is_misaligned(i) for i in range(2)] == [False, True]
    assert made.left_out == (("10003_00_0.04s.ARW", "it is in the list, but missing"),)
    assert "1 exposures are of misaligned scenes" in prepared.messages[1]
    keywords: dict[str, Any] = {"split": "test", "lists": root / "Sony_test_list.txt", "all_bursts": True}
    assert len(prepare("sid-sony", [root / "Sony"], tmp_path / "all", **keywords).store) == 3
    (root / "Sony_test_list.txt").write_text("nonsense")
    with pytest.raises(DataError, match="is not a list of short and long exposures"):
        prepare("sid-sony", [root], tmp_path / "none", split="test")


def test_the_published_lists_give_the_published_counts(data: Path, tmp_path: Path) -> None:
    """See in the Dark's README: 161, 20 and 50 scenes; 280, 36 and 93 exposures."""
    lists = data / "raw" / "sid_lists"
    for split, num_short, num_long in (("train", 280, 161), ("val", 36, 20), ("test", 93, 50)):
        root = tmp_path / split
        for line in (lists / f"Sony_{split}_list.txt").read_text().splitlines():
            for name in line.split()[:2]:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
        planned = registry.plan("sid-sony", [root], {"split": split, "lists": lists})
        by_number = registry.plan("sid-sony", [root], {"split": split})
        assert len(planned.items) == num_short and len({item.target for item in planned.items}) == num_long
        assert planned.items == by_number.items
        assert sum(not item.misaligned for item in planned.items) == (88 if split == "test" else num_short)


def test_patches_of_the_dncnn_code(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    eight = noise(12, 1, 5, 5)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for i, patch in enumerate(eight[:11]):
            file.create_dataset(str(i), data=patch.astype(np.float32) / 255)
        file.create_dataset("3_aug_1", data=eight[3].astype(np.float32) / 255)
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/x")
    made = prepare("patches-h5", [tmp_path / "train.h5"], tmp_path / "s").store
    assert made.names[2:5] == ("train.h5/2", "train.h5/3", "train.h5/3_aug_1")
    assert made.names[-1] == "train.h5/10" and len(made) == 12
    assert np.array_equal(made.target(2), eight[2].transpose(1, 2, 0))
    assert made.target(2).dtype == np.uint8


def test_patches_of_the_srcnn_code(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    luma = np.random.default_rng(0).uniform(16, 235, (2, 7, 6, 6)).astype(np.float32)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["lr"], file["hr"] = luma
    with h5py.File(tmp_path / "eval.h5", "w") as file:
        for group, values in zip(("lr", "hr"), luma, strict=True):
            file.create_group(group).create_dataset("0", data=values[0])
    prepared = prepare("patches-h5", [tmp_path / "in.h5"], tmp_path / "s")
    made = prepared.store
    assert made.kind == "pairs" and len(made) == 7
    assert np.abs(made.degraded(4)[..., 0] / 65535 - luma[0, 4] / 255).max() <= 0.5 / 65535 + 1e-7
    assert prepared.messages == ("14 of 14: rounded to 16 bit",)
    whole = prepare("patches-h5", [tmp_path / "eval.h5"], tmp_path / "e").store
    assert np.abs(whole.target(0)[..., 0] / 65535 - luma[1, 0] / 255).max() <= 0.5 / 65535 + 1e-7


def test_bad_patches_give_an_error_of_one_line(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match=r"text\.h5: not an HDF5 file$"):
        prepare("patches-h5", [tmp_path / "text.h5"], tmp_path / "s")
    with h5py.File(tmp_path / "range.h5", "w") as file:
        file["0"] = np.full((4, 4), 200, np.float32)
        file["1"] = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(DataError, match="range.h5/0 has values from 200 to 200; 0 to 1 are needed"):
        prepare("patches-h5", [tmp_path / "range.h5"], tmp_path / "s")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("lr", (10**9, 33, 33), "f4", chunks=(1, 33, 33))
        file.create_dataset("hr", (10**9, 33, 33), "f4", chunks=(1, 33, 33))
    with pytest.raises(DataError, match="declares 4356000000000 bytes, which the file does not contain"):
        prepare("patches-h5", [tmp_path / "huge.h5"], tmp_path / "s")


def test_keywords_are_validated_by_the_data_set() -> None:
    with pytest.raises(ArgumentError, match=r"'splt' \(did you mean split\?\); split: .* \(train, test\); blur: "):
        registry.plan("gopro", [Path()], {"splt": "test"})
    with pytest.raises(ArgumentError, match=r"folder has no keyword 'split' \(known: white\); white: "):
        registry.plan("folder", [Path()], {"split": "test"})
    with pytest.raises(ArgumentError, match="sid-sony: all_bursts=perhaps is not possible"):
        registry.plan("sid-sony", [Path()], {"all_bursts": "perhaps"})
    valid = registry.validate_keywords("sid-fuji", {"lists": "2018", "all_bursts": "true", "split": "val"})
    assert valid == {"lists": Path("2018"), "all_bursts": True, "split": "val"}


@pytest.mark.parametrize("kind", registry.list_kinds())
def test_data_sets_describe_themselves(kind: str) -> None:
    assert registry.summarize(kind).endswith(".")
    keywords = registry.own_keywords(kind)
    assert all(keyword.meaning for keyword in keywords.values())
    assert not set(keywords) & set(inspect.signature(prepare).parameters)
    defaults = {key: keyword.default for key, keyword in keywords.items()}
    assert registry.validate_keywords(kind, defaults) == defaults


def test_a_new_file_is_a_new_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from pellucid.data.dataset import dataset\n"
        "from pellucid.data.datasets.folder import folder\n"
        "@dataset\n"
        "def my_pictures(paths, *, nth: int = 1):\n"
        "    return folder(paths[::nth])\n"
    )
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pellucid.data.datasets.mine", raising=False)
    assert {"my-pictures", "folder", "gopro", "sid-sony"} <= set(registry.list_kinds())
    sources = [write_pictures(tmp_path / name) for name in "abc"]
    assert len(prepare("my-pictures", sources[:1], tmp_path / "s", nth=2).store) == 3
