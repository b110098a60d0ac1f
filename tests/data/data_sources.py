"""Pictures, folders and archives for the tests of data."""

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def write_noise(path: Path, *shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    samples = noise(*shape, dtype=dtype, seed=seed)
    images.write(Picture(samples), path)
    return samples


def write_pictures(folder: Path, num: int = 3) -> Path:
    for i in range(num):
        write_noise(folder / "deep" / f"{i}.png", 8, 6 + i, 3, seed=i)
    return folder


def zip_folder(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


def tar_folder(folder: Path, path: Path, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, ".")
    return path
