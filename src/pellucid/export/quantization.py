"""Eight-bit weights and activations by calibration on pictures; the first and last layers stay in float.

They see the picture itself, whose steps eight bits cannot hold: with the sum at its end in eight bits, DnCNN
loses 0.74 dB. The weights inside are rounded together (`rounding`), since what one layer gets wrong of the picture
goes through all others: SRCNN's loss on Set5 x2 falls from 0.20 to 0.02 dB by that, DnCNN's on four of Set12 from
0.045 to 0.028. Of two ways to find the ranges of activations, the mean of each picture's extremes and the extremes
of all, the one is kept that agrees better with the network on the pictures given.
"""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.export import gptq
from pellucid.system.optional_packages import import_optional

NUM_COMPARED = 8
"""Of the pictures: so many decide between the two ways."""

MOST_TAPS = 2304
"""Of a convolution, 256 channels of 3 x 3: in wider ones, deep in a U-Net, each weight goes to its nearest, since
rounding them together takes memory with the square of this and time with its cube. So do transposed ones."""


def quantize(model: Any, calibration: Sequence[Tensor]) -> Any:
    """An OpenVINO model with eight-bit convolutions inside. calibration: (N, C, H, W), as the network takes."""
    nncf, ranges = (import_optional(name) for name in ("nncf", "nncf.quantization.range_estimator"))
    nncf.set_log_level(logging.ERROR)
    samples = [degraded.numpy() for degraded in calibration]
    ends = _ends(model)
    ways = (ranges.RangeEstimatorParametersSet.MEAN_MINMAX, ranges.RangeEstimatorParametersSet.MINMAX)
    candidates = [_by_nearest(model, samples, ends, way) for way in ways]
    rounded = _rounded_together(candidates[0], model, _moments(model, samples, without=ends))
    for candidate in candidates:
        _put(candidate, rounded)
    return min(candidates, key=lambda candidate: _distance(candidate, model, samples[:NUM_COMPARED]))


def _by_nearest(model: Any, samples: Sequence[Any], ends: Sequence[str], ranges: Any) -> Any:
    """As NNCF has it: each weight goes to its nearest whole number. The weights do not depend on the ranges."""
    nncf, advanced = (import_optional(name) for name in ("nncf", "nncf.quantization.advanced_parameters"))
    with contextlib.redirect_stdout(io.StringIO()):  # its bars
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=list(ends)),
            advanced_parameters=advanced.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )


def _moments(model: Any, samples: Sequence[Any], *, without: Sequence[str]) -> dict[str, Tensor]:
    """By the name of each convolution, what its taps read together (`rounding.second_moments`) in all samples."""
    observed = model.clone()
    convolutions = {
        name: node
        for name, node in _convolutions(observed).items()
        if name not in without and prod(node.input_value(1).get_shape()[1:]) <= MOST_TAPS
    }
    for name, node in convolutions.items():
        node.input_value(0).get_tensor().add_names({name})  # several may read the same
    observed.add_outputs(list(convolutions))
    run = _compiled(observed)
    moments = dict.fromkeys(convolutions, torch.zeros(()))
    for sample in samples:
        read = run([sample])
        for name, node in convolutions.items():
            moments[name] = moments[name] + _moments_of(node, torch.from_numpy(read[name])) / len(samples)
    return moments


def _moments_of(convolution: Any, features: Tensor) -> Tensor:
    how = convolution.get_attributes()
    (top, left), (bottom, right) = how["pads_begin"], how["pads_end"]
    kernel_px = tuple(convolution.input_value(1).get_shape()[2:])
    padded = F.pad(features, (left, right, top, bottom))
    return gptq.second_moments(padded, kernel_px, tuple(how["strides"]), tuple(how["dilations"]))


def _rounded_together(quantized: Any, model: Any, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the name of each convolution, its weights in whole numbers of NNCF's steps."""
    in_float, in_bits = _convolutions(model), _convolutions(quantized)
    rounded = {}
    for name, moment in moments.items():
        if in_bits[name].input_value(1).get_node().get_type_name() != "Multiply":
            continue  # NNCF left it in float
        weights = torch.tensor(in_float[name].input_value(1).get_node().get_data())
        numbers, steps = _quantized_weights(in_bits[name])
        # NNCF leaves one bit free where sums of processors without VNNI would overflow.
        largest = 63 if abs(numbers.get_data()).max() <= 64 else 127
        rounded[name] = gptq.together(weights.flatten(1), steps, moment, largest).view(weights.shape)
    return rounded


def _put(quantized: Any, rounded: Mapping[str, Tensor]) -> None:
    """These whole numbers into the place of NNCF's."""
    operations, convolutions = import_optional("openvino.opset13"), _convolutions(quantized)
    for name, weights in rounded.items():
        numbers, _ = _quantized_weights(convolutions[name])
        better = operations.constant(weights.numpy().astype(np.int8))
        for reader in numbers.output(0).get_target_inputs():
            reader.replace_source_output(better.output(0))


def _quantized_weights(convolution: Any) -> tuple[Any, Tensor]:
    """The constant of whole numbers, and (O, 1) the step of each row, of NNCF's `steps * convert(numbers)`."""
    scaled = convolution.input_value(1).get_node()
    converted, steps = (scaled.input_value(i).get_node() for i in range(2))
    return converted.input_value(0).get_node(), torch.tensor(steps.get_data()).double().view(-1, 1)


def _distance(candidate: Any, model: Any, samples: Sequence[Any]) -> float:
    """The mean square between the results of two models."""
    found, wanted = _compiled(candidate), _compiled(model)
    return float(np.mean([np.square(found([sample])[0] - wanted([sample])[0]).mean() for sample in samples]))


def _compiled(model: Any) -> Any:
    return import_optional("openvino").Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _convolutions(model: Any) -> dict[str, Any]:
    """By name, in the order in which they compute."""
    operations = model.get_ordered_ops()
    return {node.get_friendly_name(): node for node in operations if node.get_type_name() == "Convolution"}


_COMPUTING = ("Convolution", "Add", "Subtract", "Multiply")


def _ends(model: Any) -> list[str]:
    """The first convolution, and from the last one on all that computes: also where the picture is added."""
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in _COMPUTING]
    convolutions = list(_convolutions(model))
    return [convolutions[0], *names[names.index(convolutions[-1]) :]]
