"""`pellucid serve`."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.commands.options import Backend, Device, Precision, parse_bytes
from pellucid.commands.terminal import print_info, print_warning
from pellucid.errors import PellucidError

_LIMITS, _ACCESS = "Limits", "Access"


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0: any free one.")] = 8000,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="A model to offer; repeatable.", show_default="all"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where uploads, results and jobs are kept.", show_default="~/.cache"),
    ] = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Number of worker processes.", rich_help_panel=_LIMITS)
    ] = 1,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory limit of all processes together, e.g. 4GB.",
            show_default="half of the free memory",
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
) -> None:
    """Serve a page and an HTTP API that restore pictures.

    The page is at the address that is printed; the reference of the API is at /docs there. Stop with Ctrl-C or
    SIGTERM: running work finishes, and waiting jobs continue at the next start.
    """
    from pellucid.serving.limits import Limits, Setup
    from pellucid.system import files
    from pellucid.system import memory as memory_module
    from pellucid.system.optional_packages import check_installed

    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        check_installed(package)
    from pellucid.serving import serve

    limits = Limits(
        memory_bytes=memory_module.free_bytes() // 2 if memory is None else parse_bytes(memory),
        workers=workers,
        max_bytes=parse_bytes(max_size, "--max-size"),
        max_pixels=max_pixels,
        max_queue=max_queue,
        keep_s=keep_hours * 3600,
        keep_bytes=parse_bytes(keep_size, "--keep-size"),
        drain_s=drain,
        idle_s=idle,
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
    )
    if not setup.is_local and setup.token is None:
        if not insecure:
            raise PellucidError(
                f"on {host}, other hosts could use the service without a token",
                hint="use {token_file}, or {insecure} in a network that you trust",
            )
        print_warning("anybody who can reach this host can use the service")
    elif insecure:
        print_warning("--insecure has no effect on this address, or with a token")
    serve.serve(setup, limits, on_ready=lambda url: print_info(f"open {url} in a browser; stop with Ctrl-C"))
