"""Time and accuracy of tiles, compared with the whole picture: ratio of times, and the largest difference.

    python benchmarks/tiles.py --size 768

Weights are untrained, because time does not depend on them. Each ratio is the median of runs in turns.
"""

import argparse
import time
from statistics import median

import numpy as np

from pellucid.backends.eager import TorchBackend
from pellucid.pictures.picture import Picture
from pellucid.recipes.registry import find
from pellucid.restoration.restorer import Restorer

NETWORKS = ("srcnn.paper", "dncnn.gaussian", "mimo_unet.gopro")
TILES_PX = (128, 256, 512)
NUM_ROUNDS = 3


def run(restorer: Restorer, picture: Picture, tile_px: int) -> tuple[float, Picture]:
    start = time.perf_counter()
    restored = restorer.restore(picture, tile_px=tile_px)
    return time.perf_counter() - start, restored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=768)
    size: int = parser.parse_args().size
    picture = Picture(np.random.default_rng(0).random((size, size, 1), np.float32))

    print(f"{size} x {size} gray picture\nnetwork          halo  tile  time / untiled  max |difference|")
    for name in NETWORKS:
        recipe = find(name)
        restorer = Restorer(name, recipe, TorchBackend(recipe.network(), "cpu"))
        run(restorer, picture, size)  # warm up
        for tile_px in TILES_PX:
            ratios, difference = [], 0.0
            for _ in range(NUM_ROUNDS):
                whole_s, whole = run(restorer, picture, size)
                tiled_s, tiled = run(restorer, picture, tile_px)
                ratios.append(tiled_s / whole_s)
                difference = max(difference, float(abs(whole.samples - tiled.samples).max()))
            print(f"{name:16} {restorer.halo_px:4}  {tile_px:4}  {median(ratios):14.2f}  {difference:.1e}")


if __name__ == "__main__":
    main()
