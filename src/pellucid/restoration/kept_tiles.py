"""Finished tiles of a picture that takes long, kept until its result is complete.

The tiles are files in a hidden folder next to the result. A run that repeats an interrupted one, however it ended,
reads them instead of computing them again. Their folder is named after a hash of everything that affects their
samples, so those of another picture, model or setting are never used; a damaged file is ignored.
"""

import io
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from pellucid.pictures.picture import Picture
from pellucid.restoration.tiling import Tile
from pellucid.system import files

KEEP_AFTER_S = 10.0
"""Tiles are kept after this time of computing, so that short work writes nothing else than the result."""

_HASH_BYTES = 32


class KeptTiles:
    """The kept tiles of one result. Without a target, nothing is kept.

    was_found: whether the last tile was read, not computed. found_s: how long the tiles that were read took to
    compute. kept_s: the same for all that an interruption would not lose.
    """

    def __init__(self, target: Path | None = None) -> None:
        self._root = None if target is None else files.hidden_path(target, "tiles")
        self._is_used = self._root is not None and self._root.is_dir()
        self._computed_s, self._model_number, self._tile_px = 0.0, 0, 0
        self._make_key: Callable[[], str] | None = None
        self._key: str | None = None
        self.was_found, self.found_s, self.kept_s = False, 0.0, 0.0

    def start_picture(self, make_key: Callable[[], str]) -> None:
        """Start a picture, one of several if the result has pages.

        make_key: identifies everything that affects the samples of its tiles; called only if tiles are kept.
        """
        self._make_key, self._key, self._model_number = make_key, None, 0

    def finish_picture(self) -> None:
        """Its key is not needed any more, nor the samples that it would be made of."""
        self._make_key = None

    def start_model(self, tile_px: int) -> int:
        """Start the next model of a chain; returns the side of its tiles.

        tile_px: the side that fits the memory. Kept tiles are used if they are not larger.
        """
        self._model_number += 1
        sizes = self._list_sizes() if self._is_used else []
        self._tile_px = max((size for size in sizes if size <= tile_px), default=tile_px)
        return self._tile_px

    def find(self, tile: Tile) -> Picture | None:
        """A kept tile, without metadata; None if it must be computed."""
        self.was_found = False
        if not self._is_used:
            return None
        try:
            content = self._path(tile).read_bytes()
        except OSError:
            return None
        if sha256(content[_HASH_BYTES:]).digest() != content[:_HASH_BYTES]:
            return None
        with np.load(io.BytesIO(content[_HASH_BYTES:]), allow_pickle=False) as planes:
            part = Picture(planes["samples"], planes.get("alpha"), extra=planes.get("extra"))
            seconds = float(planes["seconds"])
        self.was_found = True
        self.found_s, self.kept_s = self.found_s + seconds, self.kept_s + seconds
        return part

    def add(self, tile: Tile, part: Picture, seconds: float) -> None:
        """Keep a tile that took this long to compute, if the picture takes long enough."""
        self._computed_s += seconds
        if self._root is None or not (self._is_used or self._computed_s >= KEEP_AFTER_S):
            return
        self._is_used = True
        planes = {"samples": part.samples, "alpha": part.alpha, "extra": part.extra}
        given = {name: plane for name, plane in planes.items() if plane is not None}
        file, path = io.BytesIO(), self._path(tile)
        np.savez(file, seconds=seconds, **given)  # type: ignore[arg-type]  # any name
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stored:  # not flushed to the disk: the hash detects damage
                stored.write(sha256(file.getbuffer()).digest())
                stored.write(file.getbuffer())
            temporary.replace(path)
        except OSError:  # a full disk needs its space for the result; other folders cannot be written
            self.remove()
            self._root = None
        else:
            self.kept_s += seconds

    def remove(self) -> None:
        """Remove all kept tiles: the result is complete, or the picture cannot be restored."""
        if self._is_used and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._is_used, self.kept_s = False, 0.0

    def _path(self, tile: Tile) -> Path:
        return self._folder(str(self._tile_px)) / f"{tile.top}-{tile.bottom}-{tile.left}-{tile.right}.npz"

    def _folder(self, size: str) -> Path:
        """The folder for the tiles of the current model; they can only be reused in the same plan of tiles."""
        assert self._root is not None
        if self._key is None:
            assert self._make_key is not None
            self._key = self._make_key()
        return self._root / f"{self._key}-{self._model_number}-{size}"

    def _list_sizes(self) -> list[int]:
        assert self._root is not None
        sizes = [folder.name.rpartition("-")[2] for folder in self._root.glob(self._folder("*").name)]
        return [int(size) for size in sizes if size.isdigit()]
