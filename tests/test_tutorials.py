"""The commands and programs of docs/tutorials run as written, one after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

TUTORIALS = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.md"))
_STEP = re.compile(r"```python\n(.*?)```|^    (pellucid [^\n]*)$", re.DOTALL | re.MULTILINE)
CROPS = {"chelsea": (60, 150, "cat"), "coffee": (100, 200, "coffee"), "rocket": (200, 250, "rocket")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with small photographs in `photos`, and the command `pellucid` in `bin`."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, which contains photographs")
    (tmp_path / "photos").mkdir()
    for source, (top, left, name) in CROPS.items():
        pixels = getattr(data, source)()[top : top + 96, left : left + 96]
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    command = tmp_path / "bin" / "pellucid"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pellucid "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(os.name != "posix", reason="runs the commands in a POSIX shell")
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(tutorial: Path, folder: Path) -> None:
    steps = [(found[1], found[2]) for found in _STEP.finditer(tutorial.read_text())]
    assert len(steps) >= 4
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HOME": str(folder), "PELLUCID_MODELS": str(folder / "models")}
    for program, line in steps:
        command = [sys.executable, "-c", program] if program else ["sh", "-c", line]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (program or line, done.stdout, done.stderr)
