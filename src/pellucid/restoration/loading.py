"""Loading a model in other processes, and checking that it is the same one."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pellucid.clusters.inputs import to_absolute
from pellucid.errors import ClusterError
from pellucid.recipes import network_files
from pellucid.restoration.restorer import Restorer, load
from pellucid.storage.urls import is_url
from pellucid.weights.models import is_named


@dataclass(frozen=True)
class Loading:
    """How each process loads the model; see `restorer.load`. networks: network files outside of the package.

    fingerprint: of the expected model; None if any is accepted.
    """

    model: str
    device: str = "auto"
    backend: str | None = None
    precision: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    networks: Sequence[str] = ()
    fingerprint: str | None = None

    @property
    def num_gpus(self) -> int | None:
        """How many GPUs each process needs; None for one if there are any."""
        return None if self.device == "auto" else int(self.device.startswith("cuda"))

    def settle(self, restorer: Restorer) -> Self:
        """For processes in other folders, which must load the model that this process has loaded."""
        return replace(
            self,
            model=_to_absolute_model(self.model),
            networks=[str(to_absolute(Path(path))) for path in self.networks],
            fingerprint=restorer.fingerprint(),
            **_settle_backend(restorer, self),
        )

    def load(self) -> Restorer:
        """Load it; called in a process of the cluster. Raises ClusterError if it is another model."""
        for path in self.networks:
            network_files.add_network(path)
        restorer = load(
            self.model, device=self.device, backend=self.backend, precision=self.precision, **self.parameters
        )
        if self.fingerprint not in (None, restorer.fingerprint()):
            raise ClusterError(
                f"{platform.node()} has another model of the name {restorer.name}, or runs it otherwise",
                hint="install the same versions on all computers",
            )
        return restorer


def _settle_backend(restorer: Restorer, loading: Loading) -> dict[str, Any]:
    """The backend and precision that "auto" chose here, because another one may be the fastest elsewhere.

    In a chain, each model has its own backend; there, each process chooses again, and fingerprints are compared.
    """
    if "auto" not in (loading.backend, loading.precision) or len(restorer.models) > 1:
        return {}
    choice = restorer.choice
    return {} if choice is None else {"backend": choice.backend, "precision": choice.precision}


def _to_absolute_model(model: str) -> str:
    """The model with absolute paths, for a process in another folder; names and URLs are unchanged."""
    parts = [model] if is_url(model) or Path(model).is_file() else model.split("+")
    return "+".join(part if is_named(part) else _to_absolute_part(part) for part in parts)


def _to_absolute_part(part: str) -> str:
    return str(to_absolute(Path(part))) if Path(part).is_file() else part
