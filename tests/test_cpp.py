"""The C++ example compiles, runs without Python, and gives the same result as the command line."""

import shutil
import subprocess
from pathlib import Path

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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["dncnn.gaussian", "mimo_unet.gopro"])
def test_the_result_equals_pellucids(program: Path, tmp_path: Path, name: str, channels: int) -> None:
    model = exporting.export(small_models.save_weights(tmp_path, name), tmp_path / "a.xml").path
    degraded = small_models.make_picture(channels)
    images.write(degraded, tmp_path / "in.png")
    for tile_px in ("1000", "37"):
        result = tmp_path / f"{tile_px}.png"
        command = [program, model, tmp_path / "in.png", result, tile_px]
        ran = subprocess.run(command, capture_output=True, text=True, env={})
        assert ran.returncode == 0, ran.stderr
        wanted = restorer.load(model).restore(degraded).samples
        # Equal, except values within 1e-6 of the middle between two steps.
        off = np.abs(images.read(result).samples.astype(int) - wanted)
        assert off.max() <= 1 and (off > 0).mean() < 1e-3


def test_wrong_arguments_print_a_one_line_error(program: Path, tmp_path: Path) -> None:
    model = exporting.export(small_models.save_weights(tmp_path, "srcnn.paper"), tmp_path / "a.xml").path
    cases: list[tuple[list[str | Path], int, str]] = [
        ([model, "in.png", "out.png"], 1, "restore: this example restores gray and RGB pictures; the model takes"),
        ([tmp_path / "absent.xml", "in.png", "out.png"], 1, "restore: "),
        ([], 2, "usage: restore"),
    ]
    for arguments, code, message in cases:
        ran = subprocess.run([program, *arguments], capture_output=True, text=True, env={})
        assert ran.returncode == code and ran.stderr.startswith(message)
