"""Netpbm: PBM, PGM, PPM and PAM, as text and binary, with any largest value up to 65535.

Source: the manual pages pbm(5), pgm(5), ppm(5) and pam(5).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from pellucid.errors import PictureError
from pellucid.pictures.codecs.decoders import check_size, damage_error
from pellucid.pictures.levels import stretch
from pellucid.pictures.picture import Encoding, Picture
from pellucid.pictures.samples import Samples
from pellucid.system.wording import format_count

BYTES_PER_PIXEL = 16
"""Memory to decode a pixel, with 16 bits and three channels."""

_TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*([^\s#]+)")
_MAX_HEADER_BYTES = 2**16
_CHANNELS = {b"BLACKANDWHITE": 1, b"GRAYSCALE": 1, b"RGB": 3}
_CHANNELS |= {kind + b"_ALPHA": count + 1 for kind, count in _CHANNELS.items()}


@dataclass(frozen=True)
class _Header:
    """start: where the samples begin. peak: the value of white. is_text, is_bitmap: how samples are stored."""

    width: int
    height: int
    channels: int
    peak: int
    start: int
    is_text: bool = False
    is_bitmap: bool = False


def probe_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    with path.open("rb") as file:
        header = _parse_header(path, file.read(_MAX_HEADER_BYTES))
    return header.width, header.height


def read(path: Path, encoding: Encoding, max_pixels: int) -> Picture:
    """Read the only picture of a file. Raises PictureError."""
    content = path.read_bytes()
    header = _parse_header(path, content)
    check_size(header.width, header.height, path, max_pixels)
    values, rest = _decode(path, header, content[header.start :])
    if rest.strip():
        raise PictureError(f"{path} has more data after its first picture", hint="split it into one file each")
    samples = stretch(values, header.peak)
    num_colors = 3 if header.channels > 2 else 1
    alpha = np.ascontiguousarray(samples[..., num_colors:]) if header.channels > num_colors else None
    found = replace(encoding, bits=header.peak.bit_length())
    return Picture(
        np.ascontiguousarray(samples[..., :num_colors]), alpha, _find_comments(content[: header.start]), found
    )


def write_pnm(picture: Picture, file: IO[bytes], suffix: str) -> None:
    """Write a binary file of the kind that a suffix stands for: .ppm, .pgm, .pam, or .pnm, which can be any.

    Gray becomes three equal channels in a PPM.
    """
    white, size = (255 if picture.dtype == "uint8" else 65535), f"{picture.width} {picture.height}"
    planes = [*picture.planes] * (3 if suffix == ".ppm" and picture.channels == 1 else 1)
    depth = sum(plane.shape[2] for plane in planes)
    is_pam = suffix == ".pam" or picture.alpha is not None
    magic = "P7" if is_pam else "P5" if depth == 1 else "P6"
    comments = b"\n".join(picture.metadata.get("jpeg-comments", ()))
    file.write(magic.encode() + b"".join(b"\n# " + line for line in comments.splitlines()) + b"\n")
    if is_pam:
        kind = ("GRAYSCALE" if picture.channels == 1 else "RGB") + ("" if picture.alpha is None else "_ALPHA")
        lines = (f"WIDTH {picture.width}", f"HEIGHT {picture.height}", f"DEPTH {depth}")
        file.write("\n".join([*lines, f"MAXVAL {white}", f"TUPLTYPE {kind}", "ENDHDR\n"]).encode())
    else:
        file.write(f"{size}\n{white}\n".encode())
    for row in range(picture.height):
        values = np.concatenate([plane[row] for plane in planes], axis=1)
        file.write(values.astype(values.dtype.newbyteorder(">")).tobytes())


def _find_comments(head: bytes) -> dict[str, Any]:
    """All lines after a # as one comment."""
    lines = [line.removeprefix(b" ").rstrip() for line in re.findall(rb"#([^\n\r]*)", head)]
    return {"jpeg-comments": (b"\n".join(lines),)} if any(lines) else {}


def _parse_header(path: Path, content: bytes) -> _Header:
    try:
        header = _parse_pam(content) if content.startswith(b"P7") else _parse_pnm(content)
    except (ValueError, KeyError, IndexError) as error:
        raise damage_error(path, "its header is invalid") from error
    if not (header.width > 0 and header.height > 0 and 0 < header.peak <= 65535):
        raise damage_error(path, f"{header.width} x {header.height} px, largest value {header.peak}")
    return header


def _parse_pnm(content: bytes) -> _Header:
    kind = int(content[1:2])
    offset, numbers = 2, list[int]()
    for _ in range(2 if kind in (1, 4) else 3):
        match = _TOKEN.match(content, offset)
        if match is None:
            raise ValueError("the header ends early")
        numbers.append(int(match[1]))
        offset = match.end()
    width, height, peak = (*numbers, 1)[:3]
    # One white space separates the header from binary samples.
    return _Header(width, height, 3 if kind in (3, 6) else 1, peak, offset + 1, kind < 4, kind in (1, 4))


def _parse_pam(content: bytes) -> _Header:
    head, end, _ = content.partition(b"ENDHDR\n")
    if not end:
        raise ValueError("the header ends early")
    lines = [line.split(None, 1) for line in head.splitlines()[1:] if line.strip() and not line.startswith(b"#")]
    values = {key: value.strip() for key, value in lines}
    width, height, depth, peak = (int(values[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    kind = values.get(b"TUPLTYPE", b"GRAYSCALE" if depth == 1 else b"RGB")
    if _CHANNELS[kind] != depth:
        raise ValueError("other channels")
    return _Header(width, height, depth, peak, len(head) + len(end))


def _decode(path: Path, header: _Header, content: bytes) -> tuple[Samples, bytes]:
    """(H, W, C) as in the file, 0 to the largest value, and what follows."""
    shape = header.height, header.width, header.channels
    count = header.height * header.width * header.channels
    if header.is_text:
        tokens = _split_text(content, header)
        try:
            numbers = [int(token) for token in tokens[:count]]
        except ValueError as error:
            raise damage_error(path, "samples that are not numbers") from error
        if len(numbers) < count or not 0 <= min(numbers) <= max(numbers) <= header.peak:
            raise damage_error(path, "its samples end early, or exceed the largest value")
        values: Samples = np.array(numbers, np.uint16).reshape(shape)
        return (1 - values if header.is_bitmap else values), b" ".join(tokens[count:])
    if header.is_bitmap:
        row_bytes = -(-header.width // 8)
        _check_length(path, content, row_bytes * header.height)
        rows = np.frombuffer(content, np.uint8, row_bytes * header.height).reshape(header.height, row_bytes)
        bits = np.unpackbits(rows, axis=1)[:, : header.width]
        return (1 - bits)[..., None], content[row_bytes * header.height :]
    dtype = np.dtype(">u2" if header.peak > 255 else "u1")
    _check_length(path, content, count * dtype.itemsize)
    values = np.frombuffer(content, dtype, count).reshape(shape)
    if values.max() > header.peak:
        raise damage_error(path, f"samples up to {values.max()}, above the largest value {header.peak}")
    return values.astype(dtype.newbyteorder("=")), content[count * dtype.itemsize :]


def _split_text(content: bytes, header: _Header) -> list[bytes]:
    """The samples; the digits of a bitmap need no space between them."""
    text = re.sub(rb"#[^\n\r]*", b"", content)
    return [bytes([digit]) for digit in b"".join(text.split())] if header.is_bitmap else text.split()


def _check_length(path: Path, content: bytes, needed: int) -> None:
    if len(content) < needed:
        raise damage_error(path, f"{format_count(len(content), 'byte')} of samples; {needed} are needed")
