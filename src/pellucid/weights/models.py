"""Weight files by name: those that ship with the package, and those in the user's folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import ArgumentError, WeightsError, suggest
from pellucid.storage import cache, objects
from pellucid.storage.urls import Url, is_url, locate
from pellucid.weights import checkpoint

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class NamedModel:
    """A weight file with a name. is_shipped: whether it comes with the package."""

    name: str
    path: Path
    is_shipped: bool


def user_folder() -> Path:
    """The folder of users' own weight files: $PELLUCID_MODELS, or ~/.pellucid/models. It may not exist.

    Raises WeightsError if a file has its name.
    """
    folder = Path(os.environ.get("PELLUCID_MODELS") or Path.home() / ".pellucid" / "models")
    if folder.is_file():
        raise WeightsError(
            f"{folder} is a file; the folder of your own weight files is needed",
            hint="the environment variable PELLUCID_MODELS names it",
        )
    return folder


def list_models() -> list[NamedModel]:
    """All weight files with a name, the shipped ones first, each group in the order of names."""
    shipped = Path(__file__).parent / "shipped"
    return [
        NamedModel(path.stem, path, is_shipped=folder == shipped)
        for folder in (shipped, user_folder())
        if folder.is_dir()
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stem)
    ]


def find_model(name_or_file: str | Path) -> Path:
    """The weight file of this name, or the path that was given (with a suffix of models, a folder, or a file).

    A file behind a URL is copied into the cache of this computer.
    A shipped model takes precedence over the user's model of the same name. Raises WeightsError with the nearest
    names if there is none of this name, and for a chain (see `find_chain`); whether a path exists is not checked.
    """
    text = str(name_or_file)
    if not text:
        raise WeightsError(
            f"the name of the model is empty; {suggest('', [model.name for model in list_models()])}"
        )
    if is_url(text):
        return cache.as_local(name_or_file if isinstance(name_or_file, Path) else text)
    named = {model.name: model.path for model in reversed(list_models())}
    exists = os.path.exists(text)  # noqa: PTH110  # Path's raises on names that are too long
    # A file or folder of this name does not hide a model. ./NAME is the file, and so is a Path, which has no "./".
    is_file = isinstance(name_or_file, Path) and os.path.isfile(text)  # noqa: PTH113  # as above
    if text in named and not is_file:
        return named[text]
    suffixes = (SUFFIX, *checkpoint.EXPORTED_SUFFIXES)
    if "+" in text and (not exists or os.path.isdir(text)):  # noqa: PTH112  # as above
        raise WeightsError(f"{text[:80]} does not exist; one model is needed here, a chain cannot be used")
    if exists or text.endswith(suffixes) or os.sep in text:
        return Path(text)  # reading a folder explains what is in it
    raise WeightsError(f"no model {text[:80]!r}; {suggest(text, reversed(named))} (or give the path of a file)")


def is_named(text: str) -> bool:
    """Whether a model has this name."""
    return text in {model.name for model in list_models()}


def find_chain(name_or_file: str | Path) -> list[Path]:
    """The weight files of a model, or of several whose names or paths are joined by "+".

    A file or model whose own name contains "+" takes precedence. Raises the errors of `find_model`.
    """
    text = str(name_or_file)
    is_file = os.path.isfile(text)  # noqa: PTH113  # Path's raises on names that are too long
    is_known = "+" not in text or is_file or is_named(text)
    if is_known or _is_object(text):
        return [find_model(name_or_file)]
    if not all(names := text.split("+")):
        raise ArgumentError(
            f"{text[:80]!r} has an empty name next to +",
            hint="a chain of models is e.g. dncnn-color-blind+srcnn-x2",
        )
    return [find_model(name) for name in names]


def _is_object(text: str) -> bool:
    """Whether a URL with a "+" is the name of one file."""
    url = locate(text) if is_url(text) else None
    return isinstance(url, Url) and objects.stat(url) is not None


def find_name(name_or_file: str | Path) -> str:
    """The name of a model or chain, as its restorer has it. Raises the errors of `find_model`."""
    return "+".join(path.stem for path in find_chain(name_or_file))


def list_metadata() -> list[tuple[NamedModel, checkpoint.WeightsMetadata | WeightsError]]:
    """Each named weight file with its metadata, or the error if it cannot be read."""
    return [(model, _read_metadata(model.path)) for model in list_models()]


def _read_metadata(path: Path) -> checkpoint.WeightsMetadata | WeightsError:
    try:
        return checkpoint.read_metadata(path)
    except WeightsError as error:
        return error
