"""The weight file that knows what it is: one safetensors file with weights, recipe, provenance and scores.

The header's `pellucid` entry is JSON: format version, recipe and its parameters, provenance, license, scores
and the hash of the tensors. Nothing in a file is run: a recipe's name resolves inside the package only.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from pellucid.errors import WeightsError
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.system.files import write_atomic

FORMAT = 1

GIVEN_PAIRS = "given pairs"
"""How the protocol of a score begins to say that its degraded pictures were given, not made."""


@dataclass(frozen=True)
class WeightsMetadata:
    """What a weight file says about itself.

    provenance: who trained it, on what, with which command. license: of the weights.
    scores: measured, each with its data set, keywords and protocol, as `pellucid evaluate` reports them.
    history: what the files said that this one has replaced, the newest first.
    """

    recipe: str
    parameters: Mapping[str, Any]
    provenance: str
    license: str
    scores: tuple[Mapping[str, Any], ...] = field(default=())
    history: tuple[Mapping[str, Any], ...] = field(default=())


def save(path: Path, network: nn.Module, card: WeightsMetadata, *, overwrite: bool = False) -> None:
    """Write a weight file, whole or not at all.

    Raises OutputError when the file exists and overwrite is False, or when it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    header = {"format": FORMAT, **asdict(card), "sha256": fingerprint(tensors)}
    content = serialize(tensors, metadata={"pellucid": json.dumps(header)})
    write_atomic(path, content, overwrite=overwrite)


def load(path: Path, /, **parameters: Any) -> tuple[Network, Recipe, WeightsMetadata]:
    """Read a weight file: the network in evaluation mode, its recipe and its card.

    parameters: recipe keywords to change, as evaluation's noise level. Raises WeightsError when this is no
    weight file, when it is damaged, or when its tensors do not fit the recipe.
    """
    card, expected_hash = _read_header(path)
    tensors = _read_tensors(path)
    if fingerprint(tensors) != expected_hash:
        raise WeightsError(f"{path}: the tensors are not those that were saved; the file is damaged")
    recipe = find(card.recipe, **{**card.parameters, **parameters})
    return fill(recipe, tensors, source=str(path)), recipe, card


def read_metadata(path: Path) -> WeightsMetadata:
    """What a weight file says about itself, without reading its weights."""
    return _read_header(path)[0]


def fill(recipe: Recipe, tensors: Mapping[str, Tensor], *, source: str) -> Network:
    """The recipe's network with these weights, in evaluation mode and float32.

    Raises WeightsError naming the tensors that are missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = recipe.network()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    # Weights of old or foreign batch norms come without this counter, which inference does not use.
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [f"{name} {wanted[name]} missing" for name in wanted.keys() - found.keys() - counters]
    unknown = [f"{name} {found[name]} unknown" for name in found.keys() - wanted.keys()]
    differing = [
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if wanted[name] != found[name]
    ]
    whole = [
        f"{name} holds {tensor.dtype}"
        for name, tensor in tensors.items()
        if name in wanted.keys() - counters and not tensor.is_floating_point()
    ]
    faults = sorted(differing) + sorted(whole) + sorted(missing) + sorted(unknown)
    if faults:
        more = f", and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise WeightsError(f"{source} does not fit {_called(recipe)}: {'; '.join(faults[:4])}{more}")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    state |= {name: torch.tensor(0) for name in counters - state.keys()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def subject(score: Mapping[str, Any]) -> str:
    """What one score of a card is of: "Set12 sigma_255=25"."""
    return " ".join([score["data"], *(f"{key}={value}" for key, value in score["keywords"].items())])


def command(name: str, score: Mapping[str, Any]) -> str:
    """The command line that measures one score of a model again; of pairs, with words for their two folders."""
    is_of_pairs = str(score.get("protocol", {}).get("degradation")).startswith(GIVEN_PAIRS)
    data = "DEGRADED --target CLEAN" if is_of_pairs else shlex.quote(score["data"])
    keywords = (f"{key}={value}" for key, value in score["keywords"].items())
    return " ".join([f"pellucid evaluate {name} --data {data}", *keywords])


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _called(recipe: Recipe) -> str:
    return " ".join([recipe.name, *(f"{key}={value}" for key, value in recipe.parameters.items())])


def _read_header(path: Path) -> tuple[WeightsMetadata, str]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(_unreadable(path, error)) from error
    if "pellucid" not in metadata:
        raise WeightsError(
            f"{path} is a safetensors file without pellucid's header; "
            f"`pellucid convert` turns the weights of others into ours"
        )
    try:
        header = json.loads(metadata["pellucid"])
        return parse_metadata(header, source=path), str(header["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path}: the header is not one of pellucid's ({repr(error)[:80]})") from error


def parse_metadata(header: Mapping[str, Any], *, source: str | Path) -> WeightsMetadata:
    """The card that stands in a header, whatever else does. Raises WeightsError when it is not one of ours."""
    try:
        if header["format"] not in range(1, FORMAT + 1):
            found = str(header["format"])[:20]
            raise WeightsError(f"{source} has format {found}; this version reads 1 to {FORMAT}: update pellucid")
        return WeightsMetadata(
            recipe=str(header["recipe"]),
            parameters=dict(header["parameters"]),
            provenance=str(header["provenance"]),
            license=str(header["license"]),
            scores=tuple(_checked(score) for score in header["scores"]),
            history=tuple(dict(entry) for entry in header.get("history", ())),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{source}: the header is not one of pellucid's ({repr(error)[:80]})") from error


def _checked(score: Mapping[str, Any]) -> Mapping[str, Any]:
    """A score with what every reader of cards counts on."""
    psnr_db = score["psnr_db"]
    return {
        **score,
        "data": str(score["data"]),
        "keywords": dict(score.get("keywords", {})),
        "psnr_db": None if psnr_db is None else float(psnr_db),
    }


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path} does not exist"
    if path.is_dir():
        return f"{path} is a folder; a weight file (.safetensors) is needed"
    if path.stat().st_size == 0:
        return f"{path} is empty; a weight file (.safetensors) is needed"
    return (
        f"{path} is not a whole safetensors file ({error}); "
        f"`pellucid convert` reads the formats of the original authors"
    )
