"""ExifTool, as an independent reader and writer of metadata."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("exiftool")
needed = pytest.mark.skipif(PROGRAM is None, reason="exiftool is not installed")

_ABOUT_FILE = ("SourceFile", "System:", "File:", "ExifTool:ExifToolVersion", "Composite:")


def read_tags(*paths: Path) -> list[dict[str, Any]]:
    """Name with group -> value of all tags that ExifTool finds in each file, but those about the file itself."""
    kept = ("File:Comment", "File:CurrentIPTCDigest")
    return [
        {name: value for name, value in found.items() if not name.startswith(_ABOUT_FILE) or name in kept}
        for found in json.loads(_run("-j", "-G1", "-a", "-u", "-struct", *map(str, paths)))
    ]


def write_tags(path: Path, *arguments: str) -> None:
    """Add tags to a file, e.g. "-Artist=Zoe"."""
    _run("-overwrite_original", "-q", *arguments, str(path))


def _run(*arguments: str) -> bytes:
    assert PROGRAM is not None
    return subprocess.run([PROGRAM, *arguments], capture_output=True, check=True, timeout=60).stdout
