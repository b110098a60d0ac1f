"""Objects in buckets and files on web servers: whether they exist, what a folder contains, fetching and storing.

Objects are read and written as a whole, so incomplete ones are never visible. Every function raises StorageError,
with a one-line message, if the server rejects a request, and MissingExtraError if the client is not installed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import OutputError, PellucidError, StorageError
from pellucid.storage import problems
from pellucid.storage.clients import open_store
from pellucid.storage.urls import Location, Tag, Url
from pellucid.system.files import temporary_folder
from pellucid.system.wording import format_count

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, PutResult, UpdateVersion
    from obstore.store import ObjectStore

CHUNK_BYTES = 8 * 2**20
"""How much of an object is in memory while it is downloaded, and the part size of multipart uploads."""

MAX_CONDITIONAL_BYTES = 256 * 2**20
"""Up to this size, conditional requests prevent the replacement of an object. No server supports conditions for
multipart uploads, which larger objects need; for these, the condition is checked just before the upload."""

MAX_PARTS = 9000
"""The most parts of an upload; servers accept up to 10,000."""

LISTED_AT_ONCE = 1000


def stat(url: Url) -> Tag | None:
    """The tag of an object; None if the object does not exist."""
    store = open_store(url)
    import obstore

    try:
        with _translate_errors(url, "reading"):  # a URL that is signed for reading does not permit HEAD
            return _to_tag(obstore.get(store, "").meta if url.is_web else obstore.head(store, url.key))
    except FileNotFoundError:
        return None


def read(url: Url) -> tuple[bytes, Tag]:
    """The content of a small object."""
    try:
        return _read(url)
    except FileNotFoundError as error:
        raise problems.explain(error, url, "reading") from error


def _read(url: Url) -> tuple[bytes, Tag]:
    """Raises FileNotFoundError if it does not exist."""
    store = open_store(url)
    import obstore

    with _translate_errors(url, "reading"):
        found = obstore.get(store, _key(url))
        return bytes(found.bytes()), _to_tag(found.meta)


def read_range(url: Url, start: int, stop: int) -> tuple[bytes, Tag]:
    """A range of bytes of an object, and the tag of the object. Raises FileNotFoundError if it does not exist."""
    store = open_store(url)
    import obstore

    with _translate_errors(url, "reading"):
        found = obstore.get(store, _key(url), options={"range": (start, stop)})
        content, tag = bytes(found.bytes()), _to_tag(found.meta)
    if len(content) != min(stop, tag.size_bytes) - start:
        raise StorageError(
            f"{url} ended after {start + len(content)} of {format_count(tag.size_bytes, 'byte')}", hint="try again"
        )
    return content, tag


def fetch(url: Url, path: Path) -> Tag:
    """Download an object to a file, in pieces. Raises StorageError also if the download is incomplete."""
    store = open_store(url)
    import obstore

    num_bytes = 0
    with path.open("wb") as file, _translate_errors(url, "reading", is_required=True):
        found = obstore.get(store, _key(url))
        tag = _to_tag(found.meta)
        for piece in found.stream(min_chunk_size=CHUNK_BYTES):
            num_bytes += file.write(piece)
    if num_bytes != tag.size_bytes:
        raise StorageError(
            f"{url} ended after {num_bytes} of {format_count(tag.size_bytes, 'byte')}", hint="try again"
        )
    return tag


def list_objects(folder: Url) -> Iterator[Url]:
    """All objects whose names begin with that of the folder and a slash, in the order of the server, with tags."""
    if folder.is_web:
        raise StorageError(f"{folder} is on a web server, which has no list of files", hint="give single files")
    store = open_store(folder)
    import obstore

    with _translate_errors(folder, "listing"):
        for chunk in obstore.list(store, folder.key or None, chunk_size=LISTED_AT_ONCE):
            for meta in chunk:
                yield Url(folder.scheme, folder.bucket, meta["path"], tag=_to_tag(meta))


def contains_objects(folder: Url) -> bool:
    """Whether there are objects below this name."""
    return next(list_objects(folder), None) is not None


def read_attribute(url: Url, name: str) -> str | None:
    """The attribute of this name that `put` stored with an object; None if there is none."""
    store = open_store(url)
    import obstore

    with _translate_errors(url, "reading", is_required=True):
        found = obstore.get(store, _key(url), options={"head": True})
        value = found.attributes.get(name)
    return None if value is None else str(value)


def put_new(content: Path | bytes, url: Url, *, attributes: Mapping[str, str] | None = None) -> Tag:
    """Store an object that does not exist yet.

    attributes: user metadata to store with it, see `read_attribute`, and its Content-Type.

    Raises OutputError if it exists with other content. Equal content is accepted, because it comes from a request
    that was repeated, or from another process that did the same work.
    """
    try:
        return _put(content, url, "create", attributes)
    except _ConflictError:
        if (same := _find_same(content, url)) is not None:
            return same
        raise OutputError(f"{url} exists", hint="{overwrite} replaces it", overwrite=True) from None


def put(
    content: Path | bytes, url: Url, *, e_tag: str | None = None, attributes: Mapping[str, str] | None = None
) -> Tag:
    """Store an object, replacing an existing one; with an e-tag, only if the existing one has this e-tag.

    Raises OutputError if it has another e-tag and other content; see `put_new`.
    """
    try:
        return _put(content, url, "overwrite" if e_tag is None else {"e_tag": e_tag}, attributes)
    except _ConflictError:
        if (same := _find_same(content, url)) is not None:
            return same
        raise OutputError(f"{url} has been changed by another program", hint="run the command again") from None


def delete(url: Url) -> None:
    """Delete an object, if it exists."""
    store = open_store(url)
    import obstore

    with _translate_errors(url, "deleting"):
        obstore.delete(store, _key(url))


@contextmanager
def local_copy(location: Location) -> Iterator[Path]:
    """A local file with the content of a location: the file itself, or a copy that is removed at the end."""
    if isinstance(location, Path):
        yield location
        return
    with temporary_folder() as folder:
        path = folder / f"copy{location.suffix[:10]}"
        fetch(location, path)
        try:
            yield path
        except PellucidError as error:
            raise error.renamed(path, location) from error


class _ConflictError(Exception):
    """A condition of storing an object was not fulfilled."""


def _put(content: Path | bytes, url: Url, mode: "PutMode", attributes: Mapping[str, str] | None) -> Tag:
    check_can_write(url)
    store = open_store(url)
    import obstore

    from pellucid.storage import conditions

    size_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
    is_large = mode != "overwrite" and size_bytes > MAX_CONDITIONAL_BYTES
    needs_probe = not is_large and not conditions.are_enforced(store, url, mode)
    if is_large or needs_probe:
        _check_condition(url, mode)

    def store_if(mode: "PutMode") -> "PutResult":
        stored, chunk_size = {**(attributes or {})}, max(CHUNK_BYTES, size_bytes // MAX_PARTS)
        return obstore.put(store, _key(url), content, mode=mode, attributes=stored, chunk_size=chunk_size)

    with _translate_errors(url, "writing", is_required=True):
        if url.scheme == "gs" and isinstance(mode, dict):
            mode = _to_generation(store, url, mode["e_tag"])
        try:
            stored = store_if("overwrite" if is_large else mode)
        except conditions.CONFLICTS as error:
            raise _ConflictError from error
        if needs_probe:
            conditions.probe(store, url, mode, store_if)
    e_tag = _with_quotes(stored["e_tag"])
    if e_tag is None:
        return stat(url) or Tag("", size_bytes)
    return Tag(e_tag, size_bytes)


def _to_generation(store: "ObjectStore", url: Url, e_tag: str | None) -> "UpdateVersion":
    """The same condition for Google, which only knows conditions of generations of objects.

    Raises _ConflictError if the object has another e-tag now.
    """
    import obstore

    try:
        found = obstore.head(store, url.key)
    except FileNotFoundError:
        raise _ConflictError from None
    if _with_quotes(found["e_tag"]) != e_tag:
        raise _ConflictError
    return {"e_tag": e_tag, "version": found["version"]}


def _check_condition(url: Url, mode: "PutMode") -> None:
    """Raise _ConflictError if a condition is not fulfilled now: for a server that may not check it itself."""
    existing = stat(url)
    if existing is None:
        is_fulfilled = mode == "create"
    else:
        is_fulfilled = isinstance(mode, dict) and existing.e_tag == mode.get("e_tag")
    if not is_fulfilled:
        raise _ConflictError


def check_can_write(url: Url) -> None:
    """Raise OutputError for a URL on a web server, which is read-only."""
    if url.is_web:
        raise OutputError(f"{url} is on a web server, which is read-only", hint="write to s3://, gs:// or az://")


def _find_same(content: Path | bytes, url: Url) -> Tag | None:
    """The tag of an object if it has this content; None if it differs, or has been deleted in the meantime."""
    size_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
    existing = stat(url)
    if existing is None or existing.size_bytes != size_bytes:
        return None
    wanted = content if isinstance(content, bytes) else content.read_bytes()
    try:
        found, tag = _read(url)
    except FileNotFoundError:
        return None
    return tag if found == wanted else None


def _key(url: Url) -> str:
    return "" if url.is_web else url.key


def _to_tag(meta: "ObjectMeta") -> Tag:
    return Tag(_with_quotes(meta["e_tag"]) or meta["last_modified"].isoformat(), meta["size"])


def _with_quotes(e_tag: str | None) -> str | None:
    """An e-tag with quotes, as in HTTP. Azure omits the quotes in listings only."""
    return f'"{e_tag}"' if e_tag and not e_tag.startswith(('"', "W/")) else e_tag


@contextmanager
def _translate_errors(url: Url, doing: str, *, is_required: bool = False) -> Iterator[None]:
    """Raise errors of the client as StorageError; FileNotFoundError only if the object is required."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        if not is_required:
            raise
        raise problems.explain(error, url, doing) from error
    except (BaseError, ValueError) as error:
        raise problems.explain(_with_body(error, url), url, doing) from error


def _with_body(error: Exception, url: Url) -> Exception:
    """The error with the reason that the server gives: responses to HEAD have no body, so this sends a GET."""
    import obstore

    if "performing HEAD" not in str(error):
        return error
    try:
        obstore.get_range(open_store(url), _key(url), start=0, length=1)
    except Exception as second:  # of any class: it has the same cause, and a body
        return second
    return error
