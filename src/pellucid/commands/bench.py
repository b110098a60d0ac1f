"""`pellucid bench`."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.options import (
    Device,
    Json,
    NetworkFiles,
    OverwriteJson,
    Parameters,
    add_networks,
    check_overwrite,
    parse_keywords,
)
from pellucid.commands.terminal import (
    add_row,
    is_stdout,
    print_line,
    print_table,
    progress,
    table,
    write_json,
)
from pellucid.system.signals import defer_sigint

if TYPE_CHECKING:
    from pellucid.backends.benchmark import Timing


def bench(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model (see 'pellucid models') or path of a weight file."),
    ],
    parameters: Parameters = None,
    *,
    megapixels: Annotated[float, typer.Option(metavar="N", help="Size of the result, in megapixels.")] = 0.1,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=1024, help="Number of CPU threads.", show_default="one per core"),
    ] = None,
    device: Device = "auto",
    networks: NetworkFiles = None,
    json_file: Json = None,
    overwrite: OverwriteJson = False,
) -> None:
    """Time a model with every installed backend, compared with PyTorch in eager mode."""
    with defer_sigint():
        import torch

        from pellucid.backends import benchmark

    check_overwrite(overwrite, {"--json": json_file})
    add_networks(networks)
    if threads is not None:
        torch.set_num_threads(threads)
    with progress() as bar:
        task = bar.add_task("timing", total=None)
        timings = benchmark.bench(
            model,
            megapixels=megapixels,
            device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **parse_keywords(parameters, options=("device", "megapixels", "threads"), reserved=("progress",)),
        )
    if json_file is not None:
        write_json(json_file, [_to_json(timing) for timing in timings], overwrite=overwrite)
    if is_stdout(json_file):
        return
    rows = table("backend", "precision", "megapixels/s", "speedup", "PSNR vs eager", right=(2, 3, 4))
    for timing in timings:
        add_row(rows, timing.backend, timing.precision, *_cells(timing))
    print_table(rows)
    print_line(f"{model}, result of {megapixels:g} megapixels, {torch.get_num_threads()} thread(s)")
    print_line("eager: PyTorch in float32 and NCHW, batch norm not folded; with huge pages, like all others")
    print_line("To use another backend: pellucid restore --backend BACKEND --precision PRECISION")


def _cells(timing: "Timing") -> tuple[str, str, str]:
    if timing.megapixels_per_s is None:
        return "-", "-", timing.failure or "-"
    speedup = "-" if timing.speedup is None else f"{timing.speedup:.2f}x"
    return f"{timing.megapixels_per_s:.3g}", speedup, _format_psnr(timing.psnr_db)


def _format_psnr(psnr_db: float | None) -> str:
    if psnr_db is None:
        return "-"
    return "exact" if psnr_db == math.inf else f"{psnr_db:.0f} dB"


def _to_json(timing: "Timing") -> dict[str, object]:
    """JSON has no infinity: the PSNR of equal results becomes null."""
    return {key: None if value == math.inf else value for key, value in asdict(timing).items()}
