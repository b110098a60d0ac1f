import json
import sys
from pathlib import Path

import pytest

from pellucid.errors import ArgumentError, MissingExtraError, OutputError
from pellucid.pictures import images
from pellucid.training import plotting


def make_run(folder: Path, *lines: object) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"format": 1, "identity": {}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_are_plotted_together(tmp_path: Path) -> None:
    one = make_run(
        tmp_path / "one", {"step": 1, "loss": 3.0}, {"step": 1, "psnr_db": 20.0}, {"step": 2, "loss": None}
    )
    other = make_run(tmp_path / "other", {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0})
    plotting.plot([one, other], tmp_path / "curves.png")
    drawn = images.read(tmp_path / "curves.png")
    assert drawn.width > 2 * drawn.height, "loss next to PSNR"
    plotting.plot([other], tmp_path / "loss.png")
    assert images.read(tmp_path / "loss.png").width < drawn.width
    with pytest.raises(OutputError, match="exists; overwrite=True replaces it"):
        plotting.plot([one], tmp_path / "curves.png")


def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="is not a run folder: it has no run.json"):
        plotting.plot([tmp_path], tmp_path / "curves.png")
    with pytest.raises(OutputError, match="nosuch does not exist; check the name"):
        plotting.plot([tmp_path / "nosuch"], tmp_path / "curves.png")
    with pytest.raises(OutputError, match="has no metrics yet"):
        plotting.plot([make_run(tmp_path / "new")], tmp_path / "curves.png")
    with pytest.raises(OutputError, match="has no recorded speed; plot it against steps"):
        plotting.plot([make_run(tmp_path / "old", {"step": 1, "loss": 3.0})], tmp_path / "c.png", against="time")
    with pytest.raises(ArgumentError, match=r"is not a \.png, \.pdf or \.svg"):
        plotting.plot([tmp_path / "new"], tmp_path / "curves.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pellucid\[plot\]'"):
        plotting.plot([tmp_path / "new"], tmp_path / "curves.png")
