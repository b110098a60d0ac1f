"""MindIR files agree with the network, and MindSpore's errors become one line."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import small_models
from pellucid.backends.model import Model
from pellucid.errors import PellucidError
from pellucid.exporting import export as exporting
from pellucid.exporting import mindspore
from pellucid.exporting.export_format import ExportRequest
from pellucid.weights.checkpoint import WeightsMetadata

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
def test_zero_padding_agrees(tmp_path: Path, precision: str, least_db: float) -> None:
    weights = small_models.save_weights(tmp_path, "srcnn.paper", mapping_px=1, padding="zeros")
    exported = exporting.export(weights, tmp_path / "a.mindir", precision=precision)
    assert exported.agreement.psnr_db > least_db


@needs_mindspore
def test_a_fixed_shape_and_the_metadata_are_in_the_file(tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "sid_unet.sony")
    exported = exporting.export(weights, tmp_path / "a.mindir", shape=(1, 4, 20, 18))
    assert exported.agreement.psnr_db > 115 and exported.agreement.num_inputs == 1
    content = exported.path.read_bytes()
    # An entry of a map in protobuf: tag, length and text of the key, then of the value.
    for key, text in (("recipe", "sid_unet.sony"), ("license", "CC0"), ("shape", "[1, 4, 20, 18]")):
        name = f"pellucid.{key}".encode()
        assert bytes([10, len(name)]) + name + bytes([18, len(text)]) + text.encode() in content


@needs_mindspore
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("srcnn.paper", {"colors": "gray"}),
        ("srcnn.paper", {"layout": "nhwc", "shape": (2, 12, 10, 3)}),
        ("dncnn.gaussian", {"layout": "nhwc"}),
        ("mimo_unet.gopro", {"colors": "gray"}),
        ("sid_unet.sony", {}),
        ("dncnn.raw", {}),
        ("sid_unet.any_camera", {"layout": "nhwc", "shape": (1, 32, 24, 1)}),
    ],
)
def test_whole_graphs_agree(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    weights = small_models.save_weights(tmp_path, name, **small_models.RECIPES.get(name, {"width": 4}))
    exported = exporting.export(weights, tmp_path / "a.mindir", whole=True, **options)
    assert exported.agreement.psnr_db > 115


@needs_mindspore
def test_sizes_that_mindspore_cannot_run_raise_a_one_line_error(tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "srcnn.paper")
    with pytest.raises(PellucidError, match=r"^MindSpore cannot run the model: .*shape specifies$"):
        exporting.export(weights, tmp_path / "a.mindir", whole=True)
    assert not (tmp_path / "a.mindir").exists()


@needs_mindspore
def test_a_damaged_file_raises_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "model.mindir").write_bytes(b"not a model")
    run = mindspore.Runner(tmp_path / "model.mindir")
    with pytest.raises(PellucidError, match=r"^MindSpore cannot run the model: \S.*") as raised:
        run(torch.zeros(1, 1, 2, 2))
    assert "\n" not in str(raised.value)


# Other programs replace MindSpore's here, so it need not be installed


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mindspore, "_PROGRAM", tmp_path / "program.py")
    monkeypatch.setattr(mindspore, "check_installed", lambda name: None)
    return tmp_path / "program.py"


ENDS = [
    ("import sys; print('a warning', file=sys.stderr); sys.exit('no such layer')", "no such layer"),
    ("import os; os.kill(os.getpid(), 9)", "the process was ended by signal 9"),
    ("import sys; sys.exit(1)", "no reason given"),
]


@pytest.mark.parametrize(("text", "reason"), ENDS)
def test_errors_contain_the_reason(program: Path, text: str, reason: str) -> None:
    program.write_text(text)
    recipe, network = small_models.build("dncnn.gaussian")
    weights = WeightsMetadata(recipe.name, recipe.parameters, "random", "CC0")
    request = ExportRequest(Model.of(network, recipe, weights))
    path = program.with_name("model.mindir")
    with pytest.raises(PellucidError, match=f"^MindSpore cannot write the network: {reason}$"):
        mindspore.write(request, path)
    with pytest.raises(PellucidError, match=f"^MindSpore cannot run the model: {reason}$"):
        mindspore.Runner(path)(torch.zeros(1, 1, 2, 2))


def test_one_process_runs_all_inputs_and_ends_with_its_runner(program: Path) -> None:
    program.write_text(
        "import os, sys, numpy as np\n"
        "for _ in sys.stdin:\n"
        "    np.save('output.npy', np.load('inputs.npz')['arr_0'] + os.getpid())\n"
        "    print('done', flush=True)\n"
    )
    run = mindspore.Runner(program.with_name("model.mindir"))
    inputs = [torch.zeros(1, 1, 1, 1), torch.ones(2, 1, 2, 2)]
    found = [run(degraded) for degraded in inputs]
    process_id = int(found[0].item())
    assert torch.equal(found[1], inputs[1] + process_id)
    os.kill(process_id, 0)  # it is running
    del run
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
