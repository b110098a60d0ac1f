"""Arrays, tensors and Pillow images as pictures, and results in the same form."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from pellucid.domains import Degraded
from pellucid.errors import PictureError
from pellucid.pictures.picture import Encoding, Mosaic, Picture, check_tensor
from pellucid.pictures.white import apply_white, check_white, scale_back

InMemory = Picture | Mosaic | NDArray[Any] | Tensor | Image
"""What `Restorer.restore` takes."""

Same = TypeVar("Same", Picture, NDArray[Any], Tensor, Image)
"""What `Restorer.restore` returns in the form in which it was given."""


def is_in_memory(value: object) -> bool:
    """Whether `to_pictures` takes it, if its shape and type are right."""
    return isinstance(value, Picture | Mosaic | np.ndarray | Tensor | Image)


def to_pictures(
    given: InMemory, *, white: float | None = None
) -> tuple[Sequence[Degraded], Callable[[Sequence[Any]], Any]]:
    """The pictures in any of the accepted forms, and a function that puts the results into the same form.

    A tensor with four axes holds any number of pictures, all else holds one. Raises PictureError for other types,
    shapes and value ranges.
    white: the value of white in an array, tensor or image. Its pictures are scaled, and results scaled back.
    """
    if isinstance(given, Picture | Mosaic):
        if white is not None:
            name = "picture" if isinstance(given, Picture) else "mosaic"
            raise PictureError(
                f"a {name} has its own white", hint="omit {white}; pellucid.read takes it for files"
            )
        return [given], lambda restored: restored[0]
    if isinstance(given, np.ndarray):
        picture = _state_white(Picture.from_array(given), white)
        return [picture], lambda restored: _to_array(scale_back(restored[0]), given.ndim)
    if isinstance(given, Tensor):
        pictures = [_state_white(picture, white) for picture in _split(given)]
        return pictures, lambda restored: _join([scale_back(picture) for picture in restored], given)
    if isinstance(given, Image):
        picture = _state_white(Picture.from_pil(given), white)
        return [picture], lambda restored: scale_back(restored[0]).to_pil()
    raise PictureError(
        f"{_describe(given)}; a Picture, a Mosaic, a NumPy array, a tensor or a Pillow image is needed",
        hint="pellucid.restore takes paths; pellucid.read gives a Picture"
        if isinstance(given, str | Path)
        else "",
    )


def _state_white(picture: Picture, white: float | None) -> Picture:
    """A picture from memory, scaled so that white is that of its type. Its encoding contains warnings, if any."""
    check_white(white)
    if not all(np.isfinite(plane).all() for plane in picture.planes):
        raise PictureError("NaN or infinite values; finite ones from 0 to 1 are needed")
    bits = {"uint8": 8, "uint16": 16, "float32": 32}[picture.dtype]
    own = replace(picture, encoding=Encoding("array", bits))
    if white is not None:  # scaled in place
        own = own.map_planes(np.copy)
    stated = apply_white(own, "the array", white=white)
    assert stated.encoding is not None
    # Floating-point noise may be negative.
    has_warnings = picture.dtype != "float32" and bool(stated.encoding.warnings)
    return stated if white is not None or has_warnings else picture


def _to_array(restored: Picture, num_axes: int) -> NDArray[Any]:
    array = restored.to_array()
    return array[..., None] if array.ndim < num_axes else array


def _split(tensor: Tensor) -> list[Picture]:
    """(C, H, W) or (N, C, H, W) -> pictures of float32."""
    check_tensor(tensor, (3, 4))
    batch = tensor.detach().resolve_neg().to("cpu", torch.float32)[None if tensor.ndim == 3 else slice(None)]
    return [Picture.from_array(planes.permute(1, 2, 0).numpy()) for planes in batch]


def _join(restored: Sequence[Picture], like: Tensor) -> Tensor:
    arrays = [_to_array(picture, 3) for picture in restored]
    joined = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays])
    return (joined if like.ndim == 4 else joined[0]).contiguous().to(like)


def _describe(value: object) -> str:
    return f"a {type(value).__name__}" + (f" ({str(value)[:80]!r})" if isinstance(value, str | Path) else "")
