"""safetensors: state dicts that other programs saved, without the header of pellucid."""

from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from pellucid.weights.foreign.format import Format
from pellucid.weights.foreign.state_dicts import strip_prefixes

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


def looks_like_safetensors(content: bytes) -> bool:
    """Whether a file starts with the length of a JSON header and its first character."""
    return content[8:9] == b"{" and 2 <= int.from_bytes(content[:8], "little") <= MAX_HEADER_BYTES


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    header_bytes = int.from_bytes(content[:8], "little")
    if b'"pellucid"' in content[8 : 8 + header_bytes]:
        raise ValueError("it is a weight file of pellucid already, which needs no conversion")
    return strip_prefixes(load(content))


FORMAT = Format("PyTorch", (".safetensors",), looks_like_safetensors, read)
