"""CRC-32C (Castagnoli), which TensorFlow stores for each tensor: 45 MB/s by NumPy, without a package for it.

The content is cut into parts of equal length, whose checksums are computed side by side. Then pairs of parts are
joined: the checksum of the first is advanced over the zeros that the second replaces, which is linear.
"""

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_NUM_PARTS = 2**12
_MASK_DELTA = 0xA282EAD8

Register = NDArray[np.uint32]


def masked_crc32c(content: bytes) -> int:
    """The checksum as LevelDB and TensorFlow store it: rotated, plus a constant."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """The checksum of some bytes."""
    # Starting at all ones is the same as inverting the first four bytes and starting at 0; zeros in front of them
    # then change nothing, so all parts can have the same length.
    data = np.frombuffer(content.ljust(4, b"\0"), np.uint8)
    if len(content) < 4:
        return _crc32c_of_few(content)
    num_parts = min(_NUM_PARTS, 1 << max(0, len(content).bit_length() - 9))
    length = -(-len(data) // num_parts)
    parts = np.zeros(num_parts * length, np.uint8)
    parts[-len(data) :] = data
    parts[-len(data) : len(parts) - len(data) + 4] ^= 0xFF
    register = np.zeros(num_parts, np.uint32)
    for column in np.ascontiguousarray(parts.reshape(num_parts, length).T):
        register = _TABLE[(register ^ column) & 0xFF] ^ register >> 8
    advance = _advance_by_bytes(length)
    while len(register) > 1:
        register = _apply(advance, register[::2]) ^ register[1::2]
        advance = _apply(advance, advance)
    return int(register[0]) ^ 0xFFFFFFFF


def _crc32c_of_few(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = int(_TABLE[(crc ^ byte) & 0xFF]) ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _build_table() -> Register:
    """The register after each byte."""
    register = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        register = np.where(register & 1, register >> 1 ^ np.uint32(_POLYNOMIAL), register >> 1)
    return register


def _advance_by_bytes(count: int) -> Register:
    """What each of the 32 bits of a register becomes after this many zeros."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    result, step = bits, _TABLE[bits & 0xFF] ^ bits >> 8
    while count:
        result = _apply(step, result) if count & 1 else result
        step = _apply(step, step)
        count >>= 1
    return result


def _apply(advance: Register, register: Register) -> Register:
    """Each register advanced: the sum of what its bits become."""
    is_set = (register[:, None] >> np.arange(32, dtype=np.uint32) & 1).astype(bool)
    return np.bitwise_xor.reduce(np.where(is_set, advance, np.uint32(0)), axis=1)


_TABLE = _build_table()
