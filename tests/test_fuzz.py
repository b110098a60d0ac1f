"""Damaged files give a complete result or a one-line error. `python tests/fuzz.py` tests thousands."""

import pytest

import fuzz
import sample_files


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_give_a_result_or_a_one_line_error(seed: int) -> None:
    tally = fuzz.run(sample_files.all_files(), count=120, seed=seed)
    assert not tally.faults
    assert sum(tally.counts.values()) == 120
    assert tally.peak_bytes < 1e9


def test_intact_files_are_restored() -> None:
    tally = fuzz.Tally()
    fuzz._restore(dict(sample_files.all_files()), tally)
    refused = [what for what in tally.counts if what.endswith("refused")]
    assert refused == ["dng refused"] and tally.counts["dng refused"] == 1
    # LibRaw does not develop X-Trans below 512 px.
    assert not tally.faults
