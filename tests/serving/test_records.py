"""Records and files of uploads and jobs survive, and strays do not."""

import time
from pathlib import Path

import pytest

from pellucid.errors import DataError
from pellucid.serving.records import JobRecord, Records, Task, Upload, new_id


def _upload(records: Records, folder: Path, *, is_temporary: bool = False) -> Upload:
    content = folder / "content"
    content.write_bytes(b"12345")
    upload = Upload(new_id(), "../a.png", "me", time.time(), 5, ".png", is_temporary)
    records.take_file(upload, content)
    records.save_upload(upload)
    return upload


def test_everything_comes_back(tmp_path: Path) -> None:
    records = Records(tmp_path / "data")
    upload = _upload(records, tmp_path)
    job = JobRecord(
        new_id(), "me", "m", {"strength": 0.5}, [Task(upload.id, "a.png", 10, state="running", progress=0.5)]
    )
    records.save_job(job)
    forgotten = JobRecord(new_id(), "me", "m", {}, [], is_kept=False)
    records.save_job(forgotten)
    records.result_folder(forgotten, 0).mkdir(parents=True)
    (tmp_path / "data" / "uploads" / "stray").write_bytes(b"x")
    records.close()
    again = Records(tmp_path / "data")
    assert again.uploads == {upload.id: upload} and again.upload_path(upload).read_bytes() == b"12345"
    assert list(again.jobs) == [job.id]
    (task,) = again.jobs[job.id].tasks
    assert (task.state, task.progress) == ("queued", 0.0), "unfinished work runs again"
    assert again.jobs[job.id].options == {"strength": 0.5}
    assert not (tmp_path / "data" / "uploads" / "stray").exists()
    assert not (tmp_path / "data" / "jobs" / forgotten.id).exists()


def test_removing(tmp_path: Path) -> None:
    records = Records(tmp_path / "data")
    upload = _upload(records, tmp_path)
    job = JobRecord(new_id(), "me", "m", {}, [Task(upload.id, "a.png", 10)])
    records.save_job(job)
    assert records.list_used() == {upload.id} and records.list_removable() == []
    folder = records.result_folder(job, 0)
    folder.mkdir(parents=True)
    job.tasks[0].state, job.tasks[0].about, job.finished_s = "done", {"bytes": 3}, 1.0
    assert records.list_removable() == [(1.0, job), (upload.created_s, upload)]
    assert records.kept_bytes() == 3 + 5
    records.remove(job)
    assert records.kept_bytes() == 5 and not folder.exists()
    records.remove(upload)
    assert not list((tmp_path / "data" / "uploads").iterdir())
    records.close()
    assert not Records(tmp_path / "data").jobs


def test_state_and_progress_of_a_job() -> None:
    def job(*states: str) -> JobRecord:
        return JobRecord("x" * 8, "me", "m", {}, [Task("u", "n", 10, state=state) for state in states])  # type: ignore[arg-type]  # words

    assert job("queued", "queued").state == "queued"
    assert job("queued", "done").state == "running"
    assert job("failed", "done").state == "done"
    assert job("failed", "failed").state == "failed"
    assert job("cancelled", "done").state == "cancelled"
    half = JobRecord(
        "x" * 8, "me", "m", {}, [Task("u", "n", 30, state="done"), Task("u", "n", 10, "running", 0.5)]
    )
    assert half.progress == 0.875


def test_uploads_of_lost_requests_do_not_come_back(tmp_path: Path) -> None:
    """A job that waits for its request is not recorded, so after a crash nobody needs its upload."""
    records = Records(tmp_path / "data")
    lost = _upload(records, tmp_path, is_temporary=True)
    needed = _upload(records, tmp_path, is_temporary=True)
    records.save_job(JobRecord(new_id(), "me", "m", {}, [Task(lost.id, "a.png", 10)], is_kept=False))
    records.save_job(JobRecord(new_id(), "me", "m", {}, [Task(needed.id, "a.png", 10)]))
    records.close()
    again = Records(tmp_path / "data")
    assert list(again.uploads) == [needed.id] and not again.upload_path(lost).exists()
    assert len(again._database.execute("SELECT * FROM uploads").fetchall()) == 1


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"not a database, but longer than its header of 100 bytes" * 9)
    with pytest.raises(DataError, match="not a database"):
        Records(tmp_path)
    with pytest.raises(DataError, match="cannot be used"):
        Records(tmp_path / "records.sqlite" / "folder")


@pytest.mark.parametrize("name", ["temporary", "uploads", "jobs"])
def test_folders_of_others_are_not_deleted(name: str, tmp_path: Path) -> None:
    photo = tmp_path / name / "photo.png"
    photo.parent.mkdir()
    photo.write_bytes(b"x")
    with pytest.raises(DataError, match=f"{name} is in it, but no service has made it"):
        Records(tmp_path)
    assert [*tmp_path.rglob("*")] == [photo.parent, photo]


def test_other_users_can_read_nothing(tmp_path: Path) -> None:
    """Even in a folder that was there before, which others may read."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    records = Records(folder)
    _upload(records, tmp_path)
    assert len(records.link_secret()) == 32
    assert {path.name: oct(path.stat().st_mode & 0o77) for path in folder.iterdir()} == dict.fromkeys(
        ("temporary", "uploads", "jobs", "batches", "records.sqlite", "records.sqlite-wal", "records.sqlite-shm"),
        "0o0",
    )
    records.close()


def test_links_work_after_a_restart(tmp_path: Path) -> None:
    first, other = Records(tmp_path / "data"), Records(tmp_path / "other")
    secret = first.link_secret()
    first.close()
    again = Records(tmp_path / "data")
    assert len(secret) == 32 and again.link_secret() == again.link_secret() == secret != other.link_secret()
    again.close()
    other.close()
