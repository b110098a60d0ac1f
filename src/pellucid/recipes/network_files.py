"""Network files outside of the package: their recipes have names, too, after the file was added by its path.

A network file is code, which runs with all rights of the user. So files are only added by the user; weight files
remember a network file by its hash, and never cause it to run.
"""

import importlib
import pkgutil
import re
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from pellucid.errors import PellucidError
from pellucid.system.arguments import checks_types

PACKAGE = "pellucid.networks"


@dataclass(frozen=True)
class NetworkFile:
    """A network file that was added. name: its recipes are called NAME.RECIPE. sha256: of its content."""

    name: str
    path: Path
    sha256: str
    module: ModuleType


_added: dict[str, NetworkFile] = {}


@checks_types()
def add_network(path: str | Path) -> NetworkFile:
    """Run a network file, so that its recipes have names, as those in `pellucid.networks` have.

        pellucid.add_network("unsharp.py")
        recipe = pellucid.find("unsharp.gaussian_blur")

    The file is code: it runs with all your rights. Adding the same file again changes nothing.

    Raises PellucidError if the file cannot be read, is not a network file, fails, or has the name of a network of
    the package or of another file.
    """
    path = Path(path)
    content = _read(path)
    digest = sha256(content).hexdigest()
    name = path.stem
    known = _added.get(name)
    if known is not None and known.sha256 == digest:
        return known
    if known is not None or name in packaged_networks():
        raise PellucidError(f"{path}: there is another network {name}", hint="rename the file")
    module = _run(path, name, content)
    _added[name] = NetworkFile(name, path, digest, module)
    return _added[name]


def packaged_networks() -> list[str]:
    """The names of the network files in the package."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__))


def added_networks() -> dict[str, NetworkFile]:
    """The network files that were added, by name."""
    return dict(_added)


def _read(path: Path) -> bytes:
    if path.suffix != ".py" or not re.fullmatch(r"[a-z_][a-z_0-9]*", path.stem):
        raise PellucidError(
            f"{path} is not a network file: its name must end in .py and have only small letters, digits and _"
        )
    if not path.is_file():
        raise PellucidError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise PellucidError(f"{path} cannot be read: {error.strerror or error}") from error


def _run(path: Path, name: str, content: bytes) -> ModuleType:
    """The module of a network file. The content that was hashed runs, not what the file contains by now."""
    full_name = f"{PACKAGE}.{name}"
    module = ModuleType(full_name)
    module.__file__ = str(path)
    sys.modules[full_name] = module  # dataclasses and pickle look it up
    try:
        exec(compile(content, str(path), "exec"), vars(module))  # chosen by the user, never by a file
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        del sys.modules[full_name]
        line = getattr(error, "lineno", None) or _line_of(error, path)
        where = f", line {line}" if line else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)  # str() repeats file and line
        raise PellucidError(f"{path}{where}: {type(error).__name__}: {reason[:200]}") from error
    return module


def _line_of(error: BaseException, path: Path) -> int | None:
    """The last line of the file in the traceback of an error."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
