"""What a folder remembers about its results."""

import os
from pathlib import Path

import pytest

from pellucid.errors import OutputError
from pellucid.restoration.manifest import NAME, Manifest, State, stamp


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(b"a picture")
    return path


def _done(folder: Path, source: Path, name: str = "photo.png") -> Path:
    manifest, target = Manifest(folder, {"strength": "1.0"}), folder / name
    folder.mkdir(exist_ok=True)
    _write(manifest, source, target, b"a result")
    return target


def _write(manifest: Manifest, source: Path, target: Path, content: bytes) -> None:
    part = _noted(manifest, source, target, content)
    part.replace(target)


def _noted(manifest: Manifest, source: Path, target: Path, content: bytes) -> Path:
    part = target.with_name("part")
    part.write_bytes(content)
    manifest.record(source, stamp(source), target, part)
    return part


def _state(source: Path, target: Path, strength: str = "1.0") -> State:
    return Manifest(target.parent, {"strength": strength}).state(source, target)


def test_a_finished_result_is_known_again(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    assert _state(source, target) is State.DONE
    assert _state(source, target, strength="0.5") is State.OTHER_SETTINGS
    target.unlink()
    assert _state(source, target) is State.MISSING


def test_a_changed_input_is_noticed(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    os.utime(source, ns=(0, 0))
    assert _state(source, target) is State.OUTDATED
    source.write_bytes(b"another picture")
    assert _state(source, target) is State.OUTDATED


def test_what_is_not_ours_is_foreign(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    other = target.with_name("other.png")
    other.write_bytes(b"")
    assert _state(source, other) is State.FOREIGN
    target.write_bytes(b"retouched by hand")
    assert _state(source, target) is State.FOREIGN


def test_a_result_of_another_input_is_foreign(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    namesake = source.with_name("photo.tif")
    namesake.write_bytes(source.read_bytes())
    assert _state(namesake, target) is State.FOREIGN


def test_a_namesake_in_another_folder_is_another_input(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    namesake = tmp_path / "another" / source.name
    namesake.parent.mkdir()
    namesake.write_bytes(b"another picture")
    assert _state(namesake, target) is State.FOREIGN
    moved = source.rename(tmp_path / "another" / source.name)  # the very same file is known again
    assert _state(moved, target) is State.DONE


def test_a_crash_between_the_line_and_the_result_loses_nothing(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    manifest, target = Manifest(folder, {"strength": "1.0"}), folder / "photo.png"
    part = _noted(manifest, source, target, b"whole")
    assert _state(source, target) is State.MISSING
    part.replace(target)
    assert _state(source, target) is State.DONE


def test_a_crash_before_a_result_is_replaced_leaves_the_old_one_known(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    source.write_bytes(b"changed since")
    part = _noted(Manifest(target.parent, {"strength": "1.0"}), source, target, b"a new result")
    assert _state(source, target) is State.OUTDATED
    part.replace(target)
    assert _state(source, target) is State.DONE


def test_what_others_put_where_a_result_was_to_stand_is_foreign(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out" / "photo.png"
    target.parent.mkdir()
    _noted(Manifest(target.parent, {"strength": "1.0"}), source, target, b"never renamed")
    target.write_bytes(b"of others")
    assert _state(source, target) is State.FOREIGN


def test_a_line_cut_short_does_not_take_the_next_with_it(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source)
    with (target.parent / NAME).open("a") as file:
        file.write('\n{"target": "photo.png", "sour')
    target.unlink()
    _done(tmp_path / "out", source)
    assert _state(source, target) is State.DONE


@pytest.mark.parametrize("line", ['{"target": "photo.png", "sour', "[]", "7", '{"target": 1}', "\udcff", ""])
def test_lines_that_say_nothing_are_passed_over(tmp_path: Path, source: Path, line: str) -> None:
    target = _done(tmp_path / "out", source)
    with (target.parent / NAME).open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    assert _state(source, target) is State.DONE


def test_names_may_hold_anything(tmp_path: Path, source: Path) -> None:
    target = _done(tmp_path / "out", source, "two\nlines \udcff.png")
    assert _state(source, target) is State.DONE


def test_a_folder_that_is_none_is_one_line(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        Manifest(source, {}).record(source, stamp(source), source / "photo.png", source)
