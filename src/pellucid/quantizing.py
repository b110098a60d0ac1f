"""Eight-bit weights and activations by calibration on pictures; the first and last layers stay in float.

They see the picture itself, whose steps of 1 / 255 eight bits cannot hold and color at the same time.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pellucid.errors import optional_package


def quantize_openvino(model: Any, calibration: Sequence[Tensor]) -> Any:
    """An OpenVINO model with eight-bit convolutions inside."""
    nncf = optional_package("nncf", purpose="int8 of OpenVINO", extra="int8")
    samples = [degraded.numpy() for degraded in calibration]
    ends = [node.get_friendly_name() for node in _ends(model.get_ordered_ops())]
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=len(samples),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=ends),
    )


def _ends(operations: Sequence[Any]) -> list[Any]:
    convolutions = [node for node in operations if node.get_type_name() == "Convolution"]
    return [convolutions[0], convolutions[-1]]
