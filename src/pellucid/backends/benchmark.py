"""How fast a model runs on this machine, with every installed backend and precision.

Candidates take turns, so that other load on the machine affects all of them. The fastest round of each one counts.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pellucid.backends import parity, selection
from pellucid.backends.backend import allocation, find_device
from pellucid.backends.model import Model, load_model
from pellucid.errors import ArgumentError, PellucidError
from pellucid.pictures import metrics
from pellucid.system.arguments import checks_types
from pellucid.weights import models

Run = Callable[[Tensor], Tensor]

NUM_ROUNDS = 4
"""The first one does not count: it builds, compiles and allocates memory."""

MIN_MEGAPIXELS, MAX_MEGAPIXELS = 0.001, 4.0
"""The network runs on a whole picture here, not on tiles: at 4 megapixels, a U-Net takes gigabytes."""


@dataclass(frozen=True)
class Timing:
    """One backend and precision. The first one of all, "eager", is the baseline.

    megapixels_per_s: of the result.
    speedup: over eager.
    psnr_db: of the result against eager, infinite if they are equal; None for eager itself.
    failure: why it does not run; all numbers are None then. If eager does not run, speedup and psnr_db are None.
    """

    backend: str
    precision: str
    megapixels_per_s: float | None = None
    speedup: float | None = None
    psnr_db: float | None = None
    failure: str | None = None


@checks_types()
def bench(
    name_or_file: str | Path,
    /,
    *,
    megapixels: float = 0.1,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
    **parameters: object,
) -> list[Timing]:
    """Time a model with every installed backend and precision, on one whole picture.

    The first result is the baseline: PyTorch in eager mode and float32, with the network as it was trained (NCHW,
    batch norm not folded). If a backend fails, its `Timing.failure` contains the reason, and the others still run.

    name_or_file: of a weight file. megapixels: size of the result, 0.001 to 4. progress: called with the number of
    finished runs and of all runs. parameters: recipe keywords to change.

    Raises WeightsError if there is no such weight file, PellucidError for another size or an unknown device.
    """
    path = models.find_model(name_or_file)
    if not MIN_MEGAPIXELS <= megapixels <= MAX_MEGAPIXELS:
        raise ArgumentError(
            f"{megapixels:g} megapixels cannot be timed",
            hint=f"{{megapixels}} can be {MIN_MEGAPIXELS:g} to {MAX_MEGAPIXELS:g}",
        )
    model, _ = load_model(path, **parameters)
    degraded = _synthetic_input(model, megapixels)
    eager, *others = candidates = _list_candidates(model, device)
    for turn in range(NUM_ROUNDS * len(candidates)):
        progress(turn, NUM_ROUNDS * len(candidates))
        candidates[turn % len(candidates)].run(degraded, counts=turn >= len(candidates))
    return [eager.timing(eager), *(other.timing(eager) for other in others)]


def measure_speed(path: Path, *, megapixels: float = 0.1, device: str = "auto") -> float:
    """Megapixels of the result per second, as `restore` runs a weight file by default; the faster of two runs."""
    model, _ = load_model(path)
    degraded = _synthetic_input(model, megapixels)
    candidate = _Candidate(
        "auto", "float32", lambda: selection.select_backend(model, device=device, backend="auto")[0]
    )
    for counts in (False, True, True):
        candidate.run(degraded, counts=counts)
    return candidate.timing(candidate).megapixels_per_s or 0.0


class _Candidate:
    """A backend and precision. If it raises a PellucidError, it is not run again."""

    def __init__(self, backend: str, precision: str, build: Callable[[], Run]) -> None:
        self._backend, self._precision = backend, precision
        self._build = build
        self._run: Run | None = None
        self._restored = torch.empty(0)
        self._best_s = math.inf
        self._failure: str | None = None

    def run(self, degraded: Tensor, *, counts: bool) -> None:
        if self._failure is not None:
            return
        try:
            self._run = self._run or self._build()
            start_s = time.perf_counter()
            with allocation("the whole picture", hint="reduce {megapixels}"):
                self._restored = self._run(degraded)
            duration_s = time.perf_counter() - start_s
        except PellucidError as error:
            self._failure = str(error)
            return
        if counts:
            self._best_s = min(self._best_s, duration_s)

    def timing(self, eager: "_Candidate") -> Timing:
        if self._failure is not None:
            return Timing(self._backend, self._precision, failure=self._failure)
        height, width = self._restored.shape[-2:]
        megapixels_per_s = height * width / 1e6 / self._best_s
        if eager._failure is not None:
            return Timing(self._backend, self._precision, megapixels_per_s)
        psnr_db = None if self is eager else metrics.psnr(self._restored, eager._restored)
        return Timing(self._backend, self._precision, megapixels_per_s, eager._best_s / self._best_s, psnr_db)


def _list_candidates(model: Model, device: str) -> list[_Candidate]:
    others = [
        _Candidate(*candidate, build=partial(selection.build_backend, model.copy(), *candidate, device))
        for candidate in selection.list_candidates(device)
    ]
    return [_Candidate("eager", "float32", partial(_build_eager, model, device)), *others]


def _build_eager(model: Model, device: str) -> Run:
    """The network without any change: not folded, NCHW."""
    found = find_device(device)
    network = model.network.eval().to(found)
    return torch.inference_mode()(lambda degraded: network(degraded.to(found)).cpu())


def _synthetic_input(model: Model, megapixels: float) -> Tensor:
    side_px = math.sqrt(megapixels * 1e6) / model.metadata.scale
    return parity.synthetic_inputs(model.recipe, max(12, round(side_px / 12) * 12))[:1].contiguous()
