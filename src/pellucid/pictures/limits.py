"""The limit on the size of pictures, checked before they are decoded."""

from pathlib import Path

from pellucid.errors import PictureError


def check_size(width: int, height: int, path: Path, max_pixels: int) -> None:
    """Raise PictureError for a picture of more than max_pixels."""
    if width * height > max_pixels:
        raise PictureError(
            f"{path} has {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} are allowed",
            hint="cut it into parts first, or set {max_pixels}",
            max_pixels=width * height,
        )
