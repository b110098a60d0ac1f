"""Connecting to Ray: one that is started on this computer, or the one of a cluster."""

import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pellucid.errors import ArgumentError, ClusterError
from pellucid.system.optional_packages import import_optional

_ADDRESS = re.compile(r"(ray://)?[^\s/:]+:\d{1,5}", re.ASCII)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # otherwise it reports each use over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns about a change of a later version
    "RAY_SCHEDULER_EVENTS": "0",  # otherwise it prints that processes wait for their turn
}
"""Environment variables that are set before Ray is imported."""

_REACH_S = 10.0

_OBJECT_STORE_BYTES = 80 * 2**20
"""Of a local Ray: close to the smallest that it accepts. Only keys and short results pass through it."""


def check_address(text: str) -> None:
    """Raise ArgumentError unless it is `ray`, ray://HOST:PORT or HOST:PORT."""
    if text != "ray" and _ADDRESS.fullmatch(text) is None:
        raise ArgumentError(
            f"{text[:80]!r} is not a cluster",
            hint="ray starts one on this computer; the address of another one is ray://HOST:10001 or HOST:6379",
        )


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """The `ray` module, connected. A program that is connected already stays so.

    address: ray is the one that the environment variable RAY_ADDRESS names or, without it, one that is started for
        this process alone and ends with it. Others: see `check_address`.
    Raises MissingExtraError, and ClusterError if there is no Ray there, or one of another version.
    """
    check_address(address)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about itself
        ray = import_optional("ray")
        is_own = not ray.is_initialized()
        if is_own:
            _connect(ray, address)
    try:
        yield ray
    except ConnectionError as error:
        raise ClusterError(f"the connection to Ray was lost: {_first_line(error)}") from error
    finally:
        if is_own:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    place = os.environ.get("RAY_ADDRESS", "local") if address == "ray" else address
    if place == "local":
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _check_reachable(place)
    try:
        ray.init(place, **settings)
    except Exception as error:  # of many classes: no connection, another version of Ray or Python, no memory
        if place == "local":
            raise ClusterError(f"Ray cannot be started on this computer: {_first_line(error)}") from error
        raise ClusterError(
            f"there is no Ray at {place} that can be used: {_first_line(error)}",
            hint="check the address, and that both have the same versions of Ray and Python",
        ) from error


def _check_reachable(place: str) -> None:
    """Raise ClusterError if nothing listens there: Ray itself would try for many minutes."""
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
