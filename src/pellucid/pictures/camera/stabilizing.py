"""Samples of a sensor on a scale on which their noise is equally strong everywhere, and back.

The variance of a sample is shot * signal + read, see `NoiseLevel`. The slope of the scale is the reciprocal of
the standard deviation. Above black it is a root; below black it is straight, so that samples there, which contain
noise, are not clipped.
Source: Anscombe, "The transformation of Poisson, binomial and negative-binomial data", Biometrika 1948.
"""

from torch import Tensor

MIN_READ = 1e-10
"""The smallest variance of read noise: half a level of 16 bits. The scale below black needs one."""


def stabilize(linear: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """Linear samples, black 0 and white 1, on the scale of equal noise; black stays 0 and white 1.

    shot, read: of the noise, as tensors that broadcast to the samples.
    """
    read = read.clamp(min=MIN_READ)
    at_black = read.sqrt()
    return linear * ((shot + read).sqrt() + at_black) / ((shot * linear.clamp(min=0) + read).sqrt() + at_black)


def unstabilize(stable: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """The inverse of `stabilize`."""
    read = read.clamp(min=MIN_READ)
    deviations = stable / find_deviation(shot, read)
    return deviations * read.sqrt() + shot / 4 * deviations.clamp(min=0).square()


def find_deviation(shot: Tensor, read: Tensor) -> Tensor:
    """The standard deviation of the noise on the scale of `stabilize`."""
    read = read.clamp(min=MIN_READ)
    return ((shot + read).sqrt() + read.sqrt()) / 2
