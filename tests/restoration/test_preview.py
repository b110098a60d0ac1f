"""Sheets show the parts that tell the most, before and after."""

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import Image

from pellucid.errors import OutputError, PictureError
from pellucid.pictures import images
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.restoration import sheets
from pellucid.restoration.preview import (
    Part,
    draw_comparison,
    draw_preview,
    find_parts,
    name_sheets,
    write_preview,
)
from pellucid.restoration.settings import Settings
from small_models import build_restorer

DENOISER = build_restorer("dncnn.gaussian", depth=3, width=4)
ENLARGER = build_restorer("srcnn.tuned", scale=2)
RAW_DENOISER = build_restorer("dncnn.raw", depth=3, width=8)
DEVELOPER = build_restorer("sid_unet.any_camera", width=4)


def _picture(height: int = 400, width: int = 500) -> Picture:
    """Flat gray, with fine detail in one square of 100 px and darkness below it."""
    samples = np.full((height, width, 3), 128, np.uint8)
    samples[200:300, 300:400] = np.random.default_rng(0).integers(0, 256, (100, 100, 1))
    samples[300:, :] = 0
    return Picture(samples)


def test_parts_have_detail_or_are_flat_but_not_black() -> None:
    parts = find_parts(_picture(), 100)
    assert max(parts, key=lambda part: part.detail) == parts[0]
    assert (parts[0].top, parts[0].left) == (200, 300)
    assert all(part.top < 300 for part in parts if not part.detail)
    assert len(set(parts)) == len(parts) == 6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 700), (1, 20_000), (20_000, 1), (64, 64), (130, 90)])
def test_every_picture_has_parts_inside_of_it(height: int, width: int) -> None:
    picture = Picture(np.random.default_rng(1).integers(0, 256, (height, width, 1), np.uint8))
    parts = find_parts(picture, 64)
    assert parts
    for part in parts:
        assert part.top + part.height <= height and part.left + part.width <= width
    draw_preview("a", picture, [DENOISER, ENLARGER])


def test_cells_are_the_pixels_of_the_picture_and_of_the_result() -> None:
    picture = _picture()
    sheet = np.asarray(draw_preview("photo", picture, [DENOISER], Settings(crop=(120, 180, 320, 320 - 100))))
    given = picture.samples[180:400, 120:440]
    restored = DENOISER.restore(picture).samples[180:400, 120:440]
    assert _contains(sheet, given) and _contains(sheet, restored)


def test_models_of_different_scales_are_equally_large() -> None:
    sheet = np.asarray(
        draw_preview("photo", _picture(), [DENOISER, ENLARGER], Settings(crop=(200, 100, 160, 160)))
    )
    assert _contains(sheet, ENLARGER.restore(_picture()).samples[200:520, 400:720])


def test_a_comparison_shows_the_result() -> None:
    picture = _picture()
    restored = ENLARGER.restore(picture)
    marked = restored.samples.copy()
    marked[:] = (1, 2, 3)
    sheet = np.asarray(draw_comparison("a", picture, Picture(marked), ENLARGER, Settings()))
    assert (sheet == (1, 2, 3)).all(axis=2).sum() >= 3 * 300 * 300


def test_a_comparison_names_an_option_only_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that stays a mosaic cannot be cropped."""
    captions: list[str] = []
    draw = sheets.draw

    def record(
        title: str, headings: Sequence[str], before: Picture, rows: Sequence[sheets.Row]
    ) -> PIL.Image.Image:
        captions.extend(row.captions[0] for row in rows)
        return draw(title, headings, before, rows)

    monkeypatch.setattr(sheets, "draw", record)
    mosaic = Mosaic(np.full((200, 160), 1000, np.uint16), ("RG", "GB"), 512.0, 16383.0)
    draw_comparison("a", mosaic, mosaic, RAW_DENOISER, Settings())
    draw_comparison("a", _picture(), _picture(), DENOISER, Settings())
    assert not captions[0].startswith("--crop") and captions[-1].startswith("--crop")
    captions.clear()
    part = _picture().crop(slice(40, 140), slice(30, 130))
    draw_comparison("a", _picture(), part, DENOISER, Settings(crop=(30, 40, 100, 100)))
    places = [[int(number) for number in caption.removeprefix("--crop ").split(",")] for caption in captions]
    assert all(x >= 30 and y >= 40 and x + w <= 130 and y + h <= 140 for x, y, w, h in places)
    assert {(x + w, y + h) for x, y, w, h in places} & {(130, 140)} or len(places) == 1


def test_a_mosaic_is_shown_as_developed_by_libraw() -> None:
    samples = np.random.default_rng(0).integers(600, 3000, (200, 160), np.uint16)
    mosaic = Mosaic(samples, ("RG", "GB"), 512.0, 16383.0, exposure_ratio=7.0, orientation=6)
    assert draw_preview("raw", mosaic, [DEVELOPER]).width > 500


def test_transparency_is_shown_on_checks() -> None:
    clear = Picture(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 1), np.uint8))
    assert set(np.unique(sheets.to_pixels(clear, 20, 20))) == {205, 235}


def test_progress_reaches_the_end() -> None:
    parts: list[float] = []
    draw_preview("a", _picture(), [DENOISER, ENLARGER], progress=parts.append)
    assert parts == sorted(parts) and parts[-1] == 1


def test_sheets_have_names_of_their_own() -> None:
    targets = [Path("out/a.png"), Path("out/a.tif"), Path("out/b.jpg")]
    names = [path.name for path in name_sheets(targets).values()]
    assert names == ["a.png-compare.png", "a.tif-compare.png", "b-compare.png"]


def test_only_sheets_are_replaced(tmp_path: Path) -> None:
    images.write(_picture(), tmp_path / "a.png")
    source, target = tmp_path / "a.png", tmp_path / "sheet.png"
    for _ in range(2):
        write_preview(source, target, [DENOISER], Settings(), overwrite=False)
    with Image.open(target) as sheet:
        assert sheet.width > 500
    images.write(_picture(), target, overwrite=True)
    with pytest.raises(OutputError, match=r"sheet\.png exists; overwrite=True replaces it"):
        write_preview(source, target, [DENOISER], Settings(), overwrite=False)


def test_what_cannot_be_previewed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="is not inside of a picture of 500 x 400 px"):
        draw_preview("a", _picture(), [DENOISER], Settings(crop=(499, 0, 2, 2)))
    with pytest.raises(PictureError, match="some take mosaics of camera RAW files, some developed pictures"):
        write_preview(tmp_path / "a.png", tmp_path / "b.png", [DENOISER, DEVELOPER], Settings(), overwrite=False)


def test_parts_of_a_result_show_the_same() -> None:
    whole = _picture()
    assert Part(10, 20, 30, 40).crop(whole, (200, 250)).samples.shape == (60, 80, 3)


def _contains(sheet: np.ndarray[Any, Any], cell: np.ndarray[Any, Any]) -> bool:
    """Whether a sheet contains these pixels somewhere."""
    height, width = cell.shape[:2]
    corners = np.argwhere((sheet[: -height + 1, : -width + 1] == cell[0, 0]).all(axis=2))
    return any(np.array_equal(sheet[y : y + height, x : x + width], cell) for y, x in corners)


def test_odd_files_are_not_sheets(tmp_path: Path) -> None:
    """Of 400 megapixels, truncated, or pipes: they stop neither a folder nor a result."""
    PIL.Image.new("L", (4, 4)).save(tmp_path / "small.png")
    content = (tmp_path / "small.png").read_bytes()
    (tmp_path / "large.png").write_bytes(content[:16] + struct.pack(">II", 20_000, 20_000) + content[24:])
    (tmp_path / "truncated.png").write_bytes(content[:30])
    os.mkfifo(tmp_path / "pipe.png")
    for path in tmp_path.iterdir():
        assert not sheets.is_sheet(path)


def test_a_sheet_with_a_name_that_is_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"-preview\.png of 264 bytes is too long; give this picture alone, and"):
        write_preview(
            tmp_path / "a.png", tmp_path / f"{252 * 'x'}-preview.png", [DENOISER], Settings(), overwrite=False
        )
