"""A store for a bucket: made in the cache of this computer, then uploaded, its index last."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pellucid.data import store
from pellucid.errors import OutputError
from pellucid.storage import cache, objects
from pellucid.storage.ownership import Ownership
from pellucid.storage.urls import Url
from pellucid.system.files import temporary_folder

Log = Callable[[str], None]


def start_upload(place: Url, log: Log, *, overwrite: bool) -> Path:
    """The folder on this computer in which to make the store. Users may delete it once the store is uploaded.

    If the bucket contains a finished store, which only `overwrite` replaces, it is the folder of a copy of it.
    """
    objects.check_can_write(place)
    folder = choose_upload_folder(place)
    if overwrite or (content := _find_index(place)) is None or _has_index(folder, content):
        return folder
    log(f"{place} is finished; a copy of it is compared with the sources")
    return cache.as_local(place.as_folder())


def choose_upload_folder(place: Url) -> Path:
    """Where on this computer a store for a bucket is made. It need not exist yet."""
    return cache.choose_folder("uploads", place.as_folder()) / (place.name or place.bucket)


def upload(folder: Path, place: Url, log: Log, *, overwrite: bool) -> None:
    """Store all files of a finished store. Without its index, what is there of it is unfinished.

    Waits up to a minute for another process that uploads one there and may have ended. Raises OutputError if it
    has not, or if the bucket contains another store that must not be replaced.
    """
    if _has_index(folder, _find_index(place)):
        return
    ownership = Ownership(place, "uploaded", file=".owner.json")
    ownership.take(log)
    try:
        _upload(folder, place, ownership, overwrite=overwrite)
    finally:
        ownership.release()


def _upload(folder: Path, place: Url, ownership: Ownership, *, overwrite: bool) -> None:
    content = _find_index(place)
    if content is not None:
        if _is_equal(folder, content):
            return
        if not overwrite:
            raise OutputError(f"{place} contains another store", hint="{overwrite} replaces it", overwrite=True)
        objects.delete(place / store.INDEX)  # while its samples are replaced, there is no store
    for path in _list_files(folder):
        ownership.confirm()
        objects.put(path, place / path.name)
    ownership.confirm()
    objects.put_new((folder / store.INDEX).read_bytes(), place / store.INDEX)


def _find_index(place: Url) -> bytes | None:
    """The index of the store in the bucket; None if there is no finished one."""
    index = place / store.INDEX
    return None if objects.stat(index) is None else objects.read(index)[0]


def _has_index(folder: Path, content: bytes | None) -> bool:
    try:
        return (folder / store.INDEX).read_bytes() == content
    except FileNotFoundError:
        return False


def _is_equal(folder: Path, index: bytes) -> bool:
    """Whether a store has the names and samples of another one, in whatever order they were decoded."""
    with temporary_folder() as other:
        (other / store.INDEX).write_bytes(index)
        return store.read_fingerprint(other) == store.read_fingerprint(folder)


def _list_files(folder: Path) -> Iterator[Path]:
    """All but the index."""
    return (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != store.INDEX)
