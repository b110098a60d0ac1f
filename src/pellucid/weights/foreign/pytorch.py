"""PyTorch: files of `torch.save`, which are zip archives or, before version 1.6, several pickles."""

import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.weights.foreign.format import Format
from pellucid.weights.foreign.pickles import TORCH_MAGIC, check_pickle, refuse
from pellucid.weights.foreign.state_dicts import find_tensors


def recognize(content: bytes) -> bool:
    return content.startswith((b"PK\x03\x04", TORCH_MAGIC))


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    _check_pickles(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage, which the error reports
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message explains how to run the file's code
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise refuse(asked[1]) if asked else ValueError("it is damaged, or contains more than tensors") from error
    return find_tensors(loaded, _to_tensor)


def _to_tensor(value: Any) -> Tensor | None:
    return value.detach() if isinstance(value, Tensor) else None


def _check_pickles(content: bytes) -> None:
    if content.startswith(TORCH_MAGIC):
        stream = io.BytesIO(content)
        for _ in ("magic number", "version", "machine", "state dict", "names of storages"):
            check_pickle(stream)
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # torch stores tensors uncompressed; a compressed archive could unpack to any size.
        if sum(entry.file_size for entry in archive.infolist()) > len(content):
            raise ValueError("the archive unpacks to more bytes than the file has")
        for name in archive.namelist():
            if name.endswith(".pkl"):
                check_pickle(io.BytesIO(archive.read(name)))


FORMAT = Format("PyTorch", (".pth", ".pt", ".pkl"), recognize, read)
