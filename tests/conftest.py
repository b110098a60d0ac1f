"""For all tests: one thread, reproducible examples, and the folder of real pictures and weights."""

import os

# Most feature maps in tests are tiny: a second thread gains little, and on a busy machine threads wait for
# each other (test_networks.py on two busy cores: 21 s with one thread, 254 s with two). Set in the environment, so
# that processes that tests start compute the same sums in the same order: with more threads, the
# last bits of trained weights differ.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from pellucid.pictures import images
from pellucid.pictures.picture import Picture

if TYPE_CHECKING:
    import httpx

    from object_server import Bucket, ObjectServer
    from serving_service import Running
    from simulated_ray import SimulatedRay

# Some tests import ONNX Runtime directly; by default, it sends telemetry from a thread of its own.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

torch.set_num_threads(1)

settings.register_profile(
    "pellucid",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pellucid")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder in PELLUCID_DATA; tests that need it are skipped if the variable is not set."""
    folder = os.environ.get("PELLUCID_DATA")
    if not folder:
        pytest.skip("needs PELLUCID_DATA, the folder of real pictures and weights")
    return Path(folder)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with two pictures, a broken one, and a subfolder with another picture."""
    folder = tmp_path / "album"
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.tif", "deep/c.png"):
        images.write(Picture(rng.integers(0, 256, (20, 31, 3), np.uint8)), folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:150])
    return folder


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """A running service without a token, for all tests that leave it as it is."""
    from serving_service import start

    running = start(tmp_path_factory.mktemp("service"))
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def client(service: "Running") -> "Iterator[httpx.Client]":
    """An HTTP client of the service."""
    with service.client() as client:
        yield client


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ObjectServer]":
    """A running object server; tests that need it are skipped if it cannot be started."""
    from object_server import ObjectServer

    try:
        server = ObjectServer(tmp_path_factory.mktemp("objects"))
    except RuntimeError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def bucket(
    object_server: "ObjectServer", monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> "Bucket":
    """An empty folder in a bucket of the server, which the environment leads to."""
    from object_server import Bucket

    for name, value in object_server.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket(object_server, f"{request.node.path.stem}/{request.node.name}")


@pytest.fixture
def simulated_ray(monkeypatch: pytest.MonkeyPatch) -> "Iterator[SimulatedRay]":
    """What teams of processes use in place of Ray: processes of this computer."""
    from contextlib import contextmanager

    from pellucid.clusters import connection, team
    from simulated_ray import SimulatedRay

    ray = SimulatedRay()

    @contextmanager
    def connect(address: str) -> "Iterator[SimulatedRay]":
        assert address == "ray"
        yield ray

    monkeypatch.setattr(team, "connect", connect)
    monkeypatch.setattr(connection, "check_installed", lambda name: None)
    yield ray
    left = ray.living
    for actor in left:
        actor.kill()
    assert not left, "processes are left"
