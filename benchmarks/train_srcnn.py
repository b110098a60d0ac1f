"""Train the SRCNN weights that ship, on the 91 pictures of T91: about an hour on one core.

    PELLUCID_DATA=... python benchmarks/train_srcnn.py --scale 2 --out srcnn-x2.safetensors

Whole pictures are degraded, as in the paper, and patches cut from them. The same seed on the same machine
gives the same weights.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pellucid.optimization import Adam
from pellucid.pictures.picture import Picture
from pellucid.recipe import Network, Recipe, find
from pellucid.weights import checkpoint

Pair = tuple[Tensor, Tensor]


def pairs(folder: Path, recipe: Recipe, scale: int) -> list[Pair]:
    """(network input, target) of every picture whose sides hold a patch, (1, H, W) each."""
    assert recipe.degradation is not None
    result = []
    for path in sorted(folder.glob("*.bmp")):
        target = recipe.domain.to_target(Picture(np.array(Image.open(path).convert("RGB"))))
        target = target[..., : target.shape[-2] // scale * scale, : target.shape[-1] // scale * scale]
        if min(target.shape[-2:]) >= recipe.patch_px:
            degraded = recipe.degradation(target, torch.Generator())
            result.append((recipe.domain.encode(degraded)[0], target[0]))
    return result


def batch(data: list[Pair], recipe: Recipe, generator: torch.Generator) -> Pair:
    """Random patches of pictures drawn by their area, turned and mirrored."""
    areas = torch.tensor([float(target.numel()) for _, target in data])
    drawn = torch.multinomial(areas, recipe.batch_size, replacement=True, generator=generator)
    patches = [_patch(data[i], recipe.patch_px, generator) for i in drawn.tolist()]
    return torch.stack([p[0] for p in patches]), torch.stack([p[1] for p in patches])


def _patch(pair: Pair, size: int, generator: torch.Generator) -> Pair:
    degraded, target = pair
    top, left, turn = (
        int(torch.randint(n, (), generator=generator))
        for n in (target.shape[-2] - size + 1, target.shape[-1] - size + 1, 8)
    )

    def cut(picture: Tensor) -> Tensor:
        patch = picture[:, top : top + size, left : left + size].rot90(turn % 4, (-2, -1))
        return patch.flip(-1) if turn >= 4 else patch

    return cut(degraded), cut(target)


def train(recipe: Recipe, data: list[Pair], seed: int) -> Network:
    """The recipe, step by step."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = recipe.network()
    assert isinstance(recipe.optimizer, Adam)
    nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), recipe.optimizer.lr, recipe.optimizer.betas)
    start, losses = time.monotonic(), []
    for step in range(recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * recipe.schedule.factor(step, recipe.num_steps)
        degraded, target = batch(data, recipe, generator)
        loss = recipe.loss(network, degraded, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 500 == 0:
            rate = (step + 1) / (time.monotonic() - start)
            print(f"step {step + 1}: loss {np.mean(losses[-500:]):.5f}, {rate:.1f} steps/s", flush=True)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    recipe = find("srcnn.tuned", scale=args.scale, num_steps=args.steps)
    data = pairs(Path(os.environ["PELLUCID_DATA"]) / "training" / "T91", recipe, args.scale)
    start = time.monotonic()
    network = train(recipe, data, args.seed)
    minutes = (time.monotonic() - start) / 60
    card = checkpoint.Card(
        recipe=recipe.name,
        parameters=recipe.parameters,
        provenance=f"trained by the pellucid project on T91 ({len(data)} pictures), seed {args.seed}, "
        f"in {minutes:.0f} minutes on {args.threads} CPU core(s); "
        f"python benchmarks/train_srcnn.py --scale {args.scale} --steps {args.steps}",
        license="Apache-2.0",
    )
    checkpoint.save(args.out, network, card)


if __name__ == "__main__":
    main()
