"""Connecting to Ray: either started on this computer, or running on a cluster."""

import logging
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pellucid.errors import ArgumentError, ClusterError
from pellucid.system.optional_packages import check_installed, import_optional

_ADDRESS = re.compile(r"(ray://)?[^\s/:]+:\d{1,5}", re.ASCII)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # otherwise it reports each use over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a change in a future version
    "RAY_SCHEDULER_EVENTS": "0",  # otherwise it prints a line for each process that waits for resources
}
"""Environment variables that are set before Ray is imported."""

_REACH_S = 10.0

_TOO_SLOW, _NUM_RETRIES = "Initialization failure from server", 2

_OBJECT_STORE_BYTES = 80 * 2**20
"""Of a local Ray: close to the minimum that it accepts, because only items and short results pass through it."""


def check_address(text: str) -> None:
    """Raise ArgumentError unless it is `ray`, ray://HOST:PORT or HOST:PORT."""
    if text != "ray" and _ADDRESS.fullmatch(text) is None:
        raise ArgumentError(
            f"{text[:80]!r} is not a cluster",
            hint="ray starts one on this computer; the address of another one is ray://HOST:10001 or HOST:6379",
        )


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """The `ray` module, connected. An existing connection is used, and stays open afterwards.

    address: "ray" is the cluster in the environment variable RAY_ADDRESS or, without it, a Ray that is started for
        this process and ends with it. Other addresses: see `check_address`.
    Raises MissingExtraError, and ClusterError if no Ray answers at the address, or if its version differs.
    """
    check_address(address)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns about its own code
        ray = import_optional("ray")
    is_own = not ray.is_initialized()
    try:
        if is_own:
            with warnings.catch_warnings(), _own_signal_handlers():
                warnings.simplefilter("ignore")
                _connect(ray, address)
        yield ray
    except ConnectionError as error:
        raise ClusterError(f"the connection to Ray was lost: {_first_line(error)}") from error
    finally:
        if is_own:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    place = _find_place(address)
    if place == "local":
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        check_reachable(address)
    try:
        _init(ray, place, settings)
    except Exception as error:  # of many classes: no connection, another version of Ray or Python, no memory
        if place == "local":
            raise ClusterError(f"Ray cannot be started on this computer: {_first_line(error)}") from error
        raise ClusterError(
            f"there is no Ray at {place} that can be used: {_first_line(error)}",
            hint=f"check that {_describe_port(place)}, that both have the same versions of Ray and Python, and "
            "that RAY_AUTH_MODE=token is set, with the right token, if the cluster requires one",
        ) from error


def _init(ray: Any, place: str, settings: Mapping[str, Any]) -> None:
    """Connect. Tries again if Ray's client server, on a busy computer, could not start a process in its 30 s."""
    for _ in range(_NUM_RETRIES):
        try:
            ray.init(place, **settings)
        except ConnectionError as error:
            if _TOO_SLOW not in str(error):
                raise
            ray.shutdown()
        else:
            return
    ray.init(place, **settings)


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the signal handlers of this process: on SIGTERM, Ray's would end it in the middle of its work.

    If SIGTERM arrives while Ray's handler is installed, the handler of this process is called afterwards.
    """
    if threading.current_thread() is not threading.main_thread():  # Ray installs none either
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    is_ended = False
    try:
        yield
    except SystemExit:  # raised by Ray's handler
        is_ended = True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if is_ended:
        signal.raise_signal(signal.SIGTERM)


def _describe_port(place: str) -> str:
    """Which port an address needs: those of the two forms are easily mixed up, and Ray only reports a timeout."""
    if place.startswith("ray://"):
        return "the port is that of Ray's client server (10001 by default)"
    return "the port is that of Ray's head node (6379 by default)"


def _find_place(address: str) -> str:
    return os.environ.get("RAY_ADDRESS", "local") if address == "ray" else address


def check_reachable(address: str) -> None:
    """Raise ClusterError if nothing listens at the address: Ray itself would try for many minutes.

    Raises MissingExtraError without Ray.
    """
    place = _find_place(address)
    if place != "local":
        _check_answer(place)
    check_installed("ray")


def _check_answer(place: str) -> None:
    check_address(place)
    host, _, port = place.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"nothing answers at {place}: {getattr(error, 'strerror', None) or error}",
            hint="check the address, the network, and that Ray runs there",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
