"""How fast a model runs on this machine, by every way to run it that is installed.

The ways take turns, so that what else the machine does slows all of them; the fastest round of each counts.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pellucid.backends import model, parity, selection
from pellucid.backends.backend import allocation, find_device
from pellucid.backends.model import Model
from pellucid.errors import PellucidError, WeightsError
from pellucid.pictures import metrics
from pellucid.weights import models

Run = Callable[[Tensor], Tensor]

NUM_ROUNDS = 4
"""The first one does not count: it builds, compiles and takes memory."""

LEAST_MEGAPIXELS, MOST_MEGAPIXELS = 0.001, 4.0
"""All of a picture is run at once here, as pellucid never does: at 4 megapixels a U-Net takes gigabytes."""


@dataclass(frozen=True)
class Timing:
    """One way to run a model.

    megapixels_per_s: of the result. speedup: how many times as fast as plain PyTorch. psnr_db: of its result
    against that of plain PyTorch, white being 1; None of plain PyTorch itself. failure: why it does not run, and
    there are no such numbers. Where plain PyTorch fails, nothing is compared with it.
    """

    backend: str
    precision: str
    megapixels_per_s: float | None = None
    speedup: float | None = None
    psnr_db: float | None = None
    failure: str | None = None


def bench(
    name_or_file: str | Path,
    /,
    *,
    megapixels: float = 0.1,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
    **parameters: object,
) -> list[Timing]:
    """Time a model by every way that is installed; the first is plain PyTorch, as one writes it first.

    That is: eager, float32, channels first, batch norm as it was trained. megapixels: of the result. progress:
    called with how many runs are done, and of how many. parameters: recipe keywords to change.

    Raises WeightsError for what is no weight file, PellucidError for a size or a device that cannot be.
    """
    path = models.find(name_or_file)
    if path.suffix.lower() in models.EXPORTED_SUFFIXES:
        raise WeightsError(f"{path} is one way to run a model already; bench compares those of a weight file")
    if not LEAST_MEGAPIXELS <= megapixels <= MOST_MEGAPIXELS:
        raise PellucidError(f"{megapixels:g} megapixels; {LEAST_MEGAPIXELS:g} to {MOST_MEGAPIXELS:g} can be timed")
    plan, _ = model.load_model(path, **parameters)
    degraded = _picture(plan, megapixels)
    plain, *others = contenders = _contenders(plan, device)
    for turn in range(NUM_ROUNDS * len(contenders)):
        progress(turn, NUM_ROUNDS * len(contenders))
        contenders[turn % len(contenders)].run(degraded, counts=turn >= len(contenders))
    return [plain.timing(plain), *(other.timing(plain) for other in others)]


class _Contender:
    """A way to run a network; what it raises takes it out of the race."""

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
            start = time.perf_counter()
            with allocation("the whole picture at once"):
                self._restored = self._run(degraded)
            taken_s = time.perf_counter() - start
        except PellucidError as error:
            self._failure = str(error)
            return
        if counts:
            self._best_s = min(self._best_s, taken_s)

    def timing(self, plain: "_Contender") -> Timing:
        if self._failure is not None:
            return Timing(self._backend, self._precision, failure=self._failure)
        height, width = self._restored.shape[-2:]
        megapixels_per_s = height * width / 1e6 / self._best_s
        if plain._failure is not None:
            return Timing(self._backend, self._precision, megapixels_per_s)
        psnr_db = None if self is plain else metrics.psnr(self._restored, plain._restored)
        return Timing(self._backend, self._precision, megapixels_per_s, plain._best_s / self._best_s, psnr_db)


def _contenders(plan: Model, device: str) -> list[_Contender]:
    ways = [
        _Contender(*way, build=partial(selection.build_backend, plan.copy(), *way, device))
        for way in selection.list_options(device)
    ]
    return [_Contender("plain", "float32", partial(_plain, plan, device)), *ways]


def _plain(plan: Model, device: str) -> Run:
    found = find_device(device)
    network = plan.network.eval().to(found)
    return torch.inference_mode()(lambda degraded: network(degraded.to(found)).cpu())


def _picture(plan: Model, megapixels: float) -> Tensor:
    side_px = math.sqrt(megapixels * 1e6) / plan.facts.scale
    return parity.synthetic_inputs(plan.recipe, max(12, round(side_px / 12) * 12))[:1].contiguous()
