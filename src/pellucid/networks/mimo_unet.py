"""MIMO-UNet: motion deblurring at three scales in one U-Net.

Cho, Ji, Hong, Jung, Ko, "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021,
arXiv:2108.05054. Differs from the released code: pictures whose sides are not multiples of 4 are mirrored at the
bottom and right, and cropped afterwards; the frequency loss uses `fft2`, which computes the same numbers.
"""

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.degradations.camera_shake import CameraShake
from pellucid.degradations.cameras import PHONES, Sensor
from pellucid.degradations.degradation import Chain, OneOf
from pellucid.degradations.motion_blur import MotionBlur
from pellucid.degradations.raw_synthesis import SensorNoise
from pellucid.degradations.standard import Jpeg
from pellucid.domains import RGB
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol, recipe
from pellucid.recipes.schedules import Cosine, Drops

STEPS_PER_EPOCH = 526  # 2103 pairs of GoPro, 4 per step, fewer in the last one
NUM_EPOCHS = 3000

Upsampling = Annotated[
    Literal["nearest", "asymmetric"],
    Field(description="how features are upsampled between scales; asymmetric: MindSpore's model zoo"),
]
NumBlocks = Annotated[int, Field(ge=1, le=100, description="residual blocks per stage; 20 in MIMO-UNet+")]
Dropout = Annotated[
    float, Field(ge=0, lt=1, description="fraction of the fused feature maps that are dropped in training")
]
Width = Annotated[int, Field(ge=4, le=512, multiple_of=4, description="channels at full size; 32 in the paper")]
Weight = Annotated[float, Field(ge=0, description="weight of the loss on spectra, added to the loss on pixels")]
LengthPx = Annotated[
    float, Field(ge=0, le=127, description="longest path of the camera during an exposure, in pixels")
]


def conv(inputs: int, outputs: int, kernel_px: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution that keeps the size (or halves it, with a stride of 2), and a ReLU if asked for."""
    layer = nn.Conv2d(inputs, outputs, kernel_px, stride, kernel_px // 2)
    return nn.Sequential(layer, nn.ReLU()) if relu else nn.Sequential(layer)


def conv_up(inputs: int, outputs: int) -> nn.Sequential:
    """A transposed convolution that doubles the size, and a ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU())


class ResBlock(nn.Module):
    """Two 3x3 convolutions added to their input; no activation after the sum. Keeps the shape (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels, 3)
        self.second = conv(channels, channels, 3, relu=False)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(self.first(features))


class Shallow(nn.Module):
    """First features of a smaller picture (SCM, Section 3.1): (N, 3, H, W) -> (N, channels, H, W).

    The picture itself is 3 of the channels that the last convolution mixes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, channels // 4, 3),
            conv(channels // 4, channels // 2, 1),
            conv(channels // 2, channels // 2, 3),
            conv(channels // 2, channels - 3, 1),
        )
        self.mix = conv(channels, channels, 1, relu=False)

    def forward(self, picture: Tensor) -> Tensor:
        return self.mix(torch.cat([picture, self.layers(picture)], dim=1))


class Attention(nn.Module):
    """Adds encoder features weighted by those of the smaller picture (FAM, Section 3.1).

    features, shallow: (N, C, H, W), from the encoder and from `Shallow`. Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = conv(channels, channels, 3, relu=False)

    def forward(self, features: Tensor, shallow: Tensor) -> Tensor:
        return features + self.merge(features * shallow)


class Fusion(nn.Module):
    """Combines encoder features of all three scales at one of them (AFF, Section 3.3).

    full, half, quarter: (N, width, H, W), (N, 2 width, H, W) and (N, 4 width, H, W), already resized.
    Returns (N, channels, H, W).
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(7 * width, channels, 1), conv(channels, channels, 3, relu=False))

    def forward(self, full: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        return self.layers(torch.cat([full, half, quarter], dim=1))


class MIMOUNet(Network):
    """Removes motion blur: (N, 3, H, W) -> the same shape.

    RGB with values nominally in [0, 1]; the output is not clamped. Digits in the names of layers are the scale: 1
    for full size, 2 for half, 4 for a quarter.

    num_blocks: residual blocks per stage: 8 in MIMO-UNet, 20 in MIMO-UNet+.
    dropout: fraction of the fused feature maps that are dropped in training; 0.1 in MIMO-UNet+'s released code.
    upsampling: of features between scales: "nearest" in the released code; "asymmetric", bilinear without the
        offset of half a pixel, in MindSpore's model zoo, whose weights need it.
    width: channels at full size; twice as many at half, four times as many at a quarter. A multiple of 4.
    """

    scale = 1
    multiple = 4

    def __init__(
        self, num_blocks: int = 8, dropout: float = 0.0, upsampling: Upsampling = "nearest", width: int = 32
    ) -> None:
        super().__init__()
        full, half, quarter = width, 2 * width, 4 * width
        self.halo = 28 * num_blocks + 17  # two stages at each of three scales; measured by a test
        self.upsampling = upsampling
        self.shallow2, self.shallow4 = Shallow(half), Shallow(quarter)
        self.attend2, self.attend4 = Attention(half), Attention(quarter)
        self.enter1 = conv(3, full, 3)
        self.enter2 = conv(full, half, 3, stride=2)
        self.enter4 = conv(half, quarter, 3, stride=2)
        self.encoder1, self.encoder2, self.encoder4 = (
            nn.Sequential(*(ResBlock(channels) for _ in range(num_blocks))) for channels in (full, half, quarter)
        )
        self.fuse1, self.fuse2 = Fusion(width, full), Fusion(width, half)
        self.drop = nn.Dropout2d(dropout)
        self.decoder4, self.decoder2, self.decoder1 = (
            nn.Sequential(*(ResBlock(channels) for _ in range(num_blocks))) for channels in (quarter, half, full)
        )
        self.up4, self.up2 = conv_up(quarter, half), conv_up(half, full)
        self.join2, self.join1 = conv(quarter, half, 1), conv(half, full, 1)
        self.leave4, self.leave2, self.leave1 = (
            conv(channels, 3, 3, relu=False) for channels in (quarter, half, full)
        )

    def forward(self, degraded: Tensor) -> Tensor:
        height, width = degraded.shape[-2:]
        _, _, restored = self.restore_scales(_pad_to_multiple(degraded, self.multiple))
        return restored[..., :height, :width]

    def restore_scales(self, degraded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The restored picture at a quarter, at half and at full size.

        degraded: (N, 3, H, W), H and W multiples of 4.
        Returns (N, 3, H/4, W/4), (N, 3, H/2, W/2) and (N, 3, H, W).
        """
        half, quarter = degraded[..., ::2, ::2], degraded[..., ::4, ::4]

        skip1 = self.encoder1(self.enter1(degraded))
        skip2 = self.encoder2(self.attend2(self.enter2(skip1), self.shallow2(half)))
        features = self.encoder4(self.attend4(self.enter4(skip2), self.shallow4(quarter)))

        features_at_2 = self._enlarge(features)
        fused2 = self.drop(self.fuse2(skip1[..., ::2, ::2], skip2, features_at_2))
        fused1 = self.drop(self.fuse1(skip1, self._enlarge(skip2), self._enlarge(features_at_2)))

        features = self.decoder4(features)
        restored4 = quarter + self.leave4(features)
        features = self.decoder2(self.join2(torch.cat([self.up4(features), fused2], dim=1)))
        restored2 = half + self.leave2(features)
        features = self.decoder1(self.join1(torch.cat([self.up2(features), fused1], dim=1)))
        restored1 = degraded + self.leave1(features)
        return restored4, restored2, restored1

    def _enlarge(self, features: Tensor) -> Tensor:
        enlarged = F.interpolate(features, scale_factor=2, mode="nearest")
        if self.upsampling == "nearest":
            return enlarged
        return _mean_with_next(_mean_with_next(enlarged, -1), -2)


def _mean_with_next(features: Tensor, axis: int) -> Tensor:
    """The mean of each value and the next one (itself at the end): nearest-neighbor becomes linear upsampling."""
    size = features.shape[axis]
    following = torch.cat([features.narrow(axis, 1, size - 1), features.narrow(axis, size - 1, 1)], axis)
    return (features + following) / 2


def _pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Mirror at the bottom and right up to a multiple; repeat the first row or column if there are too few."""
    for axis in (-2, -1):
        size = picture.shape[axis]
        # An exported graph must work for every size, so it cannot depend on the size of its example.
        if not torch.compiler.is_exporting() and size % multiple == 0:
            continue
        positions = torch.arange((size + multiple - 1) // multiple * multiple, device=picture.device)
        positions = (size - 1 - (positions - (size - 1)).abs()).clamp(min=0)
        picture = picture.index_select(axis, positions)
    return picture


def init_zero_last(network: Network) -> None:
    """Initialize the last convolution of each scale with zeros, so that the network starts as the identity.

    Differs from the paper.
    """
    assert isinstance(network, MIMOUNet)
    for leave in (network.leave1, network.leave2, network.leave4):
        for parameter in leave.parameters():
            nn.init.zeros_(parameter)


def multi_scale(network: Network, degraded: Tensor, target: Tensor, *, frequency_weight: float = 0.1) -> Tensor:
    """Mean absolute error of pixels at three scales, and of their spectra (Eqs. 6 and 7).

    degraded, target: (N, 3, H, W), H and W multiples of 4. frequency_weight: factor on the error of spectra.
    As in the released code, the smaller targets are bilinear reductions of the full one, and spectra are
    two-sided and unnormalized, with real and imaginary parts as separate numbers.
    """
    assert isinstance(network, MIMOUNet)
    quarter, half, full = network.restore_scales(degraded)
    pairs = [
        (quarter, F.interpolate(target, scale_factor=0.25, mode="bilinear")),
        (half, F.interpolate(target, scale_factor=0.5, mode="bilinear")),
        (full, target),
    ]
    content = torch.stack([F.l1_loss(restored, expected) for restored, expected in pairs]).sum()
    if frequency_weight == 0:
        return content
    spectral = torch.stack([F.l1_loss(_spectrum(restored), _spectrum(expected)) for restored, expected in pairs])
    return content + frequency_weight * spectral.sum()


def _spectrum(picture: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.fft2(picture))


@recipe
def gopro(
    num_blocks: NumBlocks = 8,
    dropout: Dropout = 0.0,
    upsampling: Upsampling = "nearest",
    frequency_weight: Weight = 0.1,
    width: Width = 32,
) -> Recipe:
    """MIMO-UNet on the pairs of GoPro (Table 1), `blur` (not `blur_gamma`) and `sharp`."""
    return Recipe(
        network=partial(MIMOUNet, num_blocks, dropout, upsampling, width),
        domain=RGB(),
        degradation=None,
        loss=partial(multi_scale, frequency_weight=frequency_weight),
        patch_multiple=4,  # the smallest of the three scales
        optimizer=Adam(lr=1e-4),
        schedule=Drops(at_steps=tuple(e * STEPS_PER_EPOCH for e in range(500, 3001, 500)), gamma=0.5),
        augmentation="mirror",
        patch_px=256,
        batch_size=4,
        num_steps=NUM_EPOCHS * STEPS_PER_EPOCH,
        protocol=ScoringProtocol(None),
    )


@recipe
def gopro_plus() -> Recipe:
    """MIMO-UNet+ on the pairs of GoPro (Table 1): 20 blocks per stage, dropout 0.1."""
    return gopro(num_blocks=20, dropout=0.1)


@recipe
def synthetic(
    length_px: LengthPx = 60.0,
    num_blocks: NumBlocks = 8,
    width: Width = 32,
    dropout: Dropout = 0.0,
    frequency_weight: Weight = 0.1,
) -> Recipe:
    """MIMO-UNet on pictures of any folder, with synthetic camera shake (not from a paper).

    Half of the blurred pictures are then compressed as JPEG. Blur of moving objects is not learned.
    """
    noise = SensorNoise(CAMERA_BY_DAY, num_levels=None)
    shaken = MotionBlur(CameraShake((0.0, length_px), anxiety=CALM), highlights=(0.25, 1.75), noise=noise)
    degradation = Chain((shaken, OneOf((Chain(()), Jpeg((70, 100))))))
    return Recipe(
        network=partial(MIMOUNet, num_blocks, dropout, "nearest", width),
        domain=RGB(),
        degradation=degradation,
        loss=partial(multi_scale, frequency_weight=frequency_weight),
        patch_multiple=4,  # the smallest of the three scales
        optimizer=Adam(lr=2e-4),
        schedule=Cosine(warmup_steps=500),
        initialize=init_zero_last,
        patch_px=256,
        batch_size=8,
        num_steps=200_000,
        ema_decay=0.999,
        protocol=ScoringProtocol(degradation, seed_by_name=True),
    )


CALM = (0.0, 0.01)
"""With paths up to 60 px, kernels are as large as those that Levin et al. measured, 2.6 to 9.4 px, or smaller."""

CAMERA_BY_DAY = Sensor(gain=(1e-5, 5e-4), read=PHONES.read)
"""At most as noisy as phones are by day: a standard deviation of 3 of 255 in gray."""
