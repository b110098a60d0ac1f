"""Files as such: what stands at a name, and writing so that nothing is lost.

A result is there whole or not at all, and never over another unasked.
"""

import os
import stat
import tempfile
from pathlib import Path

from pellucid.errors import OutputError, PictureError


def head(path: Path, num_bytes: int = 16) -> bytes:
    """The first bytes of a picture file.

    Raises PictureError when there is no file, nothing in it, or none that can be read from its start.
    """
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            raise PictureError(f"{path} is a pipe; a picture file is needed")
        with path.open("rb") as file:
            first = file.read(num_bytes)
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder; a picture file is needed") from error
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist; check the name") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not first:
        raise PictureError(f"{path} is empty; a picture is needed")
    return first


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError when something is at path that may not be replaced."""
    # os.path, since Path's own methods raise on names that are too long and on loops of links.
    if os.path.isdir(path):  # noqa: PTH112
        raise OutputError(f"{path} is a folder; a file name is needed")
    if os.path.exists(path):  # noqa: PTH110
        if not overwrite:
            raise OutputError(f"{path} exists; --overwrite replaces it")
        if not path.is_file():
            raise OutputError(f"{path} is a device, not a file")


def write_whole(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write beside the target, then rename; folders on the way are made.

    Raises OutputError when the target exists and overwrite is False, or when it cannot be written.
    """
    check_free(path, overwrite=overwrite)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".pellucid-", suffix=".part")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
