"""The manifest of a folder: which results are finished, outdated or foreign."""

import json
import os
from pathlib import Path

import pytest

from pellucid.errors import OutputError
from pellucid.restoration.entries import NAME, read_entries, read_lines, stamp
from pellucid.restoration.manifest import Manifest, Request, State
from pellucid.storage.urls import Tag, Url
from pellucid.system import files
from pellucid.system.journals import JournalReader


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(b"a picture")
    return path


def _done(folder: Path, source: Path, name: str = "photo.png") -> Path:
    manifest, target = Manifest(folder, Request({"strength": "1.0"})), folder / name
    folder.mkdir(exist_ok=True)
    _write(manifest, source, target, b"a result")
    return target


def _write(manifest: Manifest, source: Path, target: Path, content: bytes) -> None:
    part = _record(manifest, source, target, content)
    part.replace(target)


def _record(manifest: Manifest, source: Path, target: Path, content: bytes) -> Path:
    part = target.with_name("part")
    part.write_bytes(content)
    manifest.record(source, stamp(source), target, part)
    return part


def _state(source: Path, target: Path, strength: str = "1.0") -> State:
    return Manifest(target.parent, Request({"strength": strength})).state(source, target)


def test_finished_result_is_recognized(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    assert _state(source, target) is State.DONE
    assert _state(source, target, strength="0.5") is State.OTHER_SETTINGS
    target.unlink()
    assert _state(source, target) is State.MISSING


def test_changed_input_is_detected(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    os.utime(source, ns=(0, 0))
    assert _state(source, target) is State.DONE  # a copy with the same content
    source.write_bytes(b"A picture")
    assert _state(source, target) is State.OUTDATED
    source.write_bytes(b"another picture")
    assert _state(source, target) is State.OUTDATED


@pytest.mark.parametrize(("content", "state"), [(b"A picture", State.FOREIGN), (b"a picture", State.DONE)])
def test_a_file_in_another_place_is_compared_by_content(
    tmp_path: Path, source: Path, content: bytes, state: State
) -> None:
    """Uncompressed pictures have equal sizes, and those of some archives equal times."""
    target = _done(tmp_path / "out", source)
    other = tmp_path / "other" / source.name
    other.parent.mkdir()
    other.write_bytes(content)
    os.utime(other, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    assert stamp(other) == stamp(source)
    assert _state(other, target) is state


def test_contents_are_read_once(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result whose input was moved is recorded again."""
    target = _done(tmp_path / "out", source)
    moved = tmp_path / "moved" / source.name
    moved.parent.mkdir()
    source.rename(moved)
    hashed: list[Path] = []
    sha256 = files.sha256

    def record(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(files, "sha256", record)
    for _ in range(2):
        manifest = Manifest(target.parent, Request({"strength": "1.0"}))
        assert [manifest.state(moved, target) for _ in range(2)] == [State.DONE, State.DONE]
        manifest.close()
    assert hashed == [moved]


def test_masks_of_earlier_versions_were_not_recorded(tmp_path: Path, source: Path) -> None:
    mask, target = tmp_path / "mask.png", tmp_path / "out" / "photo.png"
    mask.write_bytes(b"a mask")
    target.parent.mkdir()
    manifest, part = Manifest(target.parent, Request({"strength": "1.0"})), tmp_path / "out" / "part"
    part.write_bytes(b"a result")
    manifest.record(source, stamp(source, mask), target, part, mask)
    part.replace(target)
    manifest.close()
    (line,) = [line for line in read_lines(target.parent, JournalReader()) if "result" in line]
    del line["mask"], line["sha256"]
    (target.parent / NAME).write_text(json.dumps(line) + "\n")
    assert Manifest(target.parent, Request({"strength": "1.0"})).state(source, target, mask) is State.DONE


def test_only_tags_of_objects_stand_for_their_content(tmp_path: Path, source: Path) -> None:
    mask = Url("s3", "bucket", "mask.png", tag=Tag("tag", 6))
    target, part = tmp_path / "out" / "photo.png", tmp_path / "out" / "part"
    target.parent.mkdir()
    manifest = Manifest(target.parent, Request({"strength": "1.0"}))
    part.write_bytes(b"a result")
    manifest.record(source, stamp(source, mask), target, part, mask)
    part.replace(target)
    other = tmp_path / "other" / source.name
    other.parent.mkdir()
    other.write_bytes(b"A picture")
    os.utime(other, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    assert [manifest.state(one, target, mask) for one in (source, other)] == [State.DONE, State.FOREIGN]


def test_a_changed_mask_is_detected(tmp_path: Path, source: Path) -> None:
    out, mask = tmp_path / "out", tmp_path / "mask.png"
    mask.write_bytes(b"a mask")
    out.mkdir()
    manifest, target, part = Manifest(out, Request({})), out / "photo.png", out / "part"
    part.write_bytes(b"a result")
    manifest.record(source, stamp(source, mask), target, part, mask)
    part.replace(target)
    assert manifest.state(source, target, mask) is State.DONE
    for content, state in ((b"A mask", State.OUTDATED), (b"a mask", State.DONE)):
        other = tmp_path / f"{state.name}.png"
        other.write_bytes(content)
        os.utime(other, ns=(mask.stat().st_atime_ns, mask.stat().st_mtime_ns))
        assert manifest.state(source, target, other) is state
    mask.write_bytes(b"another mask")
    assert manifest.state(source, target, mask) is State.OUTDATED


def test_results_of_another_model_are_recognized(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    target = out / "photo.png"
    _write(Manifest(out, Request({"weights": "1"}, "one")), source, target, b"a result")
    assert Manifest(out, Request({"weights": "1"}, "one")).state(source, target) is State.DONE
    assert Manifest(out, Request({"weights": "2"}, "two")).state(source, target) is State.OTHER_MODEL
    assert Manifest(out, Request({"weights": "3"}, "one")).state(source, target) is State.OTHER_SETTINGS


def test_other_files_are_foreign(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    other = target.with_name("other.png")
    other.write_bytes(b"")
    assert _state(source, other) is State.FOREIGN
    target.write_bytes(b"retouched by hand")
    assert _state(source, target) is State.FOREIGN


def test_result_of_another_input_is_foreign(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    namesake = source.with_name("photo.tif")
    namesake.write_bytes(source.read_bytes())
    assert _state(namesake, target) is State.FOREIGN


def test_file_of_the_same_name_in_another_folder_is_another_input(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    namesake = tmp_path / "another" / source.name
    namesake.parent.mkdir()
    namesake.write_bytes(b"another picture")
    assert _state(namesake, target) is State.FOREIGN
    moved = source.rename(tmp_path / "another" / source.name)  # the same file is recognized
    assert _state(moved, target) is State.DONE


def test_names_of_links_are_names_of_the_same_file(tmp_path: Path, source: Path) -> None:
    """An input and a folder of results that are reached by links, once in an entry and once later."""
    target = _done(tmp_path / "out", source)
    (tmp_path / "linked").symlink_to(tmp_path)
    linked = tmp_path / "linked"
    source.write_bytes(b"changed")
    for given in (source, linked / "photo.png"):
        for folder in (target.parent, linked / "out", tmp_path / "out" / ".." / "out"):
            assert _state(given, folder / "photo.png") is State.OUTDATED, (given, folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.png").write_bytes(b"changed")
    assert _state(other / "photo.png", target) is State.FOREIGN
    (other / "photo.png").unlink()
    (other / "photo.png").symlink_to(source)
    assert _state(other / "photo.png", target) is State.OUTDATED


def test_sources_are_recorded_relative_to_the_results(tmp_path: Path, source: Path) -> None:
    """So both can be moved together."""
    inside, below = tmp_path / "out" / "in.png", tmp_path / "out" / "deep" / "in.png"
    below.parent.mkdir(parents=True)
    expected = {source: "../photo.png", inside: "in.png", below: "deep/in.png"}
    for place in expected:
        place.write_bytes(b"a picture")
        _done(tmp_path / "out", place, f"result {place.parent.name} {place.name}")
    found = [entry["place"] for entry in read_entries(tmp_path / "out")]
    assert found == [*expected.values()]


def test_crash_between_the_entry_and_the_rename_loses_nothing(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    manifest, target = Manifest(folder, Request({"strength": "1.0"})), folder / "photo.png"
    part = _record(manifest, source, target, b"whole")
    assert _state(source, target) is State.MISSING
    part.replace(target)
    assert _state(source, target) is State.DONE


def test_crash_before_a_result_is_replaced_keeps_the_old_entry(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    source.write_bytes(b"changed since")
    part = _record(Manifest(target.parent, Request({"strength": "1.0"})), source, target, b"a new result")
    assert _state(source, target) is State.OUTDATED
    part.replace(target)
    assert _state(source, target) is State.DONE


def test_file_of_others_under_a_recorded_name_is_foreign(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out" / "photo.png"
    target.parent.mkdir()
    _record(Manifest(target.parent, Request({"strength": "1.0"})), source, target, b"never renamed")
    target.write_bytes(b"of others")
    assert _state(source, target) is State.FOREIGN


def test_truncated_line_does_not_damage_the_next(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    with (target.parent / NAME).open("a") as file:
        file.write('\n{"target": "photo.png", "sour')
    target.unlink()
    _done(tmp_path / "out", source)
    assert _state(source, target) is State.DONE


@pytest.mark.parametrize("line", ['{"target": "photo.png", "sour', "[]", "7", '{"target": 1}', "\udcff", ""])
def test_invalid_lines_are_ignored(tmp_path: Path, source: Path, line: str) -> None:
    target = _done(tmp_path / "out", source)
    with (target.parent / NAME).open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    assert _state(source, target) is State.DONE


def test_names_may_contain_anything(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source, "two\nlines \udcff.png")
    assert _state(source, target) is State.DONE


def test_file_instead_of_a_folder_gives_one_clear_line(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        Manifest(source, Request({})).record(source, stamp(source), source / "photo.png", source)
