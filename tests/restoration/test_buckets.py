"""Restoring pictures in buckets: results are those of files, wherever they come from and go to."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import obstore
import pytest
import torch

from object_server import READER_KEY, READER_SECRET, Bucket
from pellucid.backends.eager import TorchBackend
from pellucid.errors import OutputError, StorageError
from pellucid.recipes import registry
from pellucid.restoration import leases, ledgers, manifest, planning
from pellucid.restoration.leases import Leases
from pellucid.restoration.restore import check_files, iter_restore, restore
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.run_status import read_status
from pellucid.restoration.sessions import Outcome
from pellucid.restoration.settings import Settings
from pellucid.storage import conditions, objects
from pellucid.storage.urls import Tag, Url, locate
from pellucid.system.shards import Shard

ODD = ("a b.png", "50%25 ü.png", "q?x#y.png", "~^'(+)&=,;@$!.png")


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    chosen = registry.find("dncnn.gaussian", depth=3, width=4)
    return Restorer("tiny", chosen, TorchBackend(chosen.network(), "cpu"))


@pytest.fixture
def photo(album: Path) -> bytes:
    return (album / "a.png").read_bytes()


def _raise_errors(outcomes: list[Outcome]) -> list[Outcome]:
    for outcome in outcomes:
        outcome.raise_error()
    return outcomes


def test_a_folder_becomes_what_the_same_files_become(album: Path, bucket: Bucket, restorer: Restorer) -> None:
    bucket.upload(album, "in")
    bucket.put("in/notes.txt", b"no picture")
    bucket.put("in/.hidden/a.png", b"hidden")
    expected = restore(album, restorer, album.parent / "out")
    outcomes = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert [str(outcome.target) for outcome in outcomes] == [
        str(outcome.target).replace(str(album.parent), bucket.url) for outcome in expected
    ]
    for outcome in expected:
        assert outcome.target is not None
        name = str(outcome.target).removeprefix(f"{album.parent}/")
        if outcome.error is None:
            assert bucket.get(name) == Path(str(outcome.target)).read_bytes()
        else:
            assert not bucket.exists(name)
    (failed,) = [outcome for outcome in outcomes if outcome.error is not None]
    assert f"{bucket.url}/in/broken.png" in str(failed.error) and "/tmp" not in str(failed.error)


@pytest.mark.parametrize("name", ODD)
def test_any_name_works(bucket: Bucket, restorer: Restorer, photo: bytes, name: str) -> None:
    bucket.put(f"in {name}/{name}", photo)
    _raise_errors(restore(f"{bucket.url}/in {name}", restorer, f"{bucket.url}/out"))
    assert bucket.exists(f"out/{name}")
    (outcome,) = _raise_errors(restore(f"{bucket.url}/in {name}/{name}", restorer))
    assert str(outcome.target) == f"{bucket.url}/in {name}/{Path(name).stem}-restored.png"
    assert bucket.get(f"in {name}/{Path(name).stem}-restored.png") == bucket.get(f"out/{name}")


def test_files_go_to_buckets_and_back(album: Path, bucket: Bucket, restorer: Restorer) -> None:
    (album / "broken.png").unlink()
    _raise_errors(restore(album, restorer, f"{bucket.url}/out"))
    bucket.upload(album, "in")
    _raise_errors(restore(f"{bucket.url}/in", restorer, album.parent / "out"))
    for name in ("a.png", "b.tif", "deep/c.png"):
        assert (album.parent / "out" / name).read_bytes() == bucket.get(f"out/{name}")
    assert all(
        outcome.is_skipped
        for outcome in restore(album, restorer, f"{bucket.url}/out")
        + restore(f"{bucket.url}/in", restorer, album.parent / "out")
    )


def test_the_same_call_resumes(
    album: Path, bucket: Bucket, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(album, "in")
    fetched: list[str] = []
    fetch = objects.fetch

    def remember(url: Url, path: Path) -> Tag:
        fetched.append(url.name)
        return fetch(url, path)

    monkeypatch.setattr("pellucid.storage.objects.fetch", remember)
    runs = iter_restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out", workers=1)
    next(runs)
    runs.close()
    before = bucket.get("out/a.png")
    fetched.clear()
    outcomes = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert outcomes[0].is_skipped and "a.png" not in fetched
    assert bucket.get("out/a.png") == before
    assert sum(outcome.is_skipped for outcome in restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")) == 3


def test_a_killed_process_loses_no_result(
    album: Path, bucket: Bucket, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are stored, but the part of the manifest that describes them is not."""
    bucket.upload(album, "in")
    with monkeypatch.context() as patch:
        patch.setattr(ledgers.BucketLedger, "_store", lambda self: None)
        restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert sum(outcome.is_skipped for outcome in restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")) == 3
    others = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out", Settings(strength=0.5))
    assert all("exists" in str(outcome.error) for outcome in others if "broken" not in str(outcome.source))


def test_changed_inputs_are_restored_again_and_nothing_else_is_replaced(
    album: Path, bucket: Bucket, restorer: Restorer
) -> None:
    (album / "broken.png").unlink()
    bucket.upload(album, "in")
    bucket.put("out/b.tif", b"of the user")
    first = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert ["exists" in str(outcome.error) for outcome in first] == [False, True, False]
    bucket.put("in/a.png", (album / "deep" / "c.png").read_bytes())
    second = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert [outcome.is_skipped for outcome in second] == [False, False, True]
    assert bucket.get("out/a.png") == bucket.get("out/deep/c.png")
    assert bucket.get("out/b.tif") == b"of the user"
    _raise_errors(restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out", overwrite=True))
    assert bucket.get("out/b.tif") != b"of the user"


def test_a_file_that_appears_meanwhile_is_not_replaced(
    bucket: Bucket, restorer: Restorer, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself refuses: there is no moment between looking and storing."""
    bucket.put("in/a.png", photo)
    monkeypatch.setattr(manifest.Manifest, "refresh", lambda self, target: bucket.put("out/a.png", b"meanwhile"))
    (outcome,) = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert isinstance(outcome.error, OutputError) and f"{bucket.url}/out/a.png exists" in str(outcome.error)
    assert bucket.get("out/a.png") == b"meanwhile"


def test_processes_at_once_share_the_work(
    bucket: Bucket, restorer: Restorer, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        bucket.put(f"in/{i}.png", photo)
    monkeypatch.setattr("pellucid.restoration.sessions.CLAIM_IN_BUCKET_EVERY_S", 0.05)
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out"), range(3)))
    outcomes = _raise_errors([outcome for run in runs for outcome in run])
    assert sum(not outcome.is_skipped for outcome in outcomes) == 12
    assert not list(objects.list_objects(_url(f"{bucket.url}/out/.pellucid/claims")))


def test_without_claims_work_is_done_twice_and_no_harm(
    bucket: Bucket, restorer: Restorer, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/a.png", photo)
    both_have_looked = Barrier(2, timeout=30)
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Leases, "take", lambda self, key: True)
        patch.setattr(manifest.Manifest, "refresh", lambda self, target: both_have_looked.wait())
        runs = list(pool.map(lambda _: restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out"), range(2)))
    outcomes = _raise_errors([outcome for run in runs for outcome in run])
    assert [outcome.is_skipped for outcome in outcomes] == [False, False]
    (outcome,) = restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert outcome.is_skipped


def test_the_manifest_states_the_e_tags(bucket: Bucket, restorer: Restorer, photo: bytes) -> None:
    """By an independent reading of what is stored; S3's e-tag of a small object is its MD5."""
    from hashlib import md5

    bucket.put("in/a.png", photo)
    _raise_errors(restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out"))
    (part,) = objects.list_objects(_url(f"{bucket.url}/out/.pellucid"))
    lines = [json.loads(line) for line in bucket.get(f"out/.pellucid/{part.name}").splitlines()]
    (entry,) = [line for line in lines if "result" in line]
    (status,) = read_status(_url(f"{bucket.url}/out"))
    assert [one.status for one in status.pictures] == ["restored"]
    assert entry["source"] == ["a.png", f'"{md5(photo).hexdigest()}"', len(photo)]
    assert entry["result"][0] == f'"{md5(bucket.get("out/a.png")).hexdigest()}"'


def test_masks_and_comparisons(album: Path, bucket: Bucket, restorer: Restorer) -> None:
    (album / "broken.png").unlink()
    bucket.upload(album, "in")
    bucket.upload(album, "masks")
    local = album.parent / "out"
    _raise_errors(restore(album, restorer, local, Settings(compare=True), mask=album))
    masks = f"{bucket.url}/masks"
    _raise_errors(restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out", Settings(compare=True), mask=masks))
    for name in ("a.png", "deep/c.png", "a-compare.png"):
        assert bucket.get(f"out/{name}") == (local / name).read_bytes()
    one = restore(f"{bucket.url}/in/a.png", restorer, f"{bucket.url}/one.png", mask=f"{masks}/a.png")
    _raise_errors(one)
    assert bucket.get("one.png") == bucket.get("out/a.png")


def test_results_of_earlier_runs_are_not_restored_again(album: Path, bucket: Bucket, restorer: Restorer) -> None:
    (album / "broken.png").unlink()
    bucket.upload(album, "in")
    _raise_errors(restore(f"{bucket.url}/in", restorer, f"{bucket.url}/in/deep/out"))
    plan = planning.plan(f"{bucket.url}/in", f"{bucket.url}/other")
    assert (len(plan), plan.num_results) == (3, 3)
    plan = planning.plan([f"{bucket.url}/in/a.png", f"{bucket.url}/in/deep"], f"{bucket.url}/other")
    assert [job.source.name for job in plan] == ["a.png", "c.png", "b.tif"] and plan.num_results == 2
    bucket.put("in/deep/out/a.png", (album / "a.png").read_bytes())  # of the user
    assert planning.plan(f"{bucket.url}/in", f"{bucket.url}/other").num_results == 2


def test_what_cannot_work_is_said_before_any_work(bucket: Bucket, restorer: Restorer, photo: bytes) -> None:
    bucket.put("in/a.png", photo)
    bucket.put("empty/notes.txt", b"x")
    for inputs, out, message in (
        (f"{bucket.url}/none", None, "none does not exist; check the name"),
        (f"{bucket.url}/in/*.png", None, r"\*\.png does not exist; patterns are for folders"),
        (f"{bucket.url}/empty", None, "contains no pictures"),
        ("s3://no-such-bucket/in", None, "the bucket s3://no-such-bucket does not exist"),
        (f"{bucket.url}/in", "s3://no-such-bucket/out", "the bucket s3://no-such-bucket does not exist"),
        (f"{bucket.url}/in", "https://host/out", "is read-only"),
        (f"{bucket.url}/in", f"{bucket.url}/out.png", r"out\.png is the name of a file"),
        (f"{bucket.url}/in/a.png", f"{bucket.url}/in/a.png", "is one of the inputs"),
        ("s3://pictures", None, "is a whole bucket"),
    ):
        with pytest.raises(Exception, match=message) as caught:
            restore(inputs, restorer, out)
        assert "\n" not in str(caught.value)
    assert not bucket.exists("out/a.png")


def test_a_user_who_may_only_read(
    bucket: Bucket, restorer: Restorer, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/a.png", photo)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    (outcome,) = restore(f"{bucket.url}/in/a.png", restorer, f"{bucket.url}/out.png")
    assert isinstance(outcome.error, StorageError)
    assert f"writing {bucket.url}/out.png is not permitted" in str(outcome.error)
    with pytest.raises(StorageError, match=f"writing {bucket.url}/out/.* is not permitted"):  # once, not for each
        restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")


def test_a_server_that_ignores_conditions_is_said_once(
    bucket: Bucket, restorer: Restorer, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put
    monkeypatch.setattr(conditions, "_probed", {})
    monkeypatch.setattr(obstore, "put", lambda *args, **options: put(*args, **{**options, "mode": "overwrite"}))
    bucket.put("in/a.png", photo)
    bucket.put("in/b.png", photo)
    with pytest.raises(StorageError, match="the server of the bucket s3://pictures ignores conditions"):
        restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out")
    assert not bucket.exists("out/a.png")


def test_a_dry_run_fetches_nothing(
    album: Path, bucket: Bucket, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(album, "in")
    jobs = planning.plan(f"{bucket.url}/in", f"{bucket.url}/out")
    monkeypatch.delattr("pellucid.storage.objects.fetch")
    outcomes = check_files(jobs, restorer, Settings(), overwrite=False)
    assert [bool(outcome.is_skipped or outcome.error) for outcome in outcomes] == [False] * 4


def _url(text: str) -> Url:
    url = locate(text)
    assert isinstance(url, Url)
    return url


def test_shards_in_a_bucket_and_their_status(bucket: Bucket, restorer: Restorer, photo: bytes) -> None:
    for i in range(5):
        bucket.put(f"in/{i}.png", photo)
    num_restored = []
    for number in (1, 2, 1):
        plan = planning.plan(f"{bucket.url}/in", f"{bucket.url}/out", shard=Shard(number, 2))
        num_restored.append(sum(not outcome.is_skipped for outcome in _raise_errors(restore(plan, restorer))))
        (status,) = read_status(_url(f"{bucket.url}/out"))
        assert len(status.select("restored")) == sum(num_restored)
    assert sum(num_restored[:2]) == 5 and num_restored[2] == 0 and status.shards == ("1/2", "2/2")


def test_a_key_for_one_folder_is_enough(
    bucket: Bucket, restorer: Restorer, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy may permit listing only with the prefix of the folder."""
    bucket.put("in/a.png", photo)
    original = objects.list_objects

    def list_objects(folder: Url) -> Iterator[Url]:
        if not str(folder).startswith(f"{bucket.url}/"):
            raise StorageError(f"listing {folder} is not permitted")
        return original(folder)

    monkeypatch.setattr(objects, "list_objects", list_objects)
    _raise_errors(restore(f"{bucket.url}/in", restorer, f"{bucket.url}/out"))
    assert bucket.exists("out/a.png")


def test_a_claim_that_was_taken_over_is_not_released(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = locate(f"{bucket.url}/out/")
    assert isinstance(folder, Url)
    monkeypatch.setattr(leases, "LEASE_S", 0.0)
    sleeper, second, third = (Leases(folder) for _ in range(3))
    assert sleeper.take("a.png")
    assert not second.take("a.png") and second.take("a.png")  # as if a minute had passed
    sleeper.release("a.png")
    sleeper.close()
    assert not third.take("a.png")
    second.close()
    assert third.take("a.png")
    third.close()
