"""Journals: one writer each, and nothing but the last line is lost by an interruption."""

import os
from pathlib import Path

import pytest

from pellucid.system import journals
from pellucid.system.journals import Journal, JournalReader


def test_writers_at_the_same_time_have_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "3-of-16.jsonl"
    writers = [Journal(path), Journal(path), Journal(path)]
    assert not path.parent.exists()
    for i, writer in enumerate(writers):
        writer.add({"writer": i})
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "3-of-16-2.jsonl",
        "3-of-16-3.jsonl",
        "3-of-16.jsonl",
    ]
    for writer in writers:
        writer.close()
    again = Journal(path)
    again.add({"writer": 3})
    again.close()
    assert list(JournalReader().read_new(path)) == [{"writer": 0}, {"writer": 3}]


def test_without_locks_every_writer_has_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, *, blocking: bool) -> bool:
        raise OSError("no locks here")

    monkeypatch.setattr(journals, "lock_descriptor", fail)
    for i in range(3):
        writer = Journal(tmp_path / "1-of-2.jsonl")
        writer.add({"writer": i})
        writer.close()
    read = [[*JournalReader().read_new(path)] for path in tmp_path.glob("*.jsonl")]
    assert sorted(lines[0]["writer"] for lines in read if lines) == [0, 1, 2]


def test_only_complete_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path, reader = tmp_path / "a.jsonl", JournalReader()
    assert list(reader.read_new(path)) == []
    writer = Journal(path, is_shared=True)
    writer.add({"n": 1})
    with path.open("a") as file:
        file.write('\n{"n": 2')  # killed in the middle of a line
    assert list(reader.read_new(path)) == [{"n": 1}]
    writer.add({"n": 3})
    with path.open("a") as file:
        file.write("[1]\nnot JSON\n")
    assert list(reader.read_new(path)) == [{"n": 3}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_pipe_in_place_of_a_journal_does_not_wait(tmp_path: Path) -> None:
    pipe = tmp_path / "journal.jsonl"
    os.mkfifo(pipe)
    assert list(JournalReader().read_new(pipe)) == []
    for is_shared in (False, True):
        with pytest.raises(OSError, match="is a device or a pipe"):
            Journal(pipe, is_shared=is_shared).add({})


def test_lines_are_not_added_through_a_link(tmp_path: Path) -> None:
    """Someone else may have put it into a folder of results."""
    victim = tmp_path / "victim"
    victim.write_text("keep\n")
    (tmp_path / "log.jsonl").symlink_to(victim)
    for is_shared in (False, True):
        with pytest.raises(OSError, match="symbolic link"):
            Journal(tmp_path / "log.jsonl", is_shared=is_shared).add({"a": 1})
    assert victim.read_text() == "keep\n"
