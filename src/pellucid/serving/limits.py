"""Every limit of the service, in one place."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pellucid.errors import ArgumentError, PellucidError
from pellucid.serving.places import AllowedPlaces

SERVICE_BYTES = 150_000_000
"""Resident memory of the process that answers HTTP requests."""

MIN_INSPECTOR_BYTES, MAX_INSPECTOR_BYTES = 600_000_000, 2_000_000_000
"""Memory limit of the process that reads headers and draws views: a quarter of the limit, within these."""

MIN_WORKER_BYTES = 700_000_000
"""Python, PyTorch and libvips take 300 MB; a tile of the largest network needs the rest."""


@dataclass(frozen=True)
class Limits:
    """What the service accepts and keeps. Raises PellucidError for values that cannot work.

    memory_bytes: of all processes of this computer together. workers: number of processes that restore pictures.
    remote_bytes: memory of each of them, if they run on a cluster; None if they run on this computer.
    max_bytes, max_header_bytes: of one request. max_pixels, max_result_pixels: of one picture, and of
        its result. sync_pixels: results up to this size are returned in the response to the request; larger ones
        become jobs.
    max_files: of one request. max_queue: waiting files; more are refused. max_files_per_client: unfinished ones.
    max_requests, max_streams: requests and event streams that are open at the same time.
    keep_s, keep_bytes, max_kept: how long finished jobs and uploaded pictures are kept, how much disk they may
        take, and how many they may be.
    idle_s: the longest pause within the body of a request. min_rate: bytes per second that a body must arrive at
        after its first idle_s.
    base_s, s_per_megapixel: the time that a worker may take for a picture, with one model.
    drain_s: how long a shutdown waits for running work.
    num_batches: batches that run at the same time, each in a process with the memory of a worker; 0 or 1.
    max_batches: unfinished batches of all clients; more are refused. max_batch_bytes: of a request for one.
    """

    memory_bytes: int
    workers: int = 1
    max_bytes: int = 500_000_000
    max_pixels: int = 200_000_000
    max_result_pixels: int = 1_000_000_000
    sync_pixels: int = 4_000_000
    max_header_bytes: int = 32_768
    max_files: int = 100
    max_queue: int = 200
    max_files_per_client: int = 100
    max_requests: int = 500
    max_streams: int = 200
    keep_s: float = 24 * 3600
    keep_bytes: int = 10_000_000_000
    max_kept: int = 10_000
    idle_s: float = 30.0
    min_rate: int = 1_000
    base_s: float = 120.0
    s_per_megapixel: float = 300.0
    drain_s: float = 60.0
    remote_bytes: int | None = None
    num_batches: int = 0
    max_batches: int = 100
    max_batch_bytes: int = 65_536

    def __post_init__(self) -> None:
        if self.remote_bytes is not None and self.remote_bytes < MIN_WORKER_BYTES:
            raise PellucidError(
                f"each worker needs {MIN_WORKER_BYTES // 10**6} MB; the limit is {self.remote_bytes // 10**6} MB",
                hint="{memory_bytes} is enough",
                memory_bytes=MIN_WORKER_BYTES,
            )
        needed = SERVICE_BYTES + MIN_INSPECTOR_BYTES + self._num_local * MIN_WORKER_BYTES
        if self.memory_bytes >= needed:
            return
        facts = f"{self._name_processes()} {-(-needed // 10**6)} MB; the limit is {self.memory_bytes // 10**6} MB"
        if self.remote_bytes is not None:
            raise PellucidError(facts, hint="free some memory")
        raise PellucidError(
            facts,
            hint="{memory_bytes} is enough" + (", or choose fewer {workers}" if self.workers > 1 else ""),
            memory_bytes=needed,
            workers=None,
        )

    @property
    def _num_local(self) -> int:
        """Number of processes of this computer that restore."""
        return self.num_batches + (self.workers if self.remote_bytes is None else 0)

    def _name_processes(self) -> str:
        workers = 0 if self.remote_bytes is not None else self.workers
        named = {0: [], 1: ["one worker"]}.get(workers, [f"{workers} workers"])
        named += ["a batch"] if self.num_batches else []
        return f"{', '.join(named)} and the service need" if named else "the service needs"

    @property
    def inspector_bytes(self) -> int:
        """Memory limit of the process that reads headers and draws views."""
        most = self.memory_bytes - SERVICE_BYTES - self._num_local * MIN_WORKER_BYTES
        return min(most, MAX_INSPECTOR_BYTES, max(MIN_INSPECTOR_BYTES, self.memory_bytes // 4))

    @property
    def worker_bytes(self) -> int:
        """Memory limit of one worker."""
        return self._local_bytes if self.remote_bytes is None else self.remote_bytes

    @property
    def batch_bytes(self) -> int:
        """Memory limit of the process of a batch."""
        return self._local_bytes

    @property
    def _local_bytes(self) -> int:
        """The share of a process of this computer that restores."""
        return (self.memory_bytes - SERVICE_BYTES - self.inspector_bytes) // self._num_local

    @property
    def max_files_at_once(self) -> int:
        """How many files one request can have without being refused for another limit."""
        return min(self.max_files, self.max_queue, self.max_files_per_client)

    def longest_s(self, num_pixels: int, num_passes: int) -> float:
        """The wall-clock time that restoring a picture may take.

        num_passes: how often it runs through a network, e.g. 8 times for an ensemble.
        """
        return self.base_s + self.s_per_megapixel * num_passes * num_pixels / 1e6


@dataclass(frozen=True)
class Setup:
    """What to serve, and to whom.

    models: the names of those that may be used; empty for all that `pellucid models` lists.
    data: the folder of uploads, results and the list of jobs; nothing is written anywhere else.
    cluster: where the workers run, see `connection.connect`; None for this computer.
    token: what requests must send as `Authorization: Bearer TOKEN`; None for no check.
    is_behind_proxy: whether a proxy on this machine names the clients in X-Forwarded-For.
    allowed_origin: another site whose pages may use the API (CORS), e.g. https://example.org; None for none.
    allowed_urls: prefixes of the places that batches may use, see `AllowedPlaces`; empty for no batches.

    Raises ArgumentError if allowed_origin is not an origin, or if one of allowed_urls cannot be used.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    models: tuple[str, ...] = ()
    device: str = "auto"
    backend: str | None = None
    precision: str | None = None
    token: str | None = None
    is_behind_proxy: bool = False
    allowed_origin: str | None = None
    cluster: str | None = None
    allowed_urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.make_places()
        origin = urlsplit(self.allowed_origin or "http://host")
        if origin.scheme not in ("http", "https") or origin.geturl() != f"{origin.scheme}://{origin.netloc}":
            raise ArgumentError(
                f"{self.allowed_origin!r} is not an origin", hint="{allow_origin} can be e.g. https://example.org"
            )

    def make_places(self) -> AllowedPlaces:
        """The places that batches may use."""
        return AllowedPlaces(self.allowed_urls, self.data)

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: by its address, because any name can be given any address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
