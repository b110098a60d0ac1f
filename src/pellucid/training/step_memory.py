"""Whether the free memory is enough for a training step, before the first one; a container would kill it."""

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pellucid.errors import NotEnoughMemoryError
from pellucid.recipes.network import Loss, Network
from pellucid.system import memory

_ROUGH_FACTOR = 6
"""Rough bound per byte of all convolutions' outputs at full size, of which most networks have far less."""


def check_memory(loss: Loss, network: Network, degraded: Tensor, target: Tensor, *, is_half: bool) -> None:
    """Raise NotEnoughMemoryError if the activations of a step on the CPU take more memory than is free.

    is_half: whether layers compute in 16 bits. Checks a lower bound: steps took 1.0 to 1.6 times as much.
    """
    free = memory.free_bytes()
    if _bound_roughly(network, degraded, target) <= free:
        return
    needed = count_saved_bytes(loss, network, degraded, target) // (2 if is_half else 1)
    if needed > free:
        raise NotEnoughMemoryError(
            f"a step with {len(target)} patches of {target.shape[-1]} px needs more than {needed / 1e6:,.0f} MB; "
            f"{free / 1e6:,.0f} MB are free",
            hint="lower batch_size= or patch_px=",
        )


def count_saved_bytes(loss: Loss, network: Network, degraded: Tensor, target: Tensor) -> int:
    """Memory of what the forward pass keeps for the backward pass in float32, besides weights.

    Counted with tensors without samples; 0 for losses that do not accept them.
    """
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()  # kept alive by the loss, so that no other gets its address
        return tensor

    inputs = [planes.to("meta", torch.float32) for planes in (degraded, target)]
    # Whatever an own network or loss raises for tensors without samples.
    with suppress(Exception), saved_tensors_hooks(count, lambda tensor: tensor):
        copied = copy.deepcopy(network).to("meta")
        kept = loss(copied, *inputs)
        weights = {parameter.untyped_storage()._cdata for parameter in copied.parameters()}
        del kept
        return sum(size for address, size in sizes.items() if address not in weights)
    return 0


def _bound_roughly(network: Network, degraded: Tensor, target: Tensor) -> int:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    num_pixels = max(planes.numel() // planes.shape[1] for planes in (degraded, target))
    return _ROUGH_FACTOR * 4 * num_pixels * sum(layer.out_channels for layer in layers)
