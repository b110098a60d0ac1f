"""Shared by the readers of PyTorch and PaddlePaddle files: checks of pickles before they are read."""

import io
import pickle
import pickletools

MAX_TUPLES = 20_000
"""Limit on the tuples of a pickle; MIMO-UNet+ with its optimizer has 8000."""

TORCH_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""First bytes of a PyTorch file before version 1.6: a pickle of the magic number in torch.serialization."""


def check_pickle(stream: io.BytesIO) -> None:
    """Read one pickle without executing it. Raises ValueError for what would crash the unpickler."""
    size = stream.getbuffer().nbytes
    num_tuples = 0
    for opcode, argument, _ in pickletools.genops(stream):
        # The unpickler makes room for the largest index of its memo, which may be 4 billion.
        if "PUT" in opcode.name and int(argument or 0) > size:
            raise ValueError("its memo declares more entries than the file has bytes")
        # A key made of 100 000 nested tuples overflows the stack when it is hashed.
        num_tuples += opcode.name.startswith("TUPLE")
        if num_tuples > MAX_TUPLES:
            raise ValueError(f"it has more than {MAX_TUPLES} tuples")


def refuse(name: str) -> ValueError:
    """The error for a pickle that asks for a function or class that weights do not need."""
    return ValueError(
        f"it asks for {name[:100]}, which weights do not need, so it was not run; a plain state_dict is needed"
    )
