"""Loading weights for PyTorch takes only what it needs."""

import subprocess
import sys

import pytest

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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, set[str]]:
    """How often weights are hashed, and which modules are imported, when a new process loads a weight file."""
    path = small_models.save_weights(tmp_path_factory.mktemp("weights"), "srcnn.paper")
    ran = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, text=True, check=True)
    num_hashes, modules = ran.stdout.splitlines()
    return int(num_hashes), set(modules.split())


def test_loading_does_not_import_exporting_or_other_runtimes(loaded: tuple[int, set[str]]) -> None:
    _, modules = loaded
    # `import torch` loads torch.export; graphs.py, which uses it, must not be loaded.
    unneeded = ("pellucid.exporting", "pellucid.backends.graphs", "pellucid.backends.benchmark")
    runtimes = ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "mindspore")
    compilers = ("torch.onnx", "torch._dynamo", "torch._inductor")
    assert not [name for name in modules if name.startswith((*unneeded, *runtimes, *compilers))]


def test_loading_hashes_the_weights_once(loaded: tuple[int, set[str]]) -> None:
    assert loaded[0] == 1
