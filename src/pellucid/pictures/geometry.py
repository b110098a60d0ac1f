"""How a picture was changed, and what that does to positions, sizes and values that metadata contain."""

from dataclasses import dataclass

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class Change:
    """A picture of size `before`, turned by an EXIF orientation (1 to 8) and scaled to size `after`.

    channels: how many it has afterwards, with alpha and others; 0 if that is unknown.
    dtype: the type of the stored samples afterwards, e.g. uint16; "" if they stay as they are.
    value_scale: what stored samples were multiplied by, e.g. 255 / 65535.
    """

    orientation: int
    before: Size
    after: Size
    channels: int = 0
    dtype: str = ""
    value_scale: float = 1.0

    @property
    def is_turned(self) -> bool:
        return self.orientation != 1

    @property
    def is_scaled(self) -> bool:
        return self.scale != (1.0, 1.0)

    @property
    def swaps_axes(self) -> bool:
        return self.orientation > 4

    @property
    def scale(self) -> tuple[float, float]:
        """Factors of the width and the height of the turned picture."""
        width, height = self.before[::-1] if self.swaps_axes else self.before
        return self.after[0] / width, self.after[1] / height

    def swap(self, width: float, height: float) -> tuple[float, float]:
        """A horizontal and a vertical length after turning."""
        return (height, width) if self.swaps_axes else (width, height)

    def move(self, x: float, y: float) -> tuple[float, float]:
        """The new place of a point, in fractions of the width and height."""
        if self.swaps_axes:
            x, y = y, x
        flips = self.orientation in (2, 3, 6, 7), self.orientation in (3, 4, 7, 8)
        return (1 - x if flips[0] else x), (1 - y if flips[1] else y)

    def move_px(self, x: float, y: float) -> tuple[float, float]:
        """The new place of a point in pixels, where whole numbers are the edges of pixels."""
        across, down = self.move(x / self.before[0], y / self.before[1])
        return across * self.after[0], down * self.after[1]

    def resize(self, width: float, height: float) -> tuple[float, float]:
        """The new width and height, in pixels, of an area of the picture."""
        (width, height), (across, down) = self.swap(width, height), self.scale
        return width * across, height * down
