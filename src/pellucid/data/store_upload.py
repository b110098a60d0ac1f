"""A store for a bucket: made in the cache of this computer, then uploaded, its index last."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from pellucid.data import store
from pellucid.errors import OutputError
from pellucid.storage import objects
from pellucid.storage.ownership import Ownership
from pellucid.storage.urls import Url
from pellucid.system.files import cache_folder


def start_upload(place: Url, *, overwrite: bool) -> Path:
    """The folder in the cache in which to make the store. Users may delete it once the store is uploaded.

    Raises OutputError if the bucket contains a store that was not made here and must not be replaced.
    """
    objects.check_can_write(place)
    folder = cache_folder() / "uploads" / sha256(str(place.as_folder()).encode()).hexdigest()[:24] / place.name
    if not overwrite and not folder.exists() and objects.stat(place / store.INDEX) is not None:
        raise _exists_error(place)
    return folder


def upload(folder: Path, place: Url, *, overwrite: bool) -> None:
    """Store all files of a finished store. Without its index, what is there of it is unfinished.

    Waits up to a minute for another process that uploads one there and may have ended. Raises OutputError if it
    has not, or if the bucket contains another store that must not be replaced.
    """
    ownership = Ownership(place, "uploaded", file=".owner.json")
    ownership.take(lambda line: None)
    try:
        _upload(folder, place, ownership, overwrite=overwrite)
    finally:
        ownership.release()


def _upload(folder: Path, place: Url, ownership: Ownership, *, overwrite: bool) -> None:
    index = place / store.INDEX
    content, existing = (folder / store.INDEX).read_bytes(), objects.stat(index)
    if existing is not None:
        if objects.read(index)[0] == content:
            return
        if not overwrite:
            raise _exists_error(place)
        objects.delete(index)  # while its samples are replaced, there is no store
    for path in _list_files(folder):
        ownership.confirm()
        objects.put(path, place / path.name)
    ownership.confirm()
    objects.put_new(content, index)


def _list_files(folder: Path) -> Iterator[Path]:
    """All but the index."""
    return (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != store.INDEX)


def _exists_error(place: Url) -> OutputError:
    return OutputError(f"{place} contains a store", hint="{overwrite} replaces it", overwrite=True)
