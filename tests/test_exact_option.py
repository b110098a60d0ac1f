"""`restore` chooses the backend by itself, unless `--exact` asks for torch in float32."""

import json
from pathlib import Path

import pytest

from pellucid.backends import selection
from pellucid.pictures import images
from test_cli import Terminal
from test_cli_restore import run

__all__ = ["run"]  # the fixture

pytest.importorskip("openvino")


def test_the_fastest_backend_is_the_default(run: Terminal) -> None:
    default = run("restore photo.png --model x2 --out default.png --verbose")
    exact = run("restore photo.png --model x2 --exact --out exact.png --verbose")
    torch = run("restore photo.png --model x2 --backend torch --out torch.png")
    assert "computed by openvino" in default.err
    assert "computed by" not in exact.err + torch.err
    assert Path("exact.png").read_bytes() == Path("torch.png").read_bytes()
    difference = images.read("default.png").samples.astype(int) - images.read("exact.png").samples
    assert abs(difference).max() <= 1


def test_the_report_names_the_backend(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("restore photo.png --model x2 --out out.png --json report.json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(Path("report.json").read_text())["backend"] == "openvino float32 on cpu"
    monkeypatch.setattr(selection, "list_candidates", lambda _: iter([("torch", "bfloat16")]))
    monkeypatch.setattr(selection, "AUTO_MIN_PSNR_DB", 20)
    asked = run("restore photo.png --model x2 --precision auto --out asked.png")
    assert asked.err.startswith("computed by torch bfloat16 (PSNR against torch float32: ")


def test_results_of_any_chosen_backend_are_finished(run: Terminal) -> None:
    """Those of another machine may be of another backend; --exact accepts only its own."""
    assert run("restore album --model x2 --exact --out out").code == 0
    again = run("restore album --model x2 --out out")
    assert again.code == 0 and "0 of 2 pictures restored by x2, 2 already exist" in again.out
    assert run("restore album --model x2 --out auto").code == 0
    assert "computed by openvino" in run("restore album --model x2 --out auto --verbose").err
    refused = run("restore album --model x2 --exact --out auto")
    assert refused.code == 1 and "was made by another model or with other settings" in refused.err
    status = run("status out")
    assert status.code == 0 and "2 of 2" in status.out + status.err


def test_half_precision_is_not_accepted_in_place_of_float32(run: Terminal) -> None:
    assert run("restore album --model x2 --backend torch --precision bfloat16 --out out").code == 0
    again = run("restore album --model x2 --out out")
    assert again.code == 1 and "was made by another model or with other settings" in again.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--exact --backend openvino", "--exact is --backend torch --precision float32; omit --backend"),
        ("--model x2+a.onnx --exact", "--exact is for weight files; a.onnx computes as it was exported"),
        ("--exact --precision bfloat16", "--exact is --backend torch --precision float32; omit --precision"),
    ],
)
def test_exact_excludes_other_backends(run: Terminal, options: str, message: str) -> None:
    model = "" if "--model" in options else "--model x2"
    result = run(f"restore photo.png {model} {options}")
    assert result.code == 2 and message in result.err


def test_exported_models_compute_as_they_were_exported(run: Terminal) -> None:
    Path("x2.onnx").touch()
    result = run("restore photo.png --model x2.onnx --exact")
    assert result.code == 2 and "--exact is for weight files; x2.onnx computes as it was exported" in result.err
