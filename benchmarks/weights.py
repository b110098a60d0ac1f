"""The weights that ship: put a training among them, measure their scores again, print README's table.

    export PELLUCID_DATA=...                                     # test sets and training data
    python benchmarks/weights.py ship runs/dncnn-25 dncnn-gray-25 --license Apache-2.0
    python benchmarks/weights.py scores                          # `make scores`; or of some: scores srcnn-x2 ...
    python benchmarks/weights.py table

A training ships only where its mean score is higher than that of the file it replaces, measured on the same sets
by the same protocol; the new card keeps what the old one said. Weights are stored in float16 where that costs
less than 0.005 dB on every set.
"""

import argparse
import copy
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Any

import torch

from pellucid.data import leaks, preparing
from pellucid.errors import PellucidError
from pellucid.evaluation import Report, evaluate
from pellucid.networks.mimo_unet import MIMOUNet
from pellucid.pictures import images
from pellucid.recipes.network import Network
from pellucid.restoration.restorer import Restorer, load
from pellucid.training import run_folder
from pellucid.weights import checkpoint, models
from pellucid.weights.checkpoint import WeightsMetadata

WEIGHTS = Path(models.__file__).parent / "shipped"
README = Path(__file__).parent.parent / "README.md"
MOST_LOST_DB = 0.005
"""What float16 may cost."""
NAMED = ("scale", "channels", "width", "num_blocks")
"""Keywords that README's table shows: those that make another network."""


@dataclass(frozen=True)
class Test:
    """One score of a model: the test set, what is published of the network there, keywords of the recipe."""

    data: str
    goal_db: float | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, restorer: Restorer) -> Report:
        if self.data in PAIRS:
            with tempfile.TemporaryDirectory() as name:
                degraded, target = _sorted_out(*PAIRS[self.data], Path(name))
                return evaluate(restorer, degraded, target=target)
        return evaluate(restorer, test_data() / FOLDERS[self.data])


def _sorted_out(folder: str, degraded: str, target: str, links: Path) -> tuple[Path, Path]:
    """Two folders of links to pairs that lie in one or two, told apart by a part of their paths."""
    for path in images.find(test_data() / folder):
        inside = path.relative_to(test_data() / folder).as_posix()
        for kind in (degraded, target):
            if kind in inside:
                link = links / kind / inside.replace(kind, "").lstrip("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    return links / degraded, links / target


PAIRS = {
    "GoPro pairs": ("deblurring/gopro_pairs", "_blur1", "_sharp1"),
    "reds_small test": ("deblurring/reds_small", "test_blur", "test_sharp"),
}
"""Folder below PELLUCID_DATA, and what the names of the degraded and of the clean ones hold."""

FOLDERS = {
    "Set5": "super_resolution/Set5",
    "Set14": "super_resolution/Set14",
    "Set12": "denoising/Set12",
    "BSD68": "denoising/BSD68",
    "CBSD68": "denoising/CBSD68",
    "classic5": "deblocking/classic5",
}


def _each(data: str, keyword: str, goals_db: Mapping[int, float]) -> tuple[Test, ...]:
    return tuple(Test(data, goal_db, {keyword: value}) for value, goal_db in goals_db.items())


TESTS: Mapping[str, tuple[Test, ...]] = {
    "srcnn-x2": (Test("Set5", 36.66), Test("Set14", 32.45)),
    "srcnn-x3": (Test("Set5", 32.75), Test("Set14", 29.30)),
    "srcnn-x4": (Test("Set5", 30.49), Test("Set14", 27.50)),
    "dncnn-gray-15": (Test("Set12", 32.86), Test("BSD68", 31.73)),
    "dncnn-gray-25": (Test("Set12", 30.44), Test("BSD68", 29.23)),
    "dncnn-gray-50": (Test("Set12", 27.21), Test("BSD68", 26.23)),
    "dncnn-gray-blind": _each("Set12", "sigma_255", {15: 32.68, 25: 30.36, 50: 27.21}),
    "dncnn-color-blind": _each("CBSD68", "sigma_255", {15: 33.89, 25: 31.23, 50: 27.92}),
    "dncnn-three-tasks": (
        *_each("classic5", "quality", {10: 29.40, 20: 31.63, 30: 32.91, 40: 33.77}),
        *_each("Set5", "scale", {2: 37.58, 3: 33.75, 4: 31.40}),
    ),
    "mimo-unet": (Test("reds_small test"), Test("GoPro pairs")),
    "sid-any": (Test("CBSD68"),),
}
"""What is measured of each model, and the published score of its network (Dong 2014, Zhang 2017)."""


def test_data() -> Path:
    folder = os.environ.get("PELLUCID_DATA")
    if not folder:
        sys.exit("set PELLUCID_DATA to the folder of test sets and training data")
    return Path(folder)


def score(path: Path, test: Test) -> dict[str, Any]:
    """What the header keeps of one report: the means and how they were counted."""
    report = test.measure(load(path, **test.keywords)).to_json()
    return {"data": test.data, "keywords": dict(test.keywords), **report["mean"], "protocol": report["protocol"]}


def scored(path: Path, name: str) -> tuple[dict[str, Any], ...]:
    return tuple(score(path, test) for test in TESTS[name])


def ship(run: Path, name: str, license: str, strength: float, note: str) -> None:
    """Score the weights of a run and, where they are better, put them among those that ship.

    note: what the run does not know: what its data is made of, what was trained before.
    """
    _check_leaks(run, name)
    target = WEIGHTS / f"{name}.safetensors"
    network, _, card = checkpoint.load(run / "weights.safetensors")
    card = replace(card, license=license, provenance=_provenance(run, card, note), scores=())
    if strength != 1:
        _weaken(network, strength)
        card = replace(card, provenance=f"{card.provenance}; then its last convolutions times {strength:g}")
    in_half = copy.deepcopy(network).half()
    whole, half = target.with_suffix(".whole.part"), target.with_suffix(".half.part")
    try:
        checkpoint.save(whole, network, card, overwrite=True)
        checkpoint.save(half, in_half, card, overwrite=True)
        of_whole, of_half = scored(whole, name), scored(half, name)
        is_half = all(w["psnr_db"] - h["psnr_db"] < MOST_LOST_DB for w, h in zip(of_whole, of_half, strict=True))
        scores = of_half if is_half else of_whole
        card = replace(card, scores=scores, history=_history(target, scores))
        checkpoint.save(target, in_half if is_half else network, card, overwrite=True)
    finally:
        whole.unlink(missing_ok=True)
        half.unlink(missing_ok=True)
    print(f"{target}: {'float16' if is_half else 'float32'}")
    _print_scores(name, card)


def _weaken(network: Network, strength: float) -> None:
    """So that it does what `restore --strength` does of what it has learned: its output is added to its input."""
    if not isinstance(network, MIMOUNet):
        sys.exit(f"--strength is of MIMO-UNet, and this is {type(network).__name__}")
    with torch.no_grad():
        for head in (network.leave1, network.leave2, network.leave4):
            for parameter in head.parameters():
                parameter.mul_(strength)


def _history(target: Path, scores: tuple[dict[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """What the file to be replaced says, newest first. Exits where it is as good."""
    if not target.exists():
        return ()
    before = checkpoint.read_metadata(target)
    old_db = {checkpoint.subject(score): score["psnr_db"] for score in before.scores}
    new_db = {checkpoint.subject(score): score["psnr_db"] for score in scores}
    if fsum(new_db[key] - old_db[key] for key in new_db.keys() & old_db.keys()) <= 0:
        sys.exit(f"{target} has {_list(before.scores)}; this training {_list(scores)}: not replaced")
    kept = {"recipe": before.recipe, "provenance": before.provenance, "scores": _list(before.scores)}
    return kept, *before.history


def _list(scores: tuple[Mapping[str, Any], ...]) -> str:
    return ", ".join(f"{checkpoint.subject(score)} {score['psnr_db']:.3f} dB" for score in scores)


def _check_leaks(run: Path, name: str) -> None:
    """Print each test picture that the training data holds."""
    data = Path(run_folder.describe_run(run)["data"]["folder"])
    made = preparing.open_data(data)
    for test_set in {test.data for test in TESTS[name]}:
        folder = PAIRS[test_set][0] if test_set in PAIRS else FOLDERS[test_set]
        found = leaks.find_leaks_in_folder(made, test_data() / folder)
        print(f"{test_set} in {data.name}: {'; '.join(map(str, found)) or 'nothing'}")


def _provenance(run: Path, card: WeightsMetadata, note: str) -> str:
    """With hours, hardware and the note; of folders, the last name only."""
    hardware = run_folder.describe_run(run)["starts"][-1]["hardware"]
    words = [Path(word).name if word.startswith("/") else word for word in card.provenance.split(" ")]
    trained = f"{' '.join(words)}; {_hours(run):.2f} h on {hardware}"
    return f"{trained}; {note}" if note else trained


def _hours(run: Path) -> float:
    """Of training alone, by the pace that the metrics tell, over all its starts."""
    batch_size = run_folder.describe_run(run)["training"]["batch_size"]
    lines = [line for line in run_folder.read_metrics(run) if "images_per_s" in line]
    steps = [0, *(line["step"] for line in lines)]
    taken = (step - before for before, step in pairwise(steps))
    return fsum(n * batch_size / line["images_per_s"] for n, line in zip(taken, lines, strict=True)) / 3600


def measure_again(names: list[str]) -> None:
    """Score what ships and compare with the headers. Exits with 1 where one differs by more than 0.002 dB."""
    differing = 0
    for name in names or shipped():
        card = checkpoint.read_metadata(WEIGHTS / f"{name}.safetensors")
        again = scored(WEIGHTS / f"{name}.safetensors", name)
        _print_scores(name, replace(card, scores=again))
        pairs = zip(card.scores, again, strict=True)
        differing += sum(abs(said["psnr_db"] - found["psnr_db"]) > 0.002 for said, found in pairs)
    if differing:
        sys.exit(f"{differing} scores differ from the headers")


def _print_scores(name: str, card: WeightsMetadata) -> None:
    for test, found in zip(TESTS[name], card.scores, strict=True):
        published = "" if test.goal_db is None else f"{test.goal_db:.2f} ({found['psnr_db'] - test.goal_db:+.2f})"
        print(
            f"{name:18} {checkpoint.subject(found):22} {found['psnr_db']:.3f} dB / {found['ssim']:.4f}   "
            f"published {published or '-':16}   input {found['degraded_psnr_db']:.2f}"
        )


def shipped() -> list[str]:
    return [name for name in TESTS if (WEIGHTS / f"{name}.safetensors").exists()]


def table() -> Iterator[str]:
    """README's table "Weights that ship", from the headers."""
    yield "| model | recipe | input | measured: PSNR / SSIM | published | command behind each score |"
    yield "|---|---|---|---|---|---|"
    for name in shipped():
        yield row(name, checkpoint.read_metadata(WEIGHTS / f"{name}.safetensors"))


def row(name: str, card: WeightsMetadata) -> str:
    keywords = " ".join(f"{key}={value}" for key, value in card.parameters.items() if key in NAMED)
    scores = "<br>".join(f"{checkpoint.subject(s)}: {s['psnr_db']:.2f} dB / {s['ssim']:.4f}" for s in card.scores)
    inputs = "<br>".join(f"{s['degraded_psnr_db']:.2f}" for s in card.scores)
    goals = "<br>".join("-" if test.goal_db is None else f"{test.goal_db:.2f}" for test in TESTS[name])
    recipe = " ".join([card.recipe, keywords]).strip()
    return (
        f"| `{name}` | `{recipe}` | {inputs} | {scores} | {goals} | `{checkpoint.command(name, card.scores[0])}` |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    shipping = commands.add_parser("ship")
    shipping.add_argument("run", type=Path)
    shipping.add_argument("name", choices=TESTS)
    shipping.add_argument("--license", default="Apache-2.0")
    shipping.add_argument("--strength", type=float, default=1.0, help="of MIMO-UNet: how much of it shall be done")
    shipping.add_argument("--note", default="", help="what the run does not know of its data and its start")
    commands.add_parser("scores").add_argument("names", nargs="*", choices=[*TESTS, []])
    commands.add_parser("table")
    args = parser.parse_args()
    try:
        if args.command == "ship":
            ship(args.run, args.name, args.license, args.strength, args.note)
        elif args.command == "scores":
            measure_again(args.names)
        else:
            print("\n".join(table()))
    except PellucidError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
