"""AIR: one .air file for Ascend processors, which only Ascend hardware with CANN can write.

MindSpore does not run AIR, so the MindIR file of the same cell is checked instead.
"""

from pathlib import Path

from pellucid.errors import PellucidError
from pellucid.exporting import mindspore
from pellucid.exporting.export_format import ExportFormat, ExportRequest


def write(request: ExportRequest, path: Path) -> None:
    """Also writes a .mindir file, which is checked. Raises PellucidError on other hardware."""
    if not any(Path("/dev").glob("davinci*")):
        raise PellucidError(
            "only Ascend hardware with CANN can write AIR, and this machine has none",
            hint="{format} is MindSpore's format for every device",
            format="mindir",
        )
    mindspore.write(request, path, with_air=True)


FORMAT = ExportFormat(
    "air", ".air", ("float32",), write, mindspore.run, takes_whole=False, parity_sizes=mindspore.PARITY_SIZES
)
