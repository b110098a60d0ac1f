"""Score a weight file on test sets and write the scores into its header.

    python benchmarks/score.py srcnn-x2.safetensors Set5=$PELLUCID_DATA/super_resolution/Set5

Prints the row of README's table, too.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid import checkpoint
from pellucid.checkpoint import Card
from pellucid.evaluation import evaluate
from pellucid.restorer import load


def score(path: Path, name: str, folder: Path) -> dict[str, Any]:
    """What the header keeps of one report: the means and how they were counted."""
    report = evaluate(load(path), folder).to_json()
    return {"data": name, **report["mean"], "protocol": report["protocol"]}


def readme_row(name: str, card: Card) -> str:
    """A row of the table "Weights that ship"."""
    keywords = ", ".join(f"{key}={value}" for key, value in card.parameters.items())
    scores = "<br>".join(f"{s['data']} {s['psnr_db']:.2f} dB / {s['ssim']:.4f}" for s in card.scores)
    commands = "<br>".join(f"`pellucid evaluate {name} --data {s['data']}`" for s in card.scores)
    return f"| `{name}` | `{card.recipe}` ({keywords}) | {card.provenance} | {scores} | {commands} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("sets", nargs="+", metavar="NAME=FOLDER")
    args = parser.parse_args()

    network, _, card = checkpoint.load(args.weights)
    pairs = [test_set.partition("=") for test_set in args.sets]
    scores = [score(args.weights, name, Path(folder)) for name, _, folder in pairs]
    card = replace(card, scores=tuple(scores))
    checkpoint.save(args.weights, network, card, overwrite=True)
    print(readme_row(args.weights.stem, card))


if __name__ == "__main__":
    main()
