"""Means, confidence intervals, and the CSV of reports."""

import csv
import io
import math

import pytest
from scipy import stats

from pellucid.evaluation.report import MAX_SEEDS, Report, Score, describe_differences, to_csv


def make_report(*psnr_db_of_seeds: float, model: str = "m", **facts: object) -> Report:
    by_seed = tuple((Score("a.png", psnr_db, 0.9, 20.0),) for psnr_db in psnr_db_of_seeds)
    return Report(model, None, facts, tuple(range(len(by_seed))), by_seed)


@pytest.mark.parametrize("count", range(2, MAX_SEEDS + 1))
def test_the_confidence_interval_is_that_of_scipy(count: int) -> None:
    values = [30 + math.sin(i) for i in range(count)]
    report = make_report(*values)
    low, high = stats.t.interval(0.95, count - 1, loc=report.mean_psnr_db, scale=stats.sem(values))
    assert report.psnr_db_confidence == pytest.approx((high - low) / 2, rel=1e-3)


def test_one_seed_has_no_confidence_interval() -> None:
    report = make_report(30.0)
    assert report.psnr_db_confidence is None and "seeds" not in report.to_json()


def test_an_infinite_score_has_no_confidence_interval() -> None:
    report = make_report(30.0, math.inf)
    assert report.mean_psnr_db == math.inf and report.psnr_db_confidence is None
    assert report.to_json()["seeds"]["psnr_db"] == [30.0, None]


def test_csv_has_a_line_for_each_picture_of_each_model_and_seed() -> None:
    reports = [make_report(30.25, 31.5, model="one, two"), make_report(math.inf, model="\udcff")]
    rows = list(csv.DictReader(io.StringIO(to_csv(reports))))
    assert [(row["model"], row["seed"], row["psnr_db"]) for row in rows] == [
        ("one, two", "0", "30.25"),
        ("one, two", "1", "31.5"),
        ("\udcff", "0", "inf"),
    ]


def test_protocols_that_differ_are_described() -> None:
    one, other = make_report(30.0, colors="gray", num_pictures=3), make_report(30.0, colors="RGB", num_pictures=4)
    assert describe_differences([one, other]) == "colors: gray against RGB"
    assert describe_differences([one, one]) is None
    long = make_report(30.0, colors="gray " * 100)
    assert len(describe_differences([one, long]) or "") < 100
