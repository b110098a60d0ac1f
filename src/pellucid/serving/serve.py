"""`pellucid serve`: starts the service behind uvicorn, and stops it without losing work."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout

from pellucid.clusters.connection import connect
from pellucid.clusters.inputs import to_absolute
from pellucid.clusters.team import Requirements, count_fitting
from pellucid.errors import PellucidError
from pellucid.serving.http import application
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.service import Service
from pellucid.serving.workers.remote_workers import ClusterOfWorkers
from pellucid.system import files


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals: work is drained first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(setup: Setup, limits: Limits, *, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends running work, too.

    limits: with a cluster, 0 workers are as many as fit. on_ready: called with the address when the service
        accepts work.
    Raises ClusterError if the cluster cannot be used, and PellucidError if the address or the folder is in use, a
    model does not exist, or other hosts could connect without a token.
    """
    if setup.data.is_file():
        raise PellucidError(f"{setup.data} is a file; a folder is needed", hint="choose another {data}", data=None)
    lock = FileLock(setup.data / "lock")
    try:
        setup.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire(timeout=0)
    except Timeout:
        raise PellucidError(
            f"another service uses {setup.data}", hint="choose another folder by {data}", data=None
        ) from None
    except OSError as error:
        reason = f"{setup.data} cannot be used: {error.strerror or error}"
        raise PellucidError(reason, hint="choose another folder by {data}", data=None) from None
    os.environ.setdefault("PELLUCID_CACHE", str(setup.data / "cache"))  # nothing is written anywhere else
    with lock, contextlib.closing(_bind(setup.host, setup.port)) as listening:
        if setup.cluster is None:
            asyncio.run(_serve(Service(setup, limits), listening, on_ready))
            return
        with connect(setup.cluster) as ray:
            service = _make_service_on(ray, setup, limits)
            asyncio.run(_serve(service, listening, on_ready))


def _make_service_on(ray: Any, setup: Setup, limits: Limits) -> Service:
    """A service whose workers run on a cluster: as many as fit now, or the number in the limits."""
    marker = setup.data / "temporary" / f"shared-{secrets.token_hex(16)}"
    resources = Requirements(limits.worker_bytes, num_gpus=0 if setup.device == "cpu" else None)
    cluster = ClusterOfWorkers(ray, resources, to_absolute(marker))
    if limits.workers == 0:
        limits = replace(limits, workers=max(1, count_fitting(ray, resources)))
    service = Service(setup, limits, cluster.make_worker)
    marker.touch()
    return service


async def _serve(service: Service, listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    setup, limits = service.setup, service.limits
    config = uvicorn.Config(
        application.create(service),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=setup.is_behind_proxy,
        forwarded_allow_ips=["127.0.0.1", "::1"],
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=limits.max_header_bytes,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.Event()

    def handle_signal() -> None:
        service.is_stopping = stopping.is_set()  # the second one
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, handle_signal)
    try:
        starting = asyncio.create_task(service.start())
        ending = asyncio.create_task(stopping.wait())
        await asyncio.wait({starting, ending, serving}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            on_ready(f"http://{_host_in_url(setup.host)}:{listening.getsockname()[1]}/")
            await asyncio.wait({ending, serving}, return_when=asyncio.FIRST_COMPLETED)
        else:
            starting.cancel()
        await service.drain()
    finally:
        server.should_exit = True
        await serving  # requests end before what they need
        await service.stop()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise PellucidError(
            f"{host}:{port} cannot be used: {error.strerror or error}", hint="choose another {host} or {port}"
        ) from None
    return listening


def _host_in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read_token(path: Path) -> str:
    """The token in a file of one line. Raises PellucidError if it is too short, or if there are more lines."""
    try:
        lines = files.read_small(path).decode().splitlines()
    except UnicodeDecodeError:
        raise PellucidError(f"{path} cannot be read: not text") from None
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) > 1:
        raise PellucidError(f"{path} has {len(lines)} lines; one with the token is needed")
    token = lines[0] if lines else ""
    if len(token) < 16 or not token.isascii():
        raise PellucidError(
            f"the token in {path} has {len(token)} characters; 16 or more in ASCII are needed",
            hint="make one, e.g. by `openssl rand -hex 32`",
        )
    return token
