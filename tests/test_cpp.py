"""The C++ example compiles, runs without Python, and gives the same result as the command line."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_models
from pellucid.exporting import export as exporting
from pellucid.pictures import images
from pellucid.restoration import restorer

EXAMPLE = Path(__file__).parent.parent / "examples" / "cpp"
openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    build = tmp_path_factory.mktemp("build")
    option = f"-DOpenVINO_DIR={openvino.utils.get_cmake_path()}"
    configured = subprocess.run(["cmake", "-S", EXAMPLE, "-B", build, option], capture_output=True, text=True)
    if "Could NOT find PNG" in configured.stderr:
        pytest.skip("needs the headers of libpng")
    assert configured.returncode == 0, configured.stderr
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)
    return build / "restore"


@pytest.mark.parametrize(
    ("name", "keywords", "form"),
    [
        ("srcnn.paper", {"mapping_px": 1, "scale": 3}, {}),
        ("dncnn.gaussian", {}, {"samples": "uint16", "colors": "rgb"}),
        ("mimo_unet.gopro", {}, {"colors": "gray"}),
    ],
)
def test_the_result_equals_pellucids(
    program: Path, tmp_path: Path, name: str, keywords: dict[str, Any], form: dict[str, Any]
) -> None:
    weights = small_models.save_weights(tmp_path, name, **keywords)
    model = exporting.export(weights, tmp_path / "a.xml", whole=True, layout="nhwc", **form).path
    degraded = small_models.make_picture(1 if form.get("colors") == "gray" else 3)
    degraded = degraded.as_depth(form.get("samples", "uint8"))
    images.write(degraded, tmp_path / "in.png")
    wanted = restorer.load(weights).restore(degraded).samples.astype(int)
    for tile_px in ("1000", "37"):
        result = tmp_path / f"{tile_px}.png"
        command = [program, model, tmp_path / "in.png", result, tile_px]
        ran = subprocess.run(command, capture_output=True, text=True, env={})
        assert ran.returncode == 0, ran.stderr
        # Equal, except values that are rounded differently because they are close to the middle of two levels.
        off = np.abs(images.read(result).samples.astype(int) - wanted)
        assert off.max() <= 1 and (off > 0).mean() < (1e-3 if degraded.dtype == "uint8" else 0.1)


def test_wrong_arguments_print_a_one_line_error(program: Path, tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "dncnn.gaussian")
    network = exporting.export(weights, tmp_path / "network.xml").path
    whole = exporting.export(weights, tmp_path / "whole.xml", whole=True, layout="nhwc").path
    images.write(small_models.make_picture(3), tmp_path / "color.png")
    images.write(small_models.make_picture(1).as_depth("uint16"), tmp_path / "deep.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "color.png").read_bytes()[:900])
    result = tmp_path / "out.png"
    cases: list[tuple[list[str | Path], int, str]] = [
        ([network, tmp_path / "color.png", result], 1, "restore: the model is not a whole graph; export it with"),
        ([whole, tmp_path / "color.png", result], 1, f"restore: {tmp_path}/color.png: the picture has colors"),
        ([whole, tmp_path / "deep.png", result], 1, f"restore: {tmp_path}/deep.png: the picture has 16 bits"),
        ([whole, tmp_path / "cut.png", result], 1, f"restore: {tmp_path}/cut.png: "),
        ([whole, tmp_path / "absent.png", result], 1, f"restore: {tmp_path}/absent.png: No such file"),
        ([tmp_path / "absent.xml", "in.png", result], 1, "restore: "),
        ([], 2, "usage: restore"),
    ]
    for arguments, code, message in cases:
        ran = subprocess.run([program, *arguments], capture_output=True, text=True, env={})
        assert ran.returncode == code and ran.stderr.startswith(message), ran.stderr
    assert not result.exists()
