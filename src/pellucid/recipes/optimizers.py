"""Optimizers as values: how a recipe's training updates weights. `training` turns them into code.

A field with a description is also a training keyword, see `overrides`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pellucid.system.keywords import Count, NonNegative, Positive, Share

LearningRate = Annotated[Positive, Field(description="learning rate, before the schedule")]
Betas = Annotated[
    tuple[Share, Share],
    Field(description="adam, soap: decay rates of the first and second moments of the gradient"),
]
Eps = Annotated[Positive, Field(description="adam, soap: added to the denominator")]
Momentum = Annotated[Share, Field(description="sgd: momentum factor")]
WeightDecay = Annotated[
    NonNegative,
    Field(description="weight decay; decoupled from the gradient with adam and soap (AdamW)"),
]
Frequency = Annotated[Count, Field(description="soap: steps between updates of the preconditioner")]


@dataclass(frozen=True)
class Adam:
    """Adam with decoupled weight decay (AdamW).

    slower: a prefix of parameter names, and the factor on the learning rate of those parameters.
    """

    lr: LearningRate
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 0.0
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum. slower: as in Adam."""

    lr: LearningRate
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 0.0
    slower: tuple[str, float] | None = None


@dataclass(frozen=True)
class SOAP:
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv:2409.11321).

    slower: as in Adam.
    """

    lr: LearningRate
    betas: Betas = (0.95, 0.95)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 0.0
    precondition_frequency: Frequency = 25
    slower: tuple[str, float] | None = None


Optimizer = Adam | SGD | SOAP
