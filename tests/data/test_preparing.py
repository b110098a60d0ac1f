"""Preparing: bad files do not stop it, and nothing is decoded twice."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from data_sources import noise, write_noise, write_pictures, zip_folder

from pellucid.data import preparing, store, store_writer
from pellucid.data.preparing import cache_folder_as_store, open_data, prepare
from pellucid.errors import ArgumentError, DataError, OutputError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.pictures.samples import Samples
from pellucid.system import files


def test_depth_and_channels_are_kept_and_transparency_is_dropped(tmp_path: Path) -> None:
    deep = write_noise(tmp_path / "in" / "deep.png", 5, 7, 3, dtype="uint16")
    gray = write_noise(tmp_path / "in" / "gray.png", 5, 7, 1, seed=1)
    clear = noise(5, 7, 3, seed=2)
    images.write(Picture(clear, alpha=noise(5, 7, 1)), tmp_path / "in" / "clear.png")
    images.write(Picture(np.ones((5, 7, 1), np.float32)), tmp_path / "in" / "float.tif")
    prepared = prepare("folder", [tmp_path / "in"], tmp_path / "s")
    made = prepared.store
    assert made.names == ("clear.png", "deep.png", "gray.png")
    for i, expected in enumerate((clear, deep, gray)):
        assert made.target(i).dtype == expected.dtype and np.array_equal(made.target(i), expected)
    assert prepared.messages == ("1 of 3: transparency was dropped",)
    ((name, reason),) = made.left_out
    assert name == "float.tif" and "floating-point samples" in reason


def test_bad_files_are_listed_and_do_not_stop_the_others(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    whole = (folder / "deep" / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("hello")
    (folder / "twin.png").write_bytes(whole)
    write_noise(folder / "tiny.png", 2, 9, 3)
    made = prepare("folder", [zip_folder(folder, tmp_path / "x.zip")], tmp_path / "s", min_px=4).store
    assert made.names == ("deep/0.png", "deep/1.png", "deep/2.png")
    reasons = dict(made.left_out)
    assert set(reasons) == {"cut.png", "empty.png", "text.png", "tiny.png", "twin.png"}
    assert "same picture as deep/0.png" in reasons["twin.png"]
    assert "too small: 9 x 2 px; 4 px are needed" in reasons["tiny.png"]
    assert "x.zip/cut.png is damaged" in reasons["cut.png"]  # not the name of a temporary copy
    assert all("\n" not in reason for reason in reasons.values())


def test_nothing_to_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="in contains no pictures$"):
        prepare("folder", [tmp_path / "in"], tmp_path / "s")
    (tmp_path / "in" / "bad.png").write_text("hello")
    with pytest.raises(DataError, match="0 of 1 item could be stored, e.g. bad.png"):
        prepare("folder", [tmp_path / "in"], tmp_path / "s")
    with pytest.raises(DataError, match="does not exist"):
        prepare("folder", [tmp_path / "none"], tmp_path / "s")
    with pytest.raises(ArgumentError, match="no data set 'floder'; did you mean folder"):
        prepare("floder", [tmp_path / "in"], tmp_path / "s")
    with pytest.raises(ArgumentError, match="folder has no keyword 'split'"):
        prepare("folder", [tmp_path / "in"], tmp_path / "s", split="train")


def test_a_store_inside_its_source_is_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    (tmp_path / "link").symlink_to(folder)
    for out in (folder / "deep" / "store", tmp_path / "link" / "deep" / "store"):
        with pytest.raises(OutputError, match="would be among its own sources"):
            prepare("folder", [folder], out)
    with pytest.raises(OutputError, match="is read-only"):
        prepare("folder", [folder], "https://host/store")
    with pytest.raises(DataError, match=r"s3://bucket/store is a URL; copy"):
        open_data("s3://bucket/store")
    assert not (folder / "deep" / "store").exists()
    prepare("folder", [folder], tmp_path / "in-store")


def test_an_interrupted_store_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "in", 5)
    read: list[str] = []
    real = images.read

    def counted(path: str | Path, **options: Any) -> Picture:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(images, "read", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare("folder", [folder], tmp_path / "s", workers=1)
    assert store_writer.is_unfinished(tmp_path / "s")
    monkeypatch.setattr(images, "read", real)
    again = prepare("folder", [folder], tmp_path / "s")
    assert again.num_decoded == 2 and len(again.store) == 5
    assert again.store.check() == []
    assert prepare("folder", [folder], tmp_path / "s").num_decoded == 0


def test_a_store_is_resumed_after_kill_9(tmp_path: Path) -> None:
    for i in range(40):
        write_noise(tmp_path / "in" / f"{i:02}.png", 40, 40, 3, seed=i)
    code = f"""
import time
from pathlib import Path
from pellucid.data import preparing, store_writer
from pellucid.pictures import images
store_writer.SYNC_S = 0
real = images.read
def slow(path, **options):
    time.sleep(0.05)
    return real(path, **options)
images.read = slow
preparing.prepare("folder", [Path({str(tmp_path / "in")!r})], {str(tmp_path / "s")!r}, workers=2)
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    notes = tmp_path / "s" / "sources.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not notes.exists() or notes.read_bytes().count(b"\n") < 6):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    num_done = notes.read_bytes().count(b"\n") - 1
    assert 5 <= num_done < 40
    with pytest.raises(DataError, match="unfinished"):
        store.open(tmp_path / "s")
    again = prepare("folder", [tmp_path / "in"], tmp_path / "s")
    assert again.num_decoded == 40 - num_done
    assert again.store.check() == []
    assert again.store.fingerprint == prepare("folder", [tmp_path / "in"], tmp_path / "fresh").store.fingerprint


def test_changed_sources_are_decoded_again(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            store_writer.StoreWriter, "finish", lambda *_: pytest.skip.Exception
        )  # as if the process had been killed here
        with pytest.raises(AttributeError):
            _ = prepare("folder", [folder], tmp_path / "s").store.names
    write_noise(tmp_path / "other.png", 8, 6, 3, seed=99)
    (tmp_path / "other.png").replace(folder / "deep" / "0.png")
    os.utime(folder / "deep" / "1.png", (1, 1))  # a new time, but the same content
    again = prepare("folder", [folder], tmp_path / "s")
    assert again.num_decoded == 1
    assert again.messages == ("deep/0.png has changed since it was decoded, and was decoded again",)
    assert np.array_equal(again.store.target(0), noise(8, 6, 3, seed=99))


def test_a_finished_store_is_not_changed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in")
    (folder / "bad.png").write_text("hello")
    before = prepare("folder", [folder], tmp_path / "s").store
    assert prepare("folder", [folder], tmp_path / "s").store.fingerprint == before.fingerprint
    write_noise(folder / "new.png", 8, 8, 3, seed=9)
    with pytest.raises(
        OutputError, match="1 source differs \\(new, changed or missing\\), e.g. new.png; overwrite=True"
    ):
        prepare("folder", [folder], tmp_path / "s")
    with pytest.raises(OutputError, match="other settings"):
        prepare("folder", [folder], tmp_path / "s", min_px=4)
    (folder / "new.png").unlink()
    (folder / "deep" / "2.png").unlink()
    with pytest.raises(OutputError, match="e.g. deep/2.png"):
        prepare("folder", [folder], tmp_path / "s")
    assert len(prepare("folder", [folder], tmp_path / "s", overwrite=True).store) == 2


def test_a_store_is_resumed_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    folder = write_pictures(tmp_path / "in", 6)
    real = store_writer.StoreWriter._append
    calls: list[int] = []

    def full(self: store_writer.StoreWriter, content: Samples) -> tuple[int, int]:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, content)

    monkeypatch.setattr(store_writer.StoreWriter, "_append", full)
    with pytest.raises(OutputError, match="No space left on device; finished files are kept") as caught:
        prepare("folder", [folder], tmp_path / "s", workers=1)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(store_writer.StoreWriter, "_append", real)
    assert prepare("folder", [folder], tmp_path / "s").num_decoded == 3


def test_a_folder_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = write_pictures(tmp_path / "in")
    first = cache_folder_as_store(folder)
    monkeypatch.setattr(images, "read", lambda path: pytest.fail("decoded again"))
    assert cache_folder_as_store(folder).folder == first.folder and len(first) == 3
    monkeypatch.undo()
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    write_noise(folder / "new.png", 8, 8, 3, seed=9)
    assert len(cache_folder_as_store(folder)) == 4
    assert cache_folder_as_store(folder, target=folder).kind == "pairs"
    monkeypatch.setenv("PELLUCID_CACHE", str(folder / "new.png" / "cache"))
    with pytest.raises(OutputError, match="set the environment variable PELLUCID_CACHE to another folder"):
        cache_folder_as_store(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="^gone does not exist"):
        cache_folder_as_store("gone")


def test_files_in_another_folder_are_compared_by_content(tmp_path: Path) -> None:
    """Uncompressed pictures have equal sizes, and those of some archives equal times."""
    first, same, other = (write_pictures(tmp_path / name / "in") for name in "abc")
    for folder in (first, same, other):
        for path in folder.rglob("*.png"):
            image = PIL.Image.open(path)
            (image.transpose(PIL.Image.Transpose.ROTATE_180) if folder is other else image).save(
                path.with_suffix(".bmp")
            )
            path.unlink()
            os.utime(path.with_suffix(".bmp"), (1, 1))
    prepare("folder", [first], tmp_path / "store")
    assert prepare("folder", [same], tmp_path / "store").num_decoded == 0
    with pytest.raises(OutputError, match=r"is finished, but 3 sources differ"):
        prepare("folder", [other], tmp_path / "store")


@pytest.mark.parametrize(("names", "is_named"), [(("0", "1", "2"), False), (("x", "y", "z"), True)])
def test_pairs_that_are_matched_in_order_are_named_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], is_named: bool
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    data, target = write_pictures(tmp_path / "data"), write_pictures(tmp_path / "target")
    for name, path in zip(names, sorted(data.glob("*/*.png")), strict=True):
        path.rename(path.with_stem(name))
    for _ in range(2):  # the second time from the cache
        lines: list[str] = []
        open_data(data, target=target, log=lines.append)
        expected = (
            f"no names agree, so pictures were matched in sorted order, e.g. {data}/deep/{names[0]}.png with"
        )
        assert [line.startswith(expected) for line in lines] == [True] * is_named


def test_a_folder_with_another_index_json_is_opened_as_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = write_pictures(tmp_path / "pictures")
    (folder / "index.json").write_text("{}")
    assert len(open_data(folder)) == 3
    made = prepare("folder", [folder], tmp_path / "store").store
    assert open_data(made.folder).folder == made.folder
    assert files.cache_folder() == tmp_path / "cache"
    store.shard_path(made.folder, 0).unlink()
    with pytest.raises(DataError, match="is a damaged store"):
        open_data(made.folder)


def test_of_several_processes_only_one_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = write_pictures(tmp_path / "in", 6)
    read: list[Path] = []
    real = images.read

    def slow(path: Path, **options: Any) -> Picture:
        read.append(path)
        time.sleep(0.02)
        return real(path, **options)

    monkeypatch.setattr(images, "read", slow)
    with ThreadPoolExecutor(3) as pool:  # the lock belongs to the open file, so that threads can replace processes
        made = list(pool.map(lambda _: cache_folder_as_store(folder), range(3)))
    assert len({each.fingerprint for each in made}) == 1 and len(read) == 6


def test_a_store_of_an_earlier_version_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header contains these keywords for every data set, with null for defaults."""
    folder = write_pictures(tmp_path / "in", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_writer.StoreWriter, "finish", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            prepare("folder", [folder], tmp_path / "s")
    journal = tmp_path / "s" / "sources.jsonl"
    header = journal.read_text().splitlines()[0]
    assert header == (
        '{"format": "pellucid store", "request": {"all_bursts": false, "blur": null, "kind": "folder", '
        '"lists": null, "min_px": 1, "split": null}, "version": 1}'
    )
    assert prepare("folder", [folder], tmp_path / "s").num_decoded == 0


@pytest.mark.parametrize(
    ("kind", "keywords", "recorded"),
    [
        ("gopro", {"split": "test"}, {"split": "test"}),
        ("gopro", {"split": "train", "blur": "blur_gamma"}, {"split": "train", "blur": "blur_gamma"}),
        ("sid-sony", {"lists": Path("lists"), "all_bursts": "true"}, {"all_bursts": True}),
    ],
)
def test_keywords_are_recorded_in_the_form_of_earlier_versions(
    kind: str, keywords: dict[str, Any], recorded: dict[str, Any]
) -> None:
    defaults = {"split": None, "blur": None, "lists": None, "all_bursts": False}
    assert preparing._make_request(kind, keywords, 3) == {"kind": kind, "min_px": 3, **defaults, **recorded}
