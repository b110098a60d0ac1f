"""The weights that ship: add or replace one, measure their scores again, print the table of docs/weights.md.

    export PELLUCID_DATA=...                                     # test sets and training data
    python benchmarks/weights.py ship runs/dncnn-25 dncnn-gray-25 --license Apache-2.0
    python benchmarks/weights.py scores                          # `make scores`; of some only: scores srcnn-x2 ...
    python benchmarks/weights.py table

New weights replace a file only if their mean score is higher, measured on the same sets by the same protocol; the
new metadata keep a history of the replaced files. Weights are stored in float16 if that costs less than 0.005 dB
on every set.
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
from pellucid.evaluation.evaluate import evaluate
from pellucid.evaluation.report import Report
from pellucid.networks.mimo_unet import MIMOUNet
from pellucid.pictures import images
from pellucid.recipes.network import Network
from pellucid.restoration.restorer import Restorer, load
from pellucid.training import run_folder
from pellucid.weights import checkpoint, models
from pellucid.weights.checkpoint import WeightsMetadata

SHIPPED = Path(models.__file__).parent / "shipped"
MAX_LOSS_DB = 0.005
"""The most that float16 may cost on any test set."""
SHOWN_KEYWORDS = ("sigma_255", "scale", "channels", "width", "num_blocks")
"""Keywords that the table shows: what the weights are for, and those that change the network."""


@dataclass(frozen=True)
class Test:
    """One score of a model. data: the test set. goal_db: the published score. keywords: of the recipe."""

    data: str
    goal_db: float | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, restorer: Restorer) -> Report:
        if self.data in PAIRS:
            with tempfile.TemporaryDirectory() as name:
                degraded, target = _link_pairs(*PAIRS[self.data], Path(name))
                return evaluate(restorer, degraded, target=target)
        return evaluate(restorer, test_data() / FOLDERS[self.data])


def _link_pairs(folder: str, degraded: str, target: str, links: Path) -> tuple[Path, Path]:
    """Two folders of links to the degraded and the target pictures, which differ by a part of their paths."""
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
    "PolyU": ("denoising/PolyU", "_real", "_mean"),
    "reds_small test": ("deblurring/reds_small", "test_blur", "test_sharp"),
}
"""Folder in PELLUCID_DATA, and the parts of paths that mark degraded and target pictures."""

FOLDERS = {
    "Set5": "super_resolution/Set5",
    "Set14": "super_resolution/Set14",
    "Set12": "denoising/Set12",
    "BSD68": "denoising/BSD68",
    "CBSD68": "denoising/CBSD68",
    "classic5": "deblocking/classic5",
}


def _tests(data: str, keyword: str, goals_db: Mapping[int, float | None]) -> tuple[Test, ...]:
    return tuple(Test(data, goal_db, {keyword: value}) for value, goal_db in goals_db.items())


TESTS: Mapping[str, tuple[Test, ...]] = {
    "srcnn-x2": (Test("Set5", 36.66), Test("Set14", 32.45)),
    "srcnn-x3": (Test("Set5", 32.75), Test("Set14", 29.30)),
    "srcnn-x4": (Test("Set5", 30.49), Test("Set14", 27.50)),
    "dncnn-gray-15": (Test("Set12", 32.86), Test("BSD68", 31.73)),
    "dncnn-gray-25": (Test("Set12", 30.44), Test("BSD68", 29.23)),
    "dncnn-gray-50": (Test("Set12", 27.21), Test("BSD68", 26.23)),
    "dncnn-gray-blind": _tests("Set12", "sigma_255", {15: 32.68, 25: 30.36, 50: 27.21}),
    "dncnn-color-blind": _tests("CBSD68", "sigma_255", {15: 33.89, 25: 31.23, 50: 27.92}),
    "dncnn-photo": (Test("PolyU"),),
    "dncnn-color-jpeg": _tests("CBSD68", "quality", dict.fromkeys((10, 20, 30, 40))),
    "dncnn-three-tasks": (
        *_tests("classic5", "quality", {10: 29.40, 20: 31.63, 30: 32.91, 40: 33.77}),
        *_tests("Set5", "scale", {2: 37.58, 3: 33.75, 4: 31.40}),
    ),
    "mimo-unet": (Test("reds_small test"), Test("GoPro pairs")),
    "mimo-unet-small": (Test("reds_small test"), Test("GoPro pairs")),
    "sid-any": (Test("CBSD68"),),
    "raw-denoise": _tests("CBSD68", "iso", dict.fromkeys((3200, 400, 12800))),
}
"""What is measured of each model. Published scores: Dong et al. 2016, Zhang et al. 2017."""


def test_data() -> Path:
    folder = os.environ.get("PELLUCID_DATA")
    if not folder:
        sys.exit("set PELLUCID_DATA to the folder of test sets and training data")
    return Path(folder)


def measure(path: Path, test: Test) -> dict[str, Any]:
    """A score as the metadata keep it: means and protocol of one report."""
    report = test.measure(load(path, **test.keywords)).to_json()
    return {"data": test.data, "keywords": dict(test.keywords), **report["mean"], "protocol": report["protocol"]}


def measure_all(path: Path, name: str) -> tuple[dict[str, Any], ...]:
    return tuple(measure(path, test) for test in TESTS[name])


def ship(run: Path, name: str, license: str, strength: float, note: str) -> None:
    """Measure the weights of a run and, if they are better, save them among those that ship.

    note: what the run folder does not record, e.g. the origin of its data or an earlier training.
    """
    _check_leaks(run, name)
    target = SHIPPED / f"{name}.safetensors"
    loaded = checkpoint.load(run / "weights.safetensors")
    network = loaded.network
    metadata = replace(
        loaded.metadata, license=license, provenance=_provenance(run, loaded.metadata, note), scores=()
    )
    if strength != 1:
        _weaken(network, strength)
        provenance = f"{metadata.provenance}; last convolutions then scaled by {strength:g}"
        metadata = replace(metadata, provenance=provenance)
    half_network = copy.deepcopy(network).half()
    full_path, half_path = target.with_suffix(".full.part"), target.with_suffix(".half.part")
    try:
        checkpoint.save(full_path, network, metadata, overwrite=True)
        checkpoint.save(half_path, half_network, metadata, overwrite=True)
        full, half = measure_all(full_path, name), measure_all(half_path, name)
        is_half = all(f["psnr_db"] - h["psnr_db"] < MAX_LOSS_DB for f, h in zip(full, half, strict=True))
        scores = half if is_half else full
        metadata = replace(metadata, scores=scores, history=_history(target, scores))
        checkpoint.save(target, half_network if is_half else network, metadata, overwrite=True)
    finally:
        full_path.unlink(missing_ok=True)
        half_path.unlink(missing_ok=True)
    print(f"{target}: {'float16' if is_half else 'float32'}")
    _print_scores(name, metadata)


def _weaken(network: Network, strength: float) -> None:
    """Scale the output of the network, which is added to its input: the effect of `restore --strength`."""
    if not isinstance(network, MIMOUNet):
        sys.exit(f"--strength needs MIMO-UNet; this network is {type(network).__name__}")
    with torch.no_grad():
        for head in (network.leave1, network.leave2, network.leave4):
            for parameter in head.parameters():
                parameter.mul_(strength)


def _history(target: Path, scores: tuple[dict[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """The history with the file that is replaced, newest first. Exits if that file is as good."""
    if not target.exists():
        return ()
    before = checkpoint.read_metadata(target)
    old_db = {checkpoint.describe_score(score): score["psnr_db"] for score in before.scores}
    new_db = {checkpoint.describe_score(score): score["psnr_db"] for score in scores}
    if fsum(new_db[key] - old_db[key] for key in new_db.keys() & old_db.keys()) <= 0:
        sys.exit(f"{target} is kept: it has {_list(before.scores)}, this training {_list(scores)}")
    kept = {"recipe": before.recipe, "provenance": before.provenance, "scores": _list(before.scores)}
    return kept, *before.history


def _list(scores: tuple[Mapping[str, Any], ...]) -> str:
    return ", ".join(f"{checkpoint.describe_score(score)} {score['psnr_db']:.3f} dB" for score in scores)


def _check_leaks(run: Path, name: str) -> None:
    """Print each test picture that the training data contains."""
    described = run_folder.describe_run(run)
    for source in (described["data"], *described.get("mix", ())):
        _check_leaks_of(Path(source["folder"]), name)


def _check_leaks_of(data: Path, name: str) -> None:
    made = preparing.open_data(data)
    for test_set in {test.data for test in TESTS[name]}:
        folder = PAIRS[test_set][0] if test_set in PAIRS else FOLDERS[test_set]
        found = leaks.find_leaks_in_folder(made, test_data() / folder)
        print(f"{test_set} in {data.name}: {'; '.join(map(str, found)) or 'nothing'}")


def _provenance(run: Path, metadata: WeightsMetadata, note: str) -> str:
    """The provenance with hours, hardware and note; absolute paths are reduced to their last part."""
    hardware = run_folder.describe_run(run)["starts"][-1]["hardware"]
    words = [Path(word).name if word.startswith("/") else word for word in metadata.provenance.split(" ")]
    trained = f"{' '.join(words)}; {_hours(run):.2f} h on {hardware}"
    return f"{trained}; {note}" if note else trained


def _hours(run: Path) -> float:
    """Hours of training alone, over all starts, by the speed in the metrics."""
    batch_size = run_folder.describe_run(run)["training"]["batch_size"]
    lines = [line for line in run_folder.read_metrics(run) if "images_per_s" in line]
    steps = [0, *(line["step"] for line in lines)]
    taken = (step - before for before, step in pairwise(steps))
    return fsum(n * batch_size / line["images_per_s"] for n, line in zip(taken, lines, strict=True)) / 3600


def measure_again(names: list[str]) -> None:
    """Measure what ships and compare with its metadata. Exits with 1 if a score differs by more than 0.002 dB."""
    differing = 0
    for name in names or shipped():
        path = SHIPPED / f"{name}.safetensors"
        metadata, scores = checkpoint.read_metadata(path), measure_all(path, name)
        _print_scores(name, replace(metadata, scores=scores))
        pairs = zip(metadata.scores, scores, strict=True)
        differing += sum(abs(stated["psnr_db"] - found["psnr_db"]) > 0.002 for stated, found in pairs)
    if differing:
        sys.exit(f"{differing} scores differ from the metadata")


def _print_scores(name: str, metadata: WeightsMetadata) -> None:
    for test, found in zip(TESTS[name], metadata.scores, strict=True):
        published = "" if test.goal_db is None else f"{test.goal_db:.2f} ({found['psnr_db'] - test.goal_db:+.2f})"
        print(
            f"{name:18} {checkpoint.describe_score(found):22} {found['psnr_db']:.3f} dB / {found['ssim']:.4f}   "
            f"published {published or '-':16}   input {found['degraded_psnr_db']:.2f}"
        )


def shipped() -> list[str]:
    return [name for name in TESTS if (SHIPPED / f"{name}.safetensors").exists()]


def table() -> Iterator[str]:
    """The table of the weights that ship, from their metadata."""
    yield "| model | recipe | input | measured: PSNR / SSIM | published | command for the first score |"
    yield "|---|---|---|---|---|---|"
    for name in shipped():
        yield row(name, checkpoint.read_metadata(SHIPPED / f"{name}.safetensors"))


def row(name: str, metadata: WeightsMetadata) -> str:
    keywords = " ".join(
        f"{key}={value}" for key, value in metadata.parameters.items() if _is_shown(metadata.recipe, key, value)
    )
    scores = "<br>".join(
        f"{checkpoint.describe_score(s)}: {s['psnr_db']:.2f} dB / {s['ssim']:.4f}" for s in metadata.scores
    )
    inputs = "<br>".join(f"{s['degraded_psnr_db']:.2f}" for s in metadata.scores)
    goals = "<br>".join("-" if test.goal_db is None else f"{test.goal_db:.2f}" for test in TESTS[name])
    recipe = " ".join([metadata.recipe, keywords]).strip()
    command = checkpoint.score_command(name, metadata.scores[0])
    return f"| `{name}` | `{recipe}` | {inputs} | {scores} | {goals} | `{command}` |"


def _is_shown(recipe: str, key: str, value: object) -> bool:
    """Whether the table shows a keyword. The noise level of a blind network is that of an evaluation."""
    return key in SHOWN_KEYWORDS and value is not None and (recipe, key) != ("dncnn.blind", "sigma_255")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    shipping = commands.add_parser("ship")
    shipping.add_argument("run", type=Path)
    shipping.add_argument("name", choices=TESTS)
    shipping.add_argument("--license", default="Apache-2.0")
    shipping.add_argument(
        "--strength", type=float, default=1.0, help="MIMO-UNet only: share of its correction to apply, e.g. 0.5"
    )
    shipping.add_argument("--note", default="", help="added to the provenance, e.g. the origin of the data")
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
