"""Shares of several stores: dealt out evenly, exactly, and without gaps."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pellucid.data import preparing
from pellucid.errors import ArgumentError, DataError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.training.mixing import Shares, check_shares, open_sources


@pytest.mark.parametrize("mixed", [[0.4], [0.4, 0.2], [0.1, 0.2, 0.3], [1 / 3, 0.01], [0.05] * 10, [0.98]])
def test_every_source_has_its_share_after_any_number_of_shards(mixed: list[float]) -> None:
    shares, counts = Shares(mixed), Counter[int]()
    expected = [1 - sum(mixed), *mixed]
    for shard in range(3000):
        source, number = shares.deal(shard)
        assert number == counts[source]  # numbered without gaps
        counts[source] += 1
        assert all(abs(counts[i] - (shard + 1) * share) < 2.5 for i, share in enumerate(expected))


def test_shares_are_decimal() -> None:
    """The nearest binary numbers of these shares have a sum of 0.6000000000000001."""
    counts = Counter(Shares([0.1, 0.2, 0.3]).deal(10**15 + shard)[0] for shard in range(10))
    assert counts == {0: 4, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(ArgumentError, match=r"the share of b is .*; expected a number above 0 and below 1"):
        check_shares({"a": 0.2, "b": share})


def test_shares_must_leave_something_for_the_data() -> None:
    check_shares({"a": 0.1, "b": 0.2, "c": 0.69})
    with pytest.raises(ArgumentError, match=r"the shares 0.1 \+ 0.2 \+ 0.7 leave nothing for the data"):
        check_shares({"a": 0.1, "b": 0.2, "c": 0.7})


def write_pictures(folder: Path, *seeds: int) -> Path:
    for seed in seeds:
        samples = np.random.default_rng(seed).integers(0, 255, (20, 20, 3), np.uint8)
        images.write(Picture(samples), folder / f"{seed}.png")
    return folder


def test_stores_and_folders_can_be_mixed(tmp_path: Path) -> None:
    data = preparing.open_data(write_pictures(tmp_path / "data", 1))
    prepared = preparing.prepare("folder", [write_pictures(tmp_path / "in", 2, 3)], tmp_path / "a.store").store
    folder = write_pictures(tmp_path / "folder", 4, 5, 6)
    mix = {str(tmp_path / "a.store"): 0.2, str(folder): 0.3}
    first, second = open_sources(mix, data, limit=None)
    assert first.store.fingerprint == prepared.fingerprint and first.share == 0.2
    assert second.store.names == ("4.png", "5.png", "6.png") and second.name == str(folder)
    assert [len(source.store) for source in open_sources(mix, data, limit=2)] == [2, 2]


def test_a_store_is_not_mixed_with_itself(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data", 1)
    data = preparing.open_data(folder)
    with pytest.raises(DataError, match=f"{folder} would be mixed with itself"):
        open_sources({str(folder): 0.2}, data, limit=None)
