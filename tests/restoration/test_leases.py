"""Claims in a bucket: exclusive, released, and taken over from processes that have ended."""

import time

import pytest

from object_server import Bucket
from pellucid.restoration import leases
from pellucid.restoration.leases import Leases
from pellucid.storage import objects
from pellucid.storage.urls import Url, locate


@pytest.fixture
def folder(bucket: Bucket) -> Url:
    url = locate(bucket.url)
    assert isinstance(url, Url)
    return url


def test_a_claim_is_exclusive_until_it_is_released(folder: Url) -> None:
    mine, other = Leases(folder), Leases(folder)
    assert mine.take("a") and mine.take("a") and not other.take("a") and other.take("b 50%ü")
    mine.release("a")
    deadline_s = time.monotonic() + 10
    while not other.take("a") and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not mine.take("a") and not mine.take("b 50%ü")
    other.close()
    assert mine.take("a")
    mine.close()
    assert not list(objects.list_objects(folder))


def test_claims_of_a_process_that_has_ended_are_taken_over(folder: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    dead, mine = Leases(folder), Leases(folder)
    assert dead.take("a") and not mine.take("a")
    time.sleep(0.4)
    assert mine.take("a")
    dead._renew("a", dead._held["a"])  # it was only slow: it finds out that its claim is gone
    dead.release("a")
    dead.close()
    assert not Leases(folder).take("a")
    mine.close()


def test_claims_of_a_process_that_works_are_not_taken_over(folder: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)
    mine, other = Leases(folder), Leases(folder)
    assert mine.take("a")
    for _ in range(8):
        assert not other.take("a")
        time.sleep(0.1)
    mine.close()
    other.close()


def test_a_team_takes_over_the_claims_of_its_own_processes_at_once(folder: Url) -> None:
    dead, mine, other = Leases(folder, "ray-1"), Leases(folder, "ray-1"), Leases(folder, "ray-2")
    assert dead.take("a") and not other.take("a") and not Leases(folder).take("a")
    assert mine.take("a")
    dead._renew("a", dead._held["a"])  # it was only slow: it finds out that its claim is gone
    assert "a" not in dead._held
    dead.close()
    assert not other.take("a")
    mine.release("a")
    deadline_s = time.monotonic() + 10
    while not other.take("a") and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not mine.take("a")
    mine.close()
    other.close()


def test_a_claim_is_not_deleted_by_its_earlier_owner(folder: Url) -> None:
    dead, mine = Leases(folder, "ray-1"), Leases(folder, "ray-1")
    assert dead.take("a") and mine.take("a")
    dead.release("a")
    dead.close()
    assert not Leases(folder, "ray-2").take("a")
    mine.close()
    assert not list(objects.list_objects(folder))


def test_teams_whose_names_begin_alike_are_others(folder: Url) -> None:
    mine, other = Leases(folder, "ray-1"), Leases(folder, "ray-12")
    assert other.take("a") and not mine.take("a")
    assert mine.take("b") and not other.take("b")
    mine.close()
    other.close()
