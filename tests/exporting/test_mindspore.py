"""MindIR files agree with the network, and MindSpore's faults are one line."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import small_models
from pellucid.backends import graphs
from pellucid.errors import PellucidError
from pellucid.exporting import export as exporting, mindspore, mindspore_cell

needs_mindspore = pytest.mark.skipif(
    find_spec("mindspore") is None, reason="MindSpore is not installed: pip install 'pellucid[mindspore]'"
)


@needs_mindspore
@pytest.mark.parametrize("name", small_models.RECIPES)
def test_every_network_agrees(tmp_path: Path, name: str) -> None:
    weights = small_models.save_weights(tmp_path, name)
    exported = exporting.export(weights, tmp_path / "made" / "model.mindir")
    assert exported.agreement.psnr_db > 115 and exported.agreement.num_inputs == 4
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["model.mindir"]


@needs_mindspore
def test_half_precision_is_close(tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "dncnn.gaussian")
    exported = exporting.export(weights, tmp_path / "a.mindir", precision="float16")
    assert 60 < exported.agreement.psnr_db < 115


@needs_mindspore
@pytest.mark.parametrize(("precision", "least_db"), [("float32", 115), ("float16", 50)])
def test_zeros_beyond_the_border(tmp_path: Path, precision: str, least_db: float) -> None:
    weights = small_models.save_weights(tmp_path, "srcnn.paper", mapping_px=1, padding="zeros")
    exported = exporting.export(weights, tmp_path / "a.mindir", precision=precision)
    assert exported.agreement.psnr_db > least_db


@needs_mindspore
def test_a_fixed_size_and_facts_are_in_the_file(tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "sid_unet.sony")
    exported = exporting.export(weights, tmp_path / "a.mindir", shape=(1, 4, 20, 18))
    assert exported.agreement.psnr_db > 115 and exported.agreement.num_inputs == 1
    content = exported.path.read_bytes()
    # As protobuf has an entry of a map: the key, its length before it, then the value.
    for key, text in (("recipe", "sid_unet.sony"), ("license", "CC0"), ("shape", "[1, 4, 20, 18]")):
        name = f"pellucid.{key}".encode()
        assert bytes([10, len(name)]) + name + bytes([18, len(text)]) + text.encode() in content


@needs_mindspore
def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.mindir").write_bytes(b"no model")
    run = mindspore.Runner(tmp_path / "model.mindir")
    with pytest.raises(PellucidError, match=r"^MindSpore cannot run the model: \S.*") as raised:
        run(torch.zeros(1, 1, 2, 2))
    assert "\n" not in str(raised.value)


# The program's part is played by others here, so that MindSpore need not be installed


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mindspore, "_PROGRAM", tmp_path / "program.py")
    monkeypatch.setattr(mindspore, "check_installed", lambda name: None)
    return tmp_path / "program.py"


ENDS = [
    ("import sys; print('a warning', file=sys.stderr); sys.exit('no such layer')", "no such layer"),
    ("import os; os.kill(os.getpid(), 9)", "it was ended by signal 9"),
    ("import sys; sys.exit(1)", "it says no reason"),
]


@pytest.mark.parametrize(("text", "reason"), ENDS)
def test_why_a_file_cannot_be_written_or_run_is_said(program: Path, text: str, reason: str) -> None:
    program.write_text(text)
    network = small_models.build("dncnn.gaussian")[1]
    cell = mindspore_cell.translate(graphs.capture(network, 1))
    path = program.with_name("model.mindir")
    with pytest.raises(PellucidError, match=f"^MindSpore cannot write the network: {reason}$"):
        mindir.write(cell, path, {}, num_planes=1, shape=None)
    with pytest.raises(PellucidError, match=f"^MindSpore cannot run the model: {reason}$"):
        mindspore.Runner(path)(torch.zeros(1, 1, 2, 2))


def test_inputs_go_through_one_process_that_ends_with_its_runner(program: Path) -> None:
    program.write_text(
        "import os, sys, numpy as np\n"
        "for _ in sys.stdin:\n"
        "    np.save('output.npy', np.load('input.npy') + os.getpid())\n"
        "    print('done', flush=True)\n"
    )
    run = mindspore.Runner(program.with_name("model.mindir"))
    inputs = [torch.zeros(1, 1, 1, 1), torch.ones(2, 1, 2, 2)]
    found = [run(degraded) for degraded in inputs]
    number = int(found[0].item())
    assert torch.equal(found[1], inputs[1] + number)
    os.kill(number, 0)  # it is there
    del run
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
