"""Small intact files of every kind, written by other libraries where possible."""

import io
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import safetensors.torch
import scipy.io
import tifffile
import torch

import raw_structures
from pellucid.pictures.camera import dng
from pellucid.pictures.camera.packing import XTRANS
from pellucid.pictures.picture import Exposure, Mosaic, Picture
from pellucid.pictures.samples import Samples
from pellucid.recipes import registry
from pellucid.weights import checkpoint
from pellucid.weights.checkpoint import WeightsMetadata

CFA, LINEAR_RAW = 32803, 34892
FOREIGN = Path(__file__).parent / "weights" / "foreign"


def _noise(height: int, width: int, channels: int, dtype: str = "uint8") -> Samples:
    rng = np.random.default_rng(height * width + channels)
    samples: Samples = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    return samples


def _exif() -> bytes:
    tags = PIL.Image.Exif()
    tags[0x0110], tags[0x0112] = "EOS 5D", 6
    tags.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return tags.tobytes()


def _pillow(samples: Samples, kind: str, mode: str | None = None, **options: Any) -> bytes:
    content = io.BytesIO()
    image = PIL.Image.fromarray(samples.squeeze())
    (image if mode is None else image.convert(mode)).save(content, kind, **options)
    return content.getvalue()


def _tiff(samples: Samples, **options: Any) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, samples, **options)
    return content.getvalue()


def pictures() -> dict[str, bytes]:
    """File name -> content of picture files."""
    color, gray = _noise(23, 31, 3), _noise(23, 31, 1)
    deep, alpha = _noise(23, 31, 3, "uint16"), _noise(23, 31, 4)
    return {
        "color.png": _pillow(color, "PNG", exif=_exif()),
        "gray16.png": _pillow(_noise(23, 31, 1, "uint16"), "PNG"),
        "palette.png": _pillow(color, "PNG", "P"),
        "bits.png": _pillow(gray, "PNG", "1"),
        "alpha.png": _pillow(alpha, "PNG"),
        "color.jpg": _pillow(color, "JPEG", exif=_exif(), quality=90),
        "progressive.jpg": _pillow(color, "JPEG", progressive=True),
        "gray.jpg": _pillow(gray, "JPEG"),
        "cmyk.jpg": _pillow(color, "JPEG", "CMYK"),
        "color.tif": _tiff(color, photometric="rgb", compression="zlib"),
        "deep.tif": _tiff(deep, photometric="rgb", rowsperstrip=4),
        "tiled.tif": _tiff(deep, photometric="rgb", tile=(16, 16)),
        "big.tif": _tiff(gray.squeeze(), photometric="minisblack", bigtiff=True, byteorder=">"),
        "float.tif": _tiff((color / 255).astype("float32"), photometric="rgb"),
        "exif.tif": _pillow(color, "TIFF", exif=_exif()),
        "lossy.webp": _pillow(color, "WEBP", exif=_exif()),
        "lossless.webp": _pillow(alpha, "WEBP", lossless=True),
        "color.avif": _pillow(color, "AVIF"),
        "color.bmp": _pillow(color, "BMP"),
        "palette.bmp": _pillow(color, "BMP", "P"),
        "still.gif": _pillow(color, "GIF", "P", comment=b"a comment"),
        "animated.gif": _pillow(color, "GIF", "P", **_others(gray.squeeze())),
        "pair.mpo": _pillow(color, "MPO", exif=_exif(), **_others(color[::-1])),
        "binary.ppm": _pillow(color, "PPM"),
        "bits.pbm": _pillow(gray, "PPM", "1"),
        "text.pgm": b"P2\n# a comment\n8 6\n1000\n" + b" ".join(b"%d" % (20 * i) for i in range(48)) + b"\n",
        "alpha.pam": b"P7\nWIDTH 31\nHEIGHT 23\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
        + alpha.tobytes(),
        **_heic(color, deep),
        **_jpeg_xl(color, deep, alpha),
        **_jpeg_2000(color, deep),
    }


def missing_encoders() -> dict[str, str]:
    """Formats without samples -> why. Each needs a package that encodes it."""
    needed = {
        "HEIC": ("pillow_heif", "pellucid[formats]"),
        "JPEG XL": ("imagecodecs", "imagecodecs"),
        "JPEG 2000": ("imagecodecs", "imagecodecs"),
        "compressed DNG": ("imagecodecs", "imagecodecs"),
    }
    return {
        format: f"no samples of {format}: install {name}"
        for format, (module, name) in needed.items()
        if find_spec(module) is None
    }


def _others(samples: Samples) -> dict[str, Any]:
    """Options of Pillow for a second picture in a file."""
    return {"save_all": True, "append_images": [PIL.Image.fromarray(samples)]}


def _heic(color: Samples, deep: Samples) -> dict[str, bytes]:
    """HEIC of 8 and 10 bits, in another orientation."""
    if "HEIC" in missing_encoders():
        return {}
    import pillow_heif  # an optional package

    made = {}
    for name, samples, mode in (("color.heic", color, "RGB"), ("deep.heic", deep, "RGB;16")):
        height, width, _ = samples.shape
        content = io.BytesIO()
        image = pillow_heif.from_bytes(mode=mode, size=(width, height), data=samples.tobytes())
        image.save(content, quality=90, exif=_exif())
        made[name] = content.getvalue()
    return made


def _jpeg_xl(color: Samples, deep: Samples, alpha: Samples) -> dict[str, bytes]:
    """JPEG XL as a codestream alone, lossless and lossy, and in boxes."""
    if "JPEG XL" in missing_encoders():
        return {}
    import imagecodecs  # an optional package

    return {
        "lossy.jxl": bytes(imagecodecs.jpegxl_encode(color, distance=1.0)),
        "alpha.jxl": bytes(imagecodecs.jpegxl_encode(alpha, lossless=True)),
        "deep.jxl": bytes(imagecodecs.jpegxl_encode(deep, lossless=True, usecontainer=True)),
    }


def _jpeg_2000(color: Samples, deep: Samples) -> dict[str, bytes]:
    """JPEG 2000 in boxes, and as a codestream alone."""
    if "JPEG 2000" in missing_encoders():
        return {}
    import imagecodecs  # an optional package

    return {
        "deep.jp2": bytes(imagecodecs.jpeg2k_encode(deep, level=0, reversible=True)),
        "color.j2k": bytes(imagecodecs.jpeg2k_encode(color, codecformat="j2k", level=50)),
    }


def all_files() -> dict[str, bytes]:
    """File name -> content of pictures and camera RAW files."""
    return pictures() | raw_files() | compressed_raw_files()


def raw_files() -> dict[str, bytes]:
    """Camera RAW files. LibRaw needs at least 22 px."""
    bayer = Mosaic(_noise(30, 40, 1, "uint16").squeeze() % 16384, ("RG", "GB"), 512.0, 16383.0)
    xtrans = Mosaic(_noise(48, 36, 1, "uint16").squeeze() % 16384, XTRANS, 1024.0, 16383.0)
    rotated = replace(bayer, exposure=Exposure(1 / 30, 800, 2.8), orientation=6)
    linear = Picture(_noise(30, 40, 3, "uint16"))
    return {
        "bayer.dng": dng.encode(bayer),
        "rotated.dng": dng.encode(rotated),
        "xtrans.dng": dng.encode(xtrans),
        "linear.dng": dng.encode_linear(linear),
        "tiled.dng": build_dng(bayer.samples, tile=(16, 16)),
        "motorola.dng": build_dng(bayer.samples, byteorder=">"),
        "float.dng": build_dng((bayer.samples / 16383).astype("float32"), white=1),
    }


def compressed_raw_files() -> dict[str, bytes]:
    """DNG files with compressed samples; none without imagecodecs."""
    if find_spec("imagecodecs") is None:
        return {}
    samples = _noise(64, 48, 1, "uint16").squeeze() % 16384
    lossless: dict[str, Any] = {
        "compression": "jpeg",
        "compressionargs": {"lossless": True, "bitspersample": 16, "predictor": 1},
    }
    color = np.dstack([samples >> 6] * 3).astype("uint8")
    return {
        "ljpeg.dng": build_dng(samples, **lossless),
        "ljpegtiles.dng": build_dng(samples, tile=(32, 32), **lossless),
        "lossy.dng": build_dng(color, LINEAR_RAW, white=255, compression=34892, tile=(32, 32)),
    }


def build_dng(samples: Samples, photometric: int = CFA, white: int = 16383, **options: Any) -> bytes:
    """A DNG by tifffile, with a black level of 600 if white is higher. options: of `tifffile.imwrite`."""
    content = io.BytesIO()
    data = tifffile.DATATYPE
    tags = [
        ("DNGVersion", data.BYTE, 4, (1, 4, 0, 0), True),
        ("UniqueCameraModel", data.ASCII, 0, "Builder", True),
        ("ColorMatrix1", data.SRATIONAL, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
        ("WhiteLevel", data.LONG, 1, white, True),
    ]
    if photometric == CFA:
        tags += [("CFARepeatPatternDim", data.SHORT, 2, (2, 2), True)]
        tags += [("CFAPattern", data.BYTE, 4, (0, 1, 1, 2), True)]
        tags += [("BlackLevel", data.LONG, 1, 600 if white > 600 else 0, True)]
    tifffile.imwrite(content, samples, photometric=photometric, metadata=None, extratags=tags, **options)
    return content.getvalue()


def structures() -> dict[str, bytes]:
    """RAW files without samples, and XMP, as which only the metadata can be read."""
    xmp = (
        b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" xmp:Rating="5" tiff:Orientation="6" '
        b'crs:Exposure2012="+1"><crs:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li></rdf:Seq></crs:ToneCurve>'
        b'</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
    preview = _pillow(_noise(23, 31, 3), "JPEG", exif=_exif())
    return {
        "a.raf": raw_structures.build_raf(preview),
        "a.mrw": raw_structures.build_mrw(preview),
        "a.rw2": raw_structures.build_rw2(preview),
        "a.cr3": raw_structures.build_cr3(xmp),
        "a.xmp": xmp,
        "nef.nef": raw_structures.exif_of(preview),
    }


def weight_files() -> dict[str, bytes]:
    """Weights of a small DnCNN in our format, and as PyTorch, MATLAB, MindSpore and PaddlePaddle store them."""
    torch.manual_seed(0)
    chosen = registry.find("dncnn.gaussian", depth=4, width=8)
    network = chosen.network()
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        metadata = WeightsMetadata(chosen.name, chosen.parameters, "random", "CC0")
        checkpoint.save(path.with_suffix(".safetensors"), network, metadata)
        torch.save(state, path.with_suffix(".pth"))
        torch.save(state, path.with_suffix(".old.pth"), _use_new_zipfile_serialization=False)
        scipy.io.savemat(path.with_suffix(".mat"), {name: tensor.numpy() for name, tensor in state.items()})
        written = {f"small{file.name[1:]}": file.read_bytes() for file in Path(folder).iterdir()}
    foreign = (path for path in FOREIGN.iterdir() if path.suffix in (".ckpt", ".pdparams"))
    return {
        **written,
        "plain.safetensors": safetensors.torch.save(state),
        **{path.name: path.read_bytes() for path in foreign},
    }
