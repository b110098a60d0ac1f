"""Loading weights for PyTorch takes only what it needs."""

import subprocess
import sys
from pathlib import Path

import small_models

LOAD = """
import sys
from pellucid.weights import checkpoint
fingerprint, calls = checkpoint.fingerprint, []
def count(tensors):
    calls.append(1)
    return fingerprint(tensors)
checkpoint.fingerprint = count
import pellucid
pellucid.load(sys.argv[1], device="cpu")
print(len(calls))
print(*sys.modules)
"""


def _load(path: Path) -> tuple[int, set[str]]:
    """How often weights are hashed, and which modules are imported, when a fresh process loads a weight file."""
    ran = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, text=True, check=True)
    calls, modules = ran.stdout.splitlines()
    return int(calls), set(modules.split())


def test_loading_weights_hashes_them_once_and_does_not_import_exporting(tmp_path: Path) -> None:
    num_hashes, modules = _load(small_models.save_weights(tmp_path, "srcnn.paper"))
    assert num_hashes == 1
    # `import torch` loads torch.export; graphs.py, which uses it, must not be loaded.
    unneeded = {"pellucid.backends.graphs", "pellucid.backends.benchmark", "pellucid.evaluation"}
    packages = ("pellucid.exporting", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "mindspore")
    assert not unneeded & modules
    assert not [name for name in modules if name.startswith(packages)]
    assert not [name for name in modules if name.startswith(("torch.onnx", "torch._dynamo", "torch._inductor"))]
