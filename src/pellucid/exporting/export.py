"""Export: a weight file -> a graph in the format of another runtime, compared with the network, then saved.

The file is first written to a temporary folder next to `out`, run there by its own runtime and compared with the
network. It is moved to `out` only if the results agree.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pellucid.backends import parity
from pellucid.backends.backend import Backend, Shape, allocation
from pellucid.backends.eager import TorchBackend
from pellucid.backends.fixed_shape import FixedShape
from pellucid.backends.metadata import GraphMetadata
from pellucid.backends.model import load_model
from pellucid.backends.parity import MIN_PSNR_DB, Agreement
from pellucid.backends.sample_form import SampleForm
from pellucid.domains import Degraded, Domain, takes_mosaic
from pellucid.errors import ArgumentError, DataError, PellucidError
from pellucid.evaluation import evaluate as evaluation
from pellucid.evaluation.report import describe_failures
from pellucid.exporting import registry, whole_parity
from pellucid.exporting.export_format import ExportFormat, ExportRequest, Run
from pellucid.exporting.whole import choose_form
from pellucid.pictures import images
from pellucid.restoration.reading import read_degraded
from pellucid.restoration.restorer import Restorer
from pellucid.system import files
from pellucid.system.arguments import checks_types
from pellucid.weights import checkpoint, models

CROP_PX = 192
"""Side of the crop used of each picture, in network pixels: calibration on whole pictures takes gigabytes."""

MAX_PICTURES = 32
"""How many pictures of a folder are used, at regular intervals: all for calibration, some for the comparison."""

NUM_COMPARED = 4
"""How many of the user's pictures are compared."""

MAX_SAMPLES = 2**60
"""Of an input of a fixed shape; larger sizes overflow in the runtimes."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    agreement: how closely its results match those of the network in float32.
    loss_db: loss of mean PSNR on the user's data set, negative for a gain; None if there was no data set.
    note: a message if the runtime computes in another precision on this machine, otherwise None.
    warnings: keywords that differ from those that the weights were trained with, and which pictures of the data
        set could not be scored, one line each.
    """

    path: Path
    metadata: GraphMetadata
    agreement: Agreement
    loss_db: float | None = None
    note: str | None = None
    warnings: tuple[str, ...] = ()


@checks_types()
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
    whole: bool = False,
    samples: str | None = None,
    layout: str | None = None,
    colors: str | None = None,
    overwrite: bool = False,
    **parameters: object,
) -> Exported:
    """Write a model for another runtime, after checking that its results agree with the network's.

    The new file is run by its own runtime on synthetic pictures, at odd sizes from 1 x 1 to 131 x 160 px, and on
    those of `calibrate`. Its PSNR against the network in float32 must be at least 100 dB (float32), 55 dB
    (float16), 45 dB (bfloat16) or 35 dB (int8); otherwise nothing is written.

    model: name or path of a weight file.
    out: the file to write. Its folder is created.
    format: onnx, openvino, torch, aoti, mindir or air; by the suffix of `out` if None.
    precision: of the computation in the file: float32, float16, bfloat16 or int8, if the format supports it.
    shape: the only input shape that the file accepts, (N, C, H, W), or (N, H, W, C) with layout nhwc; any number
        and size of pictures if None.
    calibrate: folder of degraded pictures like those to restore. int8 needs it for calibration.
    data, target: a data set, as for `evaluate`; the loss of PSNR on it is measured. Not for whole graphs.
    whole: write a graph that takes the samples of a picture or mosaic, and returns those of the restored picture:
        all that `restore` does to a tile is in the graph. Scale, multiple and halo in its metadata are in picture
        pixels. Its distance from the result before rounding, beyond half a level, must agree as stated above.
    samples: of a whole graph: uint8 or uint16; uint8 if None, uint16 for mosaics.
    layout: of a whole graph: nchw, (N, C, H, W), or nhwc, (N, H, W, C); nchw if None.
    colors: of a whole graph: gray or rgb; those of the model if None.
    overwrite: replace files that exist.
    parameters: recipe keywords to change.

    Raises PellucidError for an unknown format or precision, and if results do not agree; MissingExtraError without
    the packages of the format; DataError for a folder without pictures; WeightsError as `load`;
    OutputError if `out` exists or cannot be written.
    """
    out = Path(out)
    chosen = registry.find_format(format, out)
    _check_precision(chosen, precision, calibrate)
    _check_whole(chosen, whole, samples=samples, layout=layout, colors=colors, data=data)
    for path in _list_outputs(out, chosen):
        files.check_overwrite(path, overwrite=overwrite)
    path = models.find_model(model)
    loaded, weights_metadata = load_model(path, **parameters)
    checkpoint.check_network_file(weights_metadata, loaded.recipe, source=path)
    form = choose_form(loaded.recipe.domain, samples, layout, colors) if whole else None
    reference = Restorer(path.stem, loaded.recipe, TorchBackend(loaded.network, "cpu"), weights_metadata)
    pictures = [] if calibrate is None else read_crops(Path(calibrate), reference)
    if form is not None:
        pictures = [whole_parity.convert_to_form(picture, form) for picture in pictures]
    if data is not None:
        evaluation.collect(reference.recipe, Path(data), target)  # now, not after the export
    inputs = [_to_inputs(picture, loaded.recipe.domain, form) for picture in pictures]
    request = ExportRequest(loaded, precision, shape, inputs, form)
    _check_shape(request)
    too_large = allocation("an input of this size", hint="choose a smaller {shape}")
    with files.folder_next_to(out) as folder, too_large:
        written = folder / f"model{chosen.suffix}"
        chosen.write(request, written)
        run = chosen.run(request, written)
        agreement = _compare(run, reference, request, pictures, chosen.parity_sizes)
        _check_agreement(agreement, request, out)
        loss_db, skipped = (None, ()) if data is None else _measure_loss_db(reference, run, Path(data), target)
        _move(written, out, chosen, overwrite=overwrite)
    warnings = (*reference.overrides(), *skipped)
    return Exported(out, request.metadata, agreement, loss_db, chosen.note(precision), warnings)


def read_inputs(folder: Path, restorer: Restorer) -> list[Tensor]:
    """Center crops of a folder's pictures as network inputs. Raises DataError if it contains no pictures."""
    domain = restorer.recipe.domain
    return [domain.to_input(crop.as_depth("float32")) for crop in read_crops(folder, restorer)]


def read_crops(folder: Path, restorer: Restorer) -> list[Degraded]:
    """Center crops of a folder's pictures. Raises DataError if it contains no pictures."""
    if not folder.is_dir():
        raise DataError(f"{folder} {'is a file, not a folder' if folder.exists() else 'does not exist'}")
    domain = restorer.recipe.domain
    found = images.find(folder, takes_raw=domain.takes_mosaic)
    if domain.takes_mosaic:
        found = [path for path in found if images.is_raw(path)]
    if not found:
        raise DataError(f"{folder} contains no {'camera RAW files' if domain.takes_mosaic else 'pictures'}")
    crops = []
    for path in found[:: -(-len(found) // MAX_PICTURES)]:
        degraded, _ = read_degraded(path, domain)
        degraded = domain.accept(degraded)
        side_px = max(1, int(CROP_PX / domain.rate))
        rows, cols = (_center(size, side_px, restorer.grid_px) for size in (degraded.height, degraded.width))
        crops.append(degraded.crop(rows, cols))
    return crops


def _to_inputs(picture: Degraded, domain: Domain, form: SampleForm | None) -> tuple[Tensor, ...]:
    """The inputs of the graph for one picture."""
    if form is None:
        return (domain.to_input(picture.as_depth("float32")),)
    return tuple(whole_parity.to_inputs(picture, domain, form).values())


def _center(size: int, side_px: int, grid_px: int) -> slice:
    start = max(0, (size - side_px) // 2) // grid_px * grid_px
    return slice(start, min(size, start + side_px))


# Checks


def _check_precision(chosen: ExportFormat, precision: str, calibrate: str | Path | None) -> None:
    if precision not in chosen.precisions:
        names = ", ".join(chosen.precisions)
        raise ArgumentError(f"{chosen.name} does not support precision {precision[:40]!r}; it supports {names}")
    if precision == "int8" and calibrate is None:
        raise ArgumentError(
            "int8 needs pictures for calibration",
            hint="{calibrate} is a folder of degraded pictures like those to restore",
        )


def _check_whole(chosen: ExportFormat, whole: bool, *, data: str | Path | None, **form: str | None) -> None:
    given = ", ".join(f"{{{name}}}" for name, value in form.items() if value is not None)
    if not whole:
        if given:
            raise ArgumentError("a network takes and returns float32 planes", hint=f"{given}: only with {{whole}}")
        return
    if not chosen.takes_whole:
        names = ", ".join(each.name for each in registry.list_formats() if each.takes_whole)
        raise ArgumentError(f"{chosen.name} cannot contain a whole graph; possible are {names}")
    if data is not None:
        raise ArgumentError(
            "the loss of PSNR is measured for networks, not for whole graphs",
            hint="leave out {data}, or {whole}",
        )


def _check_shape(request: ExportRequest) -> None:
    shape, metadata = request.shape, request.metadata
    axis = 3 if request.form is not None and request.form.layout == "nhwc" else 1
    if shape is not None and (len(shape) != 4 or min(shape) < 1 or shape[axis] != metadata.num_planes):
        name, num_planes = metadata.weights.recipe, metadata.num_planes
        needed = f"N, {num_planes}, H, W" if axis == 1 else f"N, H, W, {num_planes}"
        raise ArgumentError(f"shape {shape}: {name} needs ({needed}), each at least 1")
    if shape is not None and prod(shape) > MAX_SAMPLES:
        raise ArgumentError(
            f"shape {shape} has more than {MAX_SAMPLES:,} samples", hint="choose a smaller {shape}"
        )
    domain = request.model.recipe.domain
    if shape is not None and request.form is not None and takes_mosaic(domain):
        period, (height, width) = len(domain.pattern), request.form.size_of(shape)
        if height % period or width % period:
            raise ArgumentError(f"shape {shape}: height and width of a mosaic must be multiples of {period}")


def _check_agreement(agreement: Agreement, request: ExportRequest, out: Path) -> None:
    precision, reference = request.precision, "the network" if request.form is None else "restored pictures"
    needed_db = MIN_PSNR_DB[precision]
    if not agreement.psnr_db >= needed_db:
        raise PellucidError(
            f"{out} is not written: in {precision}, {agreement} against {reference}; at least "
            f"{needed_db:.0f} dB are needed"
        )


def _compare(
    run: Run,
    reference: Restorer,
    request: ExportRequest,
    pictures: Sequence[Degraded],
    sizes: Sequence[tuple[int, int]],
) -> Agreement:
    if request.form is None:
        return parity.compare(run, reference.backend, _parity_inputs(request, sizes))
    domain, form = reference.recipe.domain, request.form
    if request.shape is None:
        compared = [*whole_parity.synthesize(domain, form, sizes), *pictures[:NUM_COMPARED]]
        return whole_parity.compare_samples(run, reference, form, compared)
    synthetic = whole_parity.synthesize(domain, form, [form.size_of(request.shape)])
    return whole_parity.compare_samples(run, reference, form, synthetic, count=request.shape[0])


def _parity_inputs(request: ExportRequest, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Synthetic pictures at odd sizes, and crops of some of the user's own."""
    recipe = request.model.recipe
    if request.shape is None:
        own = [
            crop
            for (degraded,) in request.pictures[:NUM_COMPARED]
            for crop in parity.crop_inputs(degraded, sizes[-2:])
        ]
        return parity.crop_inputs(parity.synthetic_inputs(recipe), sizes) + own
    count, _, height, width = request.shape
    side_px = -(-max(height, width) // 12) * 12
    degraded = parity.synthetic_inputs(recipe, side_px)[:1].expand(count, -1, -1, -1)
    return parity.crop_inputs(degraded, [(height, width)])


def _measure_loss_db(
    reference: Restorer, run: Run, data: Path, target: str | Path | None
) -> tuple[float, tuple[str, ...]]:
    """The loss of mean PSNR, and a line about the pictures that could not be scored, if there are any."""
    exported = Restorer(
        reference.name, reference.recipe, _RunAsBackend(reference.backend, run), reference.metadata
    )
    before, after = (evaluation.evaluate(restorer, data, target=target) for restorer in (reference, exported))
    skipped = describe_failures(before)
    return before.mean_psnr_db - after.mean_psnr_db, () if skipped is None else (f"{data}: {skipped}",)


class _RunAsBackend:
    """An exported file as a backend, with the scale, halo and memory of the network's backend."""

    def __init__(self, backend: Backend, run: Run) -> None:
        self.scale, self.multiple, self.halo = backend.scale, backend.multiple, backend.halo
        self._backend, self._run, self.note = backend, run, None
        self.fixed_shape: FixedShape | None = None
        self.frees_activations = False

    @property
    def name(self) -> str:
        return "export"

    @property
    def device(self) -> torch.device:
        return self._backend.device

    def __call__(self, degraded: Tensor) -> Tensor:
        return self._run(degraded)

    def working_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        return self._backend.working_bytes(shape, available_bytes=available_bytes)

    def device_bytes(self, shape: Shape, *, available_bytes: int = 0) -> int:
        return self._backend.device_bytes(shape, available_bytes=available_bytes)

    def fingerprint(self) -> str:
        return "export"


# Files


def _list_outputs(out: Path, chosen: ExportFormat) -> list[Path]:
    """All files of the export; `out`, which users load, is the last one."""
    return [*(out.with_suffix(suffix) for suffix in chosen.companions), out]


def _move(written: Path, out: Path, chosen: ExportFormat, *, overwrite: bool) -> None:
    """Move all files into place, or none. The stack closes backwards, so `out` comes last."""
    with ExitStack() as stack:
        for path in reversed(_list_outputs(out, chosen)):
            temporary = stack.enter_context(files.atomic_file(path, overwrite=overwrite))
            shutil.copyfile(written.with_suffix(path.suffix), temporary)
