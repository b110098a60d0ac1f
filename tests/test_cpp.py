"""The C++ library and program compile, run without Python, and give the same result as the command line."""

import importlib.util
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
from PIL.ExifTags import GPS, IFD, Base

import small_models
from pellucid.exporting import export as exporting
from pellucid.pictures import images
from pellucid.pictures.camera import dng, exposure, raw
from pellucid.pictures.picture import CameraFacts, Exposure, Mosaic, NoiseLevel, Picture
from pellucid.pictures.samples import Samples
from pellucid.restoration import restorer

EXAMPLE = Path(__file__).parent.parent / "examples" / "cpp"
HEADERS = {"PNG": "libpng-dev", "JPEG": "libjpeg-dev", "TIFF": "libtiff-dev"}
ONNXRUNTIME_HEADER = "onnxruntime_cxx_api.h"
openvino = pytest.importorskip("openvino")

_COLOR_MATRIX = (0.9, -0.2, -0.1, -0.4, 1.3, 0.2, -0.1, 0.2, 0.6)
_PROFILE = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True)
class Program:
    path: Path
    prefix: Path
    reads_raw: bool
    has_onnxruntime: bool

    def runtimes(self) -> list[str]:
        """Values of --runtime with which it runs .onnx files."""
        return ["openvino", "onnxruntime"] if self.has_onnxruntime else ["openvino"]


def _cmake(*arguments: str | Path) -> str:
    done = subprocess.run(["cmake", *arguments], capture_output=True, text=True)
    for library, package in HEADERS.items():
        if f"Could NOT find {library}" in done.stderr:
            pytest.skip(f"needs {package}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Built and installed once."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    onnxruntime = _find_onnxruntime()
    options = [f"-DOpenVINO_DIR={openvino.utils.get_cmake_path()}", *onnxruntime]
    output = _cmake("-S", EXAMPLE, "-B", build, *options, f"-DCMAKE_INSTALL_PREFIX={prefix}")
    _cmake("--build", build, "--parallel", "2")
    _cmake("--install", build)
    has_raw, has_onnxruntime = (f"{name} was not found" not in output for name in ("LibRaw", "ONNX Runtime"))
    assert has_onnxruntime or not onnxruntime, output
    return Program(prefix / "bin" / "restore", prefix, has_raw, has_onnxruntime)


def _find_onnxruntime() -> list[str]:
    """Options of CMake for the library of the Python wheel, and for headers from elsewhere; [] without them."""
    spec = importlib.util.find_spec("onnxruntime")
    given = os.environ.get("PELLUCID_ONNXRUNTIME_HEADERS")
    if spec is None or spec.origin is None or not given:
        return []  # CMake finds one that is installed in the system
    if not (Path(given) / ONNXRUNTIME_HEADER).is_file():
        pytest.fail(f"PELLUCID_ONNXRUNTIME_HEADERS: {given} does not contain {ONNXRUNTIME_HEADER}")
    (library,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    return [f"-DONNXRUNTIME_INCLUDE_DIR={given}", f"-DONNXRUNTIME_LIBRARY={library}"]


def need(program: Program, runtime: str) -> None:
    if runtime not in program.runtimes():
        pytest.skip("needs the headers of ONNX Runtime: PELLUCID_ONNXRUNTIME_HEADERS is their folder")


@pytest.fixture(scope="session")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(weights, whole graph) for RGB of 8 bits, as ONNX, which both runtimes run."""
    folder = tmp_path_factory.mktemp("enlarging")
    weights = small_models.save_weights(folder, "srcnn.paper", mapping_px=1, scale=3)
    return weights, exporting.export(weights, folder / "a.onnx", whole=True, layout="nhwc").path


@pytest.fixture(scope="session")
def denoising(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(weights, whole graph) for gray of 16 bits, as a file of OpenVINO."""
    folder = tmp_path_factory.mktemp("denoising")
    weights = small_models.save_weights(folder, "dncnn.gaussian")
    exported = exporting.export(
        weights, folder / "a.xml", whole=True, layout="nhwc", samples="uint16", colors="gray"
    )
    return weights, exported.path


def run(path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Without an environment, so that the program finds its libraries by itself."""
    return subprocess.run([path, *arguments], capture_output=True, text=True, env={})


def restore(program: Program, *arguments: str | Path) -> Samples:
    """The samples of the result, which is the third argument."""
    ran = run(program.path, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    return images.read(arguments[2]).samples


def check_equal(found: Samples, wanted: Samples, *, most: float) -> None:
    """most: the part of samples, halfway between two levels, that may be rounded to the other one."""
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    off = np.abs(found.astype(int) - wanted)
    assert off.max() <= 1 and (off > 0).mean() < most


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("tile", [(), ("--tile", "37"), ("--memory", "1.5GiB")])
def test_an_enlarged_picture_equals_pellucids(
    program: Program, enlarging: tuple[Path, Path], tmp_path: Path, tile: tuple[str, ...], runtime: str
) -> None:
    need(program, runtime)
    weights, model = enlarging
    degraded = small_models.make_picture(3)
    images.write(degraded, tmp_path / "in.png")
    found = restore(program, model, tmp_path / "in.png", tmp_path / "out.tif", *tile, "--runtime", runtime)
    check_equal(found, restorer.load(weights).restore(degraded).samples, most=1e-3)


def test_a_gray_tiff_of_16_bits_equals_pellucids(
    program: Program, denoising: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, model = denoising
    degraded = small_models.make_picture(1).as_depth("uint16")
    tifffile.imwrite(
        tmp_path / "in.tif", 65535 - degraded.samples[..., 0], photometric="miniswhite", tile=(32, 48)
    )
    wanted = restorer.load(weights).restore(degraded).samples
    check_equal(restore(program, model, tmp_path / "in.tif", tmp_path / "a.png"), wanted, most=0.1)
    # A picture of 8 bits becomes one of 16, as with --bit-depth 16.
    images.write(small_models.make_picture(1), tmp_path / "in.png")
    check_equal(restore(program, model, tmp_path / "in.png", tmp_path / "b.tif"), wanted, most=0.1)


def _write_samples(folder: Path) -> list[Path]:
    """Files in many forms."""
    samples = small_models.make_picture(3).samples
    picture = PIL.Image.fromarray(samples)
    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        suffix = ("jpg", "png", "tif")[orientation % 3]
        picture.save(folder / f"{orientation}.{suffix}", exif=exif)
    picture.convert("P", palette=PIL.Image.Palette.ADAPTIVE).save(folder / "palette.png")
    picture.save(folder / "progressive.jpg", quality=80, subsampling=1, progressive=True)
    tifffile.imwrite(folder / "tiles.tif", samples, tile=(32, 16), compression="lzw")
    tifffile.imwrite(
        folder / "planes.tif", np.moveaxis(samples, -1, 0), planarconfig="separate", photometric="rgb"
    )
    tifffile.imwrite(
        folder / "big.tif",
        samples,
        bigtiff=True,
        byteorder=">",
        rowsperstrip=7,
        compression="deflate",
        predictor=True,
    )
    return sorted(folder.iterdir())


def test_files_are_read_as_pellucid_reads_them(
    program: Program, enlarging: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, model = enlarging
    (tmp_path / "in").mkdir()
    for path in _write_samples(tmp_path / "in"):
        found = restore(program, model, path, tmp_path / "out.png", "--overwrite")
        check_equal(found, restorer.load(weights).restore(images.read(path)).samples, most=1e-3)


def test_a_jpeg_has_the_samples_and_the_profile_of_pellucids(
    program: Program, enlarging: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, model = enlarging
    picture = PIL.Image.fromarray(small_models.make_picture(3).samples)
    picture.save(tmp_path / "in.jpg", quality=83, icc_profile=_PROFILE)
    images.write(restorer.load(weights).restore(images.read(tmp_path / "in.jpg")), tmp_path / "wanted.jpg")
    images.write(
        restorer.load(weights).restore(images.read(tmp_path / "in.jpg")), tmp_path / "wanted-70.jpg", quality=70
    )
    for wanted, options in (("wanted.jpg", ()), ("wanted-70.jpg", ("--quality", "70"))):
        found = restore(program, model, tmp_path / "in.jpg", tmp_path / "out.jpg", "--overwrite", *options)
        assert np.array_equal(found, images.read(tmp_path / wanted).samples)
        assert images.read(tmp_path / "out.jpg").metadata["icc-profile-data"] == _PROFILE
    for suffix in ("png", "tif"):
        restore(program, model, tmp_path / "in.jpg", tmp_path / f"out.{suffix}")
        assert images.read(tmp_path / f"out.{suffix}").metadata["icc-profile-data"] == _PROFILE


def _make_exif(size: tuple[int, int]) -> PIL.Image.Exif:
    """EXIF as cameras write it: turned, with sizes, time, place, and a thumbnail in a second directory."""
    exif = PIL.Image.Exif()
    exif[Base.Make], exif[Base.Model], exif[Base.Orientation] = "Acme", "X1", 6
    camera = exif.get_ifd(IFD.Exif)
    camera[Base.DateTimeOriginal] = "2026:01:02 03:04:05"
    camera[Base.ExifImageWidth], camera[Base.ExifImageHeight] = size
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] = (48.0, 6.0, 0.0)
    exif.get_ifd(IFD.IFD1)[Base.ImageDescription] = "the thumbnail's directory"
    return exif


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_is_kept_as_pellucid_keeps_it(
    suffix: str, program: Program, enlarging: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, model = enlarging
    picture = PIL.Image.fromarray(small_models.make_picture(3).samples)
    picture.save(tmp_path / f"in.{suffix}", exif=_make_exif(picture.size))
    wanted = restorer.load(weights).restore(images.read(tmp_path / f"in.{suffix}"))
    images.write(wanted, tmp_path / f"wanted.{suffix}")
    restore(program, model, tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}")
    own, same = (_read_exif(tmp_path / f"{name}.{suffix}") for name in ("out", "wanted"))
    assert own == same
    assert own[Base.Model, None] == "X1" and own[Base.Orientation, None] == 1
    assert (own[Base.ExifImageWidth, IFD.Exif], own[Base.ExifImageHeight, IFD.Exif]) == (183, 270)


def _read_exif(path: Path) -> dict[tuple[int, IFD | None], object]:
    """(tag, directory) -> value."""
    with PIL.Image.open(path) as picture:
        exif = picture.getexif()
        found = {(tag, None): value for tag, value in exif.items() if tag not in (IFD.Exif, IFD.GPSInfo)}
        return found | {
            (tag, directory): value
            for directory in (IFD.Exif, IFD.GPSInfo, IFD.IFD1)
            for tag, value in exif.get_ifd(directory).items()
        }


@pytest.mark.parametrize(
    "block",
    [
        b"MM",
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1",
        b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\xff\xff\xff\xff\0\0\0\0",
    ],
)
def test_damaged_exif_does_no_harm(
    block: bytes, program: Program, enlarging: tuple[Path, Path], tmp_path: Path
) -> None:
    _, model = enlarging
    picture = PIL.Image.fromarray(small_models.make_picture(3).samples)
    picture.save(tmp_path / "in.jpg", quality=90)
    picture.save(tmp_path / "damaged.jpg", quality=90, exif=b"Exif\0\0" + block)
    wanted = restore(program, model, tmp_path / "in.jpg", tmp_path / "wanted.png")
    assert (restore(program, model, tmp_path / "damaged.jpg", tmp_path / "out.png") == wanted).all()
    restore(program, model, tmp_path / "damaged.jpg", tmp_path / "out.jpg")


def test_a_deblocked_jpeg_has_a_high_quality(program: Program, tmp_path: Path) -> None:
    weights = small_models.save_weights(tmp_path, "dncnn.jpeg", depth=2, width=2)
    model = exporting.export(weights, tmp_path / "a.onnx", whole=True, layout="nhwc").path
    PIL.Image.fromarray(small_models.make_picture(3).samples).save(tmp_path / "in.jpg", quality=20)
    for options, quality in (((), 95), (("--quality", "70"), 70)):
        restore(program, model, tmp_path / "in.jpg", tmp_path / "out.jpg", "--overwrite", *options)
        encoding = images.read(tmp_path / "out.jpg").encoding
        assert encoding is not None and encoding.quality == quality


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("pattern", "orientation"), [(("RG", "GB"), 1), (("GB", "RG"), 6)])
def test_a_raw_file_equals_pellucids(
    program: Program,
    dark_model: tuple[Path, Path],
    tmp_path: Path,
    pattern: tuple[str, ...],
    orientation: int,
    runtime: str,
) -> None:
    if not program.reads_raw:
        pytest.skip("needs libraw-dev")
    need(program, runtime)
    weights, model = dark_model
    samples = np.random.default_rng(0).integers(500, 4000, (71, 98)).astype(np.uint16)
    levels = ((512.0, 500.0), (490.0, 505.0))
    mosaic = Mosaic(
        samples, pattern, levels, 15000.0, white_balance=(1.9, 1.0, 1.4), orientation=orientation, exposure_ratio=3
    )
    (tmp_path / "in.dng").write_bytes(dng.encode(mosaic))
    wanted = restorer.load(weights).restore(mosaic).samples
    for tile in ((), ("--tile", "16")):
        command = (model, tmp_path / "in.dng", tmp_path / "out.png", "--exposure-ratio", "3", "--overwrite")
        check_equal(restore(program, *command, *tile, "--runtime", runtime), wanted, most=0.1)


def test_the_exposure_is_estimated_as_pellucid_does(
    program: Program, dark_model: tuple[Path, Path], tmp_path: Path
) -> None:
    if not program.reads_raw:
        pytest.skip("needs libraw-dev")
    weights, model = dark_model
    samples = np.random.default_rng(1).integers(500, 900, (150, 203)) + np.arange(203) // 2
    samples[40:60, 50:90] = 15000  # a lamp
    mosaic = Mosaic(
        samples.astype(np.uint16),
        ("RG", "GB"),
        ((512.0, 500.0), (490.0, 505.0)),
        15000.0,
        white_balance=(1.9, 1.0, 1.4),
    )
    (tmp_path / "in.dng").write_bytes(dng.encode(mosaic))
    ratio = exposure.estimate_exposure_ratio(mosaic)
    assert 2 < ratio < exposure.MAX_EXPOSURE_RATIO
    wanted = restorer.load(weights).restore(replace(mosaic, exposure_ratio=ratio)).samples
    check_equal(restore(program, model, tmp_path / "in.dng", tmp_path / "out.png"), wanted, most=0.1)


@pytest.fixture(scope="session")
def dark_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("dark")
    weights = small_models.save_weights(folder, "sid_unet.any_camera", width=2)
    return weights, exporting.export(weights, folder / "a.onnx", whole=True, layout="nhwc").path


@pytest.fixture(scope="session")
def raw_denoiser(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("raw")
    weights = small_models.save_weights(folder, "dncnn.raw", depth=3, width=8)
    return weights, exporting.export(weights, folder / "a.onnx", whole=True, layout="nhwc").path


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("pattern", [("RG", "GB"), ("GB", "RG"), ("BG", "GR")])
def test_a_denoised_raw_file_equals_pellucids(
    program: Program,
    raw_denoiser: tuple[Path, Path],
    tmp_path: Path,
    pattern: tuple[str, ...],
    runtime: str,
) -> None:
    if not program.reads_raw:
        pytest.skip("needs libraw-dev")
    need(program, runtime)
    weights, model = raw_denoiser
    samples = np.random.default_rng(0).integers(450, 4600, (71, 97)).astype(np.uint16)  # below black, saturated
    mosaic = Mosaic(
        samples,
        pattern,
        ((512.0, 500.0), (490.0, 505.0)),
        4500.0,
        white_balance=(1.9, 1.0, 1.4),
        orientation=6,
        exposure=Exposure(time_s=1 / 60, iso=3200, f_number=2.8),
    )
    (tmp_path / "in.dng").write_bytes(dng.encode(mosaic))
    wanted = restorer.load(weights).restore(replace(mosaic, noise=NoiseLevel(1.5e-3, 2e-6)))
    for tile in ((), ("--tile", "16")):
        command = (model, tmp_path / "in.dng", tmp_path / "out.dng", "--noise", "1.5e-3,2e-6", "--overwrite")
        ran = run(program.path, *command, *tile, "--runtime", runtime)
        assert (ran.returncode, ran.stderr) == (0, "")
        found = raw.read(tmp_path / "out.dng")
        check_equal(found.samples, wanted.samples, most=1e-2)
        np.testing.assert_array_equal(found.samples[samples >= 4500], samples[samples >= 4500])
    assert (found.pattern, found.black_level, found.white_level) == (pattern, mosaic.black_level, 4500)
    assert (found.orientation, found.exposure.iso) == (6, 3200)
    assert found.exposure.time_s == pytest.approx(1 / 60) and found.exposure.f_number == pytest.approx(2.8)
    assert found.white_balance == pytest.approx((1.9, 1.0, 1.4))


@pytest.mark.parametrize("illuminant", [21, 17])
def test_a_denoised_raw_file_without_exposure_keeps_its_color_matrix(
    program: Program, raw_denoiser: tuple[Path, Path], tmp_path: Path, illuminant: int
) -> None:
    if not program.reads_raw:
        pytest.skip("needs libraw-dev")
    samples = np.full((64, 64), 900, np.uint16)
    camera = CameraFacts(color_matrix=_COLOR_MATRIX)
    content = dng.encode(Mosaic(samples, ("RG", "GB"), 512.0, 16383.0, camera=camera))
    entry = struct.Struct("<HHIH")  # tag, type, count, value
    of_d65, of_light = (entry.pack(0xC65A, 3, 1, value) for value in (21, illuminant))
    assert of_d65 in content
    (tmp_path / "in.dng").write_bytes(content.replace(of_d65, of_light))
    out = tmp_path / "out.dng"
    ran = run(program.path, raw_denoiser[1], tmp_path / "in.dng", out, "--noise", "1e-3,1e-6")
    assert (ran.returncode, ran.stderr) == (0, "")
    with tifffile.TiffFile(out) as file:
        ratios = np.reshape(file.pages.first.tags["ColorMatrix1"].value, (9, 2))
        assert file.pages.first.tags["CalibrationIlluminant1"].value == illuminant
    np.testing.assert_allclose(ratios[:, 0] / ratios[:, 1], _COLOR_MATRIX, atol=1e-6)
    found = raw.read(out)
    assert found.exposure.iso is None and found.white_balance is None


# A process inherits the peak of the one that starts it, so a small one starts the program.
_MEASURE = """
import json, resource, subprocess, sys
ran = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(json.dumps([ran.returncode, ran.stderr, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_memory_stays_below_the_limit(
    program: Program, enlarging: tuple[Path, Path], tmp_path: Path, runtime: str
) -> None:
    need(program, runtime)
    images.write(Picture(np.zeros((420, 560, 3), np.uint8)), tmp_path / "in.png")
    found = {}
    for limit in ("300MB", "4GB", "50MB"):
        command: list[str | Path] = [program.path, enlarging[1], tmp_path / "in.png"]
        command += [tmp_path / f"{limit}.png", "--memory", limit, "--runtime", runtime]
        ran = subprocess.run([sys.executable, "-S", "-c", _MEASURE, *command], capture_output=True, check=True)
        found[limit] = json.loads(ran.stdout)
    assert found["300MB"][:2] == [0, ""] and found["300MB"][2] < 300e6 < found["4GB"][2]
    code, message, _ = found["50MB"]
    assert code == 1 and message.startswith("restore: this picture needs more than 50 MB; --memory ")


def test_a_terminal_shows_progress(program: Program, enlarging: tuple[Path, Path], tmp_path: Path) -> None:
    images.write(small_models.make_picture(3), tmp_path / "in.png")
    outer, inner = pty.openpty()
    command: list[str | Path] = [program.path, enlarging[1], tmp_path / "in.png", tmp_path / "out.png"]
    command += ["--tile", "40"]
    subprocess.run(command, stderr=inner, check=True, env={})
    os.close(inner)
    shown = os.read(outer, 4096).decode()
    os.close(outer)
    assert " %, 0:0" in shown and "100 %, 0:00 left" in shown and shown.endswith("\n")


def test_an_installed_library_is_found_by_another_project(
    program: Program, enlarging: tuple[Path, Path], tmp_path: Path
) -> None:
    prefix = f"-DCMAKE_PREFIX_PATH={program.prefix}"
    _cmake("-S", EXAMPLE / "consumer", "-B", tmp_path / "build", prefix)
    _cmake("--build", tmp_path / "build")
    images.write(small_models.make_picture(3), tmp_path / "in.png")
    arguments = (enlarging[1], tmp_path / "in.png")
    ran = run(tmp_path / "build" / "consumer", *arguments, tmp_path / "a.png")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = images.read(tmp_path / "a.png").samples
    assert np.array_equal(found, restore(program, *arguments, tmp_path / "b.png"))


def test_wrong_arguments_print_a_one_line_error(
    program: Program,
    enlarging: tuple[Path, Path],
    denoising: tuple[Path, Path],
    raw_denoiser: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    color, gray, mosaics = enlarging[1], denoising[1], raw_denoiser[1]
    noise = ("--noise", "1e-3,1e-6")
    samples = small_models.make_picture(3).samples
    picture = PIL.Image.fromarray(samples)
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "a.jpg")
    for name, mode in (("rgba.png", "RGBA"), ("gray.png", "L"), ("cmyk.jpg", "CMYK")):
        picture.convert(mode).save(tmp_path / name)
    tifffile.imwrite(tmp_path / "lab.tif", samples, photometric="cielab")
    tifffile.imwrite(tmp_path / "deep.tif", samples.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(tmp_path / "float.tif", samples.astype(np.float32) / 255, photometric="rgb")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([samples, samples]), photometric="rgb")
    tifffile.imwrite(tmp_path / "a.tif", samples, compression="deflate")
    for name in ("a.png", "a.jpg", "a.tif"):
        (tmp_path / f"cut-{name}").write_bytes((tmp_path / name).read_bytes()[:1500])
    mosaic = Mosaic(np.full((64, 64), 900, np.uint16), ("RG", "GB"), 512.0, 16383.0)
    (tmp_path / "night.dng").write_bytes(dng.encode(mosaic))
    network = _without_form(gray)
    (tmp_path / "cut.onnx").write_bytes(color.read_bytes()[:1500])
    own_runtime = "ONNX Runtime" if program.has_onnxruntime else "OpenVINO"
    cases: list[tuple[list[str | Path], int, str]] = [
        ([network, "a.png", "b.png"], 1, "the model is not a whole graph; export it with --whole"),
        (["a.png", "a.png", "b.png"], 1, "a.png: not a model; .xml or .onnx is needed"),
        (["absent.xml", "a.png", "b.png"], 1, "absent.xml: No such file"),
        (["cut.onnx", "a.png", "b.png"], 1, f"cut.onnx: {own_runtime} cannot use it: "),
        (["cut.onnx", "a.png", "b.png", "--runtime", "openvino"], 1, "cut.onnx: OpenVINO cannot use it: "),
        ([gray, "a.png", "b.png", "--runtime", "onnxruntime"], 1, f"{gray}: ONNX Runtime runs .onnx files"),
        ([color, "a.png", "b.png", "--runtime", "torch"], 2, "--runtime torch: onnxruntime or openvino is"),
        ([color, "absent.png", "b.png"], 1, "absent.png: No such file"),
        ([color, ".", "b.png"], 1, ".: Is a directory"),
        ([gray, "a.png", "b.png"], 1, "the picture has colors; export the model with --colors rgb"),
        ([color, "gray.png", "b.png"], 1, "the picture is gray; export the model with --colors gray"),
        ([color, "deep.tif", "b.png"], 1, "the picture has 16 bits; export the model with --samples uint16"),
        ([color, "rgba.png", "b.png"], 1, "rgba.png: the picture has transparency"),
        ([color, "cmyk.jpg", "b.png"], 1, "cmyk.jpg: the picture is CMYK"),
        ([color, "lab.tif", "b.png"], 1, "lab.tif: the picture is neither gray nor RGB"),
        ([color, "float.tif", "b.png"], 1, "float.tif: the samples are not unsigned integers"),
        ([color, "pages.tif", "b.png"], 1, "pages.tif: the file has several pages"),
        ([color, "night.dng", "b.png"], 1, "night.dng: a camera RAW file"),
        ([color, "cut-a.png", "b.png"], 1, "cut-a.png: "),
        ([color, "cut-a.jpg", "b.png"], 1, "cut-a.jpg: "),
        ([color, "cut-a.tif", "b.png"], 1, "cut-a.tif: "),
        ([color, color, "b.png"], 1, f"{color}: not a PNG, JPEG or TIFF picture"),
        ([color, "a.png", "b.gif"], 1, "b.gif: the suffix must be .png, .jpg or .tif"),
        ([color, "a.png", "a.jpg"], 1, "a.jpg exists; --overwrite replaces it"),
        ([color, "a.png", "absent/b.png"], 1, "absent/b.png: No such file"),
        ([gray, "gray.png", "b.jpg"], 1, "b.jpg: JPEG has 8 bits"),
        ([color, "a.png", "b.png", "--exposure-ratio", "3"], 2, "--exposure-ratio is for models that develop"),
        ([color, "a.png", "b.png", *noise], 2, "--noise is for models that denoise camera RAW files"),
        ([color, "a.png", "b.dng"], 1, "b.dng: only models that denoise RAW files write DNG"),
        ([mosaics, "night.dng", "b.dng"], 2, "this model denoises camera RAW files: --noise is needed"),
        ([mosaics, "night.dng", "b.png", *noise], 1, "b.png: the result is a camera RAW file; the suffix must be"),
        ([mosaics, "night.dng", "night.dng", *noise], 1, "night.dng exists; --overwrite replaces it"),
        ([mosaics, "a.png", "b.dng", *noise], 1, "a.png: LibRaw: "),
        ([mosaics, "night.dng", "b.dng", "--noise", "1e-3"], 2, "--noise 1e-3: two variances from 0 to 1"),
        ([color, "a.png", "b.png", "--memory", "2XB"], 2, "--memory 2XB: a size is needed"),
        ([color, "a.png", "b.png", "--tile", "0"], 2, "--tile 0: a number above 0 is needed"),
        ([color, "a.png", "b.png", "--quality", "101"], 2, "--quality 101: a whole number from 1 to 100"),
        ([color, "a.png", "b.png", "--quality", "80"], 2, "--quality is for JPEG, which b.png will not be"),
        ([mosaics, "night.dng", "b.dng", "--quality", "80", *noise], 2, "--quality is for JPEG, which b.dng"),
        ([color, "a.png", "b.png", "--speed", "9"], 2, "--speed: unknown option"),
        ([], 2, "MODEL, INPUT and OUTPUT are needed"),
    ]
    if not program.has_onnxruntime:
        message = f"{color}: this program was built without ONNX Runtime"
        cases.append(([color, "a.png", "b.png", "--runtime", "onnxruntime"], 1, message))
    before = sorted(tmp_path.iterdir())
    for arguments, code, message in cases:
        ran = subprocess.run([program.path, *arguments], capture_output=True, text=True, env={}, cwd=tmp_path)
        assert (ran.returncode, ran.stdout) == (code, ""), (arguments, ran.stderr)
        assert ran.stderr.startswith(f"restore: {message}") and ran.stderr.count("\n") == 1, ran.stderr
    assert sorted(tmp_path.iterdir()) == before


def _without_form(model: Path) -> Path:
    """The same file without the metadata about its samples, as that of a network alone."""
    path = model.with_name("network.xml")
    lines = model.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "<whole " not in line))
    shutil.copy(model.with_suffix(".bin"), path.with_suffix(".bin"))
    return path
