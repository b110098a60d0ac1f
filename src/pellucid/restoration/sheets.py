"""Before/after sheets: parts of a picture side by side with their results, drawn at 100 %."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import resize_to
from pellucid.pictures.structures.chunks import iterate_png
from pellucid.system import files

CELL_PX = 320
"""Longest side of a cell."""

_GAP_PX, _LINE_PX = 20, 22
_PAPER, _INK, _QUIET, _FRAME = (250, 250, 248), (20, 20, 20), (105, 105, 105), (214, 40, 40)
_CHECKS = (235, 205), 8
_AUTHOR = "pellucid before/after sheet"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Pixels = NDArray[np.uint8]
"""(H, W, 3), as shown."""


@dataclass(frozen=True)
class Row:
    """One part of the picture: a cell for each column, and a line below each."""

    cells: Sequence[Pixels]
    captions: Sequence[str]
    top: int
    left: int
    height: int
    width: int


def draw(title: str, columns: Sequence[str], whole: Picture, rows: Sequence[Row]) -> Image.Image:
    """A sheet: the whole picture with numbered frames, and to the right of it the rows of cells.

    columns: their headings. whole: the picture that the places of the rows are in.
    """
    cell_width = max(cell.shape[1] for row in rows for cell in row.cells)
    column_px = max(cell_width, *(_text_width(text, 15) for row in rows for text in row.captions))
    column_px = max(column_px, *(_text_width(text, 17) for text in columns)) + _GAP_PX
    overview = _draw_overview(whole, rows)
    row_px = [max(cell.shape[0] for cell in row.cells) + 2 * _LINE_PX for row in rows]
    left, top = overview.width + 2 * _GAP_PX, 3 * _LINE_PX + _GAP_PX
    width = max(left + len(columns) * column_px, _text_width(title, 20) + 2 * _GAP_PX)
    sheet = Image.new("RGB", (width, top + max(sum(row_px), overview.height + _GAP_PX)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_GAP_PX, _GAP_PX), title, 20, _INK)
    sheet.paste(overview, (_GAP_PX, top))
    for i, heading in enumerate(columns):
        _write(pen, (left + i * column_px, top - _LINE_PX - 4), heading, 17, _INK)
    for number, (row, height) in enumerate(zip(rows, row_px, strict=True), start=1):
        for i, (cell, caption) in enumerate(zip(row.cells, row.captions, strict=True)):
            corner = left + i * column_px, top
            sheet.paste(Image.fromarray(cell), corner)
            text = f"{number}: {caption}" if i == 0 else caption
            _write(pen, (corner[0], top + cell.shape[0] + 3), text, 15, _QUIET)
        top += height
    return sheet


def to_pixels(picture: Picture, height: int, width: int, *, gain: float = 1.0) -> Pixels:
    """A picture as it is shown in a cell of this size: 8 bit, RGB, on gray checks if it is transparent.

    gain: the factor of its samples.
    """
    planes, alpha = picture.to_tensor() * gain, picture.alpha_to_tensor()
    if (picture.height, picture.width) != (height, width):
        planes = resize_to(planes, height, width)
        alpha = None if alpha is None else resize_to(alpha, height, width)
    samples = np.repeat(planes[0].permute(1, 2, 0).numpy(), 1 if picture.channels == 3 else 3, axis=2)
    if alpha is not None:
        opacity = alpha[0, 0, :, :, None].clamp(0, 1).numpy()
        samples = samples * opacity + _checks(height, width) * (1 - opacity)
    return (samples.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def write(
    sheet: Image.Image,
    path: Path,
    profile: bytes | None,
    *,
    overwrite: bool,
    before_rename: Callable[[Path], None] | None = None,
) -> None:
    """Write a sheet as PNG. An older sheet is replaced; for other files, see `files.check_overwrite`.

    profile: the ICC profile of the colors. before_rename: see `files.atomic_file`.
    """
    info = PngInfo()
    info.add_text("Software", _AUTHOR)
    check_replaceable(path, overwrite=overwrite)
    with files.atomic_file(path, overwrite=True, before_rename=before_rename) as temporary:
        sheet.save(temporary, "PNG", pnginfo=info, icc_profile=profile)


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if something exists at path that is not a sheet of an earlier run."""
    files.check_overwrite(path, overwrite=overwrite or is_sheet(path))


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet of an earlier run, which may be replaced, and is not restored."""
    if not path.name.lower().endswith(".png"):
        return False
    if not os.path.isfile(path):  # noqa: PTH113  # opening a pipe would wait; Path's raises on names too long
        return False
    mark = b"Software\0" + _AUTHOR.encode()
    with suppress(OSError), path.open("rb") as file:
        # Not by Pillow, which raises many kinds of errors for damaged files, and refuses large ones.
        for kind, offset, length in iterate_png(file) if file.read(8) == _SIGNATURE else ():
            if kind == b"IDAT":
                break
            file.seek(offset + 8)
            if kind == b"tEXt" and length == len(mark) and file.read(length) == mark:
                return True
    return False


def _draw_overview(whole: Picture, rows: Sequence[Row]) -> Image.Image:
    """The whole picture, small, with a numbered frame for each row."""
    factor = min(1.0, 240 / whole.width, 480 / whole.height)
    step = max(1, int(1 / factor / 2))  # skips pixels of large pictures
    sampled = whole.map_planes(lambda plane: plane[::step, ::step])
    height, width = max(1, round(whole.height * factor)), max(1, round(whole.width * factor))
    overview = Image.fromarray(to_pixels(sampled, height, width))
    pen = ImageDraw.Draw(overview)
    corners = []
    for row in rows:
        if (row.height, row.width) != (whole.height, whole.width):
            x, y, right, bottom = (
                round(end * factor) for end in (row.left, row.top, row.left + row.width, row.top + row.height)
            )
            # In the overview of a line of pixels, a part may have no pixel.
            pen.rectangle((x, y, max(x, right - 1), max(y, bottom - 1)), outline=_FRAME, width=2)
            corners.append((x, y))
    for number, (x, y) in enumerate(corners, start=1):  # over the frames
        pen.rectangle((x, y, x + 8 + _text_width(str(number), 13), y + 16), fill=_FRAME)
        _write(pen, (x + 4, y), str(number), 13, _PAPER)
    return overview


def _checks(height: int, width: int) -> NDArray[np.float32]:
    (light, dark), side_px = _CHECKS
    rows, cols = np.ogrid[:height, :width]
    checks = np.where((rows // side_px + cols // side_px) % 2, light, dark)
    return (checks[..., None] / 255).astype(np.float32)


def _text_width(text: str, size_px: int) -> int:
    return int(ImageFont.load_default(size_px).getlength(text)) + 1


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size_px: int, color: tuple[int, int, int]
) -> None:
    pen.text(place, text, color, ImageFont.load_default(size_px))
