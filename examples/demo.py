"""Restore real photographs with every model that ships, and draw a contact sheet.

    python examples/demo.py --out demo

The photographs come with scikit-image. Each is degraded as its model expects (smaller, noisy, blocky, blurred or
dark), restored, and shown next to the original. The whole pictures are written too, for any viewer.
"""

import argparse
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

import pellucid
from pellucid.degradations.camera_noise import CameraNoise
from pellucid.degradations.degradation import Chain, degrade
from pellucid.degradations.raw_synthesis import NoisyRaw, SyntheticRaw
from pellucid.degradations.standard import GaussianNoise, Jpeg, Shrink
from pellucid.domains import Gray
from pellucid.pictures import metrics
from pellucid.pictures.camera import raw
from pellucid.pictures.samples import Samples
from pellucid.weights import models

# Photograph -> (top, left) of its crop. The last one is gray, and only for README's picture.
PHOTOS = {
    "astronaut": (60, 160),
    "chelsea": (80, 110),
    "coffee": (150, 330),
    "rocket": (130, 240),
    "camera": (80, 200),
}

# Model -> recipe keywords for each of its sheets. Models that are not listed have one sheet.
TASKS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "dncnn-gray-blind": ({"sigma_255": 15}, {"sigma_255": 50}),
    "dncnn-color-blind": ({"sigma_255": 25}, {"sigma_255": 50}),
    "dncnn-color-jpeg": ({"quality": 10}, {"quality": 30}),
    "dncnn-three-tasks": ({"quality": 10}, {"quality": 30}, {"scale": 3}),
}
NUM_PHOTOS = {"srcnn": 4, "dncnn": 2, "mimo_unet": 2, "sid_unet": 4}
SHOWN = {
    "dncnn-photo": "chelsea",
    "dncnn-color-jpeg-quality-10": "rocket",
    "srcnn-x3": "camera",
    "mimo-unet": "coffee",
    "sid-any": "astronaut",
}
"""Sheets that README's picture shows, and the photograph of each."""

CROP_PX = 120
CELL_PX = 300
GAP_PX = 14
INK, PAPER, QUIET, FRAME = (235, 235, 235), (22, 24, 28), (150, 155, 165), (255, 196, 0)


@dataclass(frozen=True)
class Sample:
    """One photograph before and after."""

    name: str
    original: Samples
    degraded: Samples
    restored: Samples
    before_db: float
    after_db: float
    crop: tuple[int, int]


def make_example(
    original: pellucid.Picture, restorer: pellucid.Restorer
) -> tuple[pellucid.Picture | pellucid.Mosaic, pellucid.Picture]:
    """The degraded picture or mosaic, in color, and what the result should look like."""
    degradation = restorer.recipe.protocol.degradation
    assert degradation is not None
    if isinstance(degradation, Jpeg):  # it compresses each plane separately; a color JPEG has chroma planes
        return _compress(original, degradation), original
    degraded, target = degrade(degradation, original.to_tensor(), torch.Generator().manual_seed(0))
    if isinstance(degraded, pellucid.Picture):
        degraded = degraded.as_depth("uint8")
    return degraded, pellucid.Picture.from_tensor(target, "uint8")


def show_degraded(
    degraded: pellucid.Picture | pellucid.Mosaic, original: pellucid.Picture, restorer: pellucid.Restorer
) -> pellucid.Picture:
    """How it looks without the network: bicubic if the model enlarges."""
    if isinstance(degraded, pellucid.Mosaic):
        return _brighten(degraded, original)
    return restorer.restore(degraded, strength=0)


def _brighten(mosaic: pellucid.Mosaic, original: pellucid.Picture) -> pellucid.Picture:
    """Develop a mosaic by LibRaw and scale it to the mean brightness of the original."""
    planes, target = raw.develop_mosaic(mosaic).to_tensor(), original.to_tensor()
    return pellucid.Picture.from_tensor(planes * (target.mean() / planes.mean()), "uint8")


def _compress(original: pellucid.Picture, jpeg: Jpeg) -> pellucid.Picture:
    content = io.BytesIO()
    Image.fromarray(original.samples).save(content, "JPEG", quality=jpeg.quality)
    return pellucid.Picture(np.array(Image.open(content)))


def photograph(name: str, restorer: pellucid.Restorer) -> pellucid.Picture:
    """A photograph: gray for gray models, cropped to multiples of the scale and of a camera's filter pattern."""
    multiple = lcm(2, restorer.recipe.protocol.crop_multiple)
    photo: Samples = np.atleast_3d(getattr(data, name)())
    height, width = (size // multiple * multiple for size in photo.shape[:2])
    picture = pellucid.Picture(np.ascontiguousarray(photo[:height, :width]))
    if not isinstance(restorer.recipe.domain, Gray):
        return picture
    return pellucid.Picture.from_tensor(restorer.recipe.domain.to_target(picture), "uint8")


def sample(name: str, restorer: pellucid.Restorer) -> Sample:
    """Degrade and restore one photograph."""
    degraded, original = make_example(photograph(name, restorer), restorer)
    before = show_degraded(degraded, original, restorer)
    result = restorer.restore(degraded)
    restored = _brighten(result, original) if isinstance(result, pellucid.Mosaic) else result.as_depth("uint8")
    target = original.to_tensor()
    return Sample(
        name,
        original.samples,
        before.samples,
        restored.samples,
        metrics.psnr(before.to_tensor(), target),
        metrics.psnr(restored.to_tensor(), target),
        PHOTOS[name],
    )


def draw(title: str, samples: list[Sample]) -> Image.Image:
    """A row for each photograph: the whole, then crops before, after, of the original and of the difference."""
    columns = ["photograph", "before", "pellucid", "original", "difference, x4 (gray: none)"]
    width = len(columns) * (CELL_PX + GAP_PX) + GAP_PX
    row_px = CELL_PX + 40
    sheet = Image.new("RGB", (width, 110 + len(samples) * row_px), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, 16), title, INK, ImageFont.load_default(26))
    for i, column in enumerate(columns):
        pen.text((_left(i), 70), column, QUIET, ImageFont.load_default(18))
    for i, one in enumerate(samples):
        _draw_row(sheet, pen, 100 + i * row_px, one)
    return sheet


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, top: int, one: Sample) -> None:
    changed = one.restored.astype(int) - one.degraded.astype(int)
    crops = [one.degraded, one.restored, one.original, np.clip(128 + 4 * changed, 0, 255).astype(np.uint8)]
    captions = [f"{db:.2f} dB (whole picture)" for db in (one.before_db, one.after_db)] + ["", ""]
    sheet.paste(_thumbnail(one), (_left(0), top))
    pen.text((_left(0), top + CELL_PX + 6), one.name, INK, ImageFont.load_default(17))
    for i, (samples, caption) in enumerate(zip(crops, captions, strict=True), start=1):
        cut = samples[one.crop[0] : one.crop[0] + CROP_PX, one.crop[1] : one.crop[1] + CROP_PX]
        cell = Image.fromarray(cut.squeeze()).resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST)
        sheet.paste(cell, (_left(i), top))
        pen.text((_left(i), top + CELL_PX + 6), caption, INK, ImageFont.load_default(17))


def _thumbnail(one: Sample) -> Image.Image:
    whole = Image.fromarray(one.original.squeeze()).convert("RGB")
    (top, left), pen = one.crop, ImageDraw.Draw(whole)
    pen.rectangle((left, top, left + CROP_PX, top + CROP_PX), outline=FRAME, width=4)
    whole.thumbnail((CELL_PX, CELL_PX))
    cell = Image.new("RGB", (CELL_PX, CELL_PX), PAPER)
    cell.paste(whole, (0, (CELL_PX - whole.height) // 2))
    return cell


def _left(column: int) -> int:
    return GAP_PX + column * (CELL_PX + GAP_PX)


def for_readme() -> Image.Image:
    """A photograph for each task, without title and difference, at two thirds of the size."""
    by_sheet = dict(restorers())
    sheet = draw("", [replace(sample(photo, by_sheet[name]), name=name) for name, photo in SHOWN.items()])
    cut = sheet.crop((0, 64, _left(4), sheet.height))
    return cut.resize((cut.width * 2 // 3, cut.height * 2 // 3), Image.Resampling.LANCZOS)


def title(restorer: pellucid.Restorer) -> str:
    """How the photographs were degraded, in words."""
    degradation = restorer.recipe.protocol.degradation
    words = str(degradation)
    if isinstance(degradation, Shrink):
        words = f"{degradation.scale} times smaller, then enlarged: bicubically (before), by pellucid"
    elif isinstance(degradation, GaussianNoise):
        words = f"noise with a standard deviation of {degradation.sigma_255:g} of 255"
    elif isinstance(degradation, Jpeg):
        words = f"JPEG, quality {degradation.quality}"
    elif isinstance(degradation, CameraNoise):
        words = "taken again by a synthetic camera, with its noise"
    elif isinstance(degradation, Chain):
        words = "blurred by camera shake"
    elif isinstance(degradation, NoisyRaw):
        words = "camera RAW at ISO 3200, developed by LibRaw"
    elif isinstance(degradation, SyntheticRaw):
        words = "camera RAW, 50 to 300 times too dark. Before: developed by LibRaw and brightened"
    return f"{restorer.name}: {words}"


def restorers() -> Iterator[tuple[str, pellucid.Restorer]]:
    """Name of each sheet, and the model for it: every model that ships, once for each of its tasks.

    Smaller versions of another model are left out.
    """
    for model in (one for one in models.list_models() if one.is_shipped and not one.name.endswith("-small")):
        for keywords in TASKS.get(model.name, ({},)):
            values = [f"{key.partition('_')[0]}-{value}" for key, value in keywords.items()]
            yield "-".join([model.name, *values]), pellucid.load(model.name, **keywords)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--readme", type=Path, help="also write README's picture here")
    args = parser.parse_args()
    folder: Path = args.out
    folder.mkdir(parents=True, exist_ok=True)

    firsts = []
    for sheet, restorer in restorers():
        photos = list(PHOTOS)[: NUM_PHOTOS[restorer.recipe.name.partition(".")[0]]]
        samples = [sample(name, restorer) for name in photos]
        for one in samples:
            for kind, picture in (("before", one.degraded), ("after", one.restored)):
                Image.fromarray(picture.squeeze()).save(folder / f"{sheet}-{one.name}-{kind}.png")
            print(f"{sheet}  {one.name:10}  {one.before_db:.2f} dB -> {one.after_db:.2f} dB")
        draw(title(restorer), samples).save(folder / f"{sheet}.png")
        print(f"contact sheet: {(folder / sheet).resolve()}.png")
        firsts.append(replace(samples[0], name=sheet))
    draw("pellucid: every model that ships", firsts).save(folder / "all.png")
    if args.readme:
        for_readme().save(args.readme, quality=88)
    print(f"one sheet with all models: {(folder / 'all').resolve()}.png")
    print("to restore your own pictures in a browser: .venv/bin/pellucid serve, then open http://127.0.0.1:8000")


if __name__ == "__main__":
    main()
