"""`pellucid serve`."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.options import (
    Device,
    Exact,
    FastBackend,
    Precision,
    parse_bytes,
    refuse,
    settle_backend,
)
from pellucid.commands.terminal import print_info, print_warning
from pellucid.errors import ArgumentError

_LIMITS, _ACCESS = "Limits", "Access"

MAX_WORKERS = 256

REMOTE_BYTES = 2 * 10**9
"""Memory limit of each worker on a cluster by default: enough for all models, with small tiles."""


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0: any free one.")] = 8000,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="A model to offer; repeatable.", show_default="all"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where uploads, results and jobs are kept.",
            show_default="~/.cache/pellucid/serve",
        ),
    ] = None,
    device: Device = "auto",
    backend: FastBackend = None,
    precision: Precision = None,
    exact: Exact = False,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|CLUSTER",
            help="Number of worker processes; or where Ray starts them: 'ray' for this computer, or the address "
            "of a cluster, e.g. ray://HOST:10001. See docs/serving.md.",
            rich_help_panel=_LIMITS,
        ),
    ] = "1",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_WORKERS,
            metavar="N",
            help="On a cluster: number of worker processes.",
            show_default="as many as fit at the start",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory limit of all processes together, e.g. 4GB; on a cluster, of each worker.",
            show_default="half of the free memory; on a cluster, 2GB",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Maximum size of a request.", rich_help_panel=_LIMITS)
    ] = "500MB",
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum pixels of a picture.", rich_help_panel=_LIMITS)
    ] = 200_000_000,
    max_queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum length of the queue.", rich_help_panel=_LIMITS)
    ] = 200,
    keep_hours: Annotated[
        float, typer.Option(min=0.01, metavar="HOURS", help="How long results are kept.", rich_help_panel=_LIMITS)
    ] = 24.0,
    keep_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Disk space for uploads and results.", rich_help_panel=_LIMITS)
    ] = "10GB",
    drain: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="On shutdown, wait this long for running work.", rich_help_panel=_LIMITS
        ),
    ] = 60.0,
    idle: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="Timeout while a request arrives.", rich_help_panel=_LIMITS),
    ] = 30.0,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Require the token in this file.", rich_help_panel=_ACCESS),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow other hosts to connect without a token.", rich_help_panel=_ACCESS),
    ] = False,
    behind_proxy: Annotated[
        bool,
        typer.Option(
            "--behind-proxy",
            help="Trust X-Forwarded-For from a proxy on this machine.",
            rich_help_panel=_ACCESS,
        ),
    ] = False,
    allow_origin: Annotated[
        str | None,
        typer.Option(
            metavar="ORIGIN", help="Allow pages of this site to use the API (CORS).", rich_help_panel=_ACCESS
        ),
    ] = None,
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="Let clients restore from and to this bucket or folder, e.g. s3://bucket/ or /srv/scans, by "
            "batches, with the credentials of this process; repeatable. See docs/serving.md.",
            show_default="no batches",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
) -> None:
    """Serve a page and an HTTP API that restore pictures.

    The page is at the address that is printed; the reference of the API is at /docs there. Stop with Ctrl-C or
    SIGTERM: running work finishes, and waiting jobs continue at the next start. The error stream has a line of
    JSON for each request.
    """
    from pellucid.serving.limits import Limits, Setup
    from pellucid.system import files
    from pellucid.system import memory as memory_module
    from pellucid.system.optional_packages import check_installed

    cluster, num_workers = _parse_workers(workers, processes)
    backend, precision = settle_backend(
        backend, precision, exact=exact, models=models or (), is_distributed=cluster is not None
    )
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        check_installed(package)
    from pellucid.serving import serve

    memory_bytes = None if memory is None else parse_bytes(memory)
    free_bytes = memory_module.free_bytes() // 2
    limits = Limits(
        memory_bytes=free_bytes if cluster is not None or memory_bytes is None else memory_bytes,
        remote_bytes=None if cluster is None else memory_bytes or REMOTE_BYTES,
        workers=num_workers,
        max_bytes=parse_bytes(max_size, "--max-size"),
        max_pixels=max_pixels,
        max_queue=max_queue,
        keep_s=keep_hours * 3600,
        keep_bytes=parse_bytes(keep_size, "--keep-size"),
        drain_s=drain,
        idle_s=idle,
        num_batches=1 if allow_urls else 0,
    )
    setup = Setup(
        data=data or files.cache_folder() / "serve",
        host=host,
        port=port,
        models=tuple(models or ()),
        device=device,
        backend=backend,
        precision=precision,
        token=None if token_file is None else serve.read_token(token_file),
        is_behind_proxy=behind_proxy,
        allowed_origin=allow_origin,
        cluster=cluster,
        allowed_urls=tuple(allow_urls or ()),
    )
    if setup.make_places().uses_buckets:
        check_installed("obstore")
    if not setup.is_local and setup.token is None:
        if not insecure:
            raise ArgumentError(
                f"on {host}, other hosts could use the service without a token",
                hint="use {token_file}, or {insecure} in a network that you trust",
            )
        print_warning("anybody who can reach this host can use the service")
    elif insecure:
        print_warning("--insecure has no effect on this address, or with a token")
    serve.serve(setup, limits, on_ready=lambda url: print_info(f"open {url} in a browser; stop with Ctrl-C"))


def _parse_workers(workers: str, processes: int | None) -> tuple[str | None, int]:
    """The cluster, or None, and the number of workers; 0 for as many as fit a cluster."""
    if workers.isascii() and workers.isdigit():
        refuse("--processes is for workers on a cluster", processes=processes)
        if not 1 <= int(workers) <= MAX_WORKERS:
            raise typer.BadParameter(f"{workers} is not in the range 1 to {MAX_WORKERS}", param_hint="--workers")
        return None, int(workers)
    from pellucid.clusters.connection import check_address

    try:
        check_address(workers)
    except ArgumentError:
        known = "ray, ray://HOST:10001 or HOST:6379"
        raise typer.BadParameter(
            f"{workers[:80]!r} is neither a number from 1 to {MAX_WORKERS} nor a cluster: {known}",
            param_hint="--workers",
        ) from None
    return workers, processes or 0
