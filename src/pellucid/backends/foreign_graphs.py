"""ONNX files of other programs: what they take and return is stated by the user, or found by running them.

Nothing in such a file is run but the graph: operations are those of ONNX Runtime.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pellucid.backends import probing, runtimes
from pellucid.backends.activation_memory import OVERHEAD
from pellucid.backends.backend import WHOLE_PX, Shape
from pellucid.backends.fixed_shape import FixedShape
from pellucid.backends.graph_memory import count_bytes_per_pixel
from pellucid.backends.probing import Reach
from pellucid.errors import OutputError, PellucidError, RecipeError, WeightsError, suggest
from pellucid.system import files
from pellucid.system.keywords import validate
from pellucid.system.optional_packages import import_optional
from pellucid.system.wording import format_count

Colors = Annotated[
    Literal["rgb", "bgr", "gray", "y"],
    Field(description="of the network: rgb, bgr, gray (plane by plane), or y (BT.601 luma)"),
]
Range = Annotated[
    Literal["0..1", "0..255", "-1..1"], Field(description="black and white in the network's input and output")
]

KEYWORDS: Mapping[str, Any] = {"colors": Colors, "range": Range}
"""Keywords of all files of other programs, in place of those of a recipe."""

LEVELS: Mapping[str, tuple[float, float]] = {"0..1": (0, 1), "0..255": (0, 255), "-1..1": (-1, 1)}
"""Black and white of each range."""

MAX_DIFFERENCE = 0.05
"""Root of the mean squared difference of the means of squares of 16 px, before and after; white is 1."""

CACHE_VERSION = 1
"""Increased when networks are probed in another way."""

_TRIED_PX, _AVERAGED_PX = 192, 16
"""A multiple of all grids that are tried, and of the squares whose means are compared."""

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


@dataclass(frozen=True)
class Graph:
    """What a file states about its input.

    dtype: float32 or float16. is_batch: whether it takes several pictures at once. output: name of the first one.
    """

    num_planes: int
    is_channels_last: bool
    dtype: str
    is_batch: bool
    output: str


class ForeignBackend:
    """An ONNX file that pellucid did not write as a `Backend`, in ONNX Runtime.

    Its scale, grid and halo are measured when it is used for the first time, and kept in the user's cache.
    runtime_device: where it computes, see `accelerators.find_provider`; inputs and outputs are on the CPU.
    colors, range: see KEYWORDS; None for what is most likely, which the note states.

    Raises MissingExtraError without onnxruntime, RecipeError for other keywords, WeightsError if it cannot be
    loaded, has several inputs, only takes one size, or returns something else than a picture, and PellucidError if
    the device cannot be used.
    """

    device = torch.device("cpu")
    fixed_shape: FixedShape | None = None
    frees_activations = False

    def __init__(self, path: Path, runtime_device: str = "cpu", /, **keywords: object) -> None:
        given = _validate(path, keywords)
        runtimes.check_installed("onnxruntime")
        self.runtime_device = "cpu" if runtime_device == "auto" else runtime_device
        self.name = f"onnxruntime on {self.runtime_device}"
        self._session = runtimes.open_onnx(path, self.runtime_device)
        self._graph = _read_graph(path, self._session)
        _check_colors(path, given.get("colors"), self._graph.num_planes)
        self._sha256 = _hash(path)
        self._range = given.get("range")
        reach, ranges = self._recall_or_probe(path)
        self.scale, self.multiple, self._size_px = reach.scale, reach.multiple, reach.size_px
        self.halo = WHOLE_PX if reach.halo is None else reach.halo
        self.range: str = given.get("range") or ranges[0]
        self.colors: str = given.get("colors") or _guess_colors(self._graph, self.scale)
        self._bytes_per_pixel = count_bytes_per_pixel(path)
        self.num_planes = self._graph.num_planes
        self.note = self._describe(given, ranges)

    def __call__(self, degraded: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, scale * H, scale * W), from 0 to 1."""
        height, width = degraded.shape[-2:]
        planes = degraded.flip(1) if self.colors == "bgr" else degraded
        padded = F.pad(planes, (0, -width % self._size_px, 0, -height % self._size_px), mode="replicate")
        output = self._run_in_range(padded, self.range)[..., : height * self.scale, : width * self.scale]
        return output.flip(1) if self.colors == "bgr" else output

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """An upper bound, from the sizes of all features that exist at the same time."""
        count = shape[0] if self._graph.is_batch else 1
        return int(OVERHEAD * self._bytes_per_pixel * count * prod(shape[2:]))

    def device_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        """0: inputs and outputs are on the CPU, and nothing is known about other memory."""
        return 0

    def fingerprint(self) -> str:
        """Differs if the file, the colors, the range or the device differ."""
        device = "" if self.runtime_device == "cpu" else f" {self.runtime_device}"
        return f"{self._sha256} onnxruntime {self.colors} {self.range}{device}"

    def _run_in_range(self, planes: Tensor, range: str) -> Tensor:
        """Planes from 0 to 1 through the graph, which takes and returns planes of this range."""
        low, high = LEVELS[range]
        return (self._run(planes * (high - low) + low) - low) / (high - low)

    def _run(self, planes: Tensor) -> Tensor:
        graph, (given,) = self._graph, self._session.get_inputs()
        array = (planes.permute(0, 2, 3, 1) if graph.is_channels_last else planes).contiguous().numpy()
        array = array.astype(graph.dtype, copy=False)
        parts = [array] if graph.is_batch else np.split(array, len(array))
        with runtimes.translate_errors("onnxruntime"):
            outputs = [self._session.run([graph.output], {given.name: part})[0] for part in parts]
        if outputs[0].ndim != 4:
            raise PellucidError(f"the output has {outputs[0].ndim} dimensions; a picture has 4")
        output = torch.from_numpy(np.concatenate(outputs)).float()
        return output.permute(0, 3, 1, 2) if graph.is_channels_last else output

    def _recall_or_probe(self, path: Path) -> tuple[Reach, tuple[str, ...]]:
        """What was measured, and the ranges in which the network may work, the most likely first."""
        kept = files.cache_folder() / "foreign" / f"{self._sha256}-{self._range}-{CACHE_VERSION}.json"
        try:
            found = json.loads(kept.read_bytes())
            return Reach(**found["reach"]), tuple(found["ranges"])
        except (OSError, ValueError, TypeError, KeyError):
            found = {"ranges": [self._range] if self._range else self._find_ranges(path)}
        run = partial(self._run_in_range, range=found["ranges"][0])
        reach = probing.measure_reach(run, self._graph.num_planes, name=str(path))
        with suppress(OutputError):  # it is measured again next time
            content = json.dumps({**found, "reach": vars(reach)})
            files.write_atomic(kept, content.encode(), overwrite=True)
        return reach, tuple(found["ranges"])

    def _find_ranges(self, path: Path) -> list[str]:
        """Those in which the output resembles the input when details are averaged; for many networks, several.

        Raises WeightsError if there is none.
        """
        differences = {range: self._measure_difference(range) for range in LEVELS}
        found = [range for range, difference in differences.items() if difference < MAX_DIFFERENCE]
        if not any(map(math.isfinite, differences.values())):
            raise WeightsError(f"{path} returns NaN or infinity for a synthetic picture in any range")
        if not found:
            raise WeightsError(
                f"{path} returns pictures that do not resemble its input in any range ({', '.join(LEVELS)})",
                hint="if this is right, state one: the range can be 0..1, 0..255 or -1..1",
            )
        return found

    def _measure_difference(self, range: str) -> float:
        given = probing.draw_planes(self._graph.num_planes, _TRIED_PX, _TRIED_PX)
        try:
            output = self._run_in_range(given, range)
            scale = output.shape[-1] // _TRIED_PX
            averaged = F.avg_pool2d(output, _AVERAGED_PX * scale) - F.avg_pool2d(given, _AVERAGED_PX)
        except (PellucidError, RuntimeError):  # another shape; the probe reports it
            return 0.0
        return float(averaged.square().mean().sqrt())

    def _describe(self, given: Mapping[str, str], ranges: Sequence[str]) -> str:
        """What was measured and assumed, in one line."""
        enlarges = f"enlarges {self.scale} times, " if self.scale > 1 else ""
        sees = f"sees {self.halo} px far" if self.halo < WHOLE_PX else "depends on the whole picture (no tiles)"
        assumed = " and ".join(f"{key}={vars(self)[key]}" for key in KEYWORDS if key not in given)
        others = f" ({' or '.join(ranges[1:])} is possible, too)" if ranges[1:] else ""
        stated = f"; assumed: {assumed}{others}" if assumed else ""
        return f"a file of another program, measured: {enlarges}{sees}{stated}"


def _validate(path: Path, keywords: Mapping[str, object]) -> dict[str, str]:
    """Raises RecipeError for others than KEYWORDS."""
    for key in keywords:
        if key not in KEYWORDS:
            raise RecipeError(f"{path.name} has no keyword {key[:80]!r}; {suggest(key, KEYWORDS)}")
    return {
        key: validate(path.name, key, KEYWORDS[key], value, error=RecipeError) for key, value in keywords.items()
    }


def _check_colors(path: Path, colors: str | None, num_planes: int) -> None:
    """Raise RecipeError for colors that a graph with this number of planes cannot have."""
    fitting = ("gray", "y") if num_planes == 1 else ("rgb", "bgr")
    if colors is not None and colors not in fitting:
        planes = format_count(num_planes, "channel")
        raise RecipeError(f"{path.name} takes {planes}, so its colors can be {' or '.join(fitting)}, not {colors}")


def _read_graph(path: Path, session: Any) -> Graph:
    """Raises WeightsError unless it takes pictures of any size."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise WeightsError(f"{path} takes {len(inputs)} inputs ({names[:80]}); one picture is needed")
    shape, dtype = inputs[0].shape, _DTYPES.get(inputs[0].type)
    found = " x ".join(map(str, shape))
    if len(shape) != 4 or dtype is None:
        raise WeightsError(
            f"{path} takes {inputs[0].type} of {found}; floating-point samples of N x C x H x W are needed"
        )
    is_channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    num_planes, sides = shape[3 if is_channels_last else 1], shape[1:3] if is_channels_last else shape[2:]
    if num_planes not in (1, 3):
        raise WeightsError(
            f"{path} takes pictures of {format_count(num_planes, 'channel')} ({found}); 1 or 3 are needed"
        )
    if any(isinstance(side, int) for side in sides):
        raise WeightsError(
            f"{path} only takes pictures of {found}; pictures have any size", hint="export it with dynamic axes"
        )
    returned = outputs[0].shape or []
    num_returned = returned[3 if is_channels_last else 1] if len(returned) == 4 else None
    if isinstance(num_returned, int) and num_returned != num_planes:  # perhaps too many for the memory
        raise WeightsError(
            f"{path} takes pictures of {format_count(num_planes, 'channel')} and returns {num_returned}; the same "
            f"number is needed"
        )
    return Graph(num_planes, is_channels_last, dtype, not isinstance(shape[0], int), outputs[0].name)


def _guess_colors(graph: Graph, scale: int) -> str:
    """Networks with one plane that enlarge take luma, as published."""
    return "rgb" if graph.num_planes == 3 else "y" if scale > 1 else "gray"


def _hash(path: Path) -> str:
    """Of the file, and of the files with its weights if there are any."""
    onnx = import_optional("onnx")
    model = onnx.load(str(path), load_external_data=False)
    entries = (entry for weights in model.graph.initializer for entry in weights.external_data)
    names = sorted({entry.value for entry in entries if entry.key == "location"})
    hashes = [files.sha256(path), *(files.sha256(path.parent / name) for name in names)]
    return sha256(" ".join(hashes).encode()).hexdigest()[:32]
