"""Draw what each degradation does to a photograph: the pictures of docs/degradations.md.

    python examples/degradations.py --out docs
    python examples/degradations.py --out docs --kernels Levin09.mat

The photographs come with scikit-image. Levin et al., "Understanding and Evaluating Blind Deconvolution
Algorithms", CVPR 2009, publish measured kernels. Every small matrix in a MATLAB file (version 5 or 7.3) is assumed
to be a kernel.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

from pellucid.degradations.camera_noise import CameraNoise
from pellucid.degradations.camera_shake import CameraShake, MeasuredShake, Shake
from pellucid.degradations.cameras import CAMERAS, NIKON_D850, SONY_A7S2_HIGH, SONY_A7S2_LOW, Sensor
from pellucid.degradations.degradation import Chain, Degradation
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SensorNoise, SyntheticRaw, Unprocess
from pellucid.degradations.standard import GaussianNoise, Jpeg, Rounding, ShiftedJpeg, ShrinkAndEnlarge
from pellucid.domains import PackedRaw
from pellucid.pictures.camera.raw import develop_mosaic

CELL_PX, GAP_PX, LINE_PX = 176, 8, 22
INK, PAPER = (235, 235, 235), (22, 24, 28)
QUALITY = 82

Cell = tuple[str, Tensor]
"""A caption, and (3, H, W) in [0, 1]."""


def photo(name: str, top: int, left: int, side: int = CELL_PX) -> Tensor:
    """A square of one of scikit-image's photographs, (1, 3, side, side)."""
    samples = getattr(data, name)()[top : top + side, left : left + side]
    return torch.from_numpy(np.ascontiguousarray(samples)).permute(2, 0, 1)[None].float() / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def enlarge(planes: Tensor, factor: int) -> Tensor:
    """Repeat each pixel as a square."""
    return planes.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


class Still:
    """A camera that does not move."""

    kernel_px = 31

    def kernels(self, count: int, generator: torch.Generator) -> Tensor:
        kernel = torch.zeros(count, self.kernel_px, self.kernel_px)
        kernel[:, self.kernel_px // 2, self.kernel_px // 2] = 1
        return kernel


def draw_kernel(kernel: Tensor) -> Tensor:
    """A kernel as a picture, (3, CELL_PX, CELL_PX), its brightest pixel white."""
    factor = CELL_PX // len(kernel)
    light = enlarge((kernel / kernel.max()).sqrt(), factor)
    cell = torch.zeros(CELL_PX, CELL_PX)
    start = (CELL_PX - len(light)) // 2
    cell[start : start + len(light), start : start + len(light)] = light
    return cell.expand(3, -1, -1)


def simple() -> list[list[Cell]]:
    """Noise, JPEG and downscaling, at twice the size."""
    clean = photo("chelsea", 100, 150, CELL_PX // 2)
    steps: list[tuple[str, Degradation]] = [
        ("GaussianNoise(15)", GaussianNoise(15)),
        ("GaussianNoise(50)", GaussianNoise(50)),
        ("Jpeg(40)", Jpeg(40)),
        ("Jpeg(10)", Jpeg(10)),
        ("ShrinkAndEnlarge((3,))", ShrinkAndEnlarge((3,))),
    ]
    cells = [("clean", clean), *((name, step(clean, seeded())) for name, step in steps)]
    return [[(name, enlarge(planes[0], 2)) for name, planes in cells]]


def motion(measured: Sequence[NDArray[Any]]) -> list[list[Cell]]:
    """Kernels, and below them a photograph that they blur."""
    clean = photo("astronaut", 20, 140)
    shakes: list[tuple[str, Shake]] = [
        ("clean", Still()),
        ("12 px, straight", CameraShake(12.0, anxiety=0.0)),
        ("40 px, anxiety 0.005", CameraShake(40.0, anxiety=0.005)),
        ("60 px, anxiety 0.01", CameraShake(60.0, anxiety=0.01)),
        ("60 px, anxiety 0.1", CameraShake(60.0, anxiety=0.1)),
        ("100 px, anxiety 0.02", CameraShake(100.0, anxiety=0.02)),
    ]
    if measured:
        shakes[-1] = ("measured", MeasuredShake(measured))
    kernels = [(name, draw_kernel(shake.kernels(1, seeded(3))[0])) for name, shake in shakes]
    blurred = [("", MotionBlur(shake)(clean, seeded(3))[0]) for _, shake in shakes]
    return [kernels, blurred]


def light() -> list[list[Cell]]:
    """Blur of gray levels and of linear light, and the steps that follow."""
    clean = photo("astronaut", 300, 320)
    shake = CameraShake(24.0, anxiety=0.004)
    noise = SensorNoise(Sensor(5e-4, 1e-5), num_levels=None)
    gray_levels = torch.nn.functional.conv2d(
        torch.nn.functional.pad(clean, (15,) * 4, mode="reflect"),
        shake.kernels(1, seeded(5)).flip(-2, -1).expand(3, 1, -1, -1),
        groups=3,
    )
    noisy = MotionBlur(shake, highlights=1.75, noise=noise)(clean, seeded(5))
    return [
        [
            ("clean", clean[0]),
            ("gray levels (not ours)", gray_levels[0]),
            ("in linear light", MotionBlur(shake)(clean, seeded(5))[0]),
            ("highlights=1.75", MotionBlur(shake, highlights=1.75)(clean, seeded(5))[0]),
            ("noise=SensorNoise(...)", noisy[0]),
            ("and Jpeg(50)", Jpeg(50)(noisy, seeded())[0]),
        ]
    ]


def exposures() -> list[list[Cell]]:
    """Synthetic exposures of a developed picture, as LibRaw develops them and as a network sees them."""
    clean = photo("coffee", 40, 170, 2 * CELL_PX)
    cells = [("clean", clean[0, :, ::2, ::2])]
    cells.append(("Unprocess, a part", enlarge(_color_samples(Unprocess(), clean), 4)))
    dark = SyntheticRaw(noise=SensorNoise(SONY_A7S2_LOW), exposure_ratio=50.0).mosaic(clean, seeded(1))
    cells.append(("ratio 50: its file", develop_mosaic(dark).to_tensor()[0, :, ::2, ::2]))
    sensors = [("A7S II, low ISO", SONY_A7S2_LOW), ("A7S II, high ISO", SONY_A7S2_HIGH), ("D850", NIKON_D850)]
    for i, (name, sensor) in enumerate(sensors):
        ratio = (50.0, 100.0, 300.0)[i]
        raw = SyntheticRaw(noise=SensorNoise(sensor), exposure_ratio=ratio)
        cells.append((f"{name}, ratio {ratio:.0f}", _to_network_colors(raw, clean)))
    return [cells]


def cameras() -> list[list[Cell]]:
    """One photograph with the noise of cameras at rising sensitivity, and as their JPEG, at twice the size."""
    clean = photo("chelsea", 100, 150, CELL_PX // 2)

    def take(gain: float, compression: Degradation, luma_px: float, chroma_px: float) -> tuple[Tensor, Tensor]:
        noise = SensorNoise(Sensor(gain, CAMERAS.read), num_levels=None)
        camera = CameraNoise(
            noise=noise, luma_px=luma_px, chroma_px=chroma_px, compression=compression, lens_px=0.3, sharpening=0.3
        )
        return camera.make_pair(clean, seeded(2))

    low, middle, high = 5e-4, 2e-3, 4e-3
    cells = [
        ("the target", take(low, Rounding(), 0.2, 0.5)[1]),
        ("little light", take(low, Rounding(), 0.4, 1.0)[0]),
        ("less light", take(middle, Rounding(), 0.4, 1.0)[0]),
        ("and smoothed", take(middle, Rounding(), 1.2, 3.0)[0]),
        ("and a JPEG", take(middle, ShiftedJpeg(60, ("4:2:0",)), 1.2, 3.0)[0]),
        ("hardly any light", take(high, ShiftedJpeg(85, ("4:2:0",)), 0.8, 3.0)[0]),
    ]
    return [[(name, enlarge(planes[0], 2)) for name, planes in cells]]


def blocks() -> list[list[Cell]]:
    """JPEG of one quality as files have it, at twice the size."""
    clean = photo("astronaut", 10, 180, CELL_PX // 2)
    once = ShiftedJpeg(15, ("4:2:0",))
    steps: list[tuple[str, Degradation]] = [
        ("Jpeg(15)", Jpeg(15)),
        ("4:4:4, shifted", ShiftedJpeg(15, ("4:4:4",))),
        ("4:2:2, shifted", ShiftedJpeg(15, ("4:2:2",))),
        ("4:2:0, shifted", once),
        ("twice", Chain((once, once))),
    ]
    cells = [("clean", clean), *((name, step(clean, seeded(4))) for name, step in steps)]
    return [[(name, enlarge(planes[0], 2)) for name, planes in cells]]


def _color_samples(unprocess: Unprocess, clean: Tensor) -> Tensor:
    """A part of a mosaic, (3, 44, 44): each sample in the color of its filter, with gamma."""
    side, top, left = CELL_PX // 4, 40, 110
    mosaic = unprocess(clean, seeded(1))[0, 0, top : top + side, left : left + side] ** (1 / 2.2)
    colors = torch.zeros(3, side, side)
    for row, filters in enumerate(unprocess.pattern):
        for col, name in enumerate(filters):
            colors["RGB".index(name), row::2, col::2] = mosaic[row::2, col::2]
    return colors


def _to_network_colors(raw: SyntheticRaw, clean: Tensor) -> Tensor:
    """The packed planes of a network's input as colors, (3, H/2, W/2), with gamma."""
    red, green, blue, also_green = PackedRaw(white_balanced=True).to_input(raw.mosaic(clean, seeded(1)))[0]
    return torch.stack([red, (green + also_green) / 2, blue]) ** (1 / 2.2)


def draw(rows: list[list[Cell]]) -> Image.Image:
    """A sheet of all cells, each below its caption."""
    heights = [CELL_PX + (LINE_PX if any(caption for caption, _ in row) else 0) + GAP_PX for row in rows]
    width = max(map(len, rows)) * (CELL_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, sum(heights) + GAP_PX), PAPER)
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(14), GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for i, (caption, planes) in enumerate(row):
            left = GAP_PX + i * (CELL_PX + GAP_PX)
            pen.text((left, top), caption, INK, font)
            samples = (planes.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            sheet.paste(Image.fromarray(samples), (left, top + height - CELL_PX - GAP_PX))
        top += height
    return sheet


def read_kernels(path: Path) -> list[NDArray[Any]]:
    """The matrices in a MATLAB file that have 3 x 3 to 63 x 63 elements and no negative ones."""
    found = list(_read_hdf5(path)) if h5py.is_hdf5(path) else list(_find_matrices(scipy.io.loadmat(path)))
    return [kernel for kernel in found if 3 <= min(kernel.shape) <= max(kernel.shape) <= 63 and kernel.min() >= 0]


def _read_hdf5(path: Path) -> Iterator[NDArray[Any]]:
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        for name in names:
            if isinstance(file[name], h5py.Dataset) and file[name].ndim == 2 and file[name].dtype.kind == "f":
                yield np.array(file[name]).T


def _find_matrices(content: Any) -> Iterator[NDArray[Any]]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _find_matrices(value)
    elif isinstance(content, np.ndarray) and content.dtype == object:
        for value in content.ravel():
            yield from _find_matrices(value)
    elif isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind in "fu":
        yield content.astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--kernels", type=Path, help="a MATLAB file of measured kernels to draw, too")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    measured = read_kernels(arguments.kernels) if arguments.kernels else []
    sheets = {"simple": simple(), "motion": motion(measured), "light": light(), "exposures": exposures()}
    sheets |= {"cameras": cameras(), "blocks": blocks()}
    for name, rows in sheets.items():
        path = arguments.out / f"degradations-{name}.jpg"
        draw(rows).save(path, quality=QUALITY)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
