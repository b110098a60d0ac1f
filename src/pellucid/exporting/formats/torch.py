"""torch.export: one .pt2 file that `torch.export.load` reads in Python.

Metadata is JSON in the extra file `pellucid.json`.
"""

import json
from pathlib import Path

import torch

from pellucid.backends.metadata import PREFIX
from pellucid.exporting.export_format import ExportFormat, ExportRequest, Run


def write(request: ExportRequest, path: Path) -> None:
    """Needs only PyTorch."""
    metadata = json.dumps(request.metadata.to_entries())
    torch.export.save(request.capture(), path, extra_files={f"{PREFIX}.json": metadata})


def run(request: ExportRequest, path: Path) -> Run:
    """Loads the file in this process."""
    module = torch.export.load(path).module()
    return torch.inference_mode()(lambda *inputs: module(*inputs))


FORMAT = ExportFormat("torch", ".pt2", ("float32", "bfloat16", "float16"), write, run)
