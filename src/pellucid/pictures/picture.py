"""Pictures with the depth of their files, and camera mosaics as the sensor recorded them."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import PictureError
from pellucid.pictures.samples import CPU, PEAKS, Samples, to_depth, to_planes, to_samples, upload_samples
from pellucid.system import devices, memory
from pellucid.system.arguments import check_fields, check_number, checks_methods
from pellucid.system.devices import Download

if TYPE_CHECKING:
    from PIL.Image import Image

_PREVIEW_PX = 1024
"""Longer side of the preview in a notebook."""

_MOSAIC_DTYPES = ("uint8", "uint16", "float32")

_PIL_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
"""Modes of Pillow that a picture can be made from: gray and RGB of 8 bit, with and without alpha; 16-bit gray."""


@dataclass(frozen=True)
class Encoding:
    """How a file stores its picture: what is needed to write a result in the same way.

    format: the name of the file format, e.g. JPEG, or camera RAW.
    bits: bits per sample in the file, 1 to 32; a `Picture` has 8, 16 or 32. All floating-point types count as 32.
    palette: whether the file stores indices into a list of colors.
    quality: quality of a JPEG, 1 to 100, on the scale of the Independent JPEG Group's encoder.
    subsampling: chroma subsampling of a JPEG, e.g. "4:2:0".
    compression: compression of a TIFF: none, lzw, deflate, packbits or jpeg; None for all others.
    lossless: whether the compression is lossless.
    progressive: whether the file needs several passes (progressive JPEG, interlaced PNG), so that decoding takes
        memory for the whole picture.
    white: the value of white in the file, if it differs from that of the data type: samples of the `Picture` are
        scaled to the white of the type, and those of a result in the same format are scaled back.
    unscaled: names of planes (alpha, extra) that have other units and are therefore not scaled.
    extra_samples: for each channel of a TIFF that is not a color, 0 (unspecified), 1 (alpha, and colors are
        multiplied by it) or 2 (alpha), in the order of the file.
    notes: what the user should know about the conversion, one line each.
    warnings: why the samples may be misunderstood, one line each.
    """

    format: str
    bits: int = 8
    palette: bool = False
    quality: int | None = None
    subsampling: str | None = None
    compression: str | None = None
    lossless: bool = True
    progressive: bool = False
    white: float | None = None
    unscaled: tuple[str, ...] = ()
    extra_samples: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """Type of the samples of a `Picture` from this file."""
        return "uint8" if self.bits <= 8 else "uint16" if self.bits <= 16 else "float32"


@checks_methods(except_for=["array", "image", "samples"])
@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A picture with the depth of its file. Raises PictureError if the arrays do not fit together.

    samples: (H, W, 1) gray or (H, W, 3) RGB; uint8, uint16, or float32 with black at 0 and white at 1.
    alpha: (H, W, 1) of the same dtype, or None. Restoring resizes it if needed, but does not change it otherwise.
    metadata: what else the file contains (ICC profile, EXIF, XMP, ...), by libvips field name.
    encoding: how the file stores the picture; None if it does not come from a file.
    extra: (H, W, E) of the same dtype, or None: channels that are neither color nor alpha, e.g. infrared.
        Restoring treats them like alpha.

    `from_array`, `from_pil` and `from_tensor` convert other data to pictures.
    """

    samples: Samples
    alpha: Samples | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding | None = None
    extra: Samples | None = None

    def __post_init__(self) -> None:
        check_fields(self, except_for=["samples", "alpha", "extra"])
        _check_arrays(self.samples, *(plane for plane in (self.alpha, self.extra) if plane is not None))
        shape, dtype = self.samples.shape, self.samples.dtype
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise PictureError(f"samples of shape {shape}; a picture is (H, W, 1) gray or (H, W, 3) RGB")
        if shape[0] == 0 or shape[1] == 0:
            raise PictureError(f"a picture of {shape[1]} x {shape[0]} px; at least 1 x 1 is needed")
        _check_dtype(dtype)
        if self.alpha is not None and (self.alpha.shape != (*shape[:2], 1) or self.alpha.dtype != dtype):
            raise PictureError(
                f"alpha of {self.alpha.dtype} {self.alpha.shape} for samples of {dtype} {shape}; "
                f"alpha is (H, W, 1) of the same type as the samples"
            )
        if self.extra is not None:
            _check_extra(self.extra, self.samples)

    def __repr__(self) -> str:
        return f"<Picture {self.width} x {self.height} px, {self._describe()}>"

    def _describe(self) -> str:
        """E.g. "RGB, uint8, alpha, 1 extra channel"."""
        alpha = "" if self.alpha is None else ", alpha"
        extra = "" if self.extra is None else f", {count_channels(self.extra)}"
        return f"{'gray' if self.channels == 1 else 'RGB'}, {self.dtype}{alpha}{extra}"

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB, not counting alpha and extra channels."""
        return int(self.samples.shape[2])

    @property
    def dtype(self) -> str:
        """Type of the samples: uint8, uint16 or float32."""
        return _DTYPE_NAMES[self.samples.dtype]

    @property
    def planes(self) -> tuple[Samples, ...]:
        """Samples, and alpha and extra channels if there are any."""
        return tuple(plane for plane in (self.samples, self.alpha, self.extra) if plane is not None)

    def as_depth(self, dtype: str) -> Self:
        """The same picture with samples of another type: uint8, uint16 or float32. White stays white."""
        if dtype == self.dtype:
            return self
        _check_name(dtype)
        return self.map_planes(lambda plane: to_depth(plane, dtype))

    def apply_orientation(self, orientation: int) -> Self:
        """The picture rotated and mirrored by an EXIF orientation (1 to 8), as a view."""
        if orientation not in range(1, 9):
            raise PictureError(f"orientation {orientation}; EXIF has 1 to 8")
        return self.map_planes(lambda plane: _orient(plane, orientation))

    def fill_hidden(self, reach_px: int) -> Self:
        """The picture with colors under full transparency replaced by those of the nearest visible pixels.

        Hidden colors within reach_px of a visible pixel are replaced, so a filter of that radius does not mix them
        into visible ones. A new color depends only on pixels within reach_px: filling a crop with a margin of
        reach_px gives the same inner part as filling the whole. Hidden colors farther away and alpha are kept.
        """
        check_number("reach_px", reach_px, 0)
        known = None if self.alpha is None else self.alpha[..., 0] > 0
        if known is None or known.all():
            return self
        return replace(self, samples=_fill_hidden(self.samples, known, reach_px))

    def empty_like(self, height: int, width: int) -> Self:
        """An uninitialized picture of another size with the same channels, type and metadata; see `paste`."""
        check_number("height", height, 1)
        check_number("width", width, 1)
        return self.map_planes(lambda plane: memory.allocate((height, width, plane.shape[2]), self.dtype))

    def paste(self, part: "Picture", rows: slice, cols: slice) -> None:
        """Copy a part into this picture, e.g. one of `empty_like`. The only method that changes a picture."""
        if self._describe() != part._describe():
            raise PictureError(f"a part with {part._describe()}; {self._describe()} is needed")
        if self.samples[rows, cols].shape != part.samples.shape:
            height, width = self.samples[rows, cols].shape[:2]
            raise PictureError(f"a part of {part.width} x {part.height} px for a place of {width} x {height} px")
        for own, other in zip(self.planes, part.planes, strict=True):
            own[rows, cols] = other

    def crop(self, rows: slice, cols: slice) -> Self:
        """A part of the picture, as a view."""
        return self.map_planes(lambda plane: plane[rows, cols])

    @classmethod
    def from_array(cls, array: Samples) -> Self:
        """A picture from a NumPy array: (H, W) or (H, W, C), channels last, RGB order.

        C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha). The type is uint8, uint16, or float32 with
        black at 0 and white at 1. Shares the memory of the array. Raises PictureError for other shapes and types.
        """
        if not isinstance(array, np.ndarray):
            raise PictureError(
                f"an object of type {type(array).__name__}; a NumPy array is needed",
                hint="Picture.from_pil takes images of Pillow, Picture.from_tensor takes (1, C, H, W) tensors",
            )
        if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
            raise PictureError("an array with masked samples", hint="array.filled() chooses their values")
        array = np.asarray(array)  # a numpy.matrix would stay two-dimensional when indexed
        _check_dtype(array.dtype)
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
            raise PictureError(
                f"an array of shape {array.shape}; (H, W) or (H, W, C) with 1 to 4 channels is needed",
                hint=_suggest_layout(array.shape),
            )
        channels = array[..., None] if array.ndim == 2 else array
        num_colors = 3 if channels.shape[2] > 2 else 1
        has_alpha = channels.shape[2] > num_colors
        return cls(channels[..., :num_colors], channels[..., num_colors:] if has_alpha else None)

    def to_array(self) -> Samples:
        """(H, W) for gray, (H, W, 3) for RGB; with alpha (H, W, 2) or (H, W, 4), alpha last. Type as in `dtype`.

        Extra channels are not included; they are in `extra`. Without alpha, the array shares the memory of the
        picture; with alpha, it is a copy.
        """
        if self.alpha is not None:
            return np.concatenate([self.samples, self.alpha], axis=2)
        return self.samples[..., 0] if self.channels == 1 else self.samples

    @classmethod
    def from_pil(cls, image: "Image") -> Self:
        """A picture from an image of Pillow with mode L, LA, RGB, RGBA or I;16 (16-bit gray).

        The ICC profile is kept, other metadata is not. An EXIF orientation is not applied;
        `PIL.ImageOps.exif_transpose` does it. Raises PictureError for other modes.
        """
        if not hasattr(image, "mode"):
            raise PictureError(f"an object of type {type(image).__name__}; an image of Pillow is needed")
        if image.mode not in _PIL_MODES:
            raise PictureError(
                f"an image of mode {image.mode}; Pillow's modes {', '.join(_PIL_MODES)} are supported",
                hint="Picture.from_array takes numpy.asarray(image) as uint8, uint16 or float32"
                if image.mode
                in ("I", "F", "I;16B")  # values of unknown range, which Pillow's convert clips at 255
                else "convert it first, e.g. image.convert('RGB')",
            )
        try:
            if image.has_transparency_data:  # a transparent color of a PNG becomes alpha
                image = image.convert({"L": "LA", "RGB": "RGBA"}.get(image.mode))
            array = np.array(image)
        except (OSError, ValueError, TypeError, SyntaxError) as error:  # Pillow decodes on first use
            raise PictureError(f"the image cannot be decoded: {str(error)[:200]}") from error
        profile = image.info.get("icc_profile")
        picture = cls.from_array(array)
        return replace(picture, metadata={"icc-profile-data": profile}) if profile else picture

    def to_pil(self) -> "Image":
        """An image of Pillow with mode L, LA, RGB, RGBA or I;16 (16-bit gray); the ICC profile is in its `info`.

        Extra channels are not included.
        Raises PictureError for 16-bit RGB, 16-bit gray with alpha, and float32: Pillow has no modes for them.
        """
        from PIL.Image import fromarray

        is_16_bit_gray = self.dtype == "uint16" and self.channels == 1 and self.alpha is None
        if self.dtype != "uint8" and not is_16_bit_gray:
            raise PictureError(
                f"Pillow has no mode for a picture of {self._describe()}",
                hint="picture.as_depth('uint8') makes an 8-bit picture, picture.to_array() keeps the depth",
            )
        image = fromarray(np.ascontiguousarray(self.to_array()))
        if "icc-profile-data" in self.metadata:
            image.info["icc_profile"] = self.metadata["icc-profile-data"]
        return image

    def _repr_png_(self) -> bytes:
        """A preview for notebooks: 8 bit, at most 1024 px on the longer side."""
        step = max(1, max(self.height, self.width) // (2 * _PREVIEW_PX))  # skips pixels: fast for any size
        preview = self.map_planes(lambda plane: plane[::step, ::step]).as_depth("uint8").to_pil()
        preview.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
        file = io.BytesIO()
        preview.save(file, "PNG")
        return file.getvalue()

    def to_tensor(self) -> Tensor:
        """(1, C, H, W) float32; white is 1."""
        return to_planes(self.samples)

    def alpha_to_tensor(self) -> Tensor | None:
        """(1, 1, H, W) float32; opaque is 1. None if there is no alpha."""
        return None if self.alpha is None else to_planes(self.alpha)

    def extra_to_tensor(self) -> Tensor | None:
        """(1, E, H, W) float32; the type's own white is 1. None if there are no extra channels."""
        return None if self.extra is None else to_planes(self.extra)

    @classmethod
    def from_tensor(cls, samples: Tensor, dtype: str = "float32") -> Self:
        """A picture from a (1, C, H, W) tensor with white at 1, on any device.

        Integer types are clamped and rounded half up; float32 keeps values as they are.
        """
        return cls(_from_tensor(samples, dtype))

    def with_tensor(self, samples: Tensor, alpha: Tensor | None = None, extra: Tensor | None = None) -> Self:
        """This picture with other (1, C, H, W) samples, (1, 1, H, W) alpha and (1, E, H, W) extra channels.

        Type, metadata and encoding stay the same.
        """
        return replace(
            self,
            samples=_from_tensor(samples, self.dtype),
            alpha=None if alpha is None else _from_tensor(alpha, self.dtype),
            extra=None if extra is None else _to_finite_samples(extra, self.dtype),
        )

    def map_planes(self, change: Callable[[Samples], Samples]) -> Self:
        """Apply a function to samples, alpha and extra channels."""
        alpha, extra = (None if plane is None else change(plane) for plane in (self.alpha, self.extra))
        return replace(self, samples=change(self.samples), alpha=alpha, extra=extra)


@dataclass(frozen=True)
class Exposure:
    """How a camera exposed a picture. None for values that the file does not contain.

    time_s: exposure time. iso: sensitivity. f_number: focal length divided by the diameter of the aperture.
    """

    time_s: float | None = None
    iso: float | None = None
    f_number: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in vars(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise PictureError(f"exposure {name} {value:g}; a number above 0 is needed, or None if unknown")


@dataclass(frozen=True)
class NoiseLevel:
    """The noise of a camera's samples: their variance is shot * signal + read. Black is 0, white is 1.

    shot: signal per electron. read: variance of a sample without light.
    Raises PictureError for negative numbers and for no noise at all.
    """

    shot: float
    read: float

    def __post_init__(self) -> None:
        check_fields(self)
        if not (0 <= self.shot < 1 and 0 <= self.read < 1 and self.shot + self.read > 0):
            raise PictureError(
                f"noise with shot {self.shot:g} and read {self.read:g}; variances from 0 to 1 are needed",
                hint="they are those of samples with black 0 and white 1",
            )


@dataclass(frozen=True, eq=False, repr=False)
class CameraFacts:
    """What a RAW file contains besides its samples, so that its DNG is developed in the same way.

    model: name of the camera, or "". color_matrix: nine numbers, row by row, from XYZ under D65 to the camera's
        colors; () if unknown, or if `tags` contain matrices.
    tags: of a DNG, if they are true for all of its samples, e.g. color profile, lens corrections and default crop;
        by number, as (type, count, content).
    metadata: as in `Picture`, but true for the file, which is neither turned nor developed.
    """

    model: str = ""
    color_matrix: tuple[float, ...] = ()
    tags: Mapping[int, tuple[int, int, bytes]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.color_matrix) not in (0, 9):
            raise PictureError(f"a color matrix of {len(self.color_matrix)} numbers; 9 are needed, or none")


@checks_methods()
@dataclass(frozen=True, eq=False, repr=False)
class Mosaic:
    """Undeveloped samples of a camera's sensor, one per pixel. Raises PictureError for impossible values.

    samples: (H, W) uint8, uint16 or float32 in the file's own units.
    pattern: filter colors of the repeating block, row by row: "RG", "GB" for Bayer, 6 rows of 6 for X-Trans.
    black_level: in units of the samples, one number, or one for each pixel of the block.
    white_level: in units of the samples.
    exposure_ratio: factor by which the exposure of the result should seem longer.
    metadata: EXIF of the file, by libvips field name, as in `Picture`.
    white_balance: the camera's gains of red, green and blue that make the light of the scene white; green is 1.
        Not applied to the samples. None if the camera did not set them.
    exposure: how the camera exposed it.
    orientation: EXIF orientation (1 to 8) of the developed picture, see `Picture.apply_orientation`.
    notes: what the user should know about the file, one line each. warnings: why samples may be wrong.
    noise: how strong the noise is; None if unknown.
    camera: what else the file contains; None if the mosaic is not from a file.
    """

    samples: Samples
    pattern: tuple[str, ...]
    black_level: float | tuple[tuple[float, ...], ...]
    white_level: float
    exposure_ratio: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    white_balance: tuple[float, float, float] | None = None
    exposure: Exposure = Exposure()
    orientation: int = 1
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    noise: NoiseLevel | None = None
    camera: CameraFacts | None = None

    def __post_init__(self) -> None:
        check_fields(self, except_for=["samples"])
        _check_arrays(self.samples)
        if self.samples.ndim != 2 or 0 in self.samples.shape:
            raise PictureError(f"mosaic samples of shape {self.samples.shape}; (H, W) is needed")
        if self.samples.dtype.name not in _MOSAIC_DTYPES:
            found = self.samples.dtype.name
            raise PictureError(f"samples of type {found}; a mosaic has {', '.join(_MOSAIC_DTYPES)}")
        period = len(self.pattern)
        if period == 0 or any(len(row) != period or set(row) - set("RGB") for row in self.pattern):
            raise PictureError(f"filter pattern {self.pattern}; a square of R, G and B is needed")
        black = np.asarray(self.black_level)
        if black.shape not in ((), (period, period)):
            raise PictureError(
                f"black level of shape {black.shape}; one number, or one for each pixel of the pattern, is needed"
            )
        if not float(black.max()) < self.white_level:
            raise PictureError(f"black level {black.max():g} is not below the white level {self.white_level:g}")
        if not 0 < self.exposure_ratio < float("inf"):
            raise PictureError(f"exposure ratio {self.exposure_ratio:g}; a number above 0 is needed")
        gains = (1.0, 1.0, 1.0) if self.white_balance is None else self.white_balance
        if len(gains) != 3 or gains[1] != 1 or not all(0 < gain < float("inf") for gain in gains):
            raise PictureError(f"white balance {gains}; gains of R, G and B above 0 are needed, with 1 for G")
        if self.orientation not in range(1, 9):
            raise PictureError(f"orientation {self.orientation}; EXIF has 1 to 8")

    def __repr__(self) -> str:
        return f"<Mosaic {self.width} x {self.height} px, {'/'.join(self.pattern)}, {self.samples.dtype}>"

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

    @property
    def planes(self) -> tuple[Samples, ...]:
        """The only plane, see `Picture.planes`."""
        return (self.samples,)

    @property
    def site_black_levels(self) -> NDArray[np.float32]:
        """(period, period): the black level of each pixel of the block."""
        return np.broadcast_to(np.asarray(self.black_level, np.float32), (self.period, self.period))

    @property
    def dtype(self) -> str:
        """Type of the picture that this is developed to: uint16, or float32 for float samples."""
        return "float32" if self.samples.dtype.kind == "f" else "uint16"

    @property
    def period(self) -> int:
        """Side of the block in pixels: 2 for Bayer, 6 for X-Trans."""
        return len(self.pattern)

    def as_depth(self, dtype: str) -> Self:
        """The same mosaic with samples of another type, uint16 or float32, in the same units."""
        if dtype not in ("uint16", "float32"):
            raise PictureError(f"samples of type {dtype}; a mosaic becomes uint16 or float32")
        return replace(self, samples=self.samples.astype(dtype))

    def crop(self, rows: slice, cols: slice) -> Self:
        """A part of the mosaic, as a view. Raises PictureError unless it starts at a multiple of `period`."""
        if (rows.start or 0) % self.period or (cols.start or 0) % self.period:
            raise PictureError(
                f"a crop at row {rows.start}, column {cols.start}; multiples of {self.period} are needed"
            )
        return replace(self, samples=self.samples[rows, cols])

    def to_tensor(self, device: torch.device = CPU) -> Tensor:
        """(1, 1, H, W) float32, linear; black is 0, white is 1; values below black are clamped to 0."""
        return self.to_linear(device).clamp_(min=0)

    def to_linear(self, device: torch.device = CPU) -> Tensor:
        """(1, 1, H, W) float32, linear; black is 0, white is 1; values below black are negative.

        device: where it is computed, from samples as they are in the file.
        """
        black = self._tile_black_levels(0, 0, self.height, self.width, device)
        if device.type == "cpu":
            samples = torch.from_numpy(self.samples.astype(np.float32))  # a copy
        else:
            samples = upload_samples(self.samples, device).float()
        return samples.sub_(black).div_(self.white_level - black)[None, None]

    def from_linear(self, linear: Tensor, top: int = 0, left: int = 0) -> Samples:
        """Samples in the units and of the type of this mosaic, (h, w), from linear ones, (1, 1, h, w).

        top, left: where they are in the mosaic. The inverse of `to_linear`: values below black are kept, down to
        0; integers are rounded, halves up.
        """
        check_number("top", top, 0)
        check_number("left", left, 0)
        if linear.ndim != 4 or linear.shape[:2] != (1, 1):
            raise PictureError(f"a tensor of shape {tuple(linear.shape)}; (1, 1, h, w) is needed")
        _check_finite(linear, self.samples.dtype.name)
        return download_mosaic(self, linear, top, left).wait().numpy()

    def _tile_black_levels(self, top: int, left: int, height: int, width: int, device: torch.device) -> Tensor:
        """(height, width): the black level of each pixel of a part."""
        block = np.roll(self.site_black_levels, (-top, -left), (0, 1))
        repeats = (-(-height // self.period), -(-width // self.period))
        return devices.to_device(torch.from_numpy(block), device).repeat(repeats)[:height, :width]


def download_mosaic(mosaic: Mosaic, linear: Tensor, top: int, left: int) -> Download:
    """`Mosaic.from_linear`, computed where the linear samples are; does not wait for a device."""
    planes, dtype = linear[0, 0].float(), mosaic.samples.dtype
    height, width = planes.shape
    black = mosaic._tile_black_levels(top, left, height, width, planes.device)
    samples = planes * (mosaic.white_level - black) + black
    if dtype.kind == "u":
        samples = samples.add_(0.5).floor_().clamp_(0, float(np.iinfo(dtype).max))
    return Download(samples.to(getattr(torch, dtype.name)))


def _check_arrays(*planes: object) -> None:
    for plane in planes:
        if not isinstance(plane, np.ndarray):
            raise PictureError(
                f"samples of type {type(plane).__name__}; a NumPy array is needed",
                hint="Picture.from_pil takes images of Pillow, Picture.from_tensor takes (1, C, H, W) tensors",
            )


def _check_extra(extra: Samples, samples: Samples) -> None:
    if (
        extra.ndim != 3
        or extra.shape[:2] != samples.shape[:2]
        or not extra.shape[2]
        or extra.dtype != samples.dtype
    ):
        raise PictureError(
            f"extra channels of {extra.dtype} {extra.shape} for samples of {samples.dtype} {samples.shape}; "
            f"they are (H, W, E) of the same type as the samples"
        )


def count_channels(extra: Samples) -> str:
    """E.g. "2 extra channels"."""
    return f"{extra.shape[2]} extra channel{'s' if extra.shape[2] > 1 else ''}"


def _check_name(dtype: object) -> None:
    if dtype not in tuple(PEAKS):
        raise PictureError(f"samples of type {dtype}; a picture has {', '.join(PEAKS)}")


_DTYPE_NAMES = {np.dtype(name): name for name in PEAKS}
"""Faster than `numpy.dtype.name`, which computes the name each time."""


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype in _DTYPE_NAMES:
        return
    hints = {
        "bool": "array.astype(numpy.uint8) * 255 converts it",
        "float64": "array.astype(numpy.float32) converts it; black is 0, white is 1",
        "float16": "array.astype(numpy.float32) converts it; black is 0, white is 1",
    }
    byte_order = "" if dtype.isnative else " in the byte order of another machine"
    raise PictureError(
        f"samples of type {dtype.name}{byte_order}; a picture has {', '.join(PEAKS)}",
        hint=hints.get(dtype.name, "array.astype converts it"),
    )


def _suggest_layout(shape: tuple[int, ...]) -> str:
    """What to do about an array whose axes are not (H, W) or (H, W, C)."""
    if len(shape) == 3 and shape[0] in (1, 2, 3, 4):
        return "channels come last: array.transpose(1, 2, 0)"
    return "pass pictures of a batch one by one" if len(shape) == 4 else ""


def check_tensor(tensor: Tensor, num_axes: tuple[int, ...]) -> None:
    """Raise PictureError for a tensor that does not contain floating-point values of pictures."""
    if not isinstance(tensor, Tensor):
        raise PictureError(f"an object of type {type(tensor).__name__}; a tensor is needed")
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta:
        kind = "nested" if tensor.is_nested else "meta" if tensor.is_meta else "sparse"
        raise PictureError(f"a {kind} tensor; a dense one with values is needed")
    if tensor.ndim not in num_axes or tensor.shape[-3] not in (1, 2, 3, 4) or 0 in tensor.shape:
        forms = " or ".join("(N, C, H, W)" if axes == 4 else "(C, H, W)" for axes in num_axes)
        is_channels_last = tensor.ndim == 3 and tensor.shape[-1] in (1, 2, 3, 4)
        raise PictureError(
            f"a tensor of shape {tuple(tensor.shape)}; {forms} with 1 to 4 channels is needed",
            hint="tensor.permute(2, 0, 1) puts channels first" if is_channels_last else "",
        )
    if not tensor.is_floating_point():
        raise PictureError(
            f"a tensor of {tensor.dtype}; floating point with values from 0 to 1 is needed",
            hint="tensor / 255 makes it of 8-bit values" if tensor.dtype == torch.uint8 else "",
        )


def _from_tensor(planes: Tensor, dtype: str) -> Samples:
    _check_name(dtype)
    check_tensor(planes, (4,))
    if len(planes) != 1:
        raise PictureError(f"a tensor of {len(planes)} pictures; (1, C, H, W) is needed")
    return _to_finite_samples(planes, dtype)


def _to_finite_samples(planes: Tensor, dtype: str) -> Samples:
    _check_finite(planes, dtype)
    return to_samples(planes, dtype)


def _check_finite(planes: Tensor, dtype: str) -> None:
    if dtype != "float32" and not bool(planes.isfinite().all()):
        raise PictureError(f"a tensor with NaN or infinite values; {dtype} cannot store them")


def _orient(plane: Samples, orientation: int) -> Samples:
    # 5 to 8 swap rows and columns, before any flip.
    swapped = plane.swapaxes(0, 1) if orientation > 4 else plane
    flip_cols, flip_rows = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return swapped[:: -1 if flip_rows else 1, :: -1 if flip_cols else 1]


def _fill_hidden(samples: Samples, known: NDArray[np.bool_], reach_px: int) -> Samples:
    """Repeatedly set each unknown pixel to the mean of the known ones among its eight neighbors."""
    height, width, channels = samples.shape
    colors = np.pad(samples, ((1, 1), (1, 1), (0, 0))).astype(np.float32).reshape(-1, channels)
    unknown = np.flatnonzero(np.pad(~known, 1))
    weights = np.pad(known, 1).astype(np.float32).reshape(-1, 1)
    neighbors = [row * (width + 2) + col for row in (-1, 0, 1) for col in (-1, 0, 1) if row or col]
    for _ in range(reach_px):
        # Sums in a fixed order, so that a pixel has the same bits in every crop.
        counts = reduce(np.add, [weights[unknown + step] for step in neighbors])[:, 0]
        edge = unknown[counts > 0]
        if not len(edge):
            break
        sums = reduce(np.add, [colors[edge + step] * weights[edge + step] for step in neighbors])
        colors[edge] = sums / counts[counts > 0, None]
        weights[edge] = 1
        unknown = unknown[counts == 0]
    filled = colors.reshape(height + 2, width + 2, channels)[1:-1, 1:-1]
    return filled if samples.dtype.kind == "f" else (filled + np.float32(0.5)).astype(samples.dtype)
