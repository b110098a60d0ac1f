"""Query parameters of the API: how pictures are restored, as in `pellucid restore`."""

from typing import Annotated, Any, Literal

from fastapi import Path as PathParameter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from pellucid.errors import ArgumentError
from pellucid.serving.places import MAX_CHARACTERS, is_clean
from pellucid.system.name_patterns import check_visible, fill_pattern

Id = Annotated[str, PathParameter(pattern=r"^[\w-]{8,64}$")]
Format = Literal["png", "tiff", "jpeg", "webp", "bmp", "ppm", "jxl", "jp2"]
Name = Annotated[str, StringConstraints(max_length=255)]


def _check_pattern(text: str) -> str:
    if not text or not is_clean(text):
        raise ValueError("a text without control characters that is not empty")
    return text


def _check_name(pattern: str) -> str:
    try:
        check_visible(pattern, fill_pattern(pattern, "a", ".png", "model"))
    except ArgumentError as error:
        expected = "a pattern for names in one folder, e.g. {stem}-{model}{suffix}"
        raise ValueError(f"{expected} ({error.facts})") from None
    return pattern


Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_pattern)]


class PictureOptions(BaseModel):
    """How pictures are restored, in requests of every kind. Unknown options are refused."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[
        str,
        Field(max_length=200, description="A model, see /v1/models, or several one after the other: a+b."),
        BeforeValidator(lambda name: name.replace(" ", "+") if isinstance(name, str) else name),
    ]
    format: Annotated[Format | None, Field(description="Format of the result. Default: as the picture.")] = None
    quality: Annotated[int | None, Field(ge=1, le=100, description="Of JPEG, WebP and JPEG XL.")] = None
    bit_depth: Annotated[Literal["8", "16", "32"] | None, Field(description="32: floating point.")] = None
    strength: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="0: the input, 1: the full effect.")
    ] = 1.0
    ensemble: Annotated[bool, Field(description="Mean over eight rotations and reflections.")] = False
    exposure_ratio: Annotated[
        float | None,
        Field(gt=0, le=1e6, allow_inf_nan=False, description="For dark RAW files. Default: an estimate."),
    ] = None
    page: Annotated[int | None, Field(ge=1, le=10**6, description="Only this page of a TIFF.")] = None
    white: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="The value of white.")] = None
    crop: Annotated[
        str | None,
        Field(
            pattern=r"^\d{1,7},\d{1,7},[1-9]\d{0,6},[1-9]\d{0,6}$", description="X,Y,WIDTH,HEIGHT: only this part."
        ),
    ] = None
    scale: Annotated[
        float | None,
        Field(gt=0, le=64, allow_inf_nan=False, description="How many times as long the sides become, e.g. 1.5."),
    ] = None
    size: Annotated[
        str | None,
        Field(
            pattern=r"^([1-9]\d{0,5}x([1-9]\d{0,5})?|x[1-9]\d{0,5})$",
            description="The result fits into it: 3000x, x2000 or 3000x2000.",
        ),
    ] = None


class RestoreOptions(PictureOptions):
    """How pictures are restored. Unknown parameters are refused."""

    picture: Annotated[
        str | None, Field(max_length=64, description="Id of a picture from /v1/pictures, in place of a body.")
    ] = None
    filename: Annotated[Name | None, Field(description="Name of a picture that is sent as the body.")] = None

    def count_pixels(self, whole: int, scale: int) -> int:
        """Number of pixels of the result, or of the result before it is resized if that is larger.

        whole: of the picture. scale: of the model.
        """
        if self.crop is not None:
            _, _, width, height = parse_box(self.crop)
            whole = min(whole, width * height)
        return int(whole * max(scale, self.scale or 0) ** 2)

    def bound_pixels(self) -> int:
        """Number of pixels that the option size allows; of one side only, that of a square."""
        sides = [int(side) for side in (self.size or "").split("x") if side]
        return sides[0] * sides[-1] if sides else 0

    def to_settings(self) -> dict[str, Any]:
        """Keywords for a worker; only what differs from the default."""
        names = {
            "format", "quality", "bit_depth", "strength", "ensemble", "exposure_ratio", "page", "white", "scale",
        }  # fmt: skip
        settings = self.model_dump(include=names, exclude_defaults=True)
        if self.bit_depth is not None:
            settings["bit_depth"] = int(self.bit_depth)
        if self.crop is not None:
            settings["crop"] = parse_box(self.crop)
        if self.size is not None:
            settings["size"] = tuple(int(side) if side else None for side in self.size.split("x"))
        return settings


class BatchOptions(PictureOptions):
    """A folder or bucket to restore into another one, as JSON. Options are those of `pellucid restore`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: Annotated[
        str,
        Field(alias="in", max_length=MAX_CHARACTERS, description="A folder or picture, e.g. s3://bucket/scans."),
    ]
    out: Annotated[
        str, Field(max_length=MAX_CHARACTERS, description="The folder of the results, e.g. s3://bucket/restored.")
    ]
    name: Annotated[
        Annotated[Pattern, AfterValidator(_check_name)] | None,
        Field(description="Names of results, e.g. {stem}-{model}{suffix}. Default: that of the input."),
    ] = None
    include: Annotated[list[Pattern], Field(max_length=100, description="Only these pictures, e.g. *.tif.")] = []
    exclude: Annotated[list[Pattern], Field(max_length=100, description="Without these, e.g. **/raw/*.")] = []
    overwrite: Annotated[bool, Field(description="Replace existing results.")] = False

    def to_arguments(self) -> dict[str, Any]:
        """Values of the options of `pellucid restore`; only what differs from the default."""
        return self.model_dump(exclude={"source", "out", "model"}, exclude_defaults=True)


class FileOptions(BaseModel):
    """Of requests that only send a picture."""

    model_config = ConfigDict(extra="forbid")

    filename: Annotated[Name | None, Field(description="Name of the picture.")] = None


class ViewOptions(BaseModel):
    """Which part of a picture is shown, and how large."""

    model_config = ConfigDict(extra="forbid")

    box: Annotated[
        str | None,
        Field(
            pattern=r"^\d{1,7},\d{1,7},[1-9]\d{0,6},[1-9]\d{0,6}$", description="X,Y,WIDTH,HEIGHT. Default: all."
        ),
    ] = None
    longest_px: Annotated[int, Field(ge=16, le=4096, description="Longest side of the view.")] = 2048

    def parse_box(self) -> tuple[int, int, int, int] | None:
        """Left, top, width, height."""
        return None if self.box is None else parse_box(self.box)


def parse_box(text: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of "10,20,300,200"."""
    left, top, width, height = (int(part) for part in text.split(","))
    return left, top, width, height
