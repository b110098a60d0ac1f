"""Parts of a store in a bucket: what processes of a cluster have decoded, until the store is finished.

    STORE/.parts/REQUEST/LABEL/samples-00000.bin, sources.jsonl

Each part is a small unfinished store, made in a temporary folder and uploaded, its records last. It never changes
afterwards. REQUEST is a hash of what the store must contain, so that parts of other settings are not mixed.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pellucid.data.store import SOURCES
from pellucid.data.store_parts import part_folder
from pellucid.data.store_writer import StoreWriter
from pellucid.errors import OutputError
from pellucid.storage import objects
from pellucid.storage.urls import Url
from pellucid.system.files import temporary_folder

_FOLDER = ".parts"
"""Hidden, so that it is not part of a copy of the store."""

Result = TypeVar("Result")

_NUM_PARALLEL = 8
"""How many parts are downloaded at the same time."""


def upload_part(
    place: Url, team: str, request: Mapping[str, Any], fill: Callable[[StoreWriter], Result]
) -> Result:
    """Make a part of the store at `place`, upload it, and return what `fill`, which writes it, returns.

    team: the beginning of its label.
    Nothing is uploaded if nothing is written. Raises OutputError if the disk is full, and StorageError.
    """
    with temporary_folder() as temporary:
        folder = temporary / "part"
        with StoreWriter(folder, request) as writer:
            result = fill(writer)
        samples = sorted(folder.glob("samples-*.bin"))
        url = _requested(place, request) / f"{team}-{secrets.token_hex(8)}"
        if writer.records:
            for path in [*samples, folder / SOURCES]:
                objects.put(path, url / path.name)
    return result


def bring_parts(place: Url, request: Mapping[str, Any], folder: Path) -> None:
    """Download all complete parts that are not yet in the unfinished store in a folder of this computer."""
    found: dict[str, list[Url]] = {}
    for url in objects.list_objects(_requested(place, request)):
        found.setdefault(url.parent.name, []).append(url)
    complete = {label for label, urls in found.items() if any(url.name == SOURCES for url in urls)}
    labels = sorted(label for label in complete if not part_folder(folder, label).exists())
    arriving = folder.parent / "arriving"
    shutil.rmtree(arriving, ignore_errors=True)  # of a process that was killed

    def bring(label: str) -> None:
        (arriving / label).mkdir(parents=True)
        for url in found[label]:
            objects.fetch(url, arriving / label / url.name)
        (arriving / label).rename(part_folder(folder, label))

    try:
        with ThreadPoolExecutor(_NUM_PARALLEL) as pool:
            for _ in pool.map(bring, labels):
                pass
    except OSError as error:
        raise OutputError(
            f"the parts of {place} cannot be downloaded to {folder}: {error.strerror or error}",
            hint="free some space, or set the environment variable PELLUCID_CACHE to another folder",
        ) from error
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def remove_parts_of(place: Url) -> None:
    """Delete all parts from the bucket, of all requests."""
    for url in list(objects.list_objects(place / _FOLDER)):
        objects.delete(url)


def _requested(place: Url, request: Mapping[str, Any]) -> Url:
    """The folder of the parts of a request."""
    content = json.dumps(request, sort_keys=True).encode()
    return place / _FOLDER / sha256(content).hexdigest()[:16]
