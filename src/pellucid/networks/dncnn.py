"""DnCNN: a residual denoiser.

Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image
Denoising", IEEE TIP 2017, arXiv:1608.03981. Differs from the paper: Adam instead of SGD, as in the released code.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.degradations.camera_files import SensorNumbers, make_sensor
from pellucid.degradations.camera_noise import ANY_SENSOR, CameraNoise
from pellucid.degradations.cameras import CANON_5D4, CANON_70D, CANON_700D, NIKON_D850_ELD, at_iso
from pellucid.degradations.degradation import Chain, Degradation, OneOf
from pellucid.degradations.raw_synthesis import NoisyRaw, SensorNoise
from pellucid.degradations.standard import GaussianNoise, Jpeg, ShiftedJpeg, Shrink, ShrinkAndEnlarge
from pellucid.domains import RGB, Domain, Gray, Luma, StableRaw
from pellucid.errors import RecipeError
from pellucid.pictures.camera.packing import pack_bayer
from pellucid.recipes.losses import half_sum_of_squares, mean_deviation
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol, recipe
from pellucid.recipes.schedules import Cosine, Drops

Channels = Annotated[Literal[1, 3], Field(description="1: gray, 3: RGB")]
Depth = Annotated[int, Field(ge=2, le=1000, description="number of convolutions")]
Width = Annotated[int, Field(ge=1, le=4096, description="channels of each hidden layer")]
Sigma = Annotated[float, Field(ge=0, le=255, description="standard deviation of the noise, where white is 255")]
EvaluatedSigma = Annotated[
    float,
    Field(ge=0, le=255, description="noise that evaluation removes; 25 without this keyword, scale and quality"),
]
Norm = Annotated[bool, Field(description="batch norm, as in training; false: folded into the convolutions")]
Bias = Annotated[
    bool, Field(description="biases of the first and last convolution; false: SaoYan's PyTorch version")
]
Quality = Annotated[int, Field(ge=1, le=100, description="quality of the JPEGs that evaluation restores")]
Scale = Annotated[Literal[2, 3, 4], Field(description="factor by which pictures are enlarged before restoring")]
Iso = Annotated[float, Field(ge=1, le=1e6, description="sensitivity of the cameras that evaluation uses")]
Noise = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None,
    Field(
        description="noise of the files to restore: shot and read, e.g. 4e-4,1e-6; the variance of a sample is "
        "shot * signal + read, where black is 0 and white is 1; none: found out for each file"
    ),
]
Start = Annotated[
    Literal["released", "zero-last"],
    Field(description="initial weights; zero-last: the output starts as the input, better in short trainings"),
]

STEPS_PER_EPOCH = 1600  # with 128 patches each (Section IV-A)
NUM_EPOCHS = 50


class Layer(nn.Module):
    """A 3x3 convolution with zero padding, with or without batch norm: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, features: Tensor) -> Tensor:
        features = self.conv(features)
        return features if self.norm is None else self.norm(features)


class DnCNN(Network):
    """Predicts the noise and subtracts it (Fig. 1): (N, channels, H, W) -> the same shape.

    Values are nominally in [0, 1]; the output is not clamped.

    channels: 1 for gray, 3 for RGB. depth: number of convolutions: 17 in DnCNN-S, 20 in DnCNN-B and DnCNN-3
        (Section III-A); it is also the receptive radius. width: channels of the hidden layers.
    batch_norm: after each convolution except the first and the last. False is the same network with batch norm
        folded into the convolutions, as the authors released it; see `optimize_for_inference`.
    bias: whether the first and the last convolution have biases. False: SaoYan's PyTorch version. Without batch
        norm all convolutions have them.
    """

    scale = 1
    multiple = 1

    def __init__(
        self, channels: int = 1, depth: int = 17, width: int = 64, batch_norm: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self.halo = depth  # each 3x3 convolution sees one pixel further
        ends = {"bias": bias or not batch_norm, "norm": False}
        inner = {"bias": not batch_norm, "norm": batch_norm}
        self.layers = nn.ModuleList(
            [
                Layer(channels, width, **ends),
                *(Layer(width, width, **inner) for _ in range(depth - 2)),
                Layer(width, channels, **ends),
            ]
        )

    def forward(self, degraded: Tensor) -> Tensor:
        features = degraded
        for layer in self.layers[:-1]:
            features = F.relu(layer(features))
        return degraded - self.layers[-1](features)

    def optimize_for_inference(self) -> Self:
        """The same function without batch norm, which becomes part of the weights and biases."""
        if not self.batch_norm:
            return self
        layers = cast(list[Layer], list(self.layers))
        first = layers[0].conv
        folded = type(self)(first.in_channels, len(layers), first.out_channels, batch_norm=False)
        state = {}
        for i, layer in enumerate(layers):
            state[f"layers.{i}.conv.weight"], state[f"layers.{i}.conv.bias"] = _fold(layer)
        folded.to(first.weight.dtype).load_state_dict(state)  # whatever PyTorch's default type is now
        return folded.eval()


def _fold(layer: Layer) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that equals the layer in evaluation mode."""
    weight = layer.conv.weight
    bias = weight.new_zeros(len(weight)) if layer.conv.bias is None else layer.conv.bias
    if layer.norm is None:
        return weight, bias
    norm = layer.norm
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * gain.reshape(-1, 1, 1, 1), norm.bias + (bias - norm.running_mean) * gain


class MosaicDnCNN(Network):
    """DnCNN for packed mosaics: (N, 5, H, W) -> (N, 4, H, W), not from the paper.

    The input is four planes of samples, and one with the standard deviation of their noise, as in FFDNet (Zhang et
    al. 2018). Predicts the noise and subtracts it. Without batch norm.
    """

    scale = 1
    multiple = 1

    def __init__(self, depth: int = 12, width: int = 32) -> None:
        super().__init__()
        self.halo = depth
        sizes = [5, *(width for _ in range(depth - 1)), 4]
        self.layers = nn.ModuleList(
            Layer(inputs, outputs, bias=True, norm=False) for inputs, outputs in pairwise(sizes)
        )

    def forward(self, degraded: Tensor) -> Tensor:
        features = degraded
        for layer in self.layers[:-1]:
            features = F.relu(layer(features))
        return degraded[:, :4] - self.layers[-1](features)


def packed_deviation(network: nn.Module, degraded: Tensor, target: Tensor) -> Tensor:
    """`mean_deviation` for a network whose output is packed; the target is a mosaic, (N, 1, 2 H, 2 W)."""
    return mean_deviation(network, degraded, pack_bayer(target))


def init_as_released(network: Network) -> None:
    """He initialization; batch norm's gains are drawn near zero and clamped to [-0.025, 0.025] (SaoYan's code)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, std=(2 / (9 * 64)) ** 0.5)
            nn.init.zeros_(module.bias)
            with torch.no_grad():
                module.weight.clamp_(-0.025, 0.025)


def init_zero_last(network: Network) -> None:
    """He initialization with gains of 1; the last convolution is zero, so that the output starts as the input.

    Differs from the paper. After 300 steps of 32 patches it is 5 dB better.
    """
    assert isinstance(network, DnCNN | MosaicDnCNN)
    init_as_released(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    nn.init.zeros_(cast(Layer, network.layers[-1]).conv.weight)


STARTS = {"released": init_as_released, "zero-last": init_zero_last}


def _as_published(
    *,
    network: partial[DnCNN],
    domain: Domain,
    degradation: Degradation,
    patch_px: int,
    steps_per_epoch: int,
    protocol: ScoringProtocol,
    initialize: Start,
) -> Recipe:
    """A recipe with what all three published trainings have in common (Section IV-A)."""
    return Recipe(
        network=network,
        domain=domain,
        degradation=degradation,
        loss=half_sum_of_squares,
        optimizer=Adam(lr=1e-3),
        schedule=Drops(at_steps=(30 * steps_per_epoch,), gamma=0.1),
        initialize=STARTS[initialize],
        patch_px=patch_px,
        batch_size=128,
        num_steps=NUM_EPOCHS * steps_per_epoch,
        protocol=protocol,
    )


@recipe
def gaussian(
    sigma_255: Sigma = 25,
    channels: Channels = 1,
    depth: Depth = 17,
    width: Width = 64,
    batch_norm: Norm = True,
    bias: Bias = True,
    initialize: Start = "released",
) -> Recipe:
    """Gaussian noise of one known level (DnCNN-S, Table II)."""
    noise = GaussianNoise(sigma_255)
    return _as_published(
        network=partial(DnCNN, channels, depth, width, batch_norm, bias),
        domain=Gray() if channels == 1 else RGB(),
        degradation=noise,
        patch_px=40,
        steps_per_epoch=STEPS_PER_EPOCH,
        protocol=ScoringProtocol(noise),
        initialize=initialize,
    )


@recipe
def blind(
    sigma_255: Sigma = 25,
    channels: Channels = 1,
    depth: Depth = 20,
    width: Width = 64,
    batch_norm: Norm = True,
    bias: Bias = True,
    initialize: Start = "released",
) -> Recipe:
    """Gaussian noise of any level up to 55 (DnCNN-B, Section III-D); sigma_255 is the noise of evaluation."""
    return _as_published(
        network=partial(DnCNN, channels, depth, width, batch_norm, bias),
        domain=Gray() if channels == 1 else RGB(),
        degradation=GaussianNoise((0, 55)),
        patch_px=50,
        steps_per_epoch=3000,
        protocol=ScoringProtocol(GaussianNoise(sigma_255)),
        initialize=initialize,
    )


@recipe
def three_tasks(
    sigma_255: EvaluatedSigma | None = None,
    scale: Scale | None = None,
    quality: Quality | None = None,
    depth: Depth = 20,
    width: Width = 64,
    batch_norm: Norm = True,
    bias: Bias = True,
    initialize: Start = "released",
) -> Recipe:
    """Gaussian noise, bicubic downscaling and JPEG artifacts in one network (DnCNN-3, Section III-E).

    Training mixes all three. Evaluation uses the one that is given: sigma_255 (25 if none is), scale or quality.
    With a scale, pictures are enlarged bicubically before the network restores them.
    """
    if sum(value is not None for value in (sigma_255, scale, quality)) > 1:
        raise RecipeError(
            "dncnn.three_tasks: sigma_255, scale and quality exclude each other",
            hint="give one of them, e.g. quality=10 scale=none",
        )
    return _as_published(
        network=partial(DnCNN, 1, depth, width, batch_norm, bias),
        domain=Luma(scale or 1),
        degradation=OneOf((GaussianNoise((0, 55)), ShrinkAndEnlarge((2, 3, 4)), Jpeg((5, 99)))),
        patch_px=50,
        steps_per_epoch=8000,
        protocol=_protocol(sigma_255, scale, quality),
        initialize=initialize,
    )


@recipe
def photo(depth: Depth = 20, width: Width = 64, camera: SensorNumbers | None = None) -> Recipe:
    """Noise of cameras in finished color pictures, e.g. in JPEGs of a phone; not from the paper.

    Learns from photographs that are taken again by synthetic cameras, see `CameraNoise`; a quarter of them stay
    clean. No batch norm: its statistics would be those of a mixture of very different noise.
    """
    sensor = ANY_SENSOR if camera is None else SensorNoise(make_sensor(camera), num_levels=None)
    noise = CameraNoise(noise=sensor)
    protocol = ScoringProtocol(noise, seed_by_name=True)
    return _for_color_files(depth, width, replace(noise, clean_share=0.25), protocol)


@recipe
def jpeg(quality: Quality = 10, depth: Depth = 20, width: Width = 64) -> Recipe:
    """JPEG artifacts of color pictures: any quality, chroma sampling and position of blocks; not from the paper.

    A third of the pictures are compressed twice. `quality` is that of evaluation, with 4:2:0 chroma.
    """
    once = ShiftedJpeg((5, 95))
    degradation = OneOf((once, once, Chain((once, once))))
    return _for_color_files(depth, width, degradation, ScoringProtocol(Jpeg(quality), rounds=True))


@recipe
def raw(
    depth: Depth = 12,
    width: Width = 32,
    iso: Iso = 3200,
    noise: Noise = None,
    camera: SensorNumbers | None = None,
) -> Recipe:
    """Noise in the Bayer mosaics of camera RAW files; the result is a mosaic. Not from the paper.

    Learns from photographs that synthetic cameras take again at ISO 100 to 25600, see `NoisyRaw`. `iso` is that of
    evaluation, with four cameras that training does not use. `noise` is that of all files that are restored; by
    default, it is found out for each file, see `StableRaw`.
    """
    cameras = tuple(at_iso(camera, iso) for camera in (CANON_5D4, CANON_70D, CANON_700D, NIKON_D850_ELD))
    noisy = NoisyRaw() if camera is None else NoisyRaw(sensors=(make_sensor(camera),))
    protocol = ScoringProtocol(NoisyRaw(sensors=cameras, exposure=(0.3, 1.0)), rounds=True, seed_by_name=True)
    similar = _for_color_files(depth, width, noisy, protocol)
    network = partial(MosaicDnCNN, depth, width)
    return replace(similar, network=network, domain=StableRaw(noise), loss=packed_deviation, patch_px=96)


def _for_color_files(depth: int, width: int, degradation: Degradation, protocol: ScoringProtocol) -> Recipe:
    """A recipe for color pictures as people have them. The output starts as the input."""
    return Recipe(
        network=partial(DnCNN, 3, depth, width, batch_norm=False),
        domain=RGB(),
        degradation=degradation,
        loss=mean_deviation,
        optimizer=Adam(lr=1e-4),
        schedule=Cosine(),
        initialize=init_zero_last,
        clip_norm=0.1,
        patch_px=64,
        batch_size=32,
        num_steps=100_000,
        ema_decay=0.999,
        protocol=protocol,
    )


def _protocol(sigma_255: float | None, scale: int | None, quality: int | None) -> ScoringProtocol:
    if scale is not None:
        return ScoringProtocol(Shrink(scale), crop_multiple=scale, border_px=scale, rounds=True)
    if quality is not None:
        return ScoringProtocol(Jpeg(quality), rounds=True)
    return ScoringProtocol(GaussianNoise(25 if sigma_255 is None else sigma_255))
