"""The options of `pellucid restore` as users see them."""

import json
import subprocess
import sys
from io import BufferedReader, BytesIO, RawIOBase, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from pellucid.commands import restore_status, standard_streams
from pellucid.pictures import images
from pellucid.pictures.picture import Picture
from pellucid.recipes import registry
from pellucid.restoration import advice, entries
from pellucid.weights import checkpoint
from test_cli import Terminal


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """In a folder with photo.png (31 x 24 px), album/a.png and album/deep/b.tif, and models named dn and x2."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", "album/a.png", "album/deep/b.tif"):
        images.write(Picture(rng.integers(0, 256, (24, 31, 3), np.uint8)), tmp_path / name)
    for name, recipe, keywords in (
        ("dn", "dncnn.gaussian", {"depth": 3, "width": 4}),
        ("x2", "srcnn.tuned", {"scale": 2}),
    ):
        torch.manual_seed(0)
        chosen = registry.find(recipe, **keywords)
        metadata = checkpoint.WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0")
        checkpoint.save(tmp_path / "models" / f"{name}.safetensors", chosen.network(), metadata)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal(monkeypatch, capsys)


def _size(path: str) -> tuple[int, int]:
    picture = images.read(path)
    return picture.width, picture.height


def test_models_of_a_chain_run_one_after_the_other(run: Terminal) -> None:
    result = run("restore album --model dn+x2 --out out")
    assert result.code == 0 and "2 of 2 pictures restored by dn+x2" in result.out
    assert _size("out/a.png") == (62, 48)
    assert "no model 'dm'; did you mean dn" in run("restore photo.png --model dm+x2").err


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("--scale 1.5", (47, 36)),
        ("--scale 3", (93, 72)),
        ("--size 40x", (40, 31)),
        ("--size x40", (52, 40)),
        ("--size 40x1000", (40, 31)),
        ("--crop 3,4,10,8", (20, 16)),
        ("--crop 3,4,10,8 --scale 3", (30, 24)),
    ],
)
def test_results_have_the_size_asked_for(run: Terminal, options: str, size: tuple[int, int]) -> None:
    result = run(f"restore photo.png --model x2 {options}")
    assert (result.code, _size("photo-restored.png")) == (0, size)
    assert ("x2 runs 2 times" in result.err) == ("--scale 3" in options)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            "--scale 0.5",
            1,
            "the picture has 31 x 24 px, and the result would have 16 x 12 px, but x2 only enlarges",
        ),
        ("--size 10x", 1, "but x2 only enlarges; use a model that does not"),
        ("--scale nan", 2, "--scale nan: expected a number above 0, at most 1000"),
        ("--scale inf", 2, "--scale inf: expected"),
        ("--scale 0", 2, "--scale 0: expected"),
        ("--scale 1e-9", 1, "1e-09 times 31 x 24 px is less than a pixel; raise --scale"),
        ("--scale 2 --size 3x", 2, "--scale and --size exclude each other"),
        ("--size x", 2, "expected a size in pixels, e.g. 3000x2000, 3000x or x2000"),
        ("--size 0x3", 2, "expected a size in pixels"),
        ("--crop 1,2,3", 2, "expected x, y, width and height in pixels"),
        ("--crop 30,0,2,2", 1, "the crop 30,0,2,2 is not inside of a picture of 31 x 24 px"),
        (
            "--scale 999 --max-pixels 9999",
            1,
            "more than the 9,999 pixels that are allowed; --max-pixels sets the limit",
        ),
    ],
)
def test_impossible_sizes_are_one_line(run: Terminal, options: str, code: int, message: str) -> None:
    result = run(f"restore photo.png --model x2 {options}")
    assert (result.code, message in " ".join(result.err.replace("│", "").split())) == (code, True), result.err
    assert not Path("photo-restored.png").exists()


# Names


def test_a_second_model_gets_its_own_results(run: Terminal) -> None:
    assert run("restore photo.png --model dn").out == "photo-restored.png\n"
    assert run("restore photo.png --model x2").out == "photo-x2.png\n"
    for model, name in (("dn", "photo-restored.png"), ("x2", "photo-x2.png")):  # never a second name
        again = run(f"restore photo.png --model {model}")
        assert (again.code, again.out) == (0, f"{name} already exists (--overwrite restores it again)\n")
    other = run("restore photo.png --model dn --strength 0.5")
    assert other.code == 1 and "photo-restored.png exists and was made by another model or with other" in other.err
    Path("album/a-restored.png").write_bytes(Path("photo.png").read_bytes())
    assert "a-restored.png exists; --overwrite replaces it" in run("restore album/a.png --model dn").err
    Path("album/a-restored.png").unlink()
    before = Path("photo-restored.png").read_bytes()
    assert run("restore photo.png --model x2 --scale 3 --overwrite").out == "photo-x2.png\n"
    assert Path("photo-restored.png").read_bytes() == before and _size("photo-x2.png") == (93, 72)
    for _ in range(2):  # the second time, everything is finished
        assert run("restore album --model dn --out out").code == 0
        assert run("restore album --model x2 --out out").code == 0
    assert {path.name for path in Path("out").rglob("[!.]*.*")} == {"a.png", "a-x2.png", "b.tif", "b-x2.tif"}
    assert "2 already exist" in run("restore album --model x2 --out out").out


def test_results_in_the_folder_of_the_inputs_are_not_restored_again(run: Terminal) -> None:
    command = "restore album --out album --name {stem}-{model}{suffix} --model "
    assert "2 of 2 pictures restored" in run(command + "dn").out
    again = run(command + "dn")
    assert "0 of 2 pictures restored by dn, 2 already exist" in again.out
    assert "2 results of earlier runs left out" in again.err
    assert "2 of 2 pictures restored" in run(command + "x2").out
    assert {path.name for path in Path("album").rglob("[!.]*.*")} == {
        *("a.png", "a-dn.png", "a-x2.png"),
        *("b.tif", "b-dn.tif", "b-x2.tif"),
    }
    step = run("restore album --out second --include *-dn.* --model x2")  # asked for, without what they are from
    assert (step.code, _size("second/a-dn.png")) == (0, (62, 48))


# Masks


def test_a_mask_limits_the_effect(run: Terminal) -> None:
    mask = np.zeros((24, 31, 1), np.uint8)
    mask[:, 20:] = 255
    images.write(Picture(mask), Path("mask.png"))
    assert run("restore photo.png --model dn --mask mask.png --out masked.png").code == 0
    assert run("restore photo.png --model dn --out full.png").code == 0
    given, full, masked = (images.read(f"{name}.png").samples for name in ("photo", "full", "masked"))
    assert np.array_equal(masked[:, :20], given[:, :20]) and np.array_equal(masked[:, 20:], full[:, 20:])
    images.write(Picture(mask[:9]), Path("small.png"))
    result = run("restore photo.png --model dn --mask small.png --out a.png")
    assert result.code == 1 and "photo.png: a mask of 31 x 9 px for a picture of 31 x 24 px" in result.err
    assert "nix does not exist" in run("restore photo.png --model dn --mask nix").err


def test_masks_of_a_folder_that_are_missing_or_change(run: Terminal) -> None:
    white = Picture(np.full((24, 31, 1), 255, np.uint8))
    images.write(white, Path("masks/a.png"))
    command = "restore album --model dn --mask masks --out out"
    result = run(command)
    assert result.code == 1 and "masks/deep/b.tif does not exist" in result.err and _size("out/a.png") == (31, 24)
    images.write(white, Path("masks/deep/b.png"))
    assert "1 of 2 pictures restored by dn, 1 already exist" in run(command).out
    images.write(Picture(white.samples // 2), Path("masks/a.png"), overwrite=True)
    assert "1 of 2 pictures restored by dn, 1 already exist" in run(command).out
    assert "made by another model or with other settings" in run("restore album --model dn --out out").err


# Sheets


def test_a_preview_is_a_sheet_and_nothing_else(run: Terminal) -> None:
    result = run("restore photo.png --model dn --model x2 --preview")
    assert (result.code, result.out, result.err) == (0, "photo-preview.png\n", "")
    assert _size("photo-preview.png")[0] > 600 and not Path("photo-restored.png").exists()
    assert run("restore album --model dn --preview --out sheets").code == 0
    assert {path.name for path in Path("sheets").rglob("*.png")} == {"a-preview.png", "b-preview.png"}
    assert run("restore sheets --model dn --out again").code == 1  # there are no pictures
    again = run("restore album sheets --model dn --out again")
    assert "2 of 2 pictures restored" in again.out and "2 results of earlier runs left out" in again.err
    assert run("restore photo.png --model dn --preview --crop 0,0,9,9 --out my.png").out == "my.png\n"
    assert run("restore photo.png --model dn --preview --name {stem}-b{suffix}").out == "photo-b.png\n"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--model dn --model x2", 2, "several --model are for --preview"),
        ("--model dn --preview --quality 3 --scale 2", 2, "omit --scale, --quality"),
        ("--model dn --preview --out photo.png", 1, "photo.png is one of the inputs"),
        ("--model dn --preview --out a.tif", 2, "a.tif ends in .tif, but the format is png"),
        ("--model dn --preview --crop 30,0,9,9", 1, "is not inside of a picture of 31 x 24 px"),
    ],
)
def test_what_a_preview_cannot_do_is_one_line(run: Terminal, options: str, code: int, message: str) -> None:
    result = run(f"restore photo.png {options}")
    assert (result.code, message in " ".join(result.err.replace("│", "").split())) == (code, True), result.err


def test_comparisons_are_next_to_results_and_never_restored(run: Terminal) -> None:
    command = "restore album --model x2 --compare --out album --name {stem}-{model}{suffix}"
    assert "2 of 2 pictures restored" in run(command).out
    assert Path("album/a-x2-compare.png").exists() and Path("album/deep/b-x2-compare.png").exists()
    again = run(command)
    assert "0 of 2 pictures restored by x2, 2 already exist" in again.out
    assert "4 results of earlier runs left out" in again.err
    Path("album/a-x2-compare.png").unlink()
    assert "0 of 2 pictures restored by x2, 2 already exist" in run(command).out
    assert Path("album/a-x2-compare.png").exists()
    Path("photo-restored-compare.png").write_text("mine")
    result = run("restore photo.png --model x2 --compare")
    assert result.code == 1 and "photo-restored-compare.png exists" in result.err
    assert not Path("photo-restored.png").exists()


# Scripting


def _run_process(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pellucid", "restore", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=120)


def test_two_processes_on_one_folder_share_the_work(run: Terminal) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        images.write(Picture(rng.integers(0, 256, (120, 120, 3), np.uint8)), Path("many") / f"{i:02}.png")
    command = [sys.executable, "-m", "pellucid", "restore", "many", "--model", "dn", "--out", "out", "--ensemble"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    num_restored = [int(out.split()[0]) for out, _ in printed]
    assert sum(num_restored) == 12
    names = [entry["target"] for entry in entries.read_entries(Path("out"))]
    assert len(names) == len({*names}) == 12
    assert [path.name for path in Path("out").glob(".*")] == [entries.NAME]


def test_a_dry_run_prints_what_would_happen(run: Terminal) -> None:
    result = run("restore album --model dn --out out --dry-run")
    assert (result.code, result.err) == (0, "") and not Path("out").exists()
    assert result.out == "album/a.png -> out/a.png\nalbum/deep/b.tif -> out/deep/b.tif\n"
    run("restore album --model dn --out out --include a.png")
    Path("album/broken.png").write_bytes(Path("photo.png").read_bytes()[:20])
    result = run("restore album --model dn --out out --dry-run")
    assert result.code == 1 and "broken.png" in result.err
    assert "album/a.png -> out/a.png (exists already)\n" in result.out
    assert "album/a.png -> out/a-x2.png\n" in run("restore album --model x2 --out out --dry-run").out


def test_a_picture_that_takes_too_long_fails_alone(run: Terminal) -> None:
    result = run("restore album --model dn --out out --tile 8 --timeout 0.0001")
    assert result.code == 1 and result.err.count("takes longer than 0.0001 s") == 2
    assert "% is done); --timeout sets the limit" in result.err and not Path("out").exists()
    assert run("restore album --model dn --out out --tile 8 --timeout 100").code == 0


def test_standard_input_and_output(run: Terminal) -> None:
    given = Path("photo.png").read_bytes()
    assert run("restore photo.png --model dn --out expected.png").code == 0
    result = _run_process("-", "--model", "dn", stdin=given)
    assert (result.returncode, result.stderr, result.stdout) == (0, b"", Path("expected.png").read_bytes())
    result = _run_process("-", "--model", "dn", "--format", "jpeg", stdin=given)
    assert result.returncode == 0 and result.stdout.startswith(b"\xff\xd8")
    result = _run_process("photo.png", "--model", "dn", "--out", "-")
    assert result.stdout == Path("expected.png").read_bytes()
    result = _run_process("-", "--model", "dn", "--report", "report.json", stdin=given)
    (reported,) = json.loads(Path("report.json").read_text())["pictures"]
    assert (reported["source"], reported["target"]) == ("standard input", "standard output")
    result = _run_process("-", "--model", "dn", "--out", "from-stdin.png", stdin=given)
    assert (result.returncode, result.stdout) == (0, b"from-stdin.png\n")
    assert Path("from-stdin.png").read_bytes() == Path("expected.png").read_bytes()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_standard_input_that_never_ends_is_refused_at_once(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/zero").open("rb") as endless:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=endless, isatty=lambda: False))
        result = run("restore - --model dn --out out.png")
    assert result.code == 1 and "standard input is not a PNG" in result.err
    monkeypatch.setattr(standard_streams, "MAX_INPUT_BYTES", 2**21)
    with Path("/dev/zero").open("rb") as endless:
        head = Path("photo.png").read_bytes()
        monkeypatch.setattr(
            sys, "stdin", SimpleNamespace(buffer=BufferedReader(_Joined(head, endless)), isatty=lambda: False)
        )
        result = run("restore - --model dn --out out.png")
    assert result.code == 1 and "standard input has more than" in result.err and not Path("out.png").exists()


class _Joined(RawIOBase):
    """A picture, followed by what never ends."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = BytesIO(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._head.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        ("-", b"", 1, "standard input is empty; a picture is needed"),
        ("-", b"no picture", 1, "standard input"),
        ("- photo.png", b"", 2, "- is one picture; omit the other inputs"),
        ("album --out -", b"", 2, "- is one picture, and album is a folder; give --out a folder"),
        ("- --compare", b"", 2, "- is one picture; omit --compare"),
        ("- --sidecars", b"", 2, "- has no files next to it; omit --sidecars"),
        ("- --out album", b"", 2, "--out album names a folder; - is one picture"),
        ("- --out new", b"", 2, "--out new names a folder; - is one picture"),
    ],
)
def test_what_standard_streams_cannot_do_is_one_line(
    run: Terminal, arguments: str, stdin: bytes, code: int, message: str
) -> None:
    result = _run_process(*arguments.split(), "--model", "dn", stdin=stdin)
    text = " ".join(result.stderr.decode().replace("│", "").split())
    assert (result.returncode, result.stdout, message in text) == (code, b"", True), text
    assert "pellucid-" not in text  # the folder of a temporary file


def test_standard_streams_have_names_in_all_messages(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(Path("photo.png").read_bytes())))
    shown: set[str] = set()
    describe = restore_status._Status.describe_picture

    def record(status: restore_status._Status) -> str:
        shown.add(describe(status))
        return describe(status)

    monkeypatch.setattr(restore_status._Status, "describe_picture", record)
    assert run("restore - --model dn --dry-run").out == "standard input -> standard output\n"
    sys.stdin.seek(0)
    assert run("restore - --model dn --out a.png").code == 0
    assert "restoring standard input" in shown and not any("pellucid-" in text for text in shown)
    sys.stdin.seek(0)
    monkeypatch.setattr(advice, "choose_sure", lambda _, **given: None)
    result = run("restore - --model auto --out b.png")
    reason = "only 31 x 24 px, which --model auto does not correct"
    assert result.err == f"pellucid: standard input: {reason}; choose --model srcnn-x2\n"


def test_closed_standard_input_is_empty(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f'"{sys.executable}" -m pellucid'
    result = subprocess.run(
        ["bash", "-c", f"{program} restore - --model dn <&-"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (
        1,
        "pellucid: standard input is empty; a picture is needed\n",
    )
