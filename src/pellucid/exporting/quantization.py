"""int8 weights and activations, by calibration on pictures; the first and last layers stay in float.

These layers see the picture itself, which needs more than 8 bits: with the final sum in int8, DnCNN loses 0.74
dB. The weights of hidden layers are rounded jointly (`gptq`), as the error of one layer passes through all later
ones. This reduces SRCNN's loss on Set5 x2 from 0.20 to 0.02 dB, and DnCNN's on four pictures of Set12 from 0.045
to 0.028 dB. Ranges of activations can be either the mean of each picture's extremes or the extremes of all
pictures. The one whose results are closer to the network's on the given pictures is used.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.exporting import gptq
from pellucid.system.optional_packages import import_optional

NUM_COMPARED = 8
"""How many pictures decide between the two kinds of ranges."""

MAX_TAPS = 2304
"""Largest kernel, 256 channels of 3 x 3, that is rounded jointly: memory grows with the square of the number of
taps, time with its cube. In larger and in transposed ones, each weight is rounded independently."""


def quantize(model: Any, calibration: Sequence[tuple[Tensor, ...]]) -> Any:
    """An OpenVINO model whose inner convolutions are int8. calibration: inputs of the model.

    Raises MissingExtraError without nncf.
    """
    nncf, ranges = (import_optional(name) for name in ("nncf", "nncf.quantization.range_estimator"))
    nncf.set_log_level(logging.ERROR)
    samples = [tuple(each.contiguous().numpy() for each in inputs) for inputs in calibration]
    ends = _find_ends(model)
    kinds = (ranges.RangeEstimatorParametersSet.MEAN_MINMAX, ranges.RangeEstimatorParametersSet.MINMAX)
    candidates = [_quantize_by_nncf(model, samples, ends, kind) for kind in kinds]
    rounded = _round_weights(candidates[0], model, _measure_moments(model, samples, without=ends))
    for candidate in candidates:
        _replace_weights(candidate, rounded)
    return min(candidates, key=lambda candidate: _mean_squared_error(candidate, model, samples[:NUM_COMPARED]))


def _quantize_by_nncf(model: Any, samples: Sequence[Any], ends: Sequence[str], ranges: Any) -> Any:
    """NNCF rounds each weight to its nearest integer. The integers do not depend on the ranges."""
    nncf, advanced = (import_optional(name) for name in ("nncf", "nncf.quantization.advanced_parameters"))
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF prints progress bars
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=list(ends), validate=False),
            advanced_parameters=advanced.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )


def _measure_moments(model: Any, samples: Sequence[Any], *, without: Sequence[str]) -> dict[str, Tensor]:
    """Name of each convolution -> mean of `gptq.second_moments` over all samples."""
    observed = model.clone()
    convolutions = {
        name: node
        for name, node in _convolutions(observed).items()
        if name not in without and prod(node.input_value(1).get_shape()[1:]) <= MAX_TAPS
    }
    for name, node in convolutions.items():
        node.input_value(0).get_tensor().add_names({name})  # several convolutions may have the same input
    observed.add_outputs(list(convolutions))
    run = _compile(observed)
    moments = dict.fromkeys(convolutions, torch.zeros(()))
    for sample in samples:
        features = run(list(sample))
        for name, node in convolutions.items():
            moments[name] = moments[name] + _moments_of_input(node, torch.from_numpy(features[name])) / len(
                samples
            )
    return moments


def _moments_of_input(convolution: Any, features: Tensor) -> Tensor:
    attributes = convolution.get_attributes()
    (top, left), (bottom, right) = attributes["pads_begin"], attributes["pads_end"]
    kernel_px = tuple(convolution.input_value(1).get_shape()[2:])
    padded = F.pad(features, (left, right, top, bottom))
    return gptq.second_moments(padded, kernel_px, tuple(attributes["strides"]), tuple(attributes["dilations"]))


def _round_weights(quantized: Any, model: Any, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name of each convolution -> its weights as integer multiples of NNCF's steps."""
    in_float, in_int8 = _convolutions(model), _convolutions(quantized)
    rounded = {}
    for name, moment in moments.items():
        if in_int8[name].input_value(1).get_node().get_type_name() != "Multiply":
            continue  # NNCF keeps it in float
        weights = torch.tensor(in_float[name].input_value(1).get_node().get_data())
        integers, steps = _find_quantized_weights(in_int8[name])
        # NNCF keeps one bit free if sums could overflow on processors without VNNI.
        largest = 63 if abs(integers.get_data()).max() <= 64 else 127
        rounded[name] = gptq.round_jointly(weights.flatten(1), steps, moment, largest).view(weights.shape)
    return rounded


def _replace_weights(quantized: Any, rounded: Mapping[str, Tensor]) -> None:
    """Replace NNCF's integers."""
    operations, convolutions = import_optional("openvino.opset13"), _convolutions(quantized)
    for name, weights in rounded.items():
        integers, _ = _find_quantized_weights(convolutions[name])
        replacement = operations.constant(weights.numpy().astype(np.int8))
        for reader in integers.output(0).get_target_inputs():
            reader.replace_source_output(replacement.output(0))


def _find_quantized_weights(convolution: Any) -> tuple[Any, Tensor]:
    """The integer constant, and the step of each row, (O, 1), in NNCF's `steps * convert(integers)`."""
    scaled = convolution.input_value(1).get_node()
    converted, steps = (scaled.input_value(i).get_node() for i in range(2))
    return converted.input_value(0).get_node(), torch.tensor(steps.get_data()).double().view(-1, 1)


def _mean_squared_error(candidate: Any, model: Any, samples: Sequence[Any]) -> float:
    """Between the results of two models."""
    found, wanted = _compile(candidate), _compile(model)
    differences = (found(list(sample))[0] - wanted(list(sample))[0].astype(np.float32) for sample in samples)
    return float(np.mean([np.square(difference).mean() for difference in differences]))


def _compile(model: Any) -> Any:
    return import_optional("openvino").Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _convolutions(model: Any) -> dict[str, Any]:
    """The convolutions of a model by name, in order of execution."""
    operations = model.get_ordered_ops()
    return {node.get_friendly_name(): node for node in operations if node.get_type_name() == "Convolution"}


_NO_OPERATIONS = ("Constant", "Parameter", "Result")


def _find_ends(model: Any) -> list[str]:
    """The first convolution, the last one, and all operations that are not between convolutions.

    E.g. the sum with the picture and, in a whole graph, colors and enlarging. Of several convolutions that read
    the input, as in MIMO-UNet, only the first one.
    """
    by_name = _convolutions(model)
    first, last = (list(by_name)[i] for i in (0, -1))
    after_any, after_last = _find_readers(by_name.values()), _find_readers([by_name[last]])
    inner = (after_any | set(by_name)) - after_last - {first, last}
    operations = (node for node in model.get_ordered_ops() if node.get_type_name() not in _NO_OPERATIONS)
    return [name for name in (node.get_friendly_name() for node in operations) if name not in inner]


def _find_readers(nodes: Iterable[Any]) -> set[str]:
    """The names of all nodes that depend on any of these."""
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        for output in waiting.pop().outputs():
            for reader in (each.get_node() for each in output.get_target_inputs()):
                if reader.get_friendly_name() not in found:
                    found.add(reader.get_friendly_name())
                    waiting.append(reader)
    return found
