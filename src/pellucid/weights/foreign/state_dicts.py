"""Finds the state dict of a network in a checkpoint, under the names that the network itself gives.

Trainers nest state dicts ("state_dict", "params_ema"), and wrappers add prefixes to names: DataParallel "module.",
torch.compile "_orig_mod.", Lightning and others the name of an attribute ("model.", "network.", "generator.").
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

_CONTAINERS = (
    *("params_ema", "ema", "model_ema", "ema_state_dict", "params", "state_dict", "model_state_dict"),
    *("model_state", "model", "network", "net", "generator", "net_g", "netG", "g", "weights", "module"),
)
"""Keys of nested state dicts, the best first: averaged weights are what authors evaluate."""

_WRAPPERS = frozenset(
    {
        "module",
        "_orig_mod",
        "model",
        "network",
        "net",
        "generator",
        "net_g",
        "netG",
        "_network",
        "_model",
        "backbone",
    }
    | {"params_ema", "params", "state_dict", "model_state_dict", "ema_model", "_forward_module", "self"}
)
"""First parts of names that wrappers add."""

_COMPANIONS = (
    "discriminator",
    "netD",
    "net_d",
    "loss",
    "criterion",
    "perceptual",
    "vgg",
    "lpips",
    "metric",
    "psnr",
)
"""Beginnings of the names of other modules in the same file, which are not the network."""

_OTHERS = ("optim", "sched", "scaler", "amp", "callbacks", "loops", "hyper", "config", "args", "epoch", "iter")
"""Beginnings of the keys of a checkpoint that do not contain a network."""

_MAX_DEPTH = 4


def find_tensors(loaded: Any, to_tensor: Callable[[Any], Tensor | None]) -> dict[str, Tensor]:
    """The state dict of a checkpoint, which may also contain an optimizer's, without the prefixes of wrappers.

    to_tensor: the tensor in a value of the state dict, or None if the value is not a tensor. Raises ValueError if
    there is none, or several.
    """
    if not isinstance(loaded, dict):
        raise ValueError(f"it contains a {type(loaded).__name__}, not named tensors")
    return strip_prefixes(_find(loaded, to_tensor, _MAX_DEPTH))


def strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the network gives them: "module.model.conv1.weight" -> "conv1.weight".

    A prefix is kept if only a number would be left: "model.0.weight" is a name that networks themselves give.
    """
    found = dict(tensors)
    while prefix := _shared_wrapper(found):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    return found


def _find(loaded: dict[Any, Any], to_tensor: Callable[[Any], Tensor | None], depth: int) -> dict[str, Tensor]:
    nested = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, dict)}
    if depth:
        for key in _CONTAINERS:
            if key in nested and (found := _find(nested[key], to_tensor, depth - 1)):
                return found
    tensors = {name: to_tensor(value) for name, value in loaded.items() if isinstance(name, str)}
    named = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if any("." in name or tensor.ndim for name, tensor in named.items()) or not depth:
        return named
    others = {
        key: found
        for key, value in nested.items()
        if not key.lower().startswith(_OTHERS) and (found := _find(value, to_tensor, depth - 1))
    }
    if len(others) > 1:
        raise ValueError(
            f"it contains several networks ({', '.join(others)[:80]}); save one of them as a state_dict"
        )
    return next(iter(others.values()), named)


def _shared_wrapper(tensors: Mapping[str, Tensor]) -> str:
    """The prefix that a wrapper added to the names of the network, with its dot; "" if there is none."""
    parts = {name.partition(".")[0] for name in tensors}
    wrappers = parts & _WRAPPERS
    if len(wrappers) != 1 or not all(part.startswith(_COMPANIONS) for part in parts - wrappers):
        return ""
    prefix = f"{wrappers.pop()}."
    rest = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    return "" if not rest or any(name[:1].isdigit() for name in rest) else prefix
