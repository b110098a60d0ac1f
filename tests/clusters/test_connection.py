"""Connecting to Ray: addresses, errors in one line, and the signal handlers of this process."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.clusters.connection import check_address, check_reachable, connect
from pellucid.errors import ArgumentError, ClusterError, MissingExtraError


class FakeRay(ModuleType):
    """The module `ray`, which notes how it is called."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None, origin="this test")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.is_up = False
        self.fails: BaseException | None = None

    def is_initialized(self) -> bool:
        return self.is_up

    def init(self, place: str, **settings: Any) -> None:
        self.calls.append((place, settings))
        # As Ray does: it kills its processes, and then exits.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(1))
        if self.fails is not None:
            raise self.fails
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("address", ["ray", "ray://host:10001", "10.0.0.1:6379", "ray://a.b-c.org:1"])
def test_addresses_of_clusters(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "local", "auto", "ray:", "ray://", "ray://host", "ray://host:", "host:123456", "s3://a:1", "a b:1"],
)
def test_other_texts_are_refused(address: str) -> None:
    with pytest.raises(ArgumentError, match="is not a cluster; ray starts one on this computer"):
        check_address(address)


@given(st.text())
def test_no_text_breaks_the_check(text: str) -> None:
    try:
        check_address(text)
    except ArgumentError as error:
        assert "\n" not in str(error)


def test_a_local_ray_is_small_quiet_and_ends(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with connect("ray") as module:
        assert module is ray and ray.is_up
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not ray.is_up
    ((place, settings),) = ray.calls
    assert place == "local" and not settings["include_dashboard"] and not settings["log_to_driver"]


def test_a_job_of_a_cluster_uses_that_cluster(ray: FakeRay, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with connect("ray"):
        pass
    ((place, settings),) = ray.calls
    assert place == f"127.0.0.1:{port}" and "object_store_memory" not in settings


def test_an_existing_connection_is_used_and_stays_open(ray: FakeRay) -> None:
    ray.is_up = True
    with connect("ray"):
        pass
    assert ray.is_up and not ray.calls


def test_nothing_at_an_address_is_reported_soon(ray: FakeRay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with (
        pytest.raises(ClusterError, match=f"nothing answers at ray://127.0.0.1:{free}: Connection refused; check"),
        connect(f"ray://127.0.0.1:{free}"),
    ):
        pass
    assert not ray.calls


def test_errors_of_ray_are_one_line(ray: FakeRay, port: int) -> None:
    ray.fails = RuntimeError("Version mismatch: 2.1\nand much more")
    with pytest.raises(ClusterError) as caught, connect(f"127.0.0.1:{port}"):
        pass
    assert "that can be used: Version mismatch: 2.1; check that the port is that of Ray's head" in str(
        caught.value
    )
    with (
        pytest.raises(
            ClusterError, match=r"the port is that of Ray's client server \(10001.* RAY_AUTH_MODE=token"
        ),
        connect(f"ray://127.0.0.1:{port}"),
    ):
        pass
    with pytest.raises(ClusterError, match="Ray cannot be started on this computer: Version"), connect("ray"):
        pass


def test_a_server_that_is_too_slow_is_tried_again(ray: FakeRay, port: int) -> None:
    ray.fails = ConnectionAbortedError("Initialization failure from server:\n")
    with pytest.raises(ClusterError, match="Initialization failure"), connect(f"ray://127.0.0.1:{port}"):
        pass
    assert len(ray.calls) == 3


def test_a_lost_connection_is_reported(ray: FakeRay) -> None:
    with pytest.raises(ClusterError, match="the connection to Ray was lost: gone"), connect("ray"):
        raise ConnectionError("gone")
    assert not ray.is_up


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="ray"), connect("ray"):
        pass
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(MissingExtraError, match="ray"):
        check_reachable("ray")


Handler = Callable[[int, Any], None]


@pytest.fixture
def handler() -> Iterator[Handler]:
    """The handler of this process for both signals. Signals themselves would meet the libraries of other tests."""

    def handle(number: int, frame: Any) -> None:
        raise AssertionError("no signal is sent")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    yield handle
    for number, old in before.items():
        signal.signal(number, signal.SIG_DFL if old is None else old)


def test_signals_are_handled_by_this_process(
    ray: FakeRay, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect("ray"):  # Ray's own handler would exit
        assert signal.getsignal(signal.SIGTERM) is handler
    sent: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", sent.append)
    ray.fails = SystemExit(1)  # Ray's handler was called while Ray was starting
    with connect("ray"):
        assert signal.getsignal(signal.SIGTERM) is handler and sent == [signal.SIGTERM]


def test_an_interruption_during_the_start_restores_the_handlers(ray: FakeRay, handler: Handler) -> None:
    ray.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), connect("ray"):
        pass
    assert {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} == {handler}
