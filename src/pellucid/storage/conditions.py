"""Whether a server enforces conditional writes: some ignore the condition, and replace what others have stored.

After the first conditional write, the same object is written again with a condition that is false, which must
fail. Such a probe leaves no object behind, and needs no further permissions.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from obstore.exceptions import AlreadyExistsError, PreconditionError

from pellucid.errors import StorageError
from pellucid.storage.urls import Url

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ObjectStore

CONFLICTS = (AlreadyExistsError, PreconditionError)
"""What the client raises if a condition is false."""

_OTHER_E_TAG = '"no object has this e-tag"'

_probed: "dict[tuple[int, bool], ObjectStore]" = {}
"""Clients whose servers enforce conditions, by identity and kind of condition."""


def are_enforced(store: "ObjectStore", url: Url, mode: "PutMode") -> bool:
    """Whether the server of a client is known to enforce conditions like this one. The large clouds do."""
    return mode == "overwrite" or url.scheme != "s3" or (id(store), mode == "create") in _probed


def probe(store: "ObjectStore", url: Url, mode: "PutMode", put: Callable[["PutMode"], object]) -> None:
    """Raise StorageError if a server ignores conditions like this one.

    put: writes the existing object again, with another condition.
    """
    try:
        put("create" if mode == "create" else {"e_tag": _OTHER_E_TAG})
    except CONFLICTS:
        _probed[id(store), mode == "create"] = store
        return
    header = "If-None-Match" if mode == "create" else "If-Match"
    raise StorageError(
        f"the server of the bucket {url.scheme}://{url.bucket} ignores conditions ({header}), so that several "
        f"computers could overwrite what others have stored",
        hint="use another server, or a newer version of it",
    )
