"""Export formats by name. The file system is the registry: every file in `formats` is a format."""

import importlib
import pkgutil
from pathlib import Path

from pellucid.errors import ArgumentError, suggest
from pellucid.exporting import formats
from pellucid.exporting.export_format import ExportFormat


def list_formats() -> list[ExportFormat]:
    """All formats, sorted by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    return [importlib.import_module(f"{formats.__name__}.{name}").FORMAT for name in names]


def find_format(name: str | None, out: Path) -> ExportFormat:
    """The format of this name; if None, the default format for the suffix of `out`.

    Raises ArgumentError for an unknown name, or if `out` has another suffix.
    """
    known = {each.name: each for each in list_formats()}
    if name is None:
        for each in known.values():
            if each.suffix == out.suffix and each.is_default:
                return each
        raise ArgumentError(
            f"{out}: the suffix {out.suffix!r} does not belong to an export format",
            hint=f"{{format}} can be {', '.join(known)}",
        )
    if name not in known:
        raise ArgumentError(f"no format {name[:40]!r}; {suggest(name, known)}")
    if out.suffix != known[name].suffix:
        raise ArgumentError(f"{out} does not end in {known[name].suffix}, the suffix of {name} files")
    return known[name]
