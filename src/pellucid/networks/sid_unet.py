"""The U-Net of "Learning to See in the Dark": from one short exposure of a camera to a bright picture.

Chen, Chen, Xu, Koltun, "Learning to See in the Dark", CVPR 2018, arXiv:1805.01934. Equals the released TensorFlow
code, including its biases and the order of its output channels.
"""

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.degradations.camera_files import SensorNumbers, make_sensor
from pellucid.degradations.cameras import NIKON_D850, SONY_A7S2_HIGH, SONY_A7S2_LOW
from pellucid.degradations.degradation import OneOf
from pellucid.degradations.raw_synthesis import SensorNoise, SyntheticRaw, Unprocess
from pellucid.domains import PackedRaw
from pellucid.errors import RecipeError
from pellucid.pictures.camera.packing import BAYER
from pellucid.recipes.losses import mean_absolute
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol, recipe
from pellucid.recipes.schedules import Cosine, Drops

ChannelOrder = Annotated[
    Literal["position-major", "color-major"],
    Field(description="order of the output's sub-pixels: TensorFlow's, or PyTorch's and PaddlePaddle's"),
]
ConvBias = Annotated[bool, Field(description="biases of the convolutions; false: MindSpore's model zoo")]
UpBias = Annotated[bool, Field(description="biases of the transposed convolutions; true: PaddlePaddle's version")]

Width = Annotated[int, Field(ge=1, le=512, description="channels at full size; 32 in the paper")]
Ratios = Annotated[
    tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1)]],
    Field(description="lowest and highest exposure ratio of the training"),
]

NUM_EPOCHS = 4001


class Pair(nn.Module):
    """Two 3x3 convolutions, each with a leaky ReLU of slope 0.2: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        features = F.leaky_relu(self.first(features), 0.2)
        return F.leaky_relu(self.second(features), 0.2)


class SIDUNet(Network):
    """Develops a packed mosaic (Section 4.1): (N, planes, H, W) linear -> (N, 3, scale * H, scale * W) sRGB.

    The input is the mosaic above black level times its exposure ratio, clipped to [0, 1]; the output is nominally
    in [0, 1] and not clamped.

    planes, scale: 4 and 2 for Bayer, 9 and 3 for X-Trans.
    conv_bias, up_bias: whether the convolutions and the transposed convolutions have biases; in the released code
        only the former do, in PaddlePaddle's version both, in MindSpore's neither.
    channel_order: which output channel is which sub-pixel: "position-major" as TensorFlow's depth_to_space,
        "color-major" as PyTorch's pixel_shuffle.
    width: channels at full size; twice as many after each of the four poolings. 32 in the paper.
    """

    multiple = 16
    halo = 107  # four poolings; measured by a test

    def __init__(
        self,
        planes: int = 4,
        scale: int = 2,
        conv_bias: bool = True,
        up_bias: bool = False,
        channel_order: ChannelOrder = "position-major",
        width: int = 32,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.channel_order = channel_order
        widths = tuple(width * 2**pooling for pooling in range(5))
        self.encoder = nn.ModuleList(
            Pair(inputs, outputs, bias=conv_bias)
            for inputs, outputs in zip((planes, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=up_bias) for channels in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(Pair(2 * channels, channels, bias=conv_bias) for channels in widths[-2::-1])
        self.head = nn.Conv2d(width, 3 * scale**2, 1, bias=conv_bias)

    def forward(self, packed: Tensor) -> Tensor:
        features = packed
        skips: list[Tensor] = []
        for pair in self.encoder[:-1]:
            skips.append(pair(features))
            # Odd sizes are pooled like TensorFlow's SAME: the last row and column separately.
            features = F.max_pool2d(skips[-1], 2, ceil_mode=True)
        features = self.encoder[-1](features)
        for up, pair in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            enlarged = up(features)[..., : skip.shape[-2], : skip.shape[-1]]
            features = pair(torch.cat([enlarged, skip], dim=1))
        return self._unpack(self.head(features))

    def _unpack(self, channels: Tensor) -> Tensor:
        if self.channel_order == "position-major":
            count, _, height, width = channels.shape
            channels = channels.reshape(count, self.scale**2, 3, height, width).transpose(1, 2).flatten(1, 2)
        return F.pixel_shuffle(channels, self.scale)


def init_as_released(network: Network) -> None:
    """Initialize as the released code: Xavier uniform for convolutions, a Gaussian for transposed ones, biases 0.

    The Gaussian has a standard deviation of 0.02 and is truncated to two of them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _as_published(network: partial[SIDUNet], domain: PackedRaw, num_scenes: int) -> Recipe:
    """One random crop of every scene per epoch; the learning rate drops after epoch 2000 (Section 4.2)."""
    return Recipe(
        network=network,
        domain=domain,
        degradation=None,
        loss=mean_absolute,
        optimizer=Adam(lr=1e-4),
        schedule=Drops(at_steps=(2001 * num_scenes,), gamma=0.1),
        initialize=init_as_released,
        patch_px=512 * network.keywords["scale"],
        batch_size=1,
        num_steps=NUM_EPOCHS * num_scenes,
        protocol=ScoringProtocol(None, rounds=True),
    )


@recipe
def sony(
    conv_bias: ConvBias = True, up_bias: UpBias = False, channel_order: ChannelOrder = "position-major"
) -> Recipe:
    """The Bayer set, Sony A7S II (Table 1), with 161 training scenes."""
    network = partial(
        SIDUNet, planes=4, scale=2, conv_bias=conv_bias, up_bias=up_bias, channel_order=channel_order
    )
    return _as_published(network, PackedRaw("bayer"), num_scenes=161)


@recipe
def fuji(
    conv_bias: ConvBias = True, up_bias: UpBias = False, channel_order: ChannelOrder = "position-major"
) -> Recipe:
    """The X-Trans set, Fujifilm X-T2 (Table 1), with 135 training scenes."""
    network = partial(
        SIDUNet, planes=9, scale=3, conv_bias=conv_bias, up_bias=up_bias, channel_order=channel_order
    )
    return _as_published(network, PackedRaw("xtrans"), num_scenes=135)


@recipe
def any_camera(
    exposure_ratio: Ratios = (50.0, 300.0),
    width: Width = 32,
    channel_order: ChannelOrder = "position-major",
    camera: SensorNumbers | None = None,
) -> Recipe:
    """Any Bayer camera, white-balanced; trained on unprocessed pictures of any folder (not from a paper).

    Each picture becomes a short exposure: Brooks et al. 2019 for the raw samples, Wei et al. 2020 for the
    noise. Colors are those of an average camera, because the network does not know the camera's color matrix.
    """
    if exposure_ratio[0] > exposure_ratio[1]:
        raise RecipeError(f"sid_unet.any_camera: exposure_ratio={exposure_ratio}, but the lowest must come first")
    # Three quarters of the exposures of See in the Dark have ISO 1600 or less; here it is half.
    published = (SONY_A7S2_LOW, SONY_A7S2_LOW, SONY_A7S2_HIGH, NIKON_D850)
    sensors = published if camera is None else (make_sensor(camera),)
    exposed = SyntheticRaw(
        # Without random brightness, which a network could not distinguish from a darker scene.
        Unprocess(BAYER, brightness=1.0),
        OneOf(tuple(map(SensorNoise, sensors))),
        exposure_ratio,
    )
    return Recipe(
        network=partial(SIDUNet, planes=4, scale=2, channel_order=channel_order, width=width),
        domain=PackedRaw("bayer", white_balanced=True),
        degradation=exposed,
        loss=mean_absolute,
        optimizer=Adam(lr=2e-4),
        schedule=Cosine(warmup_steps=500),
        initialize=init_as_released,
        patch_px=256,
        batch_size=8,
        num_steps=200_000,
        ema_decay=0.999,
        protocol=ScoringProtocol(exposed, rounds=True, seed_by_name=True),
    )
