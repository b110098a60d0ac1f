import os
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.errors import MissingExtraError
from pellucid.system import optional_packages


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"^ONNX needs .* pip install 'pellucid\[onnx\]'$"):
        optional_packages.import_optional("onnx")
    with pytest.raises(MissingExtraError, match=r"^OpenVINO needs .* pip install 'pellucid\[openvino\]'$"):
        optional_packages.check_installed("onnx", needed_by="openvino")


def test_check_installed_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mindspore", None)
    with pytest.raises(MissingExtraError, match=r"^MindSpore needs .* pip install 'pellucid\[mindspore\]'$"):
        optional_packages.check_installed("mindspore")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    optional_packages.check_installed("colorsys")
    assert "colorsys" not in sys.modules


def test_a_folder_of_the_same_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mindspore", raising=False)
    (tmp_path / "mindspore").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for check in (optional_packages.check_installed, optional_packages.import_optional):
        with pytest.raises(MissingExtraError, match=r"^MindSpore needs"):
            check("mindspore")
    sys.modules.pop("mindspore", None)


def test_onnx_runtime_sends_no_telemetry(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    # With telemetry, it writes a device id and a database of events into the home folder.
    script = "from pellucid.system.optional_packages import import_optional; get = import_optional; "
    script += "get('onnxruntime').get_available_providers(); get('onnxruntime').SessionOptions()"
    left_out = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    subprocess.run([sys.executable, "-c", script], env={**environment, "HOME": str(tmp_path)}, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    # With telemetry, it writes a client id into the home folder, and sends events by a child process.
    script = "import sys; from pellucid.system.optional_packages import import_optional; "
    script += "import_optional('openvino').Core(); "
    script += "assert not any('openvino_telemetry' in name and part for name, part in sys.modules.items())"
    left_out = {"CI", "TF_BUILD", "JENKINS_URL"}  # it is quiet in continuous integration
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    subprocess.run([sys.executable, "-c", script], env={**environment, "HOME": str(tmp_path)}, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_interrupted_import_is_completed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it would remain: modules that are written in C are not imported twice."""
    (tmp_path / "interrupted.py").write_text("from signalling import deliver\ndeliver()\nVALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        optional_packages.import_optional("interrupted")
    assert sys.modules.pop("interrupted").VALUE == 1
