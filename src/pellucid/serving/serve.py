"""`pellucid serve`: starts the service behind uvicorn, and stops it without losing work."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from pellucid.errors import PellucidError
from pellucid.serving.http import application
from pellucid.serving.limits import Limits, Setup
from pellucid.serving.service import Service


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals: work is drained first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(setup: Setup, limits: Limits, *, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends running work, too.

    on_ready: called with the address when the service accepts work.
    Raises PellucidError if the address or the folder is in use, a model does not exist, or other hosts could
    connect without a token.
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
    with lock, contextlib.closing(_bind(setup.host, setup.port)) as listening:
        asyncio.run(_serve(setup, limits, listening, on_ready))


async def _serve(setup: Setup, limits: Limits, listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    service = Service(setup, limits)
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
    """The token in the first line of a file. Raises PellucidError if it is too short to be one."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PellucidError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    token = lines[0].strip() if lines else ""
    if len(token) < 16 or not token.isascii():
        raise PellucidError(
            f"the token in {path} has {len(token)} characters; 16 or more in ASCII are needed",
            hint="make one, e.g. by `openssl rand -hex 32`",
        )
    return token
