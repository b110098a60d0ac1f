"""Preparing: every layout as published, whatever it is packed in; nothing bad stops it, nothing is done twice."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.data import archives, leaks, preparing, registry, store, store_writer
from pellucid.data.preparing import cache_folder_as_store, open_data, prepare
from pellucid.errors import DataError, OutputError
from pellucid.pictures import dng, images
from pellucid.pictures.picture import Mosaic, Picture, Samples
from pellucid.system import files


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def draw(path: Path, *shape: int, dtype: str = "uint8", seed: int = 0) -> Samples:
    samples = noise(*shape, dtype=dtype, seed=seed)
    images.write(Picture(samples), path)
    return samples


def some_pictures(folder: Path, num: int = 3) -> Path:
    for i in range(num):
        draw(folder / "deep" / f"{i}.png", 8, 6 + i, 3, seed=i)
    return folder


def as_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


def as_tar(folder: Path, path: Path, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, ".")
    return path


def as_nested_tar(folder: Path, path: Path) -> Path:
    """As ILSVRC2013_DET_train comes: a tar of tars."""
    inner = as_tar(folder / "deep", folder.parent / "deep.tar")
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "deep.tar")
    return path


PACKINGS: dict[str, Callable[[Path, Path], Path]] = {
    "zip": lambda folder, out: as_zip(folder, out / "x.zip"),
    "tar": lambda folder, out: as_tar(folder, out / "x.tar"),
    "tar.gz": lambda folder, out: as_tar(folder, out / "x.tar.gz", "w:gz"),
    "tar.xz": lambda folder, out: as_tar(folder, out / "x.tar.xz", "w:xz"),
    "tar in tar": lambda folder, out: as_nested_tar(folder, out / "x.tar"),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_archives_give_what_the_folder_gives(packing: str, tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "data")
    plain = prepare("folder", [folder], tmp_path / "plain").store
    packed = prepare("folder", [PACKINGS[packing](folder, tmp_path)], tmp_path / "packed").store
    assert packed.names == ("deep/0.png", "deep/1.png", "deep/2.png")
    assert packed.fingerprint == plain.fingerprint
    assert np.array_equal(packed.target(2), noise(8, 8, 3, seed=2))


def test_depth_and_channels_stay_and_alpha_goes(tmp_path: Path) -> None:
    deep = draw(tmp_path / "in" / "deep.png", 5, 7, 3, dtype="uint16")
    gray = draw(tmp_path / "in" / "gray.png", 5, 7, 1, seed=1)
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


def test_what_is_bad_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "in")
    whole = (folder / "deep" / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("hello")
    (folder / "twin.png").write_bytes(whole)
    draw(folder / "tiny.png", 2, 9, 3)
    made = prepare("folder", [as_zip(folder, tmp_path / "x.zip")], tmp_path / "s", min_px=4).store
    assert made.names == ("deep/0.png", "deep/1.png", "deep/2.png")
    reasons = dict(made.left_out)
    assert set(reasons) == {"cut.png", "empty.png", "text.png", "tiny.png", "twin.png"}
    assert "same picture as deep/0.png" in reasons["twin.png"]
    assert "too small: 9 x 2 px; 4 px are needed" in reasons["tiny.png"]
    assert "x.zip/cut.png is damaged" in reasons["cut.png"]  # not the name of a passing copy
    assert all("\n" not in reason for reason in reasons.values())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "in", 1)
    os.mkfifo(folder / "pipe.png")
    assert len(prepare("folder", [folder], tmp_path / "s").store) == 1


def test_nothing_to_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="contains no .*png"):
        prepare("folder", [tmp_path / "in"], tmp_path / "s")
    (tmp_path / "in" / "bad.png").write_text("hello")
    with pytest.raises(DataError, match="none of 1 items could be stored, first bad.png"):
        prepare("folder", [tmp_path / "in"], tmp_path / "s")
    with pytest.raises(DataError, match="does not exist"):
        prepare("folder", [tmp_path / "none"], tmp_path / "s")
    with pytest.raises(DataError, match="no data set 'floder'; did you mean folder"):
        prepare("floder", [tmp_path / "in"], tmp_path / "s")
    with pytest.raises(DataError, match="folder has no keyword 'split'"):
        prepare("folder", [tmp_path / "in"], tmp_path / "s", split="train")


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes, declared: int | None = None) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    if declared is not None:
        member.size = declared
        archive.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
        return
    archive.addfile(member, io.BytesIO(content))


def test_hostile_tars_write_nothing_and_stop_nothing(tmp_path: Path) -> None:
    draw(tmp_path / "good.png", 4, 4, 1)
    content = (tmp_path / "good.png").read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_bytes(archive, "good.png", content)
        add_bytes(archive, "../../escaped.png", content)
        add_bytes(archive, "/absolute.png", content)
        add_bytes(archive, ".hidden.png", content)
        add_bytes(archive, "inner.zip", b"")
        add_bytes(archive, "broken.tar", b"no tar at all" * 100)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add_bytes(archive, "huge.png", b"", declared=2**62)
    made = prepare("folder", [tmp_path / "x.tar"], tmp_path / "s").store
    assert made.names == ("good.png",)
    reasons = " ".join(f"{name}: {reason}" for name, reason in made.left_out)
    for part in (
        "escaped.png: its name points outside",
        "absolute.png: its name points outside",
        "huge.png",
        "inner.zip",
    ):
        assert part in reasons
    assert "broken.tar" in reasons and "link.png" not in reasons and "hidden" not in reasons
    assert not (tmp_path.parent / "escaped.png").exists()


def test_a_hostile_zip_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    draw(tmp_path / "in" / "good.png", 4, 4, 1)
    (tmp_path / "in" / "bomb.png").write_bytes(bytes(2000))
    made = prepare("folder", [as_zip(tmp_path / "in", tmp_path / "x.zip")], tmp_path / "s").store
    ((name, reason),) = made.left_out
    assert name.endswith("x.zip/bomb.png") and "declares 2000 bytes" in reason


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "in")
    for path in (as_tar(folder, tmp_path / "x.tar.gz", "w:gz"), as_zip(folder, tmp_path / "x.zip")):
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DataError, match="cannot be read as a zip or tar") as caught:
            prepare("folder", [path], tmp_path / "s")
        assert "\n" not in str(caught.value)
    cut = as_tar(folder, tmp_path / "x.tar")
    with tarfile.open(cut) as archive:
        last = [member for member in archive if member.isreg()][-1]
    cut.write_bytes(cut.read_bytes()[: last.offset_data + 10])
    made = prepare("folder", [cut], tmp_path / "t").store
    assert len(made) == 2 and "truncated" in made.left_out[0][1]


def test_pairs_are_matched_by_name(tmp_path: Path) -> None:
    for name, height in (("a", 8), ("b", 8), ("c", 9), ("e", 8)):
        draw(tmp_path / "low" / f"{name}.png", height // 2, 4, 3, seed=height)
    for i, name in enumerate("abcd"):
        draw(tmp_path / "high" / f"{name}.jpg", 8 + (name == "c"), 8, 3, seed=i)
    (tmp_path / "high" / "b.jpg").write_text("bad")
    made = prepare("pairs", [tmp_path / "low", tmp_path / "high"], tmp_path / "s").store
    assert made.kind == "pairs" and made.names == ("a.png",)
    assert np.array_equal(made.degraded(0), noise(4, 4, 3, seed=8)) and made.sizes == ((8, 8),)
    reasons = dict(made.left_out)
    assert "no target has its name" in reasons["degraded/e.png"]
    assert "no degraded picture has its name" in reasons["target/d.jpg"]
    assert "not a PNG" in reasons["target/b.jpg"] and "could not be decoded" in reasons["b.png"]
    assert "not a multiple" in reasons["c.png"]
    with pytest.raises(DataError, match="two sources"):
        prepare("pairs", [tmp_path / "low"], tmp_path / "t")


def gopro_tree(root: Path) -> Path:
    for i, (split, folder) in enumerate(
        (s, f) for s in ("train", "test") for f in ("blur", "blur_gamma", "sharp")
    ):
        for frame in range(2):
            draw(root / split / f"GOPR_{split}" / folder / f"00{frame}.png", 4, 6, 3, seed=10 * i + frame)
    return root


def test_gopro_gives_the_split_and_the_blur_that_are_asked_for(tmp_path: Path) -> None:
    root = gopro_tree(tmp_path / "GOPRO_Large")
    archive = as_zip(root.parent, tmp_path.parent / f"{tmp_path.name}.zip")
    train = prepare("gopro", [root], tmp_path / "train").store
    assert train.names == ("train/GOPR_train/blur/000.png", "train/GOPR_train/blur/001.png")
    assert np.array_equal(train.degraded(1), noise(4, 6, 3, seed=1))
    assert np.array_equal(train.target(1), noise(4, 6, 3, seed=21))
    gamma = prepare("gopro", [archive], tmp_path / "test", split="test", blur="blur_gamma").store
    assert np.array_equal(gamma.degraded(0), noise(4, 6, 3, seed=40))
    only_test = prepare("gopro", [root / "test"], tmp_path / "only", split="test").store
    assert len(only_test) == 2
    with pytest.raises(DataError, match="'train' has no pictures"):
        prepare("gopro", [root / "test"], tmp_path / "none")
    with pytest.raises(DataError, match="gopro: split=val is not possible: it should be 'train' or 'test'"):
        prepare("gopro", [root], tmp_path / "none", split="val")


def camera(path: Path, seed: int) -> None:
    """A small DNG under a name of See in the Dark; LibRaw goes by the content."""
    samples = noise(32, 48, dtype="uint16", seed=seed) // 8 + 600
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dng.encode(Mosaic(samples, ("RG", "GB"), 512.0, 16383.0, white_balance=(2.0, 1.0, 1.5))))


def sid_tree(root: Path) -> Path:
    for scene in ("00001", "00002", "10034", "10003"):
        camera(root / "Sony" / "long" / f"{scene}_00_10s.ARW", int(scene))
        camera(root / "Sony" / "short" / f"{scene}_00_0.1s.ARW", int(scene) + 1)
        camera(root / "Sony" / "short" / f"{scene}_00_0.033s.ARW", int(scene) + 2)
        camera(root / "Sony" / "short" / f"{scene}_01_0.1s.ARW", int(scene) + 3)
    return root


def test_see_in_the_dark_by_scene(tmp_path: Path) -> None:
    root = sid_tree(tmp_path / "dataset")
    prepared = prepare("sid-sony", [root], tmp_path / "train")
    made = prepared.store
    assert made.kind == "raw" and "there is no Sony_train_list.txt" in prepared.messages[0]
    assert made.names == tuple(f"Sony/short/0000{i}_00_{s}s.ARW" for i in (1, 2) for s in ("0.033", "0.1"))
    assert made.scenes[0] == made.scenes[1] != made.scenes[2]
    mosaic = made.mosaic(0)
    assert mosaic.exposure_ratio == 300 and made.mosaic(1).exposure_ratio == pytest.approx(100)
    assert np.array_equal(mosaic.samples, noise(32, 48, dtype="uint16", seed=3) // 8 + 600)
    assert mosaic.pattern == ("RG", "GB") and mosaic.black_level == 512 and mosaic.white_level == 16383
    assert made.target(0).shape == (32, 48, 3) and made.target(0).dtype == np.uint16


def test_see_in_the_dark_develops_as_its_authors_do(tmp_path: Path) -> None:
    rawpy = pytest.importorskip("rawpy")
    root = sid_tree(tmp_path / "dataset")
    made = prepare("sid-sony", [root], tmp_path / "s").store
    with rawpy.imread(str(root / "Sony" / "long" / "00001_00_10s.ARW")) as raw:
        expected = raw.postprocess(use_camera_wb=True, half_size=False, no_auto_bright=True, output_bps=16)
    assert np.array_equal(made.target(0), expected)


def test_see_in_the_dark_by_its_lists(tmp_path: Path) -> None:
    root = sid_tree(tmp_path / "dataset")
    rows = ["10034_00_0.1s", "10034_01_0.1s", "10003_00_0.033s", "10003_00_0.04s"]
    lines = [f"./Sony/short/{row}.ARW ./Sony/long/{row[:5]}_00_10s.ARW ISO200 F8" for row in rows]
    (root / "Sony_test_list.txt").write_text("\n".join(lines))
    prepared = prepare("sid-sony", [root], tmp_path / "s", split="test")
    made = prepared.store
    assert made.names == ("Sony/short/10003_00_0.033s.ARW", "Sony/short/10034_00_0.1s.ARW")
    assert [made.is_misaligned(i) for i in range(2)] == [False, True]
    assert made.left_out == (("10003_00_0.04s.ARW", "it is in the list, but missing"),)
    assert "1 exposures are of misaligned scenes" in prepared.messages[1]
    keywords: dict[str, Any] = {"split": "test", "lists": root / "Sony_test_list.txt", "all_bursts": True}
    assert len(prepare("sid-sony", [root / "Sony"], tmp_path / "all", **keywords).store) == 3
    (root / "Sony_test_list.txt").write_text("nonsense")
    with pytest.raises(DataError, match="is not a list of short and long exposures"):
        prepare("sid-sony", [root], tmp_path / "none", split="test")


def test_the_published_lists_give_the_published_counts(data: Path, tmp_path: Path) -> None:
    """See in the Dark's README: 161 and 20 and 50 scenes; first bursts 280, 36 and 93."""
    lists = data / "raw" / "sid_lists"
    for split, num_short, num_long in (("train", 280, 161), ("val", 36, 20), ("test", 93, 50)):
        root = tmp_path / split
        for line in (lists / f"Sony_{split}_list.txt").read_text().splitlines():
            for name in line.split()[:2]:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
        planned = registry.plan("sid-sony", [root], {"split": split, "lists": lists})
        by_number = registry.plan("sid-sony", [root], {"split": split})
        assert len(planned.items) == num_short and len({item.target for item in planned.items}) == num_long
        assert planned.items == by_number.items
        assert sum(not item.misaligned for item in planned.items) == (88 if split == "test" else num_short)


def test_patches_of_the_dncnn_code(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    eight = noise(12, 1, 5, 5)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for i, patch in enumerate(eight[:11]):
            file.create_dataset(str(i), data=patch.astype(np.float32) / 255)
        file.create_dataset("3_aug_1", data=eight[3].astype(np.float32) / 255)
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/x")
    made = prepare("patches-h5", [tmp_path / "train.h5"], tmp_path / "s").store
    assert made.names[2:5] == ("train.h5/2", "train.h5/3", "train.h5/3_aug_1")
    assert made.names[-1] == "train.h5/10" and len(made) == 12
    assert np.array_equal(made.target(2), eight[2].transpose(1, 2, 0))
    assert made.target(2).dtype == np.uint8


def test_patches_of_the_srcnn_code(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    luma = np.random.default_rng(0).uniform(16, 235, (2, 7, 6, 6)).astype(np.float32)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["lr"], file["hr"] = luma
    with h5py.File(tmp_path / "eval.h5", "w") as file:
        for group, values in zip(("lr", "hr"), luma, strict=True):
            file.create_group(group).create_dataset("0", data=values[0])
    prepared = prepare("patches-h5", [tmp_path / "in.h5"], tmp_path / "s")
    made = prepared.store
    assert made.kind == "pairs" and len(made) == 7
    assert np.abs(made.degraded(4)[..., 0] / 65535 - luma[0, 4] / 255).max() <= 0.5 / 65535 + 1e-7
    assert prepared.messages == ("14 of 14: rounded to 16 bit",)
    whole = prepare("patches-h5", [tmp_path / "eval.h5"], tmp_path / "e").store
    assert np.abs(whole.target(0)[..., 0] / 65535 - luma[1, 0] / 255).max() <= 0.5 / 65535 + 1e-7


def test_bad_patches_are_one_line(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="text.h5 cannot be read as HDF5"):
        prepare("patches-h5", [tmp_path / "text.h5"], tmp_path / "s")
    with h5py.File(tmp_path / "range.h5", "w") as file:
        file["0"] = np.full((4, 4), 200, np.float32)
        file["1"] = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(DataError, match="range.h5/0 has values from 200 to 200; 0 to 1 are needed"):
        prepare("patches-h5", [tmp_path / "range.h5"], tmp_path / "s")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("lr", (10**9, 33, 33), "f4", chunks=(1, 33, 33))
        file.create_dataset("hr", (10**9, 33, 33), "f4", chunks=(1, 33, 33))
    with pytest.raises(DataError, match="declares 4356000000000 bytes, which the file does not contain"):
        prepare("patches-h5", [tmp_path / "huge.h5"], tmp_path / "s")


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = some_pictures(tmp_path / "in", 5)
    read: list[str] = []
    real = images.read

    def counted(path: str | Path) -> Picture:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(images, "read", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare("folder", [folder], tmp_path / "s", workers=1)
    assert store_writer.is_unfinished(tmp_path / "s")
    monkeypatch.setattr(images, "read", real)
    again = prepare("folder", [folder], tmp_path / "s")
    assert again.num_decoded == 2 and len(again.store) == 5
    assert again.store.check() == []
    assert prepare("folder", [folder], tmp_path / "s").num_decoded == 0


def test_work_goes_on_after_kill_9(tmp_path: Path) -> None:
    for i in range(40):
        draw(tmp_path / "in" / f"{i:02}.png", 40, 40, 3, seed=i)
    code = f"""
import time
from pathlib import Path
from pellucid.data import preparing, store_writer
from pellucid.pictures import images
store_writer.SYNC_S = 0
real = images.read
def slow(path):
    time.sleep(0.05)
    return real(path)
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


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            store_writer.StoreWriter, "finish", lambda *_: pytest.skip.Exception
        )  # as if it had been killed here
        with pytest.raises(AttributeError):
            _ = prepare("folder", [folder], tmp_path / "s").store.names
    draw(tmp_path / "other.png", 8, 6, 3, seed=99)
    (tmp_path / "other.png").replace(folder / "deep" / "0.png")
    os.utime(folder / "deep" / "1.png", (1, 1))  # another time, the same content
    again = prepare("folder", [folder], tmp_path / "s")
    assert again.num_decoded == 1
    assert again.messages == ("deep/0.png has changed since it was decoded, and was decoded again",)
    assert np.array_equal(again.store.target(0), noise(8, 6, 3, seed=99))


def test_a_finished_store_stays_as_it_is(tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "in")
    (folder / "bad.png").write_text("hello")
    before = prepare("folder", [folder], tmp_path / "s").store
    assert prepare("folder", [folder], tmp_path / "s").store.fingerprint == before.fingerprint
    draw(folder / "new.png", 8, 8, 3, seed=9)
    with pytest.raises(
        OutputError, match="1 of its sources are new, changed or missing, first new.png; overwrite=True"
    ):
        prepare("folder", [folder], tmp_path / "s")
    with pytest.raises(OutputError, match="other settings"):
        prepare("folder", [folder], tmp_path / "s", min_px=4)
    (folder / "new.png").unlink()
    (folder / "deep" / "2.png").unlink()
    with pytest.raises(OutputError, match="first deep/2.png"):
        prepare("folder", [folder], tmp_path / "s")
    assert len(prepare("folder", [folder], tmp_path / "s", overwrite=True).store) == 2


def test_a_full_disk_is_one_line_and_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    folder = some_pictures(tmp_path / "in", 6)
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


def test_several_sources_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / name / "x.png", 4, 4, 1, seed=ord(name))
    assert prepare("folder", [tmp_path / "a", tmp_path / "b"], tmp_path / "s").store.names == (
        "a/x.png",
        "b/x.png",
    )
    with pytest.raises(DataError, match="two sources have the same name"):
        prepare("folder", [tmp_path / "a", tmp_path / "a"], tmp_path / "t")


def test_a_plain_folder_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = some_pictures(tmp_path / "in")
    first = cache_folder_as_store(folder)
    monkeypatch.setattr(images, "read", lambda path: pytest.fail("decoded again"))
    assert cache_folder_as_store(folder).folder == first.folder and len(first) == 3
    monkeypatch.undo()
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    draw(folder / "new.png", 8, 8, 3, seed=9)
    assert len(cache_folder_as_store(folder)) == 4
    assert cache_folder_as_store(folder, target=folder).kind == "pairs"


def test_a_folder_with_an_index_of_its_own_is_opened_as_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = some_pictures(tmp_path / "pictures")
    (folder / "index.json").write_text("{}")
    assert len(open_data(folder)) == 3
    made = prepare("folder", [folder], tmp_path / "store").store
    assert open_data(made.folder).folder == made.folder
    assert files.cache_folder() == tmp_path / "cache"


def test_processes_that_ask_at_once_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    folder = some_pictures(tmp_path / "in", 6)
    read: list[Path] = []
    real = images.read

    def slow(path: Path) -> Picture:
        read.append(path)
        time.sleep(0.02)
        return real(path)

    monkeypatch.setattr(images, "read", slow)
    with ThreadPoolExecutor(3) as pool:  # the lock is one of open files, so threads stand for processes
        made = list(pool.map(lambda _: cache_folder_as_store(folder), range(3)))
    assert len({each.fingerprint for each in made}) == 1 and len(read) == 6


def photo(height: int, width: int, seed: int) -> Samples:
    """Smooth blobs of weak color: like a photograph, and unlike another seed's."""
    coarse = np.random.default_rng(seed).normal(size=(height // 16 + 1, width // 16 + 1))
    rows, columns = np.linspace(0, height // 16, height), np.linspace(0, width // 16, width)
    across = np.stack([np.interp(columns, np.arange(len(row)), row) for row in coarse])
    gray = np.stack([np.interp(rows, np.arange(len(column)), column) for column in across.T], axis=1)
    return np.clip(gray[..., None] * [50, 54, 58] + 128, 0, 255).astype(np.uint8)


def test_leaks_are_found(tmp_path: Path) -> None:
    pictures = [photo(128, 160, seed) for seed in range(4)]
    for i, samples in enumerate(pictures):
        images.write(Picture(samples), tmp_path / "train" / f"{i}.png")
    made = prepare("folder", [tmp_path / "train"], tmp_path / "s").store
    gray = np.floor(pictures[1] @ [0.298936021293775, 0.587043074451121, 0.114020904255103] + 0.5)[..., None]
    other_gray = np.rint(pictures[1].mean(axis=2, keepdims=True))
    tests = {
        "same.png": pictures[0],
        "gray.png": gray.astype(np.uint8),
        "other_gray.png": other_gray.astype(np.uint8),
        "half.png": pictures[2][::2, ::2],
        "crop.png": pictures[3][11:90, 7:90],
        "gray_crop.png": gray.astype(np.uint8)[30:100, 3:80],
        "unknown.png": photo(128, 160, 50),
        "flat.png": np.full((64, 64, 1), 7, np.uint8),
    }
    found = {leak.test_name: (leak.store_name, leak.extent) for leak in leaks.find_leaks(made, tests.items())}
    assert found == {
        "same.png": ("0.png", "whole"),
        "gray.png": ("1.png", "whole"),
        "other_gray.png": ("1.png", "whole"),
        "half.png": ("2.png", "whole"),
        "crop.png": ("3.png", "part"),
        "gray_crop.png": ("1.png", "part"),
    }


def test_the_known_overlap_of_published_sets_is_found(data: Path, tmp_path: Path) -> None:
    """BSD68 is the gray half of CBSD68; Set12's starfish is cut from a training picture of BSDS."""
    made = prepare("folder", [data / "denoising" / "CBSD68"], tmp_path / "c").store
    assert len(leaks.find_leaks_in_folder(made, data / "denoising" / "BSD68")) == 68
    made = prepare("folder", [data / "training" / "Train400"], tmp_path / "t").store
    assert [leak.test_name for leak in leaks.find_leaks_in_folder(made, data / "denoising" / "Set12")] == [
        "04.png"
    ]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_the_command_prepares_and_checks(tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "in")
    (folder / "bad.png").write_text("hello")
    result = run("prepare", "folder", folder, "--out", tmp_path / "s", "--against", folder)
    assert result.exit_code == 0
    assert "3 clean pictures" in result.output and "left out: bad.png:" in result.output
    assert "3 pictures of" in result.output and "warning: deep/0.png is deep/0.png" in result.output
    assert run("prepare", "check", tmp_path / "s").exit_code == 0
    shard = tmp_path / "s" / "samples-00000.bin"
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    result = run("prepare", "check", tmp_path / "s")
    assert result.exit_code == 1 and ".png has changed since it was stored" in result.output
    result = run("prepare", "folder", folder)
    assert result.exit_code == 2 and "--out" in result.output


def test_evaluating_warns_of_pictures_trained_on(tmp_path: Path) -> None:
    for i in range(2):
        images.write(Picture(photo(48, 48, i)), tmp_path / "train" / f"{i}.png")
        images.write(Picture(photo(48, 48, 2 * i)), tmp_path / "test" / f"{2 * i}.png")
    prepare("folder", [tmp_path / "train"], tmp_path / "s")
    result = run("evaluate", "srcnn-x2", "--data", tmp_path / "test", "--train-data", tmp_path / "s")
    assert result.exit_code == 0
    assert "warning: 0.png is 0.png of the training data" in result.output
    assert "1 pictures of" in result.output
    prepare("folder", [tmp_path / "test"], tmp_path / "t")
    result = run("evaluate", "srcnn-x2", "--data", tmp_path / "t", "--train-data", tmp_path / "s")
    assert "warning: 0.png is 0.png of the training data" in result.output


def test_the_command_goes_on_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "prepare", interrupted)
    result = run("prepare", "folder", tmp_path, "--out", tmp_path / "s")
    assert result.exit_code == 130 and "the same command resumes" in result.output
