"""Export: a weight file -> a graph in the format of another runtime, checked against the network, then written.

The file is first written beside its place, run there by its own runtime, and compared with the network of the
weights; one that does not agree never gets its name.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pellucid import evaluation
from pellucid.backends import parity
from pellucid.backends.backend import Shape
from pellucid.backends.eager import TorchBackend
from pellucid.backends.metadata import GraphMetadata
from pellucid.backends.model import Model, load_model
from pellucid.backends.parity import BOUNDS_DB, Agreement
from pellucid.errors import DataError, OutputError, PellucidError, suggest
from pellucid.export.formats import FORMATS, ExportFormat, Run
from pellucid.pictures import images
from pellucid.restoration import restore
from pellucid.restoration.restorer import Restorer
from pellucid.system import files
from pellucid.weights import models

CALIBRATION_PX = 192
"""Side of what calibration sees of a picture, in network pixels: on whole pictures it takes gigabytes."""

MOST_PICTURES = 32
"""Of a folder, evenly spread, that calibration and the parity check look at."""


@dataclass(frozen=True)
class Exported:
    """A file that was written. loss_db: of mean PSNR on labelled pictures, where there were any; < 0 is a gain."""

    path: Path
    facts: GraphMetadata
    agreement: Agreement
    loss_db: float | None = None


def export(
    model: str | Path,
    out: str | Path,
    /,
    *,
    format: str | None = None,
    precision: str = "float32",
    shape: Shape | None = None,
    calibrate: str | Path | None = None,
    data: str | Path | None = None,
    target: str | Path | None = None,
    overwrite: bool = False,
    **parameters: object,
) -> Exported:
    """Write a model for another runtime, if what was written agrees with the model.

    model: name or path of a weight file.
    format: onnx, openvino, torch, aoti, mindir or air; told from the suffix of `out` where None.
    precision: in which it computes: float32, float16, bfloat16 or int8, as far as the format has it.
    shape: the only (N, C, H, W) it shall take, for runtimes that want that; any number and size where None.
    calibrate: pictures like those that will be restored; int8 is calibrated on them, and any export compared.
    data, target: labelled pictures, as `evaluate` takes them: what the export loses on them is measured.
    parameters: recipe keywords to change.

    Raises PellucidError for an unknown format or precision and an export that does not agree, MissingExtraError
    without the format's packages, DataError for a folder without pictures, OutputError where `out` cannot be
    written.
    """
    out = Path(out)
    chosen = _format(format, out)
    _check_precision(chosen, precision, calibrate)
    for path in _places(out, chosen):
        files.check_overwrite(path, overwrite=overwrite)
    path = models.find(model)
    if path.suffix.lower() in models.EXPORTED_SUFFIXES:
        raise PellucidError(f"{path} is exported already; name the weights it was made of")
    plan, card = load_model(path, **parameters)
    facts = replace(plan.facts, precision=precision, shape=shape)
    _check_shape(facts)
    reference = Restorer(path.stem, plan.recipe, TorchBackend(plan.network, "cpu"), card)
    given = [] if calibrate is None else own_inputs(Path(calibrate), reference)
    plan = replace(plan, facts=facts, pictures=given)
    with _beside(out) as folder:
        written = folder / f"model{chosen.suffix}"
        chosen.write(plan, written)
        run = chosen.run(plan, written)
        agreement = parity.compare(run, reference.backend, _inputs(plan, chosen.sizes))
        _check_agreement(agreement, precision, out)
        loss_db = None if data is None else _loss_db(reference, run, Path(data), target)
        _move(written, out, chosen, overwrite=overwrite)
    return Exported(out, facts, agreement, loss_db)


def own_inputs(folder: Path, restorer: Restorer) -> list[Tensor]:
    """The middles of a folder's pictures as the network takes them. Raises DataError when there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}; a folder is needed")
    domain = restorer.recipe.domain
    suffixes = images.RAW_SUFFIXES if domain.takes_mosaic else images.SUFFIXES
    found = images.find(folder, suffixes)
    if not found:
        kind = "camera RAW files" if domain.takes_mosaic else f"pictures ({', '.join(sorted(suffixes))})"
        raise DataError(f"{folder} holds no {kind} to calibrate on")
    inputs = []
    for path in found[:: -(-len(found) // MOST_PICTURES)]:
        degraded, _ = restore.read_degraded(path, restorer)
        degraded = domain.accept(degraded)
        side = max(1, int(CALIBRATION_PX / domain.rate))
        rows, cols = (_middle(size, side, restorer.grid_px) for size in (degraded.height, degraded.width))
        inputs.append(domain.to_input(degraded.crop(rows, cols).as_depth("float32")))
    return inputs


def _format(name: str | None, out: Path) -> ExportFormat:
    """The format that is meant, by its name or the suffix of the file."""
    if name is None:
        chosen = next((known for known in FORMATS.values() if known.suffix == out.suffix), None)
        if chosen is None:
            raise PellucidError(f"{out}: say with --format what it shall be: {', '.join(FORMATS)}")
        return chosen
    if name not in FORMATS:
        raise PellucidError(f"no format {name[:40]!r}; {suggest(name, FORMATS)}")
    chosen = FORMATS[name]
    if out.suffix != chosen.suffix:
        raise OutputError(f"{out} does not end in {chosen.suffix}, by which {name} files are known; name it so")
    return chosen


def _check_precision(chosen: ExportFormat, precision: str, calibrate: str | Path | None) -> None:
    if precision not in chosen.precisions:
        names = ", ".join(chosen.precisions)
        raise PellucidError(f"{chosen.name} has no precision {precision[:40]!r}; it has {names}")
    if precision == "int8" and calibrate is None:
        raise PellucidError("int8 is calibrated on pictures like those to restore; --calibrate FOLDER names them")


def _check_shape(facts: GraphMetadata) -> None:
    if facts.shape is not None and (min(facts.shape) < 1 or facts.shape[1] != facts.num_planes):
        raise PellucidError(
            f"a shape of {facts.shape}; {facts.card.recipe} takes (N, {facts.num_planes}, H, W), each 1 or more"
        )


def _check_agreement(agreement: Agreement, precision: str, out: Path) -> None:
    if not agreement.psnr_db >= BOUNDS_DB[precision]:
        raise PellucidError(
            f"{out} is not written: in {precision} it agrees with the network to {agreement}; "
            f"{BOUNDS_DB[precision]:.0f} dB are needed"
        )


def _inputs(plan: Model, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """What is compared: made-up pictures at odd sizes and, where there are any, the user's own."""
    shape = plan.facts.shape
    if shape is None:
        own = [part for degraded in plan.pictures[:4] for part in parity.crop_inputs(degraded, sizes[-2:])]
        return parity.crop_inputs(parity.synthetic_inputs(plan.recipe), sizes) + own
    count, _, height, width = shape
    side = -(-max(height, width) // 12) * 12
    made_up = parity.synthetic_inputs(plan.recipe, side)[:1].expand(count, -1, -1, -1)
    return parity.crop_inputs(made_up, [(height, width)])


def _loss_db(reference: Restorer, run: Run, data: Path, target: str | Path | None) -> float:
    exported = Restorer(reference.name, reference.recipe, _Borrowed(reference.backend, run), reference.card)
    before, after = (evaluation.evaluate(restorer, data, target=target) for restorer in (reference, exported))
    return before.mean_psnr_db - after.mean_psnr_db


class _Borrowed:
    """A backend that runs something else."""

    def __init__(self, backend: Any, run: Run) -> None:
        self.scale, self.multiple, self.halo = backend.scale, backend.multiple, backend.halo
        self.name, self.device = "export", backend.device
        self._backend, self._run = backend, run

    def __call__(self, degraded: Tensor) -> Tensor:
        return self._run(degraded)

    def working_bytes(self, shape: Shape, *, room: int = 0) -> int:
        return int(self._backend.working_bytes(shape, room=room))

    def fingerprint(self) -> str:
        return "export"


# Files


def _places(out: Path, chosen: ExportFormat) -> list[Path]:
    """All that is written, the one that is loaded last."""
    return [*(out.with_suffix(suffix) for suffix in chosen.beside), out]


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder beside the result, gone in the end."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=".pellucid-", dir=out.parent)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    try:
        yield Path(folder)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(written: Path, out: Path, chosen: ExportFormat, *, overwrite: bool) -> None:
    """Into place, all files or none: contexts close backwards, so that the one that is loaded comes last."""
    with ExitStack() as stack:
        for place in reversed(_places(out, chosen)):
            temporary = stack.enter_context(files.atomic_file(place, overwrite=overwrite))
            shutil.copyfile(written.with_suffix(place.suffix), temporary)


def _middle(size: int, side: int, grid_px: int) -> slice:
    start = max(0, (size - side) // 2) // grid_px * grid_px
    return slice(start, min(size, start + side))
