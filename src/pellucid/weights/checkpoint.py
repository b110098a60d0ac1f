"""The weight file of pellucid: one safetensors file with weights, recipe, provenance and scores.

The `pellucid` entry of its header is JSON: format version, recipe and its parameters, provenance, license, scores
and the hash of the tensors. No code in a file is run: a recipe's name resolves inside the package only.
"""

import errno
import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from pellucid.errors import RecipeError, WeightsError, describe_damage
from pellucid.recipes.network import Network
from pellucid.recipes.overrides import rename_keywords, training_keywords
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.system.files import write_atomic

FORMAT = 1

EXPORTED_SUFFIXES = (".onnx", ".xml")
"""Suffixes of files from `pellucid export` that can restore pictures."""

_OTHER_EXPORTS = (".pt2", ".mindir", ".air")

GIVEN_PAIRS = "given pairs"
"""The start of a score's `protocol.degradation` if the degraded pictures were given, not synthesized."""


@dataclass(frozen=True)
class WeightsMetadata:
    """What the header of a weight file contains, in addition to the hash of the tensors.

    recipe, parameters: name and keywords for `pellucid.find`. license: the license of the weights.
    provenance: how the weights were made: command, data and hardware, or the file that they were converted from.
    scores: each with `data` (the test set), `keywords`, `psnr_db` and the other means and the protocol that
        `pellucid evaluate` reports.
    history: recipe, provenance and scores of the files that this one replaced, newest first.
    network_sha256: SHA-256 of the network file, if the recipe is not from the package; see `add_network`.
    learned_from_pairs: whether it learned from given pairs only, not from the degradation of the recipe.
    degradation: describes the degradation from which it learned instead of that of the recipe.
    """

    recipe: str
    parameters: Mapping[str, Any]
    provenance: str
    license: str
    scores: tuple[Mapping[str, Any], ...] = field(default=())
    history: tuple[Mapping[str, Any], ...] = field(default=())
    network_sha256: str | None = None
    learned_from_pairs: bool = False
    degradation: str | None = None

    @property
    def learned_from_recipe(self) -> bool:
        """Whether it learned from the degradation of its recipe."""
        return not self.learned_from_pairs and self.degradation is None


@dataclass(frozen=True)
class LoadedWeights:
    """A weight file that was read and verified.

    network: in evaluation mode, float32, without gradients. recipe: with the keywords that `load` was given.
    metadata: as in the file. stored_sha256: the verified fingerprint of the tensors in the file.
    """

    network: Network
    recipe: Recipe
    metadata: WeightsMetadata
    stored_sha256: str
    is_as_stored: bool
    """Whether the network has the tensors of the file, rather than e.g. float32 copies of float16 ones."""

    @cached_property
    def sha256(self) -> str:
        """The fingerprint of the network's tensors. Cost: a hash of all weights, unless they are as stored."""
        return self.stored_sha256 if self.is_as_stored else fingerprint(self.network.state_dict())


def save(path: Path, network: nn.Module, metadata: WeightsMetadata, *, overwrite: bool = False) -> None:
    """Write a weight file atomically; tensors keep their types.

    Raises OutputError if the file exists and overwrite is False, or if it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    header = {"format": FORMAT, **asdict(metadata), "sha256": fingerprint(tensors)}
    content = serialize(tensors, metadata={"pellucid": json.dumps(header)})
    write_atomic(path, content, overwrite=overwrite)


def load(path: Path, /, **parameters: Any) -> LoadedWeights:
    """Read a weight file and verify its tensors.

    parameters: recipe keywords to change, e.g. the noise level of evaluation. Raises WeightsError if the file is
    not a weight file, if it is damaged, or if its tensors do not fit the recipe; RecipeError if its recipe or a
    keyword is not known.
    """
    metadata, tensors, sha256 = _read_verified(path)
    recipe = find_recipe(metadata, source=path, **parameters)
    network = fill(recipe, tensors, source=str(path))
    return LoadedWeights(network, recipe, metadata, sha256, _has_tensors(network, tensors))


def check_undamaged(path: Path) -> None:
    """Raise WeightsError if a weight file is damaged, or is not one."""
    _read_verified(path)


def _read_verified(path: Path) -> tuple[WeightsMetadata, dict[str, Tensor], str]:
    """Metadata, tensors and their hash."""
    metadata, expected_sha256 = _read_header(path)
    tensors = _read_tensors(path)
    if fingerprint(tensors) != expected_sha256:
        raise WeightsError(f"{path} is damaged: its tensors are not the ones that were saved")
    return metadata, tensors, expected_sha256


def find_recipe(metadata: WeightsMetadata, *, source: str | Path, **parameters: Any) -> Recipe:
    """The recipe in the metadata of a file, with some keywords changed.

    Raises WeightsError if the recipe is unknown, and RecipeError for impossible keywords, and for keywords of
    training, which would have no effect.
    """
    try:
        recipe = find(metadata.recipe, **metadata.parameters)
    except RecipeError as error:
        digest = metadata.network_sha256
        if digest is None:
            raise WeightsError(f"{source}: {error}") from error
        raise WeightsError(
            f"{source} needs the network file {_name_network_file(metadata)}, which is code of its author",
            hint="{network} FILE.py runs it",
        ) from error
    for key in rename_keywords(parameters):
        if key in training_keywords():
            raise RecipeError(f"{key} is a keyword of training, which has no effect on trained weights; omit it")
    return find(metadata.recipe, **{**metadata.parameters, **parameters}) if parameters else recipe


def check_network_file(metadata: WeightsMetadata, recipe: Recipe, *, source: str | Path) -> None:
    """Raise WeightsError if weights were trained by another network file than the one that was added.

    recipe: the recipe of the added file. Weight files only cause a warning if their network file has changed
    slightly; but a graph contains the code of its network file, so the files must be identical.
    """
    if metadata.network_sha256 not in (None, recipe.network_sha256):
        found = "the package" if recipe.network_sha256 is None else f"SHA-256 {recipe.network_sha256[:12]}"
        raise WeightsError(
            f"{source} needs the network file {_name_network_file(metadata)}, not that of {found}",
            hint="{network} FILE.py must be the file that the weights were trained by",
        )


def _name_network_file(metadata: WeightsMetadata) -> str:
    digest = metadata.network_sha256 or ""
    return f"{metadata.recipe.partition('.')[0]}.py (SHA-256 {digest[:12]})"


def read_metadata(path: Path) -> WeightsMetadata:
    """The metadata of a weight file, without reading its weights. Raises WeightsError as `load` does."""
    return _read_header(path)[0]


def fill(recipe: Recipe, tensors: Mapping[str, Tensor], *, source: str) -> Network:
    """The recipe's network with these weights, in evaluation mode, float32 and without gradients.

    source: where the tensors are from, for the message. Raises WeightsError that names up to four tensors that
    are missing, unknown, of another shape, of a type without fractions, or with NaN or infinite values.
    """
    with torch.device("meta"):
        network = recipe.network()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    # Old or foreign batch norms do not have this counter, which inference does not use.
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [f"{name} {wanted[name]} missing" for name in wanted.keys() - found.keys() - counters]
    unknown = [f"{name} {found[name]} unknown" for name in found.keys() - wanted.keys()]
    wrong_shape = [
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if wanted[name] != found[name]
    ]
    wrong_type = [
        f"{name} has type {tensor.dtype}"
        for name, tensor in tensors.items()
        if name in wanted.keys() - counters and not tensor.is_floating_point()
    ]
    not_finite = [f"{name} has NaN or infinite values" for name in tensors if not tensors[name].isfinite().all()]
    faults = sorted(wrong_shape) + sorted(wrong_type) + sorted(not_finite) + sorted(missing) + sorted(unknown)
    if faults:
        more = f"; and {len(faults) - 2} more" if len(faults) > 2 else ""
        raise WeightsError(f"{source} does not fit {_describe(recipe)}: {'; '.join(faults[:2])}{more}")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    state |= {name: torch.tensor(0) for name in counters - state.keys()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def describe_score(score: Mapping[str, Any]) -> str:
    """The test set and keywords of a score in the metadata: "Set12 sigma_255=25"."""
    return " ".join([score["data"], *(f"{key}={value}" for key, value in score["keywords"].items())])


def score_command(name: str, score: Mapping[str, Any]) -> str:
    """The command line that measures a score of this model again; DEGRADED and CLEAN are the folders of pairs."""
    has_pairs = str(score.get("protocol", {}).get("degradation")).startswith(GIVEN_PAIRS)
    data = "DEGRADED --target CLEAN" if has_pairs else shlex.quote(score["data"])
    keywords = (f"{key}={value}" for key, value in score["keywords"].items())
    return " ".join([f"pellucid evaluate {name} --data {data}", *keywords])


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _has_tensors(network: Network, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a network has exactly these tensors, with the same types."""
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    return types == {name: tensor.dtype for name, tensor in tensors.items()}


def _describe(recipe: Recipe) -> str:
    """The recipe with its keywords, but for those of the training, which no weights depend on."""
    own = {key: value for key, value in recipe.parameters.items() if key not in training_keywords()}
    return " ".join([recipe.name, *(f"{key}={value}" for key, value in own.items())])


def _read_header(path: Path) -> tuple[WeightsMetadata, str]:
    if path.exists() and not path.is_file():  # opening a pipe would wait forever
        raise _unreadable(path, OSError())
    try:
        with safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if "pellucid_training" in entries:
        weights = path.absolute().parent.parent / "weights.safetensors"
        name = weights if weights.exists() else "the weights.safetensors of its run folder"
        raise WeightsError(f"{path} is a checkpoint of a training; give {name}")
    if "pellucid" not in entries:
        raise WeightsError(
            f"{path} is a safetensors file of another program, without pellucid's header",
            hint="`pellucid convert` makes a weight file of it",
        )
    try:
        header = json.loads(entries["pellucid"])
        return parse_metadata(header, source=path), str(header["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path} has an invalid header ({describe_damage(error)})") from error


def parse_metadata(header: Mapping[str, Any], *, source: str | Path) -> WeightsMetadata:
    """The metadata in a header; other entries are ignored. Raises WeightsError if one is missing or invalid."""
    try:
        if header["format"] not in range(1, FORMAT + 1):
            found = str(header["format"])[:20]
            raise WeightsError(
                f"{source} has format {found}, but this version reads 1 to {FORMAT}", hint="update pellucid"
            )
        return WeightsMetadata(
            recipe=str(header["recipe"]),
            parameters=dict(header["parameters"]),
            provenance=str(header["provenance"]),
            license=str(header["license"]),
            scores=tuple(_parse_score(score) for score in header["scores"]),
            history=tuple(dict(entry) for entry in header.get("history", ())),
            network_sha256=None if header.get("network_sha256") is None else str(header["network_sha256"]),
            learned_from_pairs=header.get("learned_from_pairs") in (True, "true"),  # text in exported files
            degradation=None if header.get("degradation") is None else str(header["degradation"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{source} has an invalid header ({describe_damage(error)})") from error


def _parse_score(score: Mapping[str, Any]) -> Mapping[str, Any]:
    """A score with the entries that all readers rely on."""
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
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    if not path.exists():
        return WeightsError(f"{path} does not exist", hint="check the name")
    if path.is_dir():
        weights = path / "weights.safetensors"  # of a run folder
        hint = f"give {weights}" if weights.exists() else ""
        return WeightsError(f"{path} is a folder, not a weight file (.safetensors)", hint=hint)
    if not path.is_file():
        return WeightsError(f"{path} is a device or pipe, not a weight file (.safetensors)")
    if path.suffix.lower() in EXPORTED_SUFFIXES:
        return WeightsError(
            f"{path} is an exported model, not a weight file (.safetensors)",
            hint="give the weights that it was exported from",
        )
    if path.suffix.lower() in _OTHER_EXPORTS:
        return WeightsError(
            f"{path} is an exported model for other programs",
            hint="give the weights that it was exported from, or an .onnx or .xml file",
        )
    if path.suffix.lower() == ".bin" and path.with_suffix(".xml").exists():
        return WeightsError(f"{path} is a part of an exported model; give {path.with_suffix('.xml').name}")
    if path.stat().st_size == 0:
        return WeightsError(f"{path} is empty")
    if not os.access(path, os.R_OK):  # safetensors reports a file that does not exist
        return WeightsError(f"{path} cannot be read: {os.strerror(errno.EACCES)}")
    if path.suffix == ".safetensors":
        return WeightsError(f"{path} is not a complete safetensors file ({error})", hint="copy it again")
    return WeightsError(
        f"{path} is not a weight file of pellucid (.safetensors)",
        hint="`pellucid convert` reads the weight files of other programs",
    )
