"""Forked processes get an error where a library would hang forever."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid.pictures import images
from pellucid.pictures.camera import dng
from pellucid.pictures.picture import Mosaic, Picture

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import os, sys
from pellucid.pictures import images
from pellucid.pictures.camera import raw
from pellucid.errors import PictureError

def read():
    raw.develop(sys.argv[1]) if sys.argv[1].endswith(".dng") else images.read(sys.argv[1])

if "first" in sys.argv:
    read()
if os.fork() == 0:
    try:
        read()
    except PictureError as error:
        print(error, flush=True)
    else:
        print("read", flush=True)
    os._exit(0)
os.wait()
"""


@pytest.fixture(params=["x.png", "x.dng"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".dng":
        dng.write(Mosaic(np.full((24, 24), 900, np.uint16), ("RG", "GB"), 512.0, 16383.0), path)
    else:
        images.write(Picture(np.zeros((3, 4, 3), np.uint8)), path)
    return path


def output_of(path: Path, *words: str) -> str:
    command = [sys.executable, "-c", PROGRAM, str(path), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def test_a_process_forked_after_its_parent_read_gets_an_error(path: Path) -> None:
    assert "start workers with 'spawn' or 'forkserver'" in output_of(path, "first")


def test_a_process_forked_before_any_reading_can_read(path: Path) -> None:
    assert output_of(path) == "read\n"
