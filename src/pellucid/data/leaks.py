"""Test pictures that are also in the training data, where their scores would mean nothing.

Decoded samples are compared in gray, in two ways:

    whole   thumbnails of 16 x 17 px, by the signs of their slopes: finds the same picture in color or gray, at
            another size, or compressed again
            ones without contrast, if all samples are the same
    part    blocks of 32 x 32 px, bit for bit, at any offset: finds crops of each other, and crops of a third
            picture that have 63 x 63 px in common

Both are found in all eight orientations, because trainings turn and mirror patches.
Not found: parts that are scaled, compressed, noisy, or converted to gray with weights other than those of MATLAB's
rgb2gray.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.data import store
from pellucid.data.store import Store
from pellucid.errors import PictureError
from pellucid.pictures import images
from pellucid.pictures.samples import Samples

BLOCK_PX = 32
"""Side of the blocks that are compared."""

_THUMBNAIL = (16, 17)
_MAX_DIFFERENT_BITS = 12
"""Out of 256. Unrelated photographs differ in about 100 bits, a photograph and its JPEG of quality 30 in a few."""

_MIN_CONTRAST = 16
"""Out of 255. Flat blocks and pictures, e.g. of a clear sky, agree by chance."""

_GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray

_Hashes = NDArray[np.uint64]
_ROW_WEIGHTS = np.random.default_rng(0).integers(2**64, size=BLOCK_PX, dtype=np.uint64) | np.uint64(1)
# Small enough that sums over 32 samples are exact in float64, which is much faster than 64-bit integers.
_COLUMN_WEIGHTS = np.random.default_rng(1).integers(2**39, size=BLOCK_PX).astype(np.float64)


@dataclass(frozen=True)
class Leak:
    """A test picture that is in a store, as a whole or in part."""

    test_name: str
    store_name: str
    extent: Literal["whole", "part"]

    def __str__(self) -> str:
        what = "is" if self.extent == "whole" else "has parts of"
        return f"{self.test_name} {what} {self.store_name} of the training data"


def find_leaks(
    store: Store, pictures: Iterable[tuple[str, Samples]], progress: Callable[[int, int], None] | None = None
) -> list[Leak]:
    """The test pictures among the targets of a store, each with the first item it is found in.

    pictures: (name, samples), (H, W, C) uint8 or uint16. progress: called with (done, total), in targets.
    The store is read once, which takes most of the time.
    """
    tests = _TestIndex([(name, _to_gray(samples)) for name, samples in pictures])
    found: dict[str, Leak] = {}
    targets = dict(zip(reversed(store.scenes), reversed(range(len(store))), strict=True))
    for done, i in enumerate(sorted(targets.values()), start=1):
        for leak in tests.find_in(store.names[i], _to_gray(store.target(i))):
            if leak.test_name not in found or (leak.extent == "whole" and found[leak.test_name].extent == "part"):
                found[leak.test_name] = leak
        if progress is not None:
            progress(done, len(targets))
    return sorted(found.values(), key=lambda leak: leak.test_name)


def find_leaks_in_folder(
    store: Store, folder: str | Path, progress: Callable[[int, int], None] | None = None
) -> list[Leak]:
    """Like `find_leaks`, for the pictures in a folder or the targets of another store.

    Pictures that cannot be read, or have floating-point samples, are ignored.
    """
    return find_leaks(store, _read_pictures(Path(folder)), progress)


def _read_pictures(folder: Path) -> Iterator[tuple[str, Samples]]:
    if store.is_store(folder):
        other = store.open(folder)
        yield from ((name, other.target(i)) for i, name in enumerate(other.names))
        return
    for path in images.find(folder):
        try:
            picture = images.read(path)
        except PictureError:
            continue
        if picture.dtype != "float32":
            yield path.relative_to(folder).as_posix(), picture.samples


class _TestIndex:
    """An index of all test pictures."""

    def __init__(self, pictures: list[tuple[str, NDArray[np.uint8]]]) -> None:
        self.names = [name for name, _ in pictures]
        self.contents = [_identify(gray) for _, gray in pictures]
        self.slopes = np.array([[_hash_slopes(turned) for turned in _turn(gray)] for _, gray in pictures])
        hashes = [_hash_all_blocks(gray) for _, gray in pictures]
        joined = np.concatenate([np.zeros(0, np.uint64), *hashes])
        owners = np.repeat(np.arange(len(hashes)), [len(each) for each in hashes])
        order = np.argsort(joined)
        self.hashes, self.owners = joined[order], owners[order]

    def find_in(self, name: str, gray: NDArray[np.uint8]) -> list[Leak]:
        """The test pictures that are in a target of this name."""
        if _has_contrast(gray):
            different = np.count_nonzero(self.slopes.reshape(-1, 8, 256) != _hash_slopes(gray), axis=2)
            whole = set(np.flatnonzero(different.min(axis=1) <= _MAX_DIFFERENT_BITS).tolist())
        else:
            content = _identify(gray)
            whole = {i for i, other in enumerate(self.contents) if content is not None and other == content}
        part = self._owners_of(_hash_separate_blocks(gray)) - whole
        leaks = [Leak(self.names[i], name, "whole") for i in sorted(whole)]
        return leaks + [Leak(self.names[i], name, "part") for i in sorted(part)]

    def _owners_of(self, hashes: _Hashes) -> set[int]:
        first = np.searchsorted(self.hashes, hashes, "left")
        last = np.searchsorted(self.hashes, hashes, "right")
        owners = [self.owners[first[i] : last[i]] for i in np.flatnonzero(first < last)]
        return {int(owner) for some in owners for owner in some}


def _to_gray(samples: Samples) -> NDArray[np.uint8]:
    """(H, W, C) uint8 or uint16 -> (H, W) uint8, rounded as MATLAB does."""
    eight = samples if samples.dtype == np.uint8 else ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if eight.shape[2] == 1:
        return eight[..., 0]
    red, green, blue = (eight[..., i] * weight for i, weight in enumerate(_GRAY))
    return np.floor(red + green + blue + 0.5).astype(np.uint8)


def _turn(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """(..., H, W) in all eight orientations."""
    return [
        np.rot90(mirrored, count, axes=(-2, -1)) for mirrored in (pixels, pixels[..., ::-1]) for count in range(4)
    ]


def _has_contrast(gray: NDArray[np.uint8]) -> bool:
    return int(gray.max()) - int(gray.min()) >= _MIN_CONTRAST


def _identify(gray: NDArray[np.uint8]) -> str | None:
    """Of a picture without contrast: equal for equal size and samples. None for others, and for a single level."""
    return None if _has_contrast(gray) or np.ptp(gray) == 0 else store.digest(gray)


def _hash_slopes(gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(256,): where the thumbnail becomes brighter to the right."""
    rows, columns = (_averaging_matrix(size, num) for size, num in zip(gray.shape, _THUMBNAIL, strict=True))
    thumbnail = rows @ gray.astype(np.float64) @ columns.T  # of mixed types, NumPy would not use BLAS
    return np.diff(thumbnail, axis=1).ravel() > 0


def _averaging_matrix(size: int, num_cells: int) -> NDArray[np.float64]:
    """(num_cells, size): each row averages one cell; pixels on its border are weighted by their share in it."""
    edges = np.linspace(0, size, num_cells + 1)
    left, right = edges[:-1, None], edges[1:, None]
    pixels = np.arange(size)
    covered = np.clip(np.minimum(right, pixels + 1) - np.maximum(left, pixels), 0, None)
    return covered / covered.sum(axis=1, keepdims=True)


def _hash_all_blocks(gray: NDArray[np.uint8]) -> _Hashes:
    """Hashes of the blocks at every offset. Arithmetic is modulo 2^64."""
    height, width = gray.shape
    if min(height, width) < BLOCK_PX:
        return np.zeros(0, np.uint64)
    wide = np.lib.stride_tricks.sliding_window_view(gray.astype(np.float64), BLOCK_PX, axis=1)
    across = (wide @ _COLUMN_WEIGHTS).astype(np.uint64)
    both = sum(across[i : height - BLOCK_PX + 1 + i] * weight for i, weight in enumerate(_ROW_WEIGHTS))
    return np.asarray(both).ravel()


def _hash_separate_blocks(gray: NDArray[np.uint8]) -> _Hashes:
    """Hashes of the blocks of a grid in all orientations, without those of low contrast."""
    rows, columns = (size // BLOCK_PX for size in gray.shape)
    grid = gray[: rows * BLOCK_PX, : columns * BLOCK_PX].reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    blocks = grid.swapaxes(1, 2).reshape(-1, BLOCK_PX, BLOCK_PX)
    blocks = blocks[np.ptp(blocks, axis=(1, 2)) >= _MIN_CONTRAST].astype(np.float64)
    turned = np.concatenate(_turn(blocks))
    return np.asarray((turned @ _COLUMN_WEIGHTS).astype(np.uint64) @ _ROW_WEIGHTS)
