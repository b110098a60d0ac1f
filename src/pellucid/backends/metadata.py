"""The metadata of an exported file: how to run its graph, and the metadata of its weights.

Every format has a table of texts next to its graph. Each field is one key there, so programs in any language can
read it. Numbers and lists are JSON. A file cannot run code: the name of a recipe resolves only inside the package,
and what the file reports about its network must equal what the recipe states.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid import __version__
from pellucid.backends.backend import Shape
from pellucid.backends.sample_form import SampleForm
from pellucid.degradations.degradation import involves
from pellucid.degradations.standard import JPEG_COMPRESSION
from pellucid.domains import Domain, denoises_mosaic, takes_mosaic
from pellucid.errors import ArgumentError, WeightsError, describe_damage
from pellucid.recipes.network import Network
from pellucid.recipes.recipe import Recipe
from pellucid.recipes.registry import find
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata

PREFIX = "pellucid"
"""Prefix of the keys in formats with one table for all programs: `pellucid.KEY`."""

INPUT, OUTPUT = "degraded", "restored"
"""Names of the graph's input and output."""

STORED_WEIGHTS = "stored_weights_sha256"
"""Key of the hash of the weights as they are in the file; files of earlier versions do not have it."""

OPSET = 18
"""ONNX opset: the oldest one that PyTorch writes. More runtimes support it, and no network needs a newer one."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")

_RANGE = "black is 0, white is 1"
_NOISE = f"noise: shot and read, the variance of a sample is shot * signal + read, where {_RANGE}"
_INPUTS = {
    "gray": "gray",
    "y": "BT.601 luma (16..235 of 255), a gray picture as it is; enlarged bicubically where the recipe enlarges",
    "rgb": "RGB",
}


@dataclass(frozen=True)
class GraphMetadata:
    """How to run a graph, and which weights it contains.

    weights: metadata of the weights, with the recipe and keywords of this graph.
    scale, multiple, halo: of the network; see `recipes.network.Network`.
    num_planes: C of the input, (N, C, H, W).
    weights_sha256: of the float32 weights from which the graph was made.
    precision: in which the graph computes, one of PRECISIONS.
    shape: the only input shape that the graph accepts, (N, C, H, W) or as in `form`; any number and size of
        pictures if None.
    form: of the samples that a whole graph takes and returns; None for a network. Scale, multiple and halo of a
        whole graph are in picture pixels.
    """

    weights: WeightsMetadata
    scale: int
    multiple: int
    halo: int
    num_planes: int
    weights_sha256: str
    precision: str = "float32"
    shape: Shape | None = None
    form: SampleForm | None = None

    @classmethod
    def of(
        cls, network: Network, recipe: Recipe, weights: WeightsMetadata, *, weights_sha256: str
    ) -> "GraphMetadata":
        """The metadata of a float32 graph of any input shape. recipe: may have other keywords than `weights`."""
        weights = replace(weights, recipe=recipe.name, parameters=recipe.parameters)
        num_planes = recipe.domain.num_planes
        return cls(weights, network.scale, network.multiple, network.halo, num_planes, weights_sha256)

    def to_entries(self) -> dict[str, str]:
        """Key -> text, without PREFIX; every format can contain this."""
        recipe = find(self.weights.recipe, **self.weights.parameters)
        texts = {
            "format": checkpoint.FORMAT,
            "recipe": self.weights.recipe,
            "parameters": dict(self.weights.parameters),
            "provenance": self.weights.provenance,
            "license": self.weights.license,
            "scores": [dict(score) for score in self.weights.scores],
            "scale": self.scale,
            "multiple": self.multiple,
            "halo": self.halo,
            "num_planes": self.num_planes,
            "weights_sha256": self.weights_sha256,
            "precision": self.precision,
            "shape": self.shape,
            "deblocks": involves(recipe.degradation, JPEG_COMPRESSION),
            **_describe_ends(recipe, self.scale, self.form),
            "made_by": f"pellucid {__version__}",
        }
        if self.weights.network_sha256 is not None:
            texts["network_sha256"] = self.weights.network_sha256
        if self.weights.learned_from_pairs:
            texts["learned_from_pairs"] = True
        if self.weights.degradation is not None:
            texts["degradation"] = self.weights.degradation
        if self.form is not None:
            texts["whole"] = vars(self.form)
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in texts.items()}

    @classmethod
    def from_entries(cls, entries: Mapping[str, str], *, source: str | Path) -> "GraphMetadata":
        """The inverse of `to_entries`. Raises WeightsError if entries are missing or not pellucid's.

        source: names the file in errors.
        """
        if "recipe" not in entries:
            raise WeightsError(
                f"{source} does not contain pellucid's metadata", hint="`pellucid export` writes files that do"
            )
        try:
            header = {**entries, **{key: json.loads(entries[key]) for key in _JSON_KEYS}}
            precision = entries["precision"]
            if precision not in PRECISIONS:
                raise ValueError(f"precision {precision[:20]}")
            scale, multiple, halo, num_planes = map(_parse_count, map(header.__getitem__, _COUNTS))
            shape = None if header["shape"] is None else _parse_shape(header["shape"])
            form = SampleForm.parse(json.loads(entries["whole"])) if "whole" in entries else None
        except (ValueError, TypeError, KeyError, RecursionError, ArgumentError) as error:
            raise WeightsError(f"{source}: the metadata is not pellucid's ({describe_damage(error)})") from error
        weights = checkpoint.parse_metadata(header, source=source)
        weights_sha256 = entries.get("weights_sha256", "")
        return cls(weights, scale, multiple, halo, num_planes, weights_sha256, precision, shape, form)

    def resolve(self, *, source: str | Path, **parameters: Any) -> tuple[Recipe, Network]:
        """The recipe, and its optimized network on the meta device: shapes without weights.

        source: names the file in errors. parameters: recipe keywords to change. Raises WeightsError if there is no
        such recipe, or if the graph is not of its network.
        """
        if self.form is not None:
            raise WeightsError(
                f"{source} is a whole graph, which takes and returns the samples of files",
                hint="`pellucid export` without --whole writes files for `pellucid restore`",
            )
        recipe = checkpoint.find_recipe(self.weights, source=source, **parameters)
        checkpoint.check_network_file(self.weights, recipe, source=source)
        with torch.device("meta"):
            network = recipe.network().eval().optimize_for_inference()
        found = (self.scale, self.multiple, self.halo, self.num_planes)
        wanted = (network.scale, network.multiple, network.halo, recipe.domain.num_planes)
        if found != wanted:
            raise WeightsError(
                f"{source} has scale, multiple, halo and planes {found}, but {recipe.name} has {wanted}",
                hint="export it again",
            )
        return recipe, network


def hash_onnx_weights(model: Any) -> str:
    """SHA-256 of the weights in an ONNX model: names, types, shapes and values."""
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode())
        digest.update(tensor.raw_data or tensor.SerializeToString())
    return digest.hexdigest()


def check_stored_weights(entries: Mapping[str, str], found_sha256: str, *, source: str | Path) -> None:
    """Raise WeightsError if the weights in a file are not those that its metadata were written for."""
    if entries.get(STORED_WEIGHTS, found_sha256) != found_sha256:
        raise WeightsError(
            f"{source} is damaged or was changed: its weights do not have the hash in its metadata",
            hint="export it again",
        )


_COUNTS = ("scale", "multiple", "halo", "num_planes")
_JSON_KEYS = ("format", "parameters", "scores", "shape", *_COUNTS)


def _parse_shape(value: list[object]) -> Shape:
    count, planes, height, width = map(_parse_count, value)
    return count, planes, height, width


def _parse_count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**20:
        raise ValueError(f"{str(value)[:20]} is not a count")
    return value


def _describe_ends(recipe: Recipe, scale: int, form: SampleForm | None) -> dict[str, str]:
    """What goes in and what comes out, in words."""
    domain = recipe.domain
    if form is None:
        output = f"{_describe_output(domain)}, {scale}x the size; {_RANGE}"
        return {"input": f"{_describe_input(domain)}; {_RANGE}", "output": output}
    layout = ", ".join(form.layout.upper())
    mosaic = f"{form.samples} mosaic that starts with {'/'.join(_pattern(domain))}"
    picture = f"{form.samples} {'RGB' if form.colors == 'rgb' else 'gray'}"
    given, returned = mosaic if domain.takes_mosaic else picture, mosaic if domain.gives_mosaic else picture
    noise = f"; {_NOISE}" if denoises_mosaic(domain) and domain.noise is None else ""
    size = "the same size" if scale == 1 else f"{scale}x the size"
    return {
        "input": f"{given}, ({layout}), as in files{noise}",
        "output": f"{returned}, ({layout}), {size}, as in files",
    }


def _pattern(domain: Domain) -> tuple[str, ...]:
    return domain.pattern if takes_mosaic(domain) else ()


def _describe_input(domain: Domain) -> str:
    if domain.gives_mosaic:
        return "a camera mosaic on a scale of equal noise, one plane a filter site, and the deviation of the noise"
    if domain.takes_mosaic:
        return "a camera mosaic, one plane a filter site, times its exposure ratio, cut off at white"
    return _INPUTS[domain.colors]


def _describe_output(domain: Domain) -> str:
    if domain.gives_mosaic:
        return "the planes of the mosaic without noise, on the same scale"
    return "RGB" if domain.takes_mosaic else "the same"
