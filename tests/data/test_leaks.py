"""Leaks: test pictures that are in the training data are found, and no others."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pellucid.data import leaks
from pellucid.data.preparing import prepare
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples


def photo(height: int, width: int, seed: int) -> Samples:
    """Smooth blobs in weak colors, like a photograph, different for each seed."""
    coarse = np.random.default_rng(seed).normal(size=(height // 16 + 1, width // 16 + 1))
    rows, columns = np.linspace(0, height // 16, height), np.linspace(0, width // 16, width)
    across = np.stack([np.interp(columns, np.arange(len(row)), row) for row in coarse])
    gray = np.stack([np.interp(rows, np.arange(len(column)), column) for column in across.T], axis=1)
    return np.clip(gray[..., None] * [50, 54, 58] + 128, 0, 255).astype(np.uint8)


def test_leaks_are_found(tmp_path: Path) -> None:
    pictures = [photo(128, 160, seed) for seed in range(4)]
    for i, samples in enumerate(pictures):
        images.write(Picture(samples), tmp_path / "train" / f"{i}.png")
    made = prepare("folder", [tmp_path / "train"], tmp_path / "s").store
    gray = np.floor(pictures[1] @ [0.298936021293775, 0.587043074451121, 0.114020904255103] + 0.5)[..., None]
    other_gray = np.rint(pictures[1].mean(axis=2, keepdims=True))
    tests = {
        "same.png": pictures[0],
        "gray.png": gray.astype(np.uint8),
        "other_gray.png": other_gray.astype(np.uint8),
        "half.png": pictures[2][::2, ::2],
        "crop.png": pictures[3][11:90, 7:90],
        "gray_crop.png": gray.astype(np.uint8)[30:100, 3:80],
        "unknown.png": photo(128, 160, 50),
        "flat.png": np.full((64, 64, 1), 7, np.uint8),
    }
    found = {leak.test_name: (leak.store_name, leak.extent) for leak in leaks.find_leaks(made, tests.items())}
    assert found == {
        "same.png": ("0.png", "whole"),
        "gray.png": ("1.png", "whole"),
        "other_gray.png": ("1.png", "whole"),
        "half.png": ("2.png", "whole"),
        "crop.png": ("3.png", "part"),
        "gray_crop.png": ("1.png", "part"),
    }


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_and_mirrored_pictures_are_found(mirrored: bool, count: int, tmp_path: Path) -> None:
    """Trainings turn and mirror their patches."""
    pictures = [photo(128, 160, seed) for seed in range(2)]
    for i, samples in enumerate(pictures):
        turned = np.rot90(samples[:, ::-1] if mirrored else samples, count)
        images.write(Picture(np.ascontiguousarray(turned)), tmp_path / "train" / f"{i}.png")
    made = prepare("folder", [tmp_path / "train"], tmp_path / "s").store
    tests = {"same.png": pictures[0], "crop.png": pictures[1][20:100, 9:90], "unknown.png": photo(128, 160, 50)}
    found = {leak.test_name: (leak.store_name, leak.extent) for leak in leaks.find_leaks(made, tests.items())}
    assert found == {"same.png": ("0.png", "whole"), "crop.png": ("1.png", "part")}


def test_pictures_without_contrast_are_found_if_they_are_the_same(tmp_path: Path) -> None:
    sky = np.random.default_rng(0).integers(244, 255, (44, 48, 3), np.uint8)
    images.write(Picture(sky), tmp_path / "train" / "sky.png")
    images.write(Picture(np.full((40, 40, 3), 9, np.uint8)), tmp_path / "train" / "flat.png")
    made = prepare("folder", [tmp_path / "train"], tmp_path / "s").store
    tests = {"same.png": sky, "other.png": sky[::-1], "flat.png": np.full((40, 40, 3), 9, np.uint8)}
    assert [leak.test_name for leak in leaks.find_leaks(made, tests.items())] == ["same.png"]


def test_the_known_overlap_of_published_sets_is_found(data: Path, tmp_path: Path) -> None:
    """BSD68 is the gray half of CBSD68; Set12's starfish is a crop of a training picture of BSDS."""
    made = prepare("folder", [data / "denoising" / "CBSD68"], tmp_path / "c").store
    assert len(leaks.find_leaks_in_folder(made, data / "denoising" / "BSD68")) == 68
    made = prepare("folder", [data / "training" / "Train400"], tmp_path / "t").store
    assert [leak.test_name for leak in leaks.find_leaks_in_folder(made, data / "denoising" / "Set12")] == [
        "04.png"
    ]


def bars(bits: NDArray[np.bool_]) -> Samples:
    """A picture whose thumbnail of 16 x 17 px becomes brighter to the right where a bit of (16, 16) is set."""
    levels = np.cumsum(np.where(bits, 5, -5), axis=1)
    thumbnail = np.concatenate([np.zeros((16, 1), int), levels], axis=1) + 128
    return thumbnail.repeat(8, axis=0).repeat(8, axis=1)[..., None].astype(np.uint8)


@pytest.mark.parametrize(("num_different", "is_leak"), [(0, True), (12, True), (13, False), (30, False)])
def test_pictures_with_more_than_12_different_slopes_are_not_leaks(
    tmp_path: Path, num_different: int, is_leak: bool
) -> None:
    """Up to 12 of the 256 slopes of a thumbnail may differ, as they do after compression."""
    rng = np.random.default_rng(3)
    bits = rng.random((16, 16)) < 0.5
    other = bits.copy()
    other.flat[rng.permutation(256)[:num_different]] ^= True
    images.write(Picture(bars(bits)), tmp_path / "train" / "a.png")
    made = prepare("folder", [tmp_path / "train"], tmp_path / "s").store
    test = bars(other)
    test[::8, ::8] += 1  # so that no block is equal
    found = leaks.find_leaks(made, [("b.png", test)])
    assert [leak.extent for leak in found] == (["whole"] if is_leak else [])
