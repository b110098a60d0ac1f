"""Memory for reading and writing a picture file, in addition to the memory of the program.

    python benchmarks/files.py [--megapixels 100]

Each file is read and written in its own process, whose peak resident memory is measured (Linux).
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyvips

CHILD = """
import sys, time
from pathlib import Path
import torch, pellucid.restoration.restore
from pellucid.pictures import images

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

at_start, seconds = peak(), time.monotonic()
expected = images.decoding_cost(sys.argv[1])[1] / 2**20
picture = images.read(sys.argv[1])
after_read, read_s = peak(), time.monotonic() - seconds
images.write(picture, sys.argv[2])
print(at_start, after_read, peak(), expected, read_s, time.monotonic() - seconds - read_s)
"""


def photo(num_pixels: int, bits: int) -> pyvips.Image:
    """RGB waves with a little noise."""
    side = int(num_pixels**0.5)
    rows, cols = np.ogrid[:side, :side]
    rng = np.random.default_rng(0)
    samples = np.empty((side, side, 3), np.uint16 if bits == 16 else np.uint8)
    for k in range(3):
        wave = 0.5 + 0.4 * np.sin(rows / 170 + k, dtype=np.float32) * np.cos(cols / 230 - k, dtype=np.float32)
        samples[..., k] = wave * (2**bits - 1) + rng.integers(0, 4, (side, side), dtype=np.uint8)
    pixel_format, interpretation = ("ushort", "rgb16") if bits == 16 else ("uchar", "srgb")
    return pyvips.Image.new_from_memory(samples.data, side, side, 3, pixel_format).copy(
        interpretation=interpretation
    )


_AV1 = {"compression": "av1", "effort": 0}

CASES: dict[str, tuple[int, str, Callable[[pyvips.Image, str], None]]] = {
    "TIFF, 16 bits": (16, ".tif", lambda image, path: image.tiffsave(path)),
    "TIFF, 16 bits, deflate": (16, ".tif", lambda image, path: image.tiffsave(path, compression="deflate")),
    "TIFF, 16 bits, tiles": (16, ".tif", lambda image, path: image.tiffsave(path, tile=True)),
    "PNG, 16 bits": (16, ".png", lambda image, path: image.pngsave(path, compression=1)),
    "PNG, 8 bits, interlaced": (8, ".png", lambda image, path: image.pngsave(path, interlace=True)),
    "PNG, 16 bits, interlaced": (16, ".png", lambda image, path: image.pngsave(path, interlace=True)),
    "JPEG": (8, ".jpg", lambda image, path: image.jpegsave(path, Q=90)),
    "JPEG, progressive, 4:2:0": (8, ".jpg", lambda image, path: image.jpegsave(path, Q=85, interlace=True)),
    "JPEG, progressive, 4:4:4": (8, ".jpg", lambda image, path: image.jpegsave(path, Q=95, interlace=True)),
    "WebP, lossy": (8, ".webp", lambda image, path: image.webpsave(path, effort=0)),
    "WebP, lossless": (8, ".webp", lambda image, path: image.webpsave(path, lossless=True, effort=0)),
    "AVIF": (8, ".avif", lambda image, path: image.heifsave(path, **_AV1)),
    "AVIF, 12 bits": (16, ".avif", lambda image, path: image.heifsave(path, bitdepth=12, **_AV1)),
    "BMP": (8, ".bmp", lambda image, path: _bmp(image, path)),
}  # fmt: skip


def _bmp(image: pyvips.Image, path: str) -> None:
    from pellucid.pictures import images
    from pellucid.pictures.picture import Picture

    images.write(Picture(image.numpy()), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    args = parser.parse_args()
    num_pixels = args.megapixels * 1e6
    print("| file | read, MB | per pixel | `decoding_cost` | read + write, MB | seconds |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, (bits, suffix, save) in CASES.items():
        if args.only in name:
            print(_row(name, photo(int(num_pixels), bits), suffix, save, num_pixels), flush=True)


def _row(
    name: str, image: pyvips.Image, suffix: str, save: Callable[[pyvips.Image, str], None], num_pixels: float
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, f"source{suffix}"), Path(folder, "target" + suffix.replace("avif", "png"))
        save(image, str(source))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, source, target], capture_output=True, text=True, check=True
        )
    at_start, after_read, peak, expected, read_s, write_s = map(float, done.stdout.split())
    reading = after_read - at_start
    return (
        f"| {name} | {reading:.0f} | {reading * 2**20 / num_pixels:.1f} | {expected:.0f} | "
        f"{peak - at_start:.0f} | {read_s:.1f} + {write_s:.1f} |"
    )


if __name__ == "__main__":
    main()
