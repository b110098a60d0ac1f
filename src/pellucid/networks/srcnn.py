"""SRCNN: super-resolution by three convolutions.

Dong, Loy, He, Tang, "Image Super-Resolution Using Deep Convolutional Networks", IEEE TPAMI 2016,
arXiv:1501.00092. Differs from the paper: in training, too, convolutions are padded and keep the size, and the loss
covers only the inner part, which padding does not affect; the paper's convolutions shrink it.
"""

import copy
from functools import partial
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.degradations.standard import Shrink
from pellucid.domains import Luma
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import SGD, SOAP
from pellucid.recipes.recipe import Recipe, ScoringProtocol, Steps, recipe
from pellucid.recipes.schedules import Constant, Cosine

Scale = Annotated[Literal[2, 3, 4], Field(description="factor by which pictures are enlarged")]
Mapping = Annotated[Literal[1, 3, 5], Field(description="kernel size of the middle layer")]
Padding = Annotated[
    Literal["replicate", "zeros"],
    Field(description="beyond the border: the edge, repeated; or zeros, as in some ports"),
]
Bias = Annotated[bool, Field(description="biases of the convolutions; false: MindSpore's model zoo")]


class SRCNN(Network):
    """Sharpens the luma of a bicubically enlarged picture (Section 3.1): (N, 1, H, W) -> the same shape.

    Values are nominally in [0, 1]; the output is not clamped. `extract`, `map` and `reconstruct` are F1, F2 and F
    of Eqs. 1 to 3, with 64 and 32 filters.

    mapping_px: kernel size of the middle layer: 1, 3 or 5, the paper's 9-1-5, 9-3-5 and 9-5-5 (Section 4.3.2).
    padding: beyond the border, each layer repeats the edge, as the authors' test code does; the weights of yjn870
        and of MindSpore's model zoo were trained with zeros.
    bias: whether the convolutions have biases; those of MindSpore's model zoo do not.
    """

    scale = 1
    multiple = 1

    def __init__(self, mapping_px: int = 5, padding: Padding = "replicate", bias: bool = True) -> None:
        super().__init__()
        self.halo = reach(mapping_px)
        conv = partial(nn.Conv2d, padding="same", padding_mode=padding, bias=bias)
        self.extract = conv(1, 64, 9)
        self.map = conv(64, 32, mapping_px)
        self.reconstruct = conv(32, 1, 5)

    def forward(self, degraded: Tensor) -> Tensor:
        features = F.relu(self.extract(degraded))
        features = F.relu(self.map(features))
        return self.reconstruct(features)

    def optimize_for_inference(self) -> Self:
        """The same function, with a last layer that computes blocks of 4 x 4 pixels at once."""
        if isinstance(self.reconstruct, _Blockwise):
            return self
        faster = copy.deepcopy(self)
        faster.reconstruct = _Blockwise(self.reconstruct)
        return faster


class _Blockwise(nn.Conv2d):
    """A convolution with one output channel, computed as one with 16: the pixels of blocks of 4 x 4.

    (N, C, H, W) -> (N, 1, H, W). Processors compute 16 channels at once, so that a single one wastes most of the
    work. The larger kernel that a block needs is mostly zeros: 2.6 times the operations and the same sums, but
    4.7 times the speed (5 x 5, PyTorch, AVX-512).
    """

    block_px = 4

    def __init__(self, single: nn.Conv2d) -> None:
        kernel_px, block_px = single.kernel_size[0], self.block_px
        super().__init__(
            single.in_channels,
            block_px**2,
            kernel_px + block_px - 1,
            stride=block_px,
            bias=single.bias is not None,
            device="meta",  # no random initialization: the weights are known
        )
        self.sides_px = (kernel_px // 2, kernel_px // 2 + block_px - 1) * 2
        self.beyond = "constant" if single.padding_mode == "zeros" else single.padding_mode
        kernels = single.weight.new_zeros(self.weight.shape)
        for i, kernel in enumerate(kernels):
            row, col = divmod(i, block_px)
            kernel[:, row : row + kernel_px, col : col + kernel_px] = single.weight[0].detach()
        self.weight = nn.Parameter(kernels)
        if single.bias is not None:
            self.bias = nn.Parameter(single.bias.detach().repeat(block_px**2))

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        blocks = super().forward(F.pad(features, self.sides_px, self.beyond))
        return F.pixel_shuffle(blocks, self.block_px)[..., :height, :width]


def reach(mapping_px: int) -> int:
    """How far the output reads: half of the kernels of 9, mapping_px and 5 px."""
    return 9 // 2 + mapping_px // 2 + 5 // 2


def inner_squares(network: Network, degraded: Tensor, target: Tensor) -> Tensor:
    """Sum of squared errors / (2 N) of the part that padding does not affect: 21 x 21 of 33 x 33 for 9-1-5.

    Source: Eq. 4, in the form that Caffe computes.
    """
    inside = slice(network.halo, -network.halo)
    inner = (..., inside, inside)
    error = network(degraded)[inner] - target[inner]
    return error.square().sum() / (2 * len(target))


def init_small(network: Network) -> None:
    """Gaussian weights with a standard deviation of 0.001, biases of 0 (Section 3.3)."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=0.001)


@torch.no_grad()
def init_identity(network: Network) -> None:
    """PyTorch's initialization, with one path of features that is the identity.

    The last layer reads only that path, so that the output starts as the bicubically enlarged picture. Differs
    from the paper; with Adam it reaches the same score 2.4 times as fast (docs/experiments.md).
    """
    assert isinstance(network, SRCNN)
    for convolution in (network.extract, network.map, network.reconstruct):
        middle = convolution.kernel_size[0] // 2
        convolution.weight[0] = 0
        convolution.weight[0, 0, middle, middle] = 1
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
    nn.init.zeros_(network.reconstruct.weight[:, 1:])


def protocol(scale: int) -> ScoringProtocol:
    """The protocol of Table 2: luma, sizes cropped to multiples of the scale, a border of `scale` px excluded."""
    return ScoringProtocol(Shrink(scale), crop_multiple=scale, border_px=scale, rounds=True)


@recipe
def paper(scale: Scale = 2, mapping_px: Mapping = 5, padding: Padding = "replicate", bias: Bias = True) -> Recipe:
    """Super-resolution by 2, 3 or 4, trained as published (Section 4.1): SGD, 8e8 patches."""
    return Recipe(
        network=partial(SRCNN, mapping_px, padding, bias),
        domain=Luma(scale),
        degradation=Shrink(scale),
        loss=inner_squares,
        min_patch_px=2 * reach(mapping_px) + 1,
        optimizer=SGD(lr=1e-4, momentum=0.9, slower=("reconstruct", 0.1)),
        schedule=Constant(),
        initialize=init_small,
        augmentation="none",
        patch_px=33 - 33 % scale,  # 33 in the paper, which crops patches from enlarged pictures
        batch_size=128,
        num_steps=8 * 10**8 // 128,
        protocol=protocol(scale),
    )


@recipe
def tuned(scale: Scale = 2, mapping_px: Mapping = 5, num_steps: Steps = 10_000) -> Recipe:
    """The paper's network, trained in about half an hour on one core: SOAP, larger patches, a cosine schedule."""
    return Recipe(
        network=partial(SRCNN, mapping_px),
        domain=Luma(scale),
        degradation=Shrink(scale),
        loss=inner_squares,
        min_patch_px=2 * reach(mapping_px) + 1,
        optimizer=SOAP(lr=3e-3),
        schedule=Cosine(warmup_steps=100),
        initialize=init_identity,
        patch_px=48,
        batch_size=16,
        num_steps=num_steps,
        ema_decay=0.998,
        protocol=protocol(scale),
    )
