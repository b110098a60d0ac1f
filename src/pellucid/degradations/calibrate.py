"""Calibration of a camera: the noise of its sensor from flat and dark frames."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pellucid.degradations.camera_files import CameraProfile, IsoNoise
from pellucid.degradations.frame_pairs import (
    TILE_PX,
    DarkNoise,
    Levels,
    Tiles,
    fit_gain,
    measure_dark_pair,
    measure_flat_pair,
    measure_misfit,
)
from pellucid.errors import DataError, PellucidError
from pellucid.pictures.camera import raw
from pellucid.pictures.finding import find_pictures
from pellucid.pictures.picture import Exposure, Mosaic
from pellucid.system.arguments import checks_types

MIN_TILES = 50
"""Fewer areas with light and without saturation are not enough for a gain."""

MAX_MISFIT = 0.15
"""Above this relative deviation from the model, the frames are reported."""

MAX_CORRELATION = 0.1
"""Above this correlation of neighboring samples, flat frames are reported."""

_SATURATED = 0.95
"""Share of the range above which a sensor may no longer be linear."""

_LIT = 0.02
"""Share of the range below which flat frames have too little light."""

_MAX_DARK = 0.1
"""Share of the range above black, as the files state it, from which on dark frames cannot be dark."""


@dataclass(frozen=True)
class Calibration:
    """A profile of a camera, the measurements it is from, and what was not used or may be wrong, one line each."""

    profile: CameraProfile
    tiles: dict[float, Tiles]
    messages: tuple[str, ...] = ()


@checks_types()
def calibrate(
    flats: str | Path, darks: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> Calibration:
    """Measure gain, read noise and row noise of a camera over its ISOs, by the photon transfer method.

    flats: folder of camera RAW files of an evenly lit surface, out of focus; of each ISO at least two with the
        same exposure, better several pairs from dark to almost saturated. darks: folder of RAW files with the
        lens covered, at least two of each ISO. Pairs are taken in the order of names.
    progress: called with (frames done, of how many).

    Reads each frame once; holds two frames, and one of each exposure that waits for its pair.
    Raises DataError if the folders contain no pairs of frames with the same ISO, if files are of different
    cameras, or if black is clipped; PictureError for a damaged file.
    """
    frames = _Frames(_find_raw(Path(darks)), _find_raw(Path(flats)), progress or (lambda done, total: None))
    dark_noise = _measure_darks(frames)
    tiles = _measure_flats(frames, dark_noise)
    isos = tuple(_measure_iso(iso, joined, dark_noise[iso]) for iso, joined in tiles.items())
    frames.messages += list(map(_describe_misfit, (one for one in isos if one.misfit > MAX_MISFIT)))
    correlations = {iso: joined.correlation for iso, joined in tiles.items()}
    frames.messages += [
        f"ISO {iso:g}: the noise of neighboring samples of one color is correlated ({correlation:.2f}); the files "
        "were denoised or resized, so the gain is too small"
        for iso, correlation in correlations.items()
        if correlation > MAX_CORRELATION
    ]
    if not isos:
        raise DataError(
            f"no ISO has two flat frames of the same exposure in {flats} and two dark frames in {darks}",
            hint="; ".join(frames.messages[:2]) or "take at least two of each",
        )
    mosaic = frames.first
    profile = CameraProfile(frames.camera, float(np.mean(mosaic.black_level)), mosaic.white_level, isos)
    return Calibration(profile, tiles, tuple(frames.messages))


class _Frames:
    """Pairs of frames with the same exposure, all of one camera; and messages about those that have no pair."""

    def __init__(
        self, darks: tuple[Path, ...], flats: tuple[Path, ...], progress: Callable[[int, int], None]
    ) -> None:
        self._darks, self._flats, self._progress = darks, flats, progress
        self._num_read = 0
        self.messages: list[str] = []
        self.first = raw.read(darks[0])
        self.camera = _name_camera(self.first)

    def pair_darks(self) -> Iterator[tuple[float, Mosaic, Mosaic]]:
        """ISO and frames of each two files of the same ISO."""
        return self._pair(self._darks, lambda exposure: (exposure.iso,))

    def pair_flats(self) -> Iterator[tuple[float, Mosaic, Mosaic]]:
        """ISO and frames of each two files of the same exposure."""
        return self._pair(self._flats, lambda exposure: (exposure.iso, exposure.time_s, exposure.f_number))

    def _pair(
        self, paths: Sequence[Path], make_key: Callable[[Exposure], tuple[float | None, ...]]
    ) -> Iterator[tuple[float, Mosaic, Mosaic]]:
        waiting: dict[tuple[float | None, ...], tuple[Path, Mosaic]] = {}
        for path in paths:
            mosaic = self._read(path)
            if mosaic.exposure.iso is None:
                raise DataError(f"{path} does not state its ISO", hint="add it, e.g. by exiftool -ISO=100")
            key = make_key(mosaic.exposure)
            if key in waiting:
                yield mosaic.exposure.iso, waiting.pop(key)[1], mosaic
            else:
                waiting[key] = path, mosaic
        self.messages += [
            f"{path} is left out: frames of one exposure are used in pairs, and their number is odd"
            for path, _ in waiting.values()
        ]

    def _read(self, path: Path) -> Mosaic:
        try:
            mosaic = raw.read(path)
        except PellucidError as error:
            raise error.about(path) from error
        self._num_read += 1
        self._progress(self._num_read, len(self._darks) + len(self._flats))
        expected, found = ({"camera": _name_camera(one), **_describe(one)} for one in (self.first, mosaic))
        for key, value in found.items():
            if value != expected[key]:
                raise DataError(
                    f"{path}: its {key} is {value}, but {expected[key]} in {self._darks[0]}",
                    hint="calibrate one camera at a time",
                )
        return mosaic


def _find_raw(folder: Path) -> tuple[Path, ...]:
    paths = find_pictures(folder).pictures
    if not paths:
        raise DataError(f"{folder} contains no pictures; camera RAW files are needed")
    return paths


def _name_camera(mosaic: Mosaic) -> str:
    return (mosaic.camera.model if mosaic.camera is not None else "") or "unknown"


def _describe(mosaic: Mosaic) -> dict[str, object]:
    height, width = mosaic.samples.shape
    return {
        "size": f"{width} x {height} px",
        "filter pattern": " ".join(mosaic.pattern),
        "white level": f"{mosaic.white_level:g}",
    }


@dataclass(frozen=True)
class _Dark:
    """Dark frames of one ISO: their noise, and the level of each site of the filter pattern."""

    noise: DarkNoise
    black: Levels
    num_frames: int


def _measure_darks(frames: _Frames) -> dict[float, _Dark]:
    found: dict[float, list[_Dark]] = defaultdict(list)
    for iso, first, second in frames.pair_darks():
        one, other = first.samples.astype(np.float64), second.samples.astype(np.float64)
        try:
            noise = measure_dark_pair(one, other)
        except ValueError as error:
            raise DataError(
                f"dark frames of ISO {iso:g} are clipped at black: {error}",
                hint="files that keep samples below black are needed",
            ) from error
        dark = _Dark(noise, _measure_black((one + other) / 2, len(first.pattern)), 2)
        _check_is_dark(iso, float(dark.black.max()), first)
        found[iso].append(dark)
    return {iso: _average(pairs) for iso, pairs in found.items()}


def _check_is_dark(iso: float, level: float, frame: Mosaic) -> None:
    """Raise DataError if a level is far above the black that the file states, which is seldom exact."""
    black = float(np.mean(frame.black_level))
    if level - black > _MAX_DARK * (frame.white_level - black):
        raise DataError(
            f"dark frames of ISO {iso:g} are not dark: their level is {level:.0f}, and black is {black:g}",
            hint="take them with the lens covered",
        )


def _measure_black(frame: Levels, period: int) -> Levels:
    sites = [[np.median(frame[row::period, col::period]) for col in range(period)] for row in range(period)]
    return np.array(sites)


def _average(pairs: Sequence[_Dark]) -> _Dark:
    read = float(np.mean([one.noise.read for one in pairs]))
    row = float(np.mean([one.noise.row for one in pairs]))
    return _Dark(DarkNoise(read, row), np.mean([one.black for one in pairs], axis=0), 2 * len(pairs))


def _measure_flats(frames: _Frames, darks: Mapping[float, _Dark]) -> dict[float, Tiles]:
    """Tiles of each ISO that has dark frames, too."""
    found: dict[float, list[Tiles]] = defaultdict(list)
    for iso, first, second in frames.pair_flats():
        found[iso] += [_measure_tiles(first, second, darks[iso].black)] if iso in darks else []
    for iso in sorted(found.keys() | darks.keys()):
        if not found[iso]:
            kind = "dark" if iso in darks else "flat"
            frames.messages.append(f"ISO {iso:g} has only pairs of {kind} frames, and is left out")
    return {iso: _join(found[iso]) for iso in sorted(found) if found[iso]}


def _measure_tiles(first: Mosaic, second: Mosaic, black: Levels) -> Tiles:
    """The tiles of a pair of flat frames that are neither too dark nor saturated."""
    one, other = first.samples.astype(np.float64), second.samples.astype(np.float64)
    range_ = first.white_level - black.max()
    tiles = measure_flat_pair(one, other, black, black.max() + _SATURATED * range_, len(first.pattern))
    is_lit = tiles.signal > _LIT * range_
    return replace(tiles, signal=tiles.signal[is_lit], variance=tiles.variance[is_lit])


def _join(parts: Sequence[Tiles]) -> Tiles:
    signal, variance = (
        np.concatenate(arrays) for arrays in zip(*((part.signal, part.variance) for part in parts), strict=True)
    )
    correlation = max(part.correlation for part in parts)
    return Tiles(signal, variance, sum(part.num_frames for part in parts), correlation)


def _measure_iso(iso: float, tiles: Tiles, dark: _Dark) -> IsoNoise:
    if len(tiles.signal) < MIN_TILES:
        raise DataError(
            f"flat frames of ISO {iso:g} have {len(tiles.signal)} areas with light and without saturation",
            hint=f"at least {MIN_TILES} are needed, of {TILE_PX} x {TILE_PX} px of one color each",
        )
    gain = fit_gain(tiles, dark.noise)
    if gain <= 0:
        raise DataError(f"flat frames of ISO {iso:g} have no more noise than dark frames; are they camera RAW?")
    return IsoNoise(
        iso,
        gain,
        dark.noise.read**0.5,
        dark.noise.row**0.5,
        float(np.mean(dark.black)),
        tiles.num_frames,
        dark.num_frames,
        measure_misfit(tiles, dark.noise, gain),
    )


def _describe_misfit(one: IsoNoise) -> str:
    return (
        f"ISO {one.iso:g}: the variance differs from that of shot noise by {one.misfit:.0%}; were the files "
        "denoised or compressed with losses, or did the light flicker?"
    )
