"""How a code base names the layers of a network, and what every translation needs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pellucid.errors import WeightsError
from pellucid.weights.foreign.reading import ForeignWeights

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Scheme:
    """How a code base names the layers of a network.

    origin: a few of its names, and the code that uses them, for messages.
    layers: its name -> our name; * is a number. keywords: recipe keywords that its weights need.
    """

    origin: str
    layers: Mapping[str, str]
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def translate_name(self, name: str) -> str | None:
        """`FAM1.merge.main.0.bias` -> `attend4.merge.0.bias`; None for a name that is not in the scheme."""
        layer, _, leaf = name.rpartition(".")
        for theirs, ours in self.layers.items():
            match = re.fullmatch(re.escape(theirs).replace(r"\*", r"(\d{1,4})"), layer)
            if match:
                return f"{ours.replace('*', ''.join(match.groups()))}.{leaf}"
        return None


def rename(foreign: ForeignWeights, tensors: Tensors, schemes: Sequence[Scheme]) -> tuple[Scheme, Tensors]:
    """Rename tensors by the scheme that knows most of their names, and return that scheme too.

    Tensors of unknown names keep them. Raises WeightsError if no name is known.
    """

    def count_known(scheme: Scheme) -> int:
        return sum(scheme.translate_name(name) is not None for name in tensors)

    best = max(schemes, key=count_known)
    renamed = {best.translate_name(name) or name: tensor for name, tensor in tensors.items()}
    if renamed.keys() == tensors.keys():
        raise unknown_names(foreign, [scheme.origin for scheme in schemes])
    return best, renamed


def unknown_names(foreign: ForeignWeights, origins: Sequence[str]) -> WeightsError:
    """The error for a file without any name that is known for the network."""
    found = ", ".join(name[:60] for name in list(foreign.tensors)[:3])
    return WeightsError(
        f"{foreign.path} has {len(foreign.tensors)} tensors ({found}, ...), but none of the names that are known "
        f"for this network: {'; '.join(origins)}"
    )


def any_ends_with(tensors: Tensors, end: str) -> bool:
    """Whether the name of any tensor ends like this."""
    return any(name.endswith(end) for name in tensors)
