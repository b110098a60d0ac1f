"""Weight files by name: those that ship with the package, and those in the user's own folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import WeightsError, suggest
from pellucid.weights import checkpoint

SUFFIX = ".safetensors"

EXPORTED_SUFFIXES = (".onnx", ".xml")
"""Of what `pellucid export` wrote and a restorer takes again."""


@dataclass(frozen=True)
class NamedModel:
    """A weight file that has a name."""

    name: str
    path: Path
    ships: bool


def user_folder() -> Path:
    """Where users keep their own weights: $PELLUCID_MODELS, else ~/.pellucid/models."""
    return Path(os.environ.get("PELLUCID_MODELS") or Path.home() / ".pellucid" / "models")


def list_models() -> list[NamedModel]:
    """All weight files with a name, those that ship first."""
    shipped = Path(__file__).parent / "shipped"
    return [
        NamedModel(path.stem, path, ships=folder == shipped)
        for folder in (shipped, user_folder())
        if folder.is_dir()
        for path in sorted(folder.glob(f"*{SUFFIX}"))
    ]


def find(name_or_file: str | Path) -> Path:
    """The weight file of this name or path.

    Raises WeightsError with the nearest names when there is none.
    """
    text = str(name_or_file)
    if not text:
        raise WeightsError(f"an empty model name; {suggest('', [model.name for model in list_models()])}")
    suffixes = (SUFFIX, *EXPORTED_SUFFIXES)
    if text.endswith(suffixes) or os.sep in text or os.path.isfile(text):  # noqa: PTH113  # Path's raises on long names
        return Path(text)
    named = {model.name: model.path for model in reversed(list_models())}
    if text not in named:
        raise WeightsError(f"no model {text[:80]!r}; {suggest(text, reversed(named))} (a file's path works too)")
    return named[text]


def list_metadata() -> list[tuple[NamedModel, checkpoint.WeightsMetadata | WeightsError]]:
    """Each named weight file with what it says about itself, or why that cannot be read."""
    return [(model, _card(model.path)) for model in list_models()]


def _card(path: Path) -> checkpoint.WeightsMetadata | WeightsError:
    try:
        return checkpoint.read_metadata(path)
    except WeightsError as error:
        return error
