"""Numbers for Prometheus, and the log."""

import contextlib
import json
import logging
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Monitor:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "pellucid_requests", "HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self.queued = Gauge("pellucid_queue_length", "Pictures that wait.", registry=registry)
        self.wait_s = Histogram(
            "pellucid_queue_wait_seconds", "From request to worker.", buckets=_SECONDS, registry=registry
        )
        self.restore_s = Histogram(
            "pellucid_restore_seconds", "In a worker.", ("model",), buckets=_SECONDS, registry=registry
        )
        self.megapixels = Counter(
            "pellucid_megapixels", "Restored, before enlarging.", ("model",), registry=registry
        )
        self.restarts = Counter("pellucid_worker_restarts", "Replaced worker processes.", registry=registry)
        self.memory = Gauge("pellucid_resident_memory_bytes", "Resident memory.", ("process",), registry=registry)
        self._num_restored, self._total_s = 0, 0.0

    def count_restored(self, model: str, megapixels: float, seconds: float) -> None:
        """One picture is done."""
        self.restore_s.labels(model).observe(seconds)
        self.megapixels.labels(model).inc(megapixels)
        self._num_restored, self._total_s = self._num_restored + 1, self._total_s + seconds

    def mean_s(self) -> float:
        """Seconds that a picture took on average; a guess before the first one."""
        return self._total_s / self._num_restored if self._num_restored else 5.0

    def text(self) -> bytes:
        """All numbers in the format of Prometheus."""
        return generate_latest(self._registry)


def log(**fields: object) -> None:
    """One line of JSON on the error stream."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **fields})
    with contextlib.suppress(OSError):  # closed, or its disk is full: requests are more important
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # the log


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log(level=record.levelname.lower(), source=record.name, message=record.getMessage())


def log_libraries() -> None:
    """Write what libraries report, e.g. about requests that are not HTTP, as lines of JSON, too."""
    for name in ("uvicorn", "python_multipart"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_Handler(logging.WARNING)], False
