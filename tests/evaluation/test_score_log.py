"""Finished pictures of an interrupted evaluation are not computed again, unless something has changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.backends.eager import TorchBackend
from pellucid.errors import OutputError
from pellucid.evaluation import running
from pellucid.evaluation.evaluate import evaluate, score
from pellucid.evaluation.report import Report, Score
from pellucid.evaluation.score_log import Finished, ScoreLog
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.restoration.entries import Stamp, stamp
from pellucid.restoration.restorer import Restorer


class Counting(Network):
    """A convolution that counts its calls, and may be interrupted at one of them."""

    scale, multiple, halo = 1, 1, 0

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1)
        torch.nn.init.ones_(self.layer.weight)
        self.num_calls, self.stop_at = 0, stop_at

    def forward(self, degraded: Tensor) -> Tensor:
        self.num_calls += 1
        if self.num_calls == self.stop_at:
            raise KeyboardInterrupt
        output: Tensor = self.layer(degraded)
        return output


def make_restorer(network: Network, **parameters: Any) -> Restorer:
    torch.nn.init.zeros_(next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d)).bias)  # type: ignore[arg-type]
    return Restorer("counting", registry.find("dncnn.gaussian", **parameters), TorchBackend(network, "cpu"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(4):
        samples = np.random.default_rng(i).integers(0, 256, (20, 30, 1), np.uint8)
        images.write(Picture(samples), tmp_path / "data" / f"{i}.png")
    return tmp_path / "data"


def interrupt(data: Path, log: Path, **settings: Any) -> None:
    """Score the first two of four pictures."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(make_restorer(Counting(stop_at=3)), data, record=log, **settings)


def resume(data: Path, log: Path, *, parameters: Any = None, **settings: Any) -> tuple[Report, int]:
    """The report, and how many pictures were computed for it."""
    network = Counting()
    report = evaluate(make_restorer(network, **(parameters or {})), data, record=log, **settings)
    return report, network.num_calls


def test_it_resumes_after_a_picture_that_was_saved_but_not_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it was killed between saving a picture and recording its score."""
    log, saved = tmp_path / "log.jsonl", tmp_path / "saved"

    def interrupt_after_saving(path: Path) -> Stamp:
        if path.parent == saved and path.name == "1.png":
            raise KeyboardInterrupt
        return stamp(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(running, "stamp", interrupt_after_saving)
        evaluate(make_restorer(Counting()), data, record=log, save=saved)
    assert sorted(path.name for path in saved.iterdir()) == ["0.png", "1.png"]
    report, num_computed = resume(data, log, save=saved)
    assert (num_computed, report.num_resumed) == (2, 2)
    assert len(report.scores) == 4 and len([*saved.iterdir()]) == 4


def test_an_interrupted_evaluation_resumes(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "cache" / "log.jsonl"
    interrupt(data, log)
    report, num_computed = resume(data, log)
    assert (num_computed, report.num_resumed) == (2, 2)
    assert report.scores == evaluate(make_restorer(Counting()), data).scores


def touch(data: Path) -> dict[str, Any]:
    images.write(images.read(data / "3.png"), data / "0.png", overwrite=True)
    return {}


CHANGES: list[Callable[[Path], dict[str, Any]]] = [
    touch,
    lambda data: {"parameters": {"sigma_255": 15}},
    lambda data: {"border_px": 1},
    lambda data: {"white": 255},
]


@pytest.mark.parametrize(("change", "expected"), list(zip(CHANGES, (3, 4, 4, 4), strict=True)))
def test_what_has_changed_is_computed_again(
    data: Path, tmp_path: Path, change: Callable[[Path], dict[str, Any]], expected: int
) -> None:
    interrupt(data, tmp_path / "log.jsonl")
    _, num_computed = resume(data, tmp_path / "log.jsonl", **change(data))
    assert num_computed == expected


def test_other_weights_are_computed_again(data: Path, tmp_path: Path) -> None:
    interrupt(data, tmp_path / "log.jsonl")
    network = Counting()
    torch.nn.init.constant_(network.layer.weight, 0.5)
    evaluate(make_restorer(network), data, record=tmp_path / "log.jsonl")
    assert network.num_calls == 4


def test_each_seed_is_recorded(data: Path, tmp_path: Path) -> None:
    interrupt(data, tmp_path / "log.jsonl", num_seeds=2)
    report, num_computed = resume(data, tmp_path / "log.jsonl", num_seeds=2)
    assert num_computed == 6 and report.scores == evaluate(make_restorer(Counting()), data, num_seeds=2).scores


def test_a_saved_picture_that_is_missing_or_changed_is_made_again(data: Path, tmp_path: Path) -> None:
    log, saved = tmp_path / "log.jsonl", tmp_path / "saved"
    interrupt(data, log, save=saved)
    _, num_computed = resume(data, log, save=saved)
    assert num_computed == 2 and len(list(saved.iterdir())) == 4
    (saved / "0.png").unlink()
    assert resume(data, log, save=saved)[1] == 1 and len(list(saved.iterdir())) == 4
    images.write(Picture(np.zeros((3, 3, 1), np.uint8)), saved / "0.png", overwrite=True)
    with pytest.raises(OutputError, match=r"0\.png exists"):
        resume(data, log, save=saved)


def test_results_are_recorded_with_the_stamps_of_both_files(data: Path, tmp_path: Path) -> None:
    log, target = tmp_path / "log.jsonl", tmp_path / "target"
    for path in data.iterdir():
        images.write(images.read(path), target / path.name)
    assert score(data, target, record=log).num_resumed == 0
    assert score(data, target, record=log).num_resumed == 4
    images.write(Picture(np.zeros((20, 30, 1), np.uint8)), target / "0.png", overwrite=True)
    report = score(data, target, record=log)
    assert report.num_resumed == 3 and report.scores[0].psnr_db < 10


def test_lines_that_were_cut_off_are_ignored(tmp_path: Path) -> None:
    finished = Finished(Score("a", float("inf"), None, 3.0), ("odd",), [1, 2])
    ScoreLog(tmp_path / "log").add("key", finished)
    content = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(b'{"key": "other", "sco' + content + b"\n[]\n\xff\n" + content[:-9])
    log = ScoreLog(tmp_path / "log")
    assert log.find("key") == finished and log.find("other") is None
    log.remove()
    assert not (tmp_path / "log").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        ScoreLog(tmp_path / "file" / "log")
