"""Damaged files end as a whole result or as one line: a few hundred here, thousands by `python tests/fuzz.py`."""

import pytest

import fuzz
import samples


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_end_well(seed: int) -> None:
    tally = fuzz.run(samples.everything(), count=120, seed=seed)
    assert not tally.faults
    assert sum(tally.counts.values()) == 120
    assert tally.peak_bytes < 1e9


def test_whole_files_are_restored() -> None:
    tally = fuzz.Tally()
    fuzz._restore(dict(samples.everything()), tally)
    refused = [what for what in tally.counts if what.endswith("refused")]
    assert refused == ["dng refused"] and tally.counts["dng refused"] == 1
    # ... since LibRaw develops no X-Trans below 512 px.
    assert not tally.faults
