"""Patterns for the names of results, e.g. `{stem}-{model}{suffix}`."""

from string import Formatter

from pellucid.errors import ArgumentError

KEYS = ("stem", "suffix", "model")
"""What a pattern can contain, in braces. The suffix includes its dot."""


def fill_pattern(pattern: str, stem: str, suffix: str, model: str) -> str:
    """The name that a pattern gives. Raises ArgumentError if it contains anything else than KEYS."""
    known, filled = dict(zip(KEYS, (stem, suffix, model), strict=True)), ""
    try:
        for text, key, form, conversion in Formatter().parse(pattern):
            if form or conversion or key not in (None, *known):
                raise ValueError
            filled += text + known.get(key or "", "")
    except ValueError:
        raise ArgumentError(
            f"{pattern!r} is not a pattern for names; it can contain {{stem}}, {{model}}, {{suffix}}",
            hint="change {name}",
        ) from None
    return filled


def check_visible(pattern: str, filled: str) -> None:
    """Raise ArgumentError if a pattern gives names in other folders, or of hidden files."""
    if {"/", "\\", "\0"} & {*filled} or filled.startswith("."):
        raise ArgumentError(f"{pattern!r} does not give names of visible files", hint="{out} is for folders")
