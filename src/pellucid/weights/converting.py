"""Convert a weight file of another program: read -> translate -> check -> write."""

import hashlib
import os
from pathlib import Path

from pellucid.errors import ArgumentError, OutputError
from pellucid.recipes.registry import find
from pellucid.system.arguments import checks_types
from pellucid.system.files import check_writable
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata
from pellucid.weights.foreign import reading
from pellucid.weights.models import SUFFIX
from pellucid.weights.translation.translate import translate


@checks_types()
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
    """Convert a weight file of another program: MATLAB, PyTorch, TensorFlow, MindSpore, PaddlePaddle.

    source: the foreign file; no code in it is run. recipe, parameters: what the weights are, e.g.
    "dncnn.gaussian" and sigma_255=25; what the tensors show (depth, width, channels, biases, batch norm) is
    recognized. out: ends in .safetensors. license: of the weights.

    Returns the metadata that was written. Raises WeightsError if the format or the names are not known, if
    tensors are not finite, or if they do not fit the recipe or a parameter; RecipeError for an unknown recipe or
    keyword; ArgumentError if out has another suffix; OutputError if it is source, exists and overwrite is False,
    or cannot be written; MissingExtraError if h5py is needed.
    """
    source, out = Path(source), Path(out)
    if os.path.realpath(source) == os.path.realpath(out):
        raise OutputError(f"{out} is the input itself", hint="choose another {out}")
    if out.suffix != SUFFIX:
        raise ArgumentError(f"{out} does not end in {SUFFIX}, the suffix of weight files")
    check_writable(out, overwrite=overwrite)
    requested = find(recipe, **parameters)
    theirs = reading.read(source)
    keywords, tensors = translate(theirs, requested, given=parameters.keys())
    fitting = find(recipe, **{**parameters, **keywords})
    network = checkpoint.fill(fitting, tensors, source=str(source))
    digest = hashlib.sha256(theirs.path.read_bytes()).hexdigest()
    metadata = WeightsMetadata(
        recipe=fitting.name,
        parameters=fitting.parameters,
        provenance=f"converted from {theirs.path.name} (sha256 {digest})",
        license=license,
    )
    checkpoint.save(out, network, metadata, overwrite=overwrite)
    return metadata
