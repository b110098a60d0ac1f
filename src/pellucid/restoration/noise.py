"""How noisy a picture is, measured from its samples."""

import numpy as np

from pellucid.pictures.picture import PEAKS, Picture

_MEASURED_PX = 1024


def estimate_noise(picture: Picture) -> float:
    """The standard deviation of white noise in the gray or green samples, on the scale where white is 255.

    The median of absolute Laplacians of 3 x 3 pixels in the middle, which edges and most textures hardly change
    (after J. Immerkaer, Fast Noise Variance Estimation, 1996, with the median in place of the mean). Noise that is
    not white, e.g. of a camera or after JPEG, is underestimated.
    """
    picture = _take_middle(picture)
    plane = picture.samples[:, :, picture.channels // 2].astype(np.float32) / PEAKS[picture.dtype] * 255
    if min(plane.shape) < 3:
        return 0.0
    rows = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    laplacians = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]  # of white noise: a deviation of 6 sigma
    return float(np.median(np.abs(laplacians)) / 0.6745 / 6)


def _take_middle(picture: Picture) -> Picture:
    top, left = (max(0, (side - _MEASURED_PX) // 2) for side in (picture.height, picture.width))
    return picture.crop(slice(top, top + _MEASURED_PX), slice(left, left + _MEASURED_PX))
