"""Files: folders keep their tree, a bad file does not stop the others, and the same call resumes."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event, current_thread, main_thread
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest
import torch

from pellucid.backends.eager import TorchBackend
from pellucid.domains import Degraded
from pellucid.errors import ArgumentError, NotEnoughMemoryError, OutputError, PellucidError, PictureError
from pellucid.pictures import images
from pellucid.pictures.camera import dng
from pellucid.pictures.picture import Exposure, Mosaic, Picture
from pellucid.recipes import registry
from pellucid.restoration import (
    entries,
    ledgers,
    pipeline,
    planning,
    restore,
    restorer,
    stages,
    suitability,
)
from pellucid.restoration.manifest import Manifests
from pellucid.restoration.one_picture import restore_picture
from pellucid.restoration.position import Position
from pellucid.restoration.restorer import Restorer
from pellucid.restoration.sessions import Outcome
from pellucid.restoration.settings import Settings
from pellucid.storage.urls import Location
from pellucid.system import memory
from pellucid.system.journals import JournalReader
from pellucid.weights import checkpoint


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "tiny.safetensors"
    chosen = registry.find("dncnn.gaussian", depth=3, width=4)
    torch.manual_seed(0)
    metadata = checkpoint.WeightsMetadata(chosen.name, chosen.parameters, "random", "none")
    checkpoint.save(path, chosen.network(), metadata)
    return path


def _errors(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(outcome.error) for outcome in outcomes if outcome.error is not None]


def _path(path: Location | None) -> Path:
    assert isinstance(path, Path)
    return path


def test_folder_keeps_its_tree_and_a_bad_file_does_not_stop_the_others(album: Path, weights: Path) -> None:
    network = restorer.load(weights)
    outcomes = restore.restore(planning.plan([album], album.parent / "out"), network)
    assert len(outcomes) == 4 and len(_errors(outcomes)) == 1
    assert "broken.png" in _errors(outcomes)[0]
    results = sorted(path.relative_to(album.parent / "out") for path in (album.parent / "out").rglob("[!.]*.*"))
    assert results == [Path("a.png"), Path("b.tif"), Path("deep/c.png")]


def test_sidecars_become_part_of_the_result_if_wanted(album: Path, weights: Path) -> None:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/></rdf:RDF></x:xmpmeta>'
    )
    (album / "a.png.xmp").write_text(packet)
    network, job = restorer.load(weights), planning.plan(album / "a.png", album.parent / "a.png")
    for settings, expected in ((Settings(), False), (Settings(sidecars=True), True)):
        restore.restore(job, network, settings=settings, overwrite=True)[0].raise_error()
        with PIL.Image.open(album.parent / "a.png") as file:
            assert ('xmp:Rating="5"' in str(file.info.get("xmp", ""))) is expected


def test_the_first_page_of_a_document_has_its_sidecar(tmp_path: Path, weights: Path) -> None:
    pages = [PIL.Image.new("L", (20, 20), color) for color in (50, 200)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "a.xmp").write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/></rdf:RDF></x:xmpmeta>'
    )
    network, job = restorer.load(weights), planning.plan(tmp_path / "a.tif", tmp_path / "b.tif")
    settings = Settings(sidecars=True)
    restore.restore(job, network, settings=settings, overwrite=True)[0].raise_error()
    with PIL.Image.open(tmp_path / "b.tif") as file:
        found = []
        for page in range(2):
            file.seek(page)
            found.append(b'xmp:Rating="5"' in file.tag_v2.get(700, b""))  # type: ignore[attr-defined]
    assert found == [True, False]
    (tmp_path / "a.xmp").write_text("broken")
    with pytest.raises(PictureError, match=r"a.xmp is not an XMP file"):
        restore.restore(job, network, settings=settings, overwrite=True)[0].raise_error()


def test_same_call_resumes_after_an_interruption(album: Path, weights: Path) -> None:
    network = restorer.load(weights)
    jobs = planning.plan([album], None)
    first = next(restore.iter_restore(jobs, network))
    before = _path(first.target).stat().st_mtime_ns
    rest = restore.restore(jobs, network)
    assert rest[0].is_skipped and not rest[2].is_skipped
    assert len(_errors(rest)) == 1
    assert _path(first.target).stat().st_mtime_ns == before
    assert _path(first.target).parent == album.with_name("album-restored")


def test_results_inside_the_folder_are_not_restored_again(album: Path, weights: Path) -> None:
    jobs = planning.plan([album], album / "out")
    restore.restore(jobs, restorer.load(weights))
    assert planning.plan([album], album / "out") == jobs


def test_broken_links_do_not_stop_the_others(album: Path, weights: Path) -> None:
    (album / "dangling.png").symlink_to("nowhere")
    (album / "loop.png").symlink_to("loop.png")
    outcomes = restore.restore(planning.plan([album]), restorer.load(weights))
    assert len(_errors(outcomes)) == 3
    with pytest.raises(OutputError):
        planning.plan([album / "a.png", album / "b.tif"], album / "loop.png")


def test_one_file_is_written_where_out_says(album: Path, weights: Path) -> None:
    (job,) = planning.plan([album / "a.png"], None)
    assert job.target == album / "a-restored.png"
    (job,) = planning.plan([album / "a.png"], album / "x" / "new.tif")
    assert job.target == album / "x" / "new.tif"
    (job,) = planning.plan([album / "a.png"], album / "elsewhere")
    assert job.target == album / "elsewhere" / "a.png"
    (outcome,) = restore.restore(planning.plan([album / "a.png"], album / "n.tif"), restorer.load(weights))
    assert outcome.error is None and images.read(album / "n.tif").width == 31


def test_changed_input_is_restored_again(album: Path, weights: Path) -> None:
    network = restorer.load(weights)
    jobs = planning.plan([album], album.parent / "out")
    restore.restore(jobs, network)
    before = images.read(album.parent / "out" / "a.png").samples
    images.write(images.read(album / "deep" / "c.png"), album / "a.png", overwrite=True)
    again = restore.restore(jobs, network)
    assert [outcome.is_skipped for outcome in again] == [False, True, False, True]
    assert not np.array_equal(images.read(album.parent / "out" / "a.png").samples, before)


def test_result_that_someone_changed_is_not_overwritten(album: Path, weights: Path) -> None:
    network = restorer.load(weights)
    jobs = planning.plan([album], album.parent / "out")
    restore.restore(jobs, network)
    (album.parent / "out" / "a.png").write_bytes(b"retouched")
    images.write(images.read(album / "deep" / "c.png"), album / "a.png", overwrite=True)
    errors = _errors(restore.restore(jobs, network))
    assert any("a.png exists; overwrite=True replaces it" in error for error in errors)
    assert (album.parent / "out" / "a.png").read_bytes() == b"retouched"


def test_files_of_the_same_name_in_another_folder_overwrite_nothing(album: Path, weights: Path) -> None:
    network, out = restorer.load(weights), album.parent / "out"
    restore.restore(planning.plan([album / "deep"], out), network)
    before = (out / "c.png").read_bytes()
    images.write(images.read(album / "a.png"), album.parent / "another" / "c.png")
    (error,) = _errors(restore.restore(planning.plan([album.parent / "another"], out), network))
    assert "c.png exists; overwrite=True" in error
    assert (out / "c.png").read_bytes() == before


def test_result_that_could_not_be_replaced_is_not_mistaken_for_the_new_one(
    album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, jobs = restorer.load(weights), planning.plan([album / "deep"], album.parent / "out")
    restore.restore(jobs, network)
    images.write(images.read(album / "a.png"), album / "deep" / "c.png", overwrite=True)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pellucid.pictures.writers.write", full)
        assert "No space left" in _errors(restore.restore(jobs, network))[0]
    (outcome,) = restore.restore(jobs, network)
    assert outcome.error is None and not outcome.is_skipped
    expected = network.restore(images.read(album / "a.png")).samples
    assert np.array_equal(images.read(_path(outcome.target)).samples, expected)


def test_input_that_changes_while_it_is_restored_is_restored_again(
    album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, jobs = restorer.load(weights), planning.plan([album / "deep"], album.parent / "out")
    restore_one, changed = restore_picture, images.read(album / "a.png")

    def slow(*given: Any, **how: Any) -> Picture:
        images.write(changed, album / "deep" / "c.png", overwrite=True)
        return restore_one(*given, **how)

    with monkeypatch.context() as patched:
        patched.setattr(stages, "restore_picture", slow)
        restore.restore(jobs, network)
    (outcome,) = restore.restore(jobs, network)
    assert not outcome.is_skipped
    assert np.array_equal(images.read(_path(outcome.target)).samples, network.restore(changed).samples)


def test_header_is_read_once_and_not_at_all_for_finished_results(
    album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers_read: list[str] = []
    size = images.decoding_cost

    def watched(path: Path) -> tuple[int, int]:
        headers_read.append(path.name)
        return size(path)[0], 400_000_000  # so large that each picture waits for the previous one

    monkeypatch.setattr(images, "decoding_cost", watched)
    settings = Settings(memory_bytes=memory.used_bytes() + 10**9)
    network, jobs = restorer.load(weights), planning.plan([album])
    restore.restore(jobs, network, settings=settings)
    assert sorted(headers_read) == ["a.png", "b.tif", "broken.png", "c.png"]
    headers_read.clear()
    restore.restore(jobs, network, settings=settings)
    assert headers_read == ["broken.png"]


def test_manifest_is_read_once(album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, count = entries.read_lines, []

    def counted(folder: Path, reader: JournalReader) -> Iterator[dict[str, Any]]:
        lines = list(read(folder, reader))
        if len(lines) > 1:
            count.append(folder)
        yield from lines

    restore.restore(planning.plan([album]), restorer.load(weights), workers=1)
    monkeypatch.setattr(ledgers, "read_lines", counted)
    restore.restore(planning.plan([album]), restorer.load(weights), workers=1)
    assert len(count) <= 2  # by the reading and the writing thread, if they need it at the same time


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_outcomes_are_in_order_with_any_number_of_workers(album: Path, weights: Path, workers: int) -> None:
    rng = np.random.default_rng(1)
    for i in range(12):
        images.write(Picture(rng.integers(0, 256, (5 + 7 * (i % 3), 9, 3), np.uint8)), album / f"n{i:02}.png")
    network = restorer.load(weights)
    jobs = planning.plan([album], album.parent / "out")
    positions: list[Position] = []
    outcomes = restore.restore(jobs, network, workers=workers, progress=positions.append)
    assert [(outcome.source, outcome.target) for outcome in outcomes] == [(job.source, job.target) for job in jobs]
    done = [position.num_done for position in positions]
    assert done == sorted(done) and done[-1] == len(jobs)
    assert positions[-1].restored_megapixels == pytest.approx(sum(outcome.megapixels for outcome in outcomes))
    for outcome in outcomes:
        if outcome.error is None:
            alone = network.restore(images.read(_path(outcome.source)))
            assert np.array_equal(images.read(_path(outcome.target)).samples, alone.samples)


def test_a_result_that_another_process_is_making_comes_last(
    album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, others = Manifests.claim, [album / "a.png"]

    def claim_later(manifests: Manifests, job: planning.Job) -> bool:
        if job.source not in others:
            return claim(manifests, job)
        others.remove(job.source)  # it has ended when it is asked again
        return False

    monkeypatch.setattr(Manifests, "claim", claim_later)
    outcomes = restore.restore(planning.plan([album], album.parent / "out"), restorer.load(weights))
    assert [_path(outcome.source).name for outcome in outcomes] == ["b.tif", "broken.png", "c.png", "a.png"]
    assert outcomes[-1].error is None and (album.parent / "out" / "a.png").exists()


def test_a_result_is_reported_before_the_next_picture_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has been written in the meantime, which here takes no time."""

    def submit(stage: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(stage(*arguments))
        return done

    def run(_: Any, reserved_bytes: int, item: pipeline.InFlightItem) -> pipeline.InFlightItem:
        num_reported.append(len(reported))
        return item

    monkeypatch.setattr(pipeline, "_pool", lambda _: nullcontext(SimpleNamespace(submit=submit)))
    jobs = [planning.Job(Path(f"{i}.png"), Path(f"{i}-restored.png")) for i in range(4)]
    budget, tracker = pipeline.Budget(2**60, 7, lambda job: 1), pipeline.Tracker(4, None)
    num_reported: list[int] = []
    reported: list[pipeline.InFlightItem] = []
    for item in pipeline.run_overlapped(jobs, lambda x: x, run, lambda x: x, budget=budget, tracker=tracker):
        reported.append(item)
    assert num_reported == [0, 1, 2, 3] and [item.job for item in reported] == jobs


@pytest.mark.parametrize(
    ("num_bytes", "waits_s", "expected_here"),
    [(pipeline.SMALL_BYTES, 0.0, 100), (pipeline.SMALL_BYTES, 1.0, 3), (pipeline.SMALL_BYTES + 1, 0.0, 0)],
)
def test_small_pictures_are_read_where_they_are_restored_unless_that_waits(
    num_bytes: int, waits_s: float, expected_here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it always does, the next 20 are read ahead after the first one, then 40, and so on."""
    now_s, here = 0.0, []
    clocks = SimpleNamespace(monotonic=lambda: now_s, thread_time=lambda: 0.0)
    monkeypatch.setattr(pipeline, "time", clocks)

    def read(item: pipeline.InFlightItem) -> pipeline.InFlightItem:
        nonlocal now_s
        if current_thread() is main_thread():
            now_s += waits_s
            here.append(item.job)
        return item

    jobs = [planning.Job(Path(f"{i}.png"), Path(f"{i}-restored.png")) for i in range(100)]
    budget, tracker = pipeline.Budget(2**60, 2, lambda job: num_bytes), pipeline.Tracker(100, None)
    items = pipeline.run_overlapped(
        jobs, read, lambda _, __, item: item, lambda x: x, budget=budget, tracker=tracker
    )
    assert [item.job for item in items] == jobs
    assert len(here) == expected_here


@pytest.mark.parametrize(("side_px", "is_small"), [(64, True), (150, True), (1000, False)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_files_of_small_pictures_are_small(
    suffix: str, side_px: int, is_small: bool, weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(Picture(np.zeros((side_px, side_px, 3), np.uint8)), path)
    found = stages.codec_bytes(path, path, restorer.load(weights), Settings())
    assert (found <= pipeline.SMALL_BYTES) == is_small


KILLED = """
import sys
from pathlib import Path
from pellucid.restoration import planning, restore, restorer
print("ready", flush=True)
restore.restore(planning.plan([sys.argv[1]], sys.argv[2]), restorer.load(sys.argv[3]))
"""


@pytest.mark.parametrize("seed", range(3))
def test_same_command_resumes_after_being_killed_at_any_moment(tmp_path: Path, weights: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    album, out = tmp_path / "many", tmp_path / "out"
    for i in range(30):
        images.write(Picture(rng.integers(0, 256, (200, 210, 3), np.uint8)), album / f"{i:02}.png")
    command = [sys.executable, "-c", KILLED, str(album), str(out), str(weights)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        num_before = rng.integers(1, 20)
        while len(list(out.glob("[!.]*.png"))) < num_before:
            time.sleep(0.001)
        time.sleep(rng.random() / 50)
        process.kill()
    results = sorted(out.glob("[!.]*.png"))
    times = {path: path.stat().st_mtime_ns for path in results}
    assert len(results) < 30, "killed too late for this test"
    for path in results:
        assert images.read(path).width == 210  # complete, whenever it was killed
    outcomes = restore.restore(planning.plan([album], out), restorer.load(weights))
    assert not _errors(outcomes)
    assert sum(outcome.is_skipped for outcome in outcomes) == len(results)
    assert {path: path.stat().st_mtime_ns for path in results} == times
    assert len(list(out.glob("[!.]*.png"))) == 30
    assert [path.name for path in out.glob(".*")] == [entries.NAME]  # no incomplete files


def test_unexpected_exception_does_not_stop_the_others(
    album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = images.read

    def odd(path: Path, **how: Any) -> Picture:
        if path.name == "b.tif":
            raise IndexError("list index out of range")
        return read(path, **how)

    monkeypatch.setattr(images, "read", odd)
    outcomes = restore.restore(planning.plan([album]), restorer.load(weights))
    (error,) = [error for error in _errors(outcomes) if "b.tif" in error]
    assert "a fault of pellucid (IndexError: list index out of range); please report it" in error
    assert sum(outcome.error is None for outcome in outcomes) == 2


# One call


def test_one_path_is_restored_next_to_itself(album: Path, weights: Path) -> None:
    (outcome,) = restore.restore(album / "a.png", str(weights))  # a restorer, or what `load` takes
    outcome.raise_error()
    assert (outcome.source, outcome.target) == (album / "a.png", album / "a-restored.png")
    assert outcome.restored is None and images.read(_path(outcome.target)).width == 31


def test_a_folder_and_a_pattern_in_one_call(album: Path, weights: Path) -> None:
    outcomes = restore.restore([album / "deep", str(album / "*.tif")], weights, album.parent / "out", format="png")
    assert [_path(outcome.target).name for outcome in outcomes] == ["c.png", "b.png"]
    assert not _errors(outcomes)


def test_a_failure_is_an_outcome_that_a_script_can_raise(album: Path, weights: Path) -> None:
    good, bad = restore.restore([album / "a.png", album / "broken.png"], weights, album.parent / "out")
    good.raise_error()
    with pytest.raises(PictureError, match="broken.png"):
        bad.raise_error()


def test_pictures_in_memory_are_returned_in_their_form(weights: Path) -> None:
    network = restorer.load(weights)
    array = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    (outcome,) = restore.restore(array, network)
    assert (outcome.source, outcome.target, outcome.error) == (None, None, None)
    assert np.array_equal(outcome.restored, network.restore(array))
    assert outcome.megapixels == 72e-6 and outcome.seconds > 0
    positions: list[Position] = []
    pair = restore.restore([Picture(array), Picture(array)], network, progress=positions.append)
    assert all(np.array_equal(one.restored.samples, network.restore(array)) for one in pair)
    assert [position.num_done for position in positions] == [1, 2]
    assert positions[-1].restored_megapixels == 144e-6


def test_pictures_in_memory_are_written_if_asked(tmp_path: Path, weights: Path) -> None:
    network, array = restorer.load(weights), np.zeros((8, 9, 3), np.uint8)
    (outcome,) = restore.restore(array, network, tmp_path / "one.tif")
    assert outcome.target == tmp_path / "one.tif" and images.read(tmp_path / "one.tif").width == 9
    outcomes = restore.restore([array, array], network, tmp_path / "many", format="jpeg")
    assert [outcome.target for outcome in outcomes] == [tmp_path / "many" / "1.jpg", tmp_path / "many" / "2.jpg"]
    with pytest.raises(OutputError, match="1.jpg exists"):
        restore.restore([array, array], network, tmp_path / "many", format="jpeg")
    restore.restore([array, array], network, tmp_path / "many", format="jpeg", overwrite=True)
    with pytest.raises(OutputError, match="there are 2 pictures; out must be a folder"):
        restore.restore([array, array], network, tmp_path / "new.png")
    (failed,) = restore.restore(torch.zeros(2, 3, 8, 8), network, tmp_path / "batch.png")
    assert "a tensor of 2 pictures" in str(failed.error) and not (tmp_path / "batch.png").exists()


def test_a_result_that_its_format_cannot_store_is_not_computed(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = restorer.load(weights)
    monkeypatch.setattr(restore, "restore_in_memory", lambda *_, **__: pytest.fail("not needed"))
    (failed,) = restore.restore(np.zeros((8, 9), np.float32), network, tmp_path / "a.png")
    assert "PNG cannot store floating-point samples" in str(failed.error)


def test_a_bad_picture_in_memory_stops_no_other(weights: Path) -> None:
    good, bad = np.zeros((8, 9), np.uint8), np.full((8, 9), np.nan, np.float32)
    outcomes = restore.restore([bad, good], weights)
    assert str(outcomes[0].error).startswith("picture 1: NaN") and outcomes[1].error is None
    assert outcomes[0].restored is None


def test_mosaics_in_memory_are_restored_with_their_own_exposure_ratio() -> None:
    chosen = registry.find("sid_unet.any_camera", width=2)
    network = Restorer("any", chosen, TorchBackend(chosen.network(), "cpu"))
    mosaic = Mosaic(np.full((32, 32), 700, np.uint16), ("RG", "GB"), 512.0, 16383.0, exposure_ratio=7.0)
    (outcome,) = restore.restore(mosaic, network)
    assert np.array_equal(outcome.restored.samples, network.restore(mosaic).samples)
    assert len(outcome.warnings) == 2 and "exposure ratio is 7" in outcome.warnings[1]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "an input of type NoneType"),
        (["a.png", np.zeros((8, 8), np.uint8)], "inputs are paths and pictures"),
        ([1, 2], "objects of type int"),
        ("missing.png", "missing.png does not exist"),
    ],
)
def test_wrong_inputs_are_refused_before_any_work(weights: Path, inputs: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        restore.iter_restore(inputs, weights)  # without iterating
    assert restore.restore([], weights) == []


def test_a_picture_that_is_done_too_late_is_kept_with_a_warning(tmp_path: Path, weights: Path) -> None:
    """Its only tile is done before the time is checked."""
    PIL.Image.new("L", (20, 20), 90).save(tmp_path / "a.png")
    (outcome,) = restore.restore(tmp_path / "a.png", weights, settings=Settings(timeout_s=1e-6))
    assert outcome.error is None and "longer than 1e-06 s" in outcome.warnings[-1]


def test_a_mask_with_several_pages_is_refused_with_a_way_out(tmp_path: Path, weights: Path) -> None:
    """--page is about the picture."""
    pages = [PIL.Image.new("L", (20, 20), color) for color in (50, 200)]
    pages[0].save(tmp_path / "a.png")
    pages[0].save(tmp_path / "mask.tif", save_all=True, append_images=pages[1:])
    (outcome,) = restore.restore(tmp_path / "a.png", weights, mask=tmp_path / "mask.tif")
    assert str(outcome.error).endswith(
        "mask.tif has 2 pages; one is needed; save one page of the mask as a file of its own"
    )


# Memory and settings


def test_half_of_the_free_memory_is_for_decoding_and_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other half is for tiles."""
    monkeypatch.setattr(memory, "used_bytes", lambda: 200)
    jobs = [planning.Job(Path(f"{i}.png"), Path(f"{i}-restored.png")) for i in range(3)]
    budget = pipeline.Budget(1200, 9, lambda job: 250)
    assert [budget.admit(job) for job in jobs] == [True, True, False]
    budget.release(jobs[0])
    assert budget.admit(jobs[2])
    alone = pipeline.Budget(1200, 9, lambda job: 1100)
    assert alone.admit(jobs[0]) and not alone.admit(jobs[1])
    with pytest.raises(
        NotEnoughMemoryError, match="0.png needs more than the memory limit of .* bytes?; memory_bytes=10000000 is"
    ):
        alone.check(jobs[0])


def test_large_arrays_take_their_share_from_decoding_and_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda: 200)
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**50)
    monkeypatch.setattr(memory, "SPARED_BYTES", 0)
    one, two = (planning.Job(Path(f"{i}.png"), Path(f"{i}-restored.png")) for i in range(2))
    with memory.sharing_free_memory(1000):
        budget = pipeline.Budget(1000, 9, lambda job: 200)
        assert budget.admit(one) and not budget.admit(two)
        assert memory.share_bytes() == 100
        assert pipeline.Budget(1000, 9, lambda job: 301).admit(one)  # alone, it leaves nothing to share
        assert memory.share_bytes() == 0


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_the_limit_in_an_error_is_enough_for_the_whole_run(
    suffix: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if large pictures are in memory; 2 MP take 72 MB to be written as lossless WebP."""
    monkeypatch.setattr(memory, "SPARED_BYTES", 2**20)
    monkeypatch.setattr(memory, "LARGE_BYTES", 2**18)
    source, target = tmp_path / "a.tif", tmp_path / f"b{suffix}"
    images.write(Picture(np.zeros((1500, 1500, 3), np.uint8)), source)
    errors = []
    limit = memory.used_bytes()
    for _ in range(3):
        (outcome,) = restore.restore(source, weights, target, settings=Settings(memory_bytes=limit))
        if not isinstance(outcome.error, NotEnoughMemoryError):
            break
        errors.append(str(outcome.error))
        limit = outcome.error.parameters["memory_bytes"]
    assert outcome.error is None and len(errors) in (1, 2) and len({error[:40] for error in errors}) == len(errors)


def test_folders_of_versions_with_former_keyword_names_stay_finished(weights: Path) -> None:
    """Manifests contain a hash of these settings; the keyword was basis_steps before it was renamed."""
    chosen = registry.find("dncnn.gaussian", depth=3, width=4, optimizer="soap", precondition_frequency=7)
    network = Restorer("tiny", chosen, TorchBackend(chosen.network(), "cpu"))
    described = restore._describe(network, Settings())
    assert described["basis_steps"] == "7" and "precondition_frequency" not in described
    assert set(described) - set(chosen.parameters) == {
        *("weights", "recipe", "basis_steps"),
        *("halo_px", "ensemble", "strength", "quality", "bit_depth", "exposure"),
    }


def test_pictures_that_are_being_written_are_counted_after_an_interruption() -> None:
    jobs = [planning.Job(Path(f"{i}.png"), Path(f"out/{i}.png")) for i in range(3)]
    is_interrupted = Event()

    def run(_: Any, reserved_bytes: int, item: pipeline.InFlightItem) -> pipeline.InFlightItem:
        if item.job == jobs[1]:
            is_interrupted.set()
            raise KeyboardInterrupt
        return item

    def write(item: pipeline.InFlightItem) -> pipeline.InFlightItem:
        assert is_interrupted.wait(10)
        return item

    budget, tracker = pipeline.Budget(2**60, 2, lambda job: 1), pipeline.Tracker(3, None)
    items = pipeline.run_overlapped(jobs, lambda x: x, run, write, budget=budget, tracker=tracker)
    assert next(items).job == jobs[0]
    with pytest.raises(KeyboardInterrupt):
        next(items)


def test_ctrl_c_that_c_code_reports_as_another_error_still_interrupts(
    album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    network = restorer.load(weights)
    monkeypatch.setattr(restore, "restore_in_memory", interrupted)
    monkeypatch.setattr(stages, "restore_picture", interrupted)
    for inputs in (album, np.zeros((8, 9), np.uint8)):
        with pytest.raises(KeyboardInterrupt):
            restore.restore(inputs, network)


# Camera RAW


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """A dark exposure of 1/30 s and one of 1 s, both rotated."""
    rows, cols = np.mgrid[:64, :96]
    scene = 2000 + 1500 * np.sin(rows / 9) * np.cos(cols / 7)
    for name, time_s in (("short.dng", 1 / 30), ("long.dng", 1.0)):
        samples = (512 + scene * time_s).round().astype(np.uint16)
        exposure = Exposure(time_s, 800, 2.8)
        mosaic = Mosaic(samples, ("GR", "BG"), 512.0, 16383.0, exposure=exposure, orientation=6)
        dng.write(mosaic, tmp_path / name)
    return tmp_path


Exposing = float | Path | Literal["auto"]


def _restored(restorer: Restorer, source: Path, exposure: Exposing = "auto") -> Outcome:
    settings = Settings(exposure=exposure)
    jobs = planning.plan([source], source.with_name("out"))
    (outcome,) = restore.restore(jobs, restorer, settings=settings, overwrite=True)
    assert outcome.error is None, outcome.error
    return outcome


def test_recipes_for_pictures_develop_camera_raw_first(dark: Path, weights: Path) -> None:
    outcome = _restored(restorer.load(weights), dark / "long.dng")
    assert outcome.info == ("camera RAW developed by LibRaw: 16 bit, camera white balance, sRGB",)
    assert _path(outcome.target).name == "long.tif"
    result = images.read(_path(outcome.target))
    assert (result.dtype, result.width, result.height) == ("uint16", 64, 96)  # upright


def test_mosaics_unlike_those_in_training_give_warnings(dark: Path) -> None:
    chosen = registry.find("sid_unet.any_camera", width=2)
    network = Restorer("any", chosen, TorchBackend(chosen.network(), "cpu"))
    no_white_balance, too_bright = _restored(network, dark / "short.dng", 7.0).warnings
    assert "no white balance" in no_white_balance
    assert "exposure ratio is 7" in too_bright and "50 to 300" in too_bright
    assert len(_restored(network, dark / "short.dng", 100.0).warnings) == 1


@pytest.mark.parametrize(
    ("exposure", "ratio"), [(7.5, 7.5), (Path("long.dng"), 30.0), ("auto", None)], ids=["number", "file", "auto"]
)
def test_low_light_recipes_take_the_mosaic(
    dark: Path, monkeypatch: pytest.MonkeyPatch, exposure: Exposing, ratio: float | None
) -> None:
    torch.manual_seed(0)
    chosen = registry.find("sid_unet.sony")
    network = Restorer("sony", chosen, TorchBackend(chosen.network(), "cpu"))
    if isinstance(exposure, Path):
        exposure = dark / exposure
    seen: list[Mosaic] = []
    restore_one = restore_picture

    def watched(network: Restorer, mosaic: Mosaic, *given: Any, **how: Any) -> Degraded:
        seen.append(mosaic)
        return restore_one(network, mosaic, *given, **how)

    monkeypatch.setattr(stages, "restore_picture", watched)
    outcome = _restored(network, dark / "short.dng", exposure)
    if ratio is not None:
        assert seen[0].exposure_ratio == pytest.approx(ratio, rel=1e-4)
    *of_exposure, of_size = outcome.info
    assert len(of_exposure) == (exposure != 7.5)
    assert all(text.startswith(f"exposure ratio {seen[0].exposure_ratio:.3g}, ") for text in of_exposure)
    assert of_size.startswith("cut from 96 x 64 to 94 x 64 px")
    result = images.read(_path(outcome.target))
    assert (result.dtype, result.width, result.height) == ("uint16", 64, 94)  # aligned to RGGB, then rotated
    alone = network.restore(seen[0])
    assert np.array_equal(result.samples, alone.samples)


@pytest.mark.parametrize("name", ["dncnn.three_tasks", "dncnn.jpeg"])
def test_deblocked_jpeg_is_written_with_high_quality(tmp_path: Path, name: str) -> None:
    chosen = registry.find(name, depth=2, width=2, quality=10)
    deblocker = Restorer("three", chosen, TorchBackend(chosen.network(), "cpu"))
    gaussian = registry.find("dncnn.gaussian", depth=2, width=2)
    denoiser = Restorer("one", gaussian, TorchBackend(gaussian.network(), "cpu"))
    rng = np.random.default_rng(0)
    PIL.Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "a.jpg", quality=10)
    for network, quality in ((deblocker, 95), (denoiser, 10)):
        (outcome,) = restore.restore(planning.plan([tmp_path / "a.jpg"]), network, overwrite=True)
        encoding = images.read(_path(outcome.target)).encoding
        assert encoding is not None and encoding.quality == quality


def test_deblocked_webp_stays_lossless(tmp_path: Path) -> None:
    chosen = registry.find("dncnn.three_tasks", depth=2, width=2, quality=10)
    deblocker = Restorer("three", chosen, TorchBackend(chosen.network(), "cpu"))
    samples = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    PIL.Image.fromarray(samples).save(tmp_path / "a.webp", lossless=True)
    settings = Settings(strength=0)
    (outcome,) = restore.restore(planning.plan([tmp_path / "a.webp"]), deblocker, settings=settings)
    assert np.array_equal(np.asarray(PIL.Image.open(_path(outcome.target))), samples)


@pytest.mark.parametrize(
    ("name", "keywords", "expected"),
    [
        ("dncnn.blind", {"channels": 3, "depth": 2, "width": 2}, ["dncnn-gray-blind restores it better"]),
        ("mimo_unet.gopro", {"width": 4, "num_blocks": 1}, []),
    ],
)
def test_gray_pictures_and_networks_for_color_noise(
    name: str,
    keywords: dict[str, Any],
    expected: list[str],
) -> None:
    chosen = registry.find(name, **keywords)
    network = Restorer("color", chosen, TorchBackend(chosen.network(), "cpu"))
    samples = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    (of_gray, of_color) = restore.restore([samples, np.stack([samples] * 3, axis=2)], network)
    assert [text for text in expected if text in " ".join(of_gray.warnings)] == expected
    assert len(of_gray.warnings) == len(expected) and not of_color.warnings


def test_damaged_models_of_the_user_do_not_stop_a_gray_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path))
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    # No model that ships has this recipe, so that all files with names are considered.
    chosen = replace(registry.find("dncnn.blind", channels=3, depth=2, width=2), name="mine.blind")
    suitability._find_gray_twin.cache_clear()
    network = Restorer("color", chosen, TorchBackend(chosen.network(), "cpu"))
    (outcome,) = restore.restore([np.zeros((20, 20), np.uint8)], network)
    assert outcome.error is None
    assert "weights for gray pictures restore it better" in " ".join(outcome.warnings)


def test_pictures_of_unsupported_formats_are_reported(album: Path, weights: Path) -> None:
    (album / "painting.psd").write_bytes(b"8BPS\0\1" + bytes(40))
    (album / "notes.txt").touch()
    errors = _errors(restore.restore(planning.plan([album]), restorer.load(weights)))
    assert len(errors) == 2 and any("painting.psd is in Photoshop format" in error for error in errors)


def test_patterns_do_not_use_results_as_inputs(album: Path, weights: Path) -> None:
    network = restorer.load(weights)
    for _ in range(2):
        outcomes = restore.restore(planning.plan([str(album / "*.*")]), network)
        assert [_path(outcome.source).name for outcome in outcomes] == ["a.png", "b.tif", "broken.png"]
    assert [outcome.is_skipped for outcome in outcomes] == [True, True, False]


def test_what_the_format_cannot_contain_is_reported_before_the_network_runs(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = restorer.load(weights)
    monkeypatch.setattr(stages, "restore_picture", lambda *_, **__: pytest.fail("it ran"))
    images.write(Picture(np.zeros((9, 9, 3), np.uint8), np.ones((9, 9, 1), np.uint8)), tmp_path / "a.png")
    jobs = planning.plan([tmp_path / "a.png"], format="jpeg")
    assert "cannot store alpha" in _errors(restore.restore(jobs, network))[0]


def _jobs(tmp_path: Path, *names: tuple[str, str]) -> list[planning.Job]:
    images.write(Picture(np.zeros((4, 4, 3), np.uint8)), tmp_path / "a.png", overwrite=True)
    images.write(Picture(np.ones((4, 4, 3), np.uint8)), tmp_path / "b.png", overwrite=True)
    return [planning.Job(tmp_path / source, tmp_path / target) for source, target in names]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([("a.png", "a.png")], "a.png is one of the inputs"),
        ([("a.png", "b.png"), ("b.png", "c.png")], "b.png is one of the inputs"),
        ([("a.png", "c.png"), ("b.png", "c.png")], "would both become"),
        ([("a.png", "c.png"), ("a.png", "c.png")], "would both become"),
    ],
)
def test_jobs_that_would_lose_a_picture_are_refused(
    tmp_path: Path, weights: Path, names: list[tuple[str, str]], message: str
) -> None:
    jobs = _jobs(tmp_path, *names)
    before = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    with pytest.raises(OutputError, match=message):
        restore.restore(jobs, weights, overwrite=True)
    assert before == [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]


def test_jobs_with_another_out_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(OutputError, match="jobs contain the files to write; omit out and format"):
        restore.restore(_jobs(tmp_path, ("a.png", "c.png")), weights, tmp_path / "elsewhere")


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_error_of_the_progress_function_is_raised(album: Path, weights: Path, in_memory: bool) -> None:
    """It is not an error of the picture, and no fault of pellucid."""

    def fail(_: Position) -> None:
        raise ZeroDivisionError

    inputs: Any = np.zeros((8, 8), np.uint8) if in_memory else album / "a.png"
    with pytest.raises(ZeroDivisionError):
        restore.restore(inputs, weights, progress=fail)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", 2),
        ("strength", "a"),
        ("tile_px", 0),
        ("tile_px", 2.5),
        ("halo_px", -1),
        ("memory_bytes", -1),
        ("quality", 0),
        ("quality", 50.5),
        ("bit_depth", 7),
        ("exposure", -1),
        ("exposure", "reference.dng"),
        ("max_pixels", None),
    ],
)
def test_impossible_settings_are_refused_before_any_work(name: str, value: Any) -> None:
    with pytest.raises(PellucidError, match="bit depth" if value == 7 else name):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "0 is not possible; workers can be a whole number of 1 or more"),
        ({"workers": "2"}, "workers"),
        ({"settings": {}}, "settings is of type dict; a pellucid.Settings is needed"),
        ({"name": 3}, "name is 3; text is needed"),
        ({"out": 3}, "out is 3; a path or a URL is needed"),
        ({"mask": np.zeros((8, 8))}, "mask is of type ndarray; a path or a URL is needed"),
        ({"progress": 3}, "progress is 3; a function is needed"),
        ({"format": 3}, "format is 3; text is needed"),
        ({"restorer": 3}, "restorer is 3; a pellucid.Restorer or the name of a model or a path is needed"),
    ],
)
def test_wrong_arguments_give_one_clear_line(album: Path, weights: Path, arguments: Any, message: str) -> None:
    with pytest.raises(PellucidError, match=message):
        restore.restore(album, **{"restorer": weights, **arguments})


@pytest.mark.parametrize("out", [None, "out"])
def test_an_impossible_format_is_refused_for_pictures_in_memory(
    weights: Path, tmp_path: Path, out: str | None
) -> None:
    picture = np.zeros((8, 8), np.uint8)
    with pytest.raises(ArgumentError, match="bogus"):
        restore.restore(picture, weights, None if out is None else tmp_path / out, format="bogus")


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("name", "message"), [("x\0.png", "NUL"), ("x" * 300 + ".png", "too long")])
def test_names_that_cannot_be_written_give_one_clear_line(
    album: Path, weights: Path, name: str, message: str, in_memory: bool
) -> None:
    inputs: Any = np.zeros((8, 8), np.uint8) if in_memory else album / "a.png"
    with pytest.raises(OutputError, match=message):
        (outcome,) = restore.restore(inputs, weights, album.parent / name)
        outcome.raise_error()


def test_the_smallest_limits_are_allowed() -> None:
    smallest: dict[str, Any] = {
        "tile_px": 1,
        "halo_px": 0,
        "memory_bytes": 1,
        "quality": 1,
        "max_pixels": 1,
        "page": 1,
    }
    Settings(**smallest)
    for name, value in smallest.items():
        with pytest.raises(PellucidError):
            Settings(**{name: value - 1})


@pytest.mark.parametrize(
    ("options", "stem", "message"),
    [
        (
            {"settings": Settings(compare=True)},
            251 * "x",
            r"the name x{20}\.\.\.x+-compare\.png of 263 bytes is too long; choose shorter names by name, "
            "or omit compare",
        ),
        (
            {"name": "{stem}-{stem}{suffix}"},
            130 * "x",
            r"the name x{20}\.\.\.x+\.png of 265 bytes is too long; choose shorter names by name$",
        ),
    ],
)
def test_names_that_get_too_long_in_a_folder_are_named(
    tmp_path: Path, weights: Path, options: Any, stem: str, message: str
) -> None:
    images.write(Picture(np.zeros((8, 8, 1), np.uint8)), tmp_path / "in" / f"{stem}.png")
    (outcome,) = restore.restore(tmp_path / "in", weights, tmp_path / "out", **options)
    with pytest.raises(OutputError, match=message):
        outcome.raise_error()


def _write_animation(folder: Path) -> Path:
    frames = [PIL.Image.new("RGB", (20, 30), (level, 0, 0)) for level in (0, 90, 180)]
    frames[0].save(folder / "x.webp", save_all=True, append_images=frames[1:])
    return folder / "x.webp"


def _write_pages(folder: Path) -> Path:
    pages = [PIL.Image.new("RGB", (20, 30), (level, 0, 0)) for level in (0, 90, 180)]
    pages[0].save(folder / "x.tif", save_all=True, append_images=pages[1:])
    return folder / "x.tif"


def _write_deep(folder: Path) -> Path:
    images.write(Picture(np.zeros((30, 20, 1), np.uint16)), folder / "x.tif")
    return folder / "x.tif"


def _write_transparent(folder: Path) -> Path:
    images.write(Picture(np.zeros((30, 20, 1), np.uint16), np.zeros((30, 20, 1), np.uint16)), folder / "x.png")
    return folder / "x.png"


def _write_photo(folder: Path) -> Path:
    images.write(Picture(np.zeros((30, 20, 3), np.uint8)), folder / "x.png")
    return folder / "x.png"


@pytest.mark.parametrize(
    ("write", "model", "settings", "format", "message"),
    [
        (_write_animation, "srcnn-x2", Settings(), "png", "is an animated WebP of 3 frames"),
        (_write_pages, "srcnn-x2", Settings(), "png", "has 3 pages, and PNG can store one"),
        (_write_pages, "srcnn-x2", Settings(page=4), "png", "there is no page 4"),
        (_write_deep, "srcnn-x2", Settings(), "jpeg", "JPEG cannot store 16-bit samples"),
        (_write_transparent, "srcnn-x2", Settings(), "jpeg", "JPEG cannot store"),
        (_write_photo, "srcnn-x2", Settings(bit_depth=16), "jpeg", "JPEG cannot store 16-bit samples"),
        (_write_photo, "srcnn-x2", Settings(scale=0.5), None, "srcnn-x2 only enlarges"),
        (_write_photo, "dncnn-gray-25", Settings(scale=2), None, "dncnn-gray-25 does not enlarge"),
        (_write_photo, "srcnn-x2", Settings(max_pixels=500), None, "600 pixels"),
        (_write_photo, "raw-denoise", Settings(), None, "this is a developed picture"),
        (_write_photo, "sid-any", Settings(), "png", "this is a developed picture"),
    ],
)
def test_a_plan_names_what_the_header_of_a_file_shows(
    tmp_path: Path,
    write: Callable[[Path], Path],
    model: str,
    settings: Settings,
    format: str | None,
    message: str,
) -> None:
    """With the words of the real run."""
    chosen = restorer.load(model)
    format = format or restorer.default_format(chosen)
    jobs = planning.plan([write(tmp_path)], tmp_path / "out", format=format)
    (planned,) = _errors([*restore.check_files(jobs, chosen, settings, overwrite=False)])
    assert message in planned
    assert not (tmp_path / "out").exists()
    assert _errors(restore.restore(jobs, chosen, settings=settings)) == [planned]


def test_a_plan_compares_the_sizes_of_masks(tmp_path: Path) -> None:
    images.write(Picture(np.zeros((20, 30, 1), np.uint8)), tmp_path / "turned.png")
    images.write(Picture(np.zeros((20, 31, 1), np.uint8)), tmp_path / "wide.png")
    chosen, found, photo = restorer.load("dncnn-gray-25"), [], _write_photo(tmp_path)
    for mask in ("turned.png", "wide.png"):
        jobs = planning.plan([photo], tmp_path / "out", mask=tmp_path / mask)
        found.append(_errors([*restore.check_files(jobs, chosen, Settings(), overwrite=False)]))
    assert found[0] == [] and "a mask of 31 x 20 px for a picture of 20 x 30 px" in found[1][0]


def test_a_reference_of_the_exposure_that_changes_counts(dark: Path) -> None:
    """Neither the file in memory nor a finished result of the former one is used."""
    chosen = registry.find("sid_unet.any_camera", width=2)
    network = Restorer("any", chosen, TorchBackend(chosen.network(), "cpu"))
    settings, jobs = Settings(exposure=dark / "long.dng"), planning.plan([dark / "short.dng"], dark / "out")
    (outcome,) = restore.restore(jobs, network, settings=settings)
    assert any("exposure ratio 30" in line for line in outcome.info)
    (outcome,) = restore.restore(jobs, network, settings=settings)
    assert outcome.is_skipped
    brighter = Mosaic(
        np.full((64, 96), 900, np.uint16), ("GR", "BG"), 512.0, 16383.0, exposure=Exposure(0.5, 800, 2.8)
    )
    dng.write(brighter, dark / "long.dng", overwrite=True)
    (outcome,) = restore.restore(jobs, network, settings=settings)
    assert "with other settings" in str(outcome.error)
    (outcome,) = restore.restore(jobs, network, settings=settings, overwrite=True)
    assert any("exposure ratio 15" in line for line in outcome.info)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "png"}, "format is only for files, and none are written"),
        ({"settings": Settings(quality=90)}, "quality is only for files, and none are written"),
        ({"settings": Settings(bit_depth=16)}, "bit_depth is only for files, and none are written"),
        ({"settings": Settings(sidecars=True)}, "sidecars is only for files, not for pictures in memory"),
    ],
)
def test_what_only_affects_files_is_refused_for_pictures_in_memory(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        restore.restore(np.zeros((8, 8), np.uint8), "dncnn-gray-25", **given)


@pytest.mark.parametrize(("dtype", "bit_depth"), [("uint8", 16), ("uint16", 8)])
def test_a_picture_in_memory_keeps_its_depth_whatever_its_file_has(
    tmp_path: Path, dtype: str, bit_depth: int
) -> None:
    picture = Picture(np.random.default_rng(0).random((20, 30, 1), np.float32)).as_depth(dtype).to_array()
    chosen, out = restorer.load("dncnn-gray-25"), tmp_path / "x.png"
    (outcome,) = restore.restore(picture, chosen, out, Settings(bit_depth=bit_depth))
    found, expected = outcome.restored, chosen.restore(picture)
    assert isinstance(found, np.ndarray) and found.dtype == dtype
    assert abs(found.astype(int) - expected).max() <= 1  # one more rounding
    assert images.read(out).dtype == f"uint{bit_depth}"


def test_a_dark_mask_is_named(tmp_path: Path) -> None:
    images.write(Picture(np.ones((30, 20, 1), np.uint8)), tmp_path / "mask.png")
    photo = _write_photo(tmp_path)
    (outcome,) = restore.restore(photo, "dncnn-gray-25", tmp_path / "out.png", mask=tmp_path / "mask.png")
    assert "no sample of the mask is above 1 of 255: at most 0.4% is restored" in outcome.warnings


def test_a_plan_names_a_mask_that_is_gone(dark: Path, weights: Path) -> None:
    """Of camera RAW, too, whose header is not compared with it."""
    mask = dark / "mask.png"
    images.write(Picture(np.zeros((64, 96, 1), np.uint8)), mask)
    jobs = planning.plan([dark / "short.dng"], dark / "out", mask=mask)
    mask.unlink()
    (error,) = _errors([*restore.check_files(jobs, restorer.load(weights), Settings(), overwrite=False)])
    assert "mask.png" in error
