"""The channels of a TIFF after its colors: which of them is alpha, and in which order pictures are written."""

from collections.abc import Sequence

from pellucid.pictures.picture import Picture
from pellucid.pictures.structures.ifd import Value
from pellucid.pictures.tiff import directories

UNASSOCIATED, ASSOCIATED = 2, 1
"""Values of ExtraSamples for alpha. ASSOCIATED: the colors in the file are multiplied by it."""


def find_alpha(extra_samples: Sequence[int]) -> int | None:
    """Which of the channels after the colors is alpha; None if there is none."""
    return next((i for i, kind in enumerate(extra_samples) if kind in (ASSOCIATED, UNASSOCIATED)), None)


def has_associated_alpha(picture: Picture) -> bool:
    """Whether the colors of a picture are stored multiplied by alpha."""
    return (
        picture.alpha is not None
        and _extra_samples(picture)[find_alpha(_extra_samples(picture)) or 0] == ASSOCIATED
    )


def order_channels(picture: Picture) -> list[int]:
    """Which channel of colors, alpha and extra channels comes at each place of a TIFF."""
    kinds, colors = _extra_samples(picture), list(range(picture.channels))
    others = iter(range(picture.channels + (picture.alpha is not None), picture.channels + len(kinds)))
    alpha_at = find_alpha(kinds) if picture.alpha is not None else None
    return colors + [picture.channels if i == alpha_at else next(others) for i in range(len(kinds))]


def describe(picture: Picture) -> dict[int, Value]:
    """Tags about the samples of a stored picture that libvips does not write."""
    kinds, encoding = _extra_samples(picture), picture.encoding
    tags = {directories.EXTRA_SAMPLES: directories.pack_shorts(kinds)} if kinds else {}
    if encoding is None or encoding.white is None:
        return tags
    white = [encoding.white] * (picture.channels + len(kinds))  # libtiff requires the same for each channel
    if picture.dtype == "float32":
        return tags | {directories.LARGEST_SAMPLE: directories.pack_floats(white)}
    return tags | {directories.MAX_SAMPLE: directories.pack_shorts([round(value) for value in white])}


def _extra_samples(picture: Picture) -> tuple[int, ...]:
    """What the channels after the colors are: as in the file of the picture, if it has the same channels."""
    num_alphas, num_extra = int(picture.alpha is not None), 0 if picture.extra is None else picture.extra.shape[2]
    found = () if picture.encoding is None else picture.encoding.extra_samples
    if len(found) == num_alphas + num_extra and (find_alpha(found) is not None) == bool(num_alphas):
        return found
    return (UNASSOCIATED,) * num_alphas + (0,) * num_extra
