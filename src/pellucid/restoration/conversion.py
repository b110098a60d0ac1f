"""Arrays, tensors and Pillow images as pictures, and results in the same form."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from pellucid.domains import Degraded
from pellucid.errors import PictureError
from pellucid.pictures.picture import Mosaic, Picture, check_tensor

InMemory = Picture | Mosaic | NDArray[Any] | Tensor | Image
"""What `Restorer.restore` takes."""

Same = TypeVar("Same", Picture, NDArray[Any], Tensor, Image)
"""What `Restorer.restore` returns in the form in which it was given."""

LOWEST, HIGHEST = -1.0, 2.0
"""Limits of floating-point values. Strong noise that is not clipped exceeds 0..1, but not this much."""


def is_in_memory(value: object) -> bool:
    """Whether `to_pictures` takes it, if its shape and type are right."""
    return isinstance(value, Picture | Mosaic | np.ndarray | Tensor | Image)


def to_pictures(given: InMemory) -> tuple[Sequence[Degraded], Callable[[Sequence[Picture]], Any]]:
    """The pictures in any of the accepted forms, and a function that puts the results into the same form.

    A tensor with four axes holds any number of pictures, all else holds one. Raises PictureError for other types,
    shapes and value ranges.
    """
    if isinstance(given, Picture | Mosaic):
        return [given], lambda restored: restored[0]
    if isinstance(given, np.ndarray):
        picture = Picture.from_array(given)
        _check_range(given)
        return [picture], lambda restored: _to_array(restored[0], given.ndim)
    if isinstance(given, Tensor):
        return _split(given), lambda restored: _join(restored, given)
    if isinstance(given, Image):
        return [Picture.from_pil(given)], lambda restored: restored[0].to_pil()
    raise PictureError(
        f"{_describe(given)}; a Picture, a Mosaic, a NumPy array, a tensor or a Pillow image is needed",
        hint="pellucid.restore takes paths; pellucid.read gives a Picture"
        if isinstance(given, str | Path)
        else "",
    )


def _to_array(restored: Picture, num_axes: int) -> NDArray[Any]:
    array = restored.to_array()
    return array[..., None] if array.ndim < num_axes else array


def _split(tensor: Tensor) -> list[Picture]:
    """(C, H, W) or (N, C, H, W) -> pictures of float32."""
    check_tensor(tensor, (3, 4))
    batch = tensor.detach().resolve_neg().to("cpu", torch.float32)[None if tensor.ndim == 3 else slice(None)]
    arrays = [planes.permute(1, 2, 0).numpy() for planes in batch]
    for array in arrays:
        _check_range(array)
    return [Picture.from_array(array) for array in arrays]


def _join(restored: Sequence[Picture], like: Tensor) -> Tensor:
    arrays = [_to_array(picture, 3) for picture in restored]
    joined = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays])
    return (joined if like.ndim == 4 else joined[0]).contiguous().to(like)


def _check_range(array: NDArray[Any]) -> None:
    """Refuse NaN, and values that are obviously not in 0..1."""
    if array.dtype.kind != "f":
        return
    low, high = float(array.min()), float(array.max())
    if not np.isfinite((low, high)).all():
        raise PictureError("NaN or infinite values; finite ones from 0 to 1 are needed")
    if low < LOWEST or high > HIGHEST:
        raise PictureError(
            f"floating-point values from {low:.4g} to {high:.4g}; 0 (black) to 1 (white) is needed",
            hint="divide 8-bit values by 255" if low >= LOWEST and high < 512 else "",
        )


def _describe(value: object) -> str:
    return f"a {type(value).__name__}" + (f" ({str(value)[:80]!r})" if isinstance(value, str | Path) else "")
