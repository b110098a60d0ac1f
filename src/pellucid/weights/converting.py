"""Turn a weight file of the original authors into one of ours: read -> rename -> check -> write."""

import hashlib
import os
from pathlib import Path

from pellucid.errors import OutputError
from pellucid.recipes.registry import find
from pellucid.weights import checkpoint, foreign, translation
from pellucid.weights.checkpoint import WeightsMetadata
from pellucid.weights.models import SUFFIX


def convert(
    source: str | Path,
    recipe: str,
    out: str | Path,
    /,
    *,
    license: str = "unknown; see the authors of the weights",
    overwrite: bool = False,
    **parameters: object,
) -> WeightsMetadata:
    """Write the authors' weights as a file that knows what it is.

    recipe, parameters: what the weights are, as `dncnn.gaussian` and `sigma_255=25`. Variants of storage
    (biases, batch norm, order of channels) are told from the file. Raises WeightsError naming the tensors
    that do not fit.
    """
    source, out = Path(source), Path(out)
    if os.path.realpath(source) == os.path.realpath(out):
        raise OutputError(f"{out} is the input itself; choose another --out")
    if out.suffix != SUFFIX:
        raise OutputError(f"{out} does not end in {SUFFIX}, by which weight files are known; name it so")
    asked_for = find(recipe, **parameters)
    variant, tensors = translation.translate(foreign.read(source), asked_for)
    fitting = find(recipe, **{**parameters, **variant})
    network = checkpoint.fill(fitting, tensors, source=str(source))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    card = WeightsMetadata(
        recipe=fitting.name,
        parameters=fitting.parameters,
        provenance=f"converted from {source.name} (sha256 {digest})",
        license=license,
    )
    checkpoint.save(out, network, card, overwrite=overwrite)
    return card
