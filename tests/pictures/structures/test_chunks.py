"""Parts of files that do not follow each other as they should."""

import io

from pellucid.pictures.structures import chunks

SCREEN = b"GIF89a" + bytes(7)  # without a palette


def test_a_gif_ends_at_a_block_of_an_unknown_type() -> None:
    frame = b"\x2c" + bytes(9) + b"\x02\x01x\0"
    found = [kind for kind, _, _ in chunks.iterate_gif(io.BytesIO(SCREEN + frame + b"\x40" + bytes(20)))]
    assert found == [chunks.GIF_FRAME]
