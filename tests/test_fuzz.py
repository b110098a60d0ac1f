"""Damaged files give a complete result or a one-line error. `python tests/fuzz.py` tests thousands."""

from pathlib import Path

import numpy as np
import pytest

import fuzz
import sample_files
import soups


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_pictures_give_a_result_or_a_one_line_error(seed: int) -> None:
    tally = fuzz.run(fuzz.Suite(sample_files.all_files(), fuzz.PICTURES), count=150, seed=seed)
    assert not tally.faults
    assert sum(tally.counts.values()) == 150
    assert tally.peak_bytes < 1e9


def test_damaged_metadata_give_a_one_line_error() -> None:
    tally = fuzz.run(fuzz.Suite(sample_files.structures(), fuzz.METADATA, has_results=False), count=200, seed=1)
    assert not tally.faults


def test_damaged_weights_give_a_network_or_a_one_line_error() -> None:
    tally = fuzz.run(fuzz.Suite(sample_files.weight_files(), fuzz.WEIGHTS, has_results=False), count=100, seed=1)
    assert not tally.faults
    assert sum(tally.counts.values()) == 100


def test_intact_files_are_restored() -> None:
    originals = sample_files.all_files()
    restored = fuzz._restore_originals(fuzz.Suite(originals, fuzz.PICTURES))
    # LibRaw does not develop X-Trans below 512 px, and these two contain several pictures.
    assert originals.keys() - restored.keys() == {"xtrans.dng", "animated.gif", "pair.mpo"}


@pytest.mark.parametrize("format", ["HEIC", "JPEG XL", "JPEG 2000", "compressed DNG"])
def test_every_format_has_samples(format: str) -> None:
    if reason := sample_files.missing_encoders().get(format):
        pytest.skip(reason)
    suffixes = {"HEIC": ".heic", "JPEG XL": ".jxl", "JPEG 2000": ".jp2", "compressed DNG": "ljpeg.dng"}
    assert any(name.endswith(suffixes[format]) for name in sample_files.all_files())


def test_another_result_of_a_truncated_file_is_a_fault(tmp_path: Path) -> None:
    tally = fuzz.Tally()
    judge = fuzz._Judge(tally, {"a.tif": ("another hash", ["known"])}, None)
    (tmp_path / "result.tif").write_bytes(sample_files.pictures()["color.tif"])
    for notes, faults in ((["known"], 1), (["known", "new"], 1), ([], 2)):
        judge.judge(("000001-a-truncate.tif", "result.tif", None, notes), b"", tmp_path)
        assert len(tally.faults) == faults


@pytest.mark.parametrize("name", [*sample_files.all_files(), *sample_files.weight_files()])
def test_soups_are_reproducible_and_differ(name: str) -> None:
    content = (sample_files.all_files() | sample_files.weight_files())[name]
    made = [soups.mix(content, np.random.default_rng(seed)) for seed in (1, 1, 2, 3)]
    assert made[0] == made[1] or name.endswith(".pth")  # zip archives contain the time
    assert len({content, *made[1:]}) > 2
