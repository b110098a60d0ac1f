"""Restore pictures: read -> domain -> tiles through the network -> domain -> write.

`Restorer` is the one door to trained networks; evaluation goes through it too. Its results do not depend on
the tile size: a tile is computed from all that its pixels can see.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import product
from math import dist
from pathlib import Path

import torch
from torch import Tensor

from pellucid import checkpoint, files, images, models, tiling
from pellucid.backends import TorchBackend
from pellucid.checkpoint import Card
from pellucid.domains import Degraded
from pellucid.errors import DataError, OutputError, PellucidError, PictureError, WeightsError, about
from pellucid.picture import Mosaic, Picture
from pellucid.recipe import Recipe

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all)."""


@dataclass(frozen=True)
class View:
    """One of the eight ways to turn and mirror a picture."""

    flip_rows: bool = False
    flip_cols: bool = False
    transpose: bool = False

    def __call__(self, planes: Tensor) -> Tensor:
        return self._transposed(self._flipped(planes))

    def back(self, planes: Tensor) -> Tensor:
        return self._flipped(self._transposed(planes))

    def _flipped(self, planes: Tensor) -> Tensor:
        return planes.flip([axis for axis, flip in ((-2, self.flip_rows), (-1, self.flip_cols)) if flip])

    def _transposed(self, planes: Tensor) -> Tensor:
        return planes.transpose(-2, -1) if self.transpose else planes


AS_IT_IS = (View(),)
ALL_EIGHT = tuple(View(*flags) for flags in product((False, True), repeat=3))


class Restorer:
    """A trained network with its domain: takes a picture, returns a picture of the same kind.

    name: how it was asked for. card: what its weight file says.
    """

    def __init__(self, name: str, recipe: Recipe, backend: TorchBackend, card: Card | None = None) -> None:
        self.name, self.recipe, self.backend, self.card = name, recipe, backend, card
        rate = recipe.domain.rate
        self.scale = int(rate * backend.scale)
        """Result pixels per picture pixel, along one side."""
        self.halo_px = recipe.domain.halo_px(backend.halo)
        """How many picture pixels away from its own place a result pixel sees."""
        self.grid_px = (Fraction(backend.multiple) / rate).numerator
        """What is read of a picture starts on multiples of this."""

    def __repr__(self) -> str:
        return f"<Restorer {self.name}: {self.recipe.name} on {self.backend.device}>"

    def changes(self) -> list[str]:
        """Where the recipe is another than the weights were made for, a line each."""
        made_for = {} if self.card is None else self.card.parameters
        return [
            f"{self.name}: {key}={value}, but its weights are for {key}={made_for[key]}"
            for key, value in self.recipe.parameters.items()
            if key in made_for and made_for[key] != value
        ]

    def restore(
        self,
        degraded: Degraded,
        *,
        tile_px: int | None = None,
        halo_px: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> Picture:
        """Restore one picture, or one mosaic where the recipe takes those.

        tile_px: side of the tiles, in pixels of the degraded picture; chosen by itself when None. It changes
            time and memory, not the result.
        halo_px: how much to read around each tile. Less than `halo_px` of the restorer is faster, and no
            longer exact.
        ensemble: the mean over all eight turned and mirrored versions: eight times the work.
        strength: 0 gives the network's input back (for enlarging: the bicubic one), 1 its full effect.
        """
        if not 0 <= strength <= 1:
            raise PellucidError(f"strength {strength:g}; a number from 0 to 1 is needed")
        if strength != 1 and isinstance(degraded, Mosaic):
            raise PictureError("strength blends with the input, and a mosaic is no picture; leave it at 1")
        degraded = self.recipe.domain.accept(degraded)
        tiles = self._plan(degraded, tile_px, halo_px)
        views = ALL_EIGHT if ensemble else AS_IT_IS
        restored: Picture | None = None
        for done, tile in enumerate(tiles, start=1):
            part = self._restored_tile(degraded, tile, halo_px, views, strength)
            if restored is None:
                restored = part.blank(degraded.height * self.scale, degraded.width * self.scale)
            restored.paste(part, tile.rows.placed(self.scale), tile.cols.placed(self.scale))
            if progress is not None:
                progress(done, len(tiles))
        assert restored is not None
        return restored

    def given_up(self, degraded: Degraded, *, halo_px: int, tile_px: int | None = None) -> float:
        """What a smaller halo costs: the largest difference, white being 1, on the tile in the middle."""
        degraded = self.recipe.domain.accept(degraded).as_depth("float32")
        tiles = self._plan(degraded, tile_px, halo_px)
        if len(tiles) == 1:
            return 0.0
        center = (degraded.height / 2, degraded.width / 2)
        tile = min(tiles, key=lambda tile: dist(center, (tile.rows.stop, tile.cols.stop)))
        exact = self._restored_tile(degraded, tile, None, AS_IT_IS, 1.0)
        nearly = self._restored_tile(degraded, tile, halo_px, AS_IT_IS, 1.0)
        return float(abs(exact.samples - nearly.samples).max())

    def _plan(self, degraded: Degraded, tile_px: int | None, halo_px: int | None) -> list[tiling.Tile]:
        halo_px = self.halo_px if halo_px is None else halo_px
        if tile_px is None:
            tile_px = self._fitting_tile_px(degraded, halo_px)
        return tiling.plan(degraded.height, degraded.width, tile_px=tile_px, halo_px=halo_px, grid_px=self.grid_px)

    def _fitting_tile_px(self, degraded: Degraded, halo_px: int) -> int:
        """The whole where it is no more than a tile with its halo would be; else large against the halo."""
        # 512 network pixels keep activations near the caches; a large halo asks for more, memory for less.
        tile_px = max(int(512 / self.recipe.domain.rate), min(1024, 4 * halo_px))
        if degraded.height * degraded.width <= (tile_px + 2 * halo_px) ** 2:
            return max(degraded.height, degraded.width)
        return tile_px

    def _restored_tile(
        self,
        degraded: Degraded,
        tile: tiling.Tile,
        halo_px: int | None,
        views: Sequence[View],
        strength: float,
    ) -> Picture:
        """The tile, computed in float by every view, their mean at the depth of the degraded picture."""
        parts = [self._seen_by(view, degraded, tile, halo_px, strength) for view in views]
        samples = reduce(torch.add, [part.to_tensor() for part in parts]) / len(parts)
        if not samples.isfinite().all():
            raise WeightsError(f"{self.name} gives NaN or infinite samples; its weights are damaged")
        return parts[0].with_tensor(samples, parts[0].alpha_to_tensor()).as_depth(degraded.dtype)

    def _seen_by(
        self, view: View, degraded: Degraded, tile: tiling.Tile, halo_px: int | None, strength: float
    ) -> Picture:
        domain = self.recipe.domain
        rows = self._span(tile.rows, degraded.height, halo_px, view.flip_rows)
        cols = self._span(tile.cols, degraded.width, halo_px, view.flip_cols)
        outer = degraded.crop(rows.read, cols.read).as_depth("float32")
        network_input = domain.to_input(outer)
        output = view.back(self.backend(view(network_input)))
        if strength != 1:
            output = torch.lerp(network_input, output, strength)
        return domain.to_picture(output, outer).crop(rows.kept(self.scale), cols.kept(self.scale))

    def _span(self, span: tiling.Span, size: int, halo_px: int | None, mirrored: bool) -> tiling.Span:
        """What to read of one side. A mirrored picture has its grid at the other end."""
        halo_px = self.halo_px if halo_px is None else halo_px
        start, stop = (size - span.stop, size - span.start) if mirrored else (span.start, span.stop)
        seen = tiling.span(start, stop, size, halo_px=halo_px, grid_px=self.grid_px)
        return seen.mirrored(size) if mirrored else seen


def load(name_or_file: str | Path, /, *, device: str = "auto", **parameters: object) -> Restorer:
    """A restorer by the name of a model (see `pellucid models`) or by the path of a weight file.

    parameters: recipe keywords to change, as `scale=3` of a network of three tasks.
    """
    path = models.find(name_or_file)
    network, recipe, card = checkpoint.load(path, **parameters)
    return Restorer(path.stem, recipe, TorchBackend(network, device), card)


@dataclass(frozen=True)
class Job:
    """One picture to restore, and where it goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: restored, left alone since its result is there, or failed and why."""

    job: Job
    megapixels: float = 0.0
    seconds: float = 0.0
    skipped: bool = False
    error: PellucidError | None = None


def plan(inputs: Sequence[str | Path], out: str | Path | None = None) -> list[Job]:
    """Which file becomes which: files and folders in, a file or a folder out.

    Without out, a file goes beside itself as NAME-restored.EXT, and a folder to FOLDER-restored; with out, one
    file goes there under a name that has a suffix, and into a folder otherwise. Raises when an input does not
    exist, two results would have one name, or a result would replace a source.
    """
    if not all(str(path) for path in inputs):
        raise PictureError("an empty name among the inputs; a picture or a folder is needed")
    given = [Path(path) for path in inputs]
    out = None if out is None else Path(out)
    for path in given:
        if not os.path.lexists(path):
            raise PictureError(f"{path} does not exist")
    if len(given) == 1 and not given[0].is_dir() and out is not None and out.suffix and not out.is_dir():
        jobs = [Job(given[0], out)]
    elif out is not None and not out.is_dir() and (os.path.lexists(out) or out.suffix in images.SUFFIXES):
        raise OutputError(f"{out} is a file; for folders and several pictures, --out is a folder")
    else:
        jobs = [job for path in given for job in _jobs(path, out)]
    _check(jobs)
    return jobs


def restore(
    jobs: Sequence[Job],
    restorer: Restorer,
    *,
    overwrite: bool = False,
    tile_px: int | None = None,
    halo_px: int | None = None,
    ensemble: bool = False,
    strength: float = 1.0,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Restore files one by one and say what became of each; a bad one does not stop the others.

    An existing result is left alone unless overwrite is set, so that the same call goes on where it was
    interrupted. The other keywords are those of `Restorer.restore`.
    """
    for job in jobs:
        if job.target.is_file() and not overwrite:
            yield Outcome(job, skipped=True)
            continue
        start = time.monotonic()
        try:
            files.check_free(job.target, overwrite=overwrite)
            images.can_write(job.target)
            degraded = images.read(job.source)
            restored = restorer.restore(
                degraded,
                tile_px=tile_px,
                halo_px=halo_px,
                ensemble=ensemble,
                strength=strength,
                progress=progress,
            )
            images.write(restored, job.target, overwrite=overwrite)
        except PellucidError as error:
            yield Outcome(job, error=about(job.source, error))
        else:
            megapixels = degraded.height * degraded.width / 1e6
            yield Outcome(job, megapixels, time.monotonic() - start)


def _jobs(given: Path, out: Path | None) -> Iterator[Job]:
    if given.is_dir():
        found = images.find(given)
        if not found:
            raise DataError(f"{given} holds no pictures ({', '.join(sorted(images.SUFFIXES))})")
        folder = _beside(given) if out is None else out
        for source in found:
            if _lies_in(folder, given) and _lies_in(source, folder):
                continue  # results of an earlier run, below the folder they came from
            yield Job(source, folder / source.relative_to(given).with_name(images.written_name(source.name)))
    elif out is None:
        yield Job(given, given.with_name(images.written_name(f"{given.stem}-restored{given.suffix}")))
    else:
        yield Job(given, out / images.written_name(given.name))


def _lies_in(path: Path, folder: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


def _beside(folder: Path) -> Path:
    named = folder if folder.name else folder.resolve()
    if not named.name or named.name == "..":
        raise OutputError(f"{folder} has no name to put -restored behind; say with --out where results go")
    return named.with_name(f"{named.name}-restored")


def _check(jobs: Sequence[Job]) -> None:
    """Refuse what would replace a source or another result."""
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.realpath(job.target)
        if target in sources:
            raise OutputError(f"{job.target} is the input itself; choose another --out")
        if target in taken:
            raise OutputError(
                f"{taken[target]} and {job.source} would both become {job.target}; "
                f"restore them into different folders"
            )
        taken[target] = job.source
