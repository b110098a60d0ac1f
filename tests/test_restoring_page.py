"""The commands of docs/restoring.md run."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid import cli
from pellucid.pictures import images
from pellucid.pictures.camera import dng
from pellucid.pictures.picture import Mosaic, Picture

PAGE = Path(__file__).parent.parent / "docs" / "restoring.md"
COMMANDS = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    pellucid ")]


def test_all_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "models"))
    samples = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    images.write(Picture(samples), Path("photo.png"))
    for name in ("a.png", "deep/b.jpg"):
        images.write(Picture(samples[:20, :30]), Path("scans") / name)
    mosaic = np.random.default_rng(0).integers(600, 9000, (40, 60), np.uint16)
    Path("night.NEF").write_bytes(dng.encode(Mosaic(mosaic, ("RG", "GB"), 512.0, 16383.0)))
    assert len(COMMANDS) == 11
    for command in (command.replace("3000x2000", "90x60") for command in COMMANDS):  # large results take minutes
        if "<" in command:  # redirected by a shell
            shell = command.replace("pellucid", f"{shlex.quote(sys.executable)} -m pellucid", 1)
            subprocess.run(["sh", "-c", shell], check=True, timeout=120)
            continue
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, (command, capfd.readouterr().err)
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("[!.]*.*") if path.is_file()}
    assert made == {
        *("photo.png", "photo-preview.png", "part.png", "clean-and-large.png", "larger.png"),
        *("scans/a.png", "scans/deep/b.jpg", "scans/a-srcnn-x2.png", "scans/deep/b-srcnn-x2.jpg"),
        *("fitted/a.png", "fitted/deep/b.jpg", "sheets/photo.png-advice.png"),
        *("sheets/a.png-advice.png", "sheets/b.jpg-advice.png"),
        *("night.NEF", "night-restored.dng"),
    }
