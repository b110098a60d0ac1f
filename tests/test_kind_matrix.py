"""Odd files are kept, noted or refused, in every format; nothing is lost in silence."""

import shutil
from pathlib import Path

import pytest

import kind_matrix

CELLS = [(kind, suffix) for kind in kind_matrix.KINDS for suffix in kind.cells]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs ExifTool")
@pytest.mark.parametrize(("kind", "suffix"), CELLS, ids=[f"{kind.name} {suffix}" for kind, suffix in CELLS])
def test_nothing_is_lost_in_silence(kind: kind_matrix.Kind, suffix: str, tmp_path: Path) -> None:
    assert kind_matrix.run(kind, suffix, tmp_path) != "lost"
