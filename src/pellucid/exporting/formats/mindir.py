"""MindIR: one .mindir file for MindSpore on any device, checked with MindSpore on the CPU.

Metadata is in `user_info` as `pellucid.KEY`.
"""

from pellucid.exporting import mindspore
from pellucid.exporting.export_format import ExportFormat

FORMAT = ExportFormat(
    "mindir",
    ".mindir",
    ("float32", "float16"),
    mindspore.write,
    mindspore.run,
    parity_sizes=mindspore.PARITY_SIZES,
)
