"""Shards of an evaluation: together they report what one process reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.errors import ArgumentError, OutputError
from pellucid.evaluation.evaluate import evaluate, score
from pellucid.evaluation.score_status import read_score_status
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.restoration import restorer
from pellucid.restoration.restorer import Restorer
from pellucid.system.journals import Journal
from pellucid.system.shards import Shard
from small_models import save_weights


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(7):
        samples = np.random.default_rng(i).integers(0, 256, (20, 30, 1), np.uint8)
        images.write(Picture(samples), tmp_path / "data" / f"{i}.png")
    (tmp_path / "data" / "broken.png").write_bytes((tmp_path / "data" / "0.png").read_bytes()[:90])
    return tmp_path / "data"


@pytest.fixture
def network(tmp_path: Path) -> Restorer:
    return restorer.load(save_weights(tmp_path, "dncnn.gaussian", depth=3, width=4))


def _as_json(report: Any) -> Any:
    return report.to_json()


@pytest.mark.parametrize("count", [2, 12])
def test_shards_give_the_report_of_one_process(data: Path, network: Restorer, tmp_path: Path, count: int) -> None:
    record = tmp_path / "scores"
    parts = [
        evaluate(network, data, num_seeds=2, record=record, shard=Shard(i, count)) for i in range(1, count + 1)
    ]
    assert sum(len(part.scores) for part in parts) == 7 and sum(len(part.failures) for part in parts) == 1
    merged = evaluate(network, data, num_seeds=2, record=record)
    assert merged.num_resumed == 14
    assert _as_json(merged) == _as_json(evaluate(network, data, num_seeds=2))
    assert evaluate(network, data, num_seeds=2, record=record, shard=Shard(1, 3)).num_resumed % 2 == 0


def test_the_status_adds_up_all_shards(data: Path, network: Restorer, tmp_path: Path) -> None:
    record = tmp_path / "scores"
    first = evaluate(network, data, record=record, shard=Shard(1, 2))
    (status,) = read_score_status(record)
    assert (status.num_pictures, status.num_scored) == (8, len(first.scores))
    assert status.num_missing == 8 - len(first.scores) - len(first.failures)
    evaluate(network, data, record=record, shard=Shard(2, 2))
    (status,) = read_score_status(record)
    assert (status.num_scored, status.num_missing, status.failed[0][0]) == (7, 0, "broken.png")
    evaluate(network, data, record=record, num_seeds=2, shard=Shard(2, 2))
    assert [one.num_scored < 7 for one in read_score_status(record)] == [False, True]


def test_shards_of_given_results(data: Path, tmp_path: Path) -> None:
    (data / "broken.png").unlink()
    for i in (1, 2, 3):
        score(data, data, record=tmp_path / "scores", shard=Shard(i, 3))
    merged = score(data, data, record=tmp_path / "scores")
    assert merged.num_resumed == 7 and _as_json(merged) == _as_json(score(data, data))


def test_a_shard_needs_a_record_that_can_be_written(
    data: Path, network: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArgumentError, match="record is a folder that all shards share"):
        evaluate(network, data, shard=Shard(1, 2))

    def fail(journal: Journal, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "add", fail)
    with pytest.raises(OutputError, match="No space left"):
        evaluate(network, data, record=tmp_path / "scores", shard=Shard(1, 2))
