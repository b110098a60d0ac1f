"""Calibration of cameras: frames synthesized from known noise give this noise back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from pellucid import cli
from pellucid.degradations.calibrate import calibrate
from pellucid.degradations.camera_files import CameraProfile, IsoNoise, make_sensor
from pellucid.degradations.raw_synthesis import SensorNoise
from pellucid.errors import DataError, OutputError, RecipeError
from pellucid.networks import dncnn, sid_unet
from pellucid.pictures import images
from pellucid.pictures.camera import dng, raw
from pellucid.pictures.picture import Exposure, Mosaic
from pellucid.recipes import registry

BLACK, WHITE, SIZE = 512, 16383, (640, 640)
NOISE = {100: (0.24, 1.3, 0.2), 400: (0.96, 2.1, 0.5), 1600: (3.84, 4.5, 1.2)}
"""Levels per electron, and standard deviations of read noise and row noise in levels, of each ISO."""


def make_frame(
    light: NDArray[np.float64], iso: int, rng: np.random.Generator, *, time_s: float = 0.01, black: int = BLACK
) -> Mosaic:
    """A frame by NumPy alone. light: (H, W) electrons."""
    gain, read, row = NOISE[iso]
    levels = gain * rng.poisson(light) + rng.normal(0, read, SIZE) + rng.normal(0, row, (SIZE[0], 1)) + black
    samples = levels.round().clip(0, WHITE).astype(np.uint16)
    return Mosaic(samples, ("RG", "GB"), float(black), float(WHITE), exposure=Exposure(time_s, float(iso), 4.0))


def write_frames(
    folder: Path, *, isos: tuple[int, ...] = tuple(NOISE), num_pairs: int = 3, black: int = BLACK
) -> None:
    """Frames of a lens that darkens the corners, lit in several strengths, and dark frames."""
    rng = np.random.default_rng(1)
    rows, cols = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    vignette = 1 - 0.3 * (rows**2 + cols**2)
    filters = np.tile([[0.5, 1.0], [1.0, 0.7]], (SIZE[0] // 2, SIZE[1] // 2))
    for kind in ("flats", "darks"):
        (folder / kind).mkdir(parents=True)
    for iso in isos:
        for number in range(2 * num_pairs):
            brightness = 0.8 / 3 ** (number // 2)
            light = brightness * (WHITE - BLACK) / NOISE[iso][0] * vignette * filters
            time_s = 1 / 30 / 3 ** (number // 2)
            flat = make_frame(light, iso, rng, time_s=time_s, black=black)
            dng.write(flat, folder / "flats" / f"{iso}-{number}.dng")
        for number in range(2 * num_pairs):
            dark = make_frame(np.zeros(SIZE), iso, rng, black=black)
            dng.write(dark, folder / "darks" / f"{iso}-{number}.dng")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    write_frames(folder)
    return folder


def test_known_noise_is_measured_within_three_percent(frames: Path) -> None:
    found = calibrate(frames / "flats", frames / "darks")
    assert found.messages == ()
    assert (found.profile.black, found.profile.white) == (BLACK, WHITE)
    for one in found.profile.isos:
        gain, read, row = NOISE[int(one.iso)]
        assert one.gain == pytest.approx(gain, rel=0.03)
        assert one.read == pytest.approx(read, rel=0.03)
        assert one.row == pytest.approx(row, rel=0.03 if row > 0.3 else 0.1)
        assert one.black == pytest.approx(BLACK, abs=0.5)
        assert one.misfit < 0.1 and (one.num_flats, one.num_darks) == (6, 6)


def test_the_sensor_of_a_profile_makes_the_measured_noise(frames: Path, tmp_path: Path) -> None:
    calibrate(frames / "flats", frames / "darks").profile.write(tmp_path / "camera.json")
    numbers = CameraProfile.read(tmp_path / "camera.json").to_numbers()
    levels = WHITE - BLACK
    assert numbers[:2] == pytest.approx((0.24 / levels, 3.84 / levels), rel=0.03)
    noise = SensorNoise(make_sensor((numbers[1], *numbers[1:])), num_levels=None)
    noisy = noise(torch.full((1, 1, 500, 500), 0.5), torch.Generator().manual_seed(0)) * levels
    assert noisy.var().item() == pytest.approx(3.84 * 0.5 * levels, rel=0.05)


def test_recipes_take_the_file_and_store_its_numbers(tmp_path: Path) -> None:
    profile = CameraProfile("mine", 512, 16383, (IsoNoise(100, 0.24, 1.3, 0.2, 512, 2, 2, 0.01),))
    profile.write(tmp_path / "camera.json")
    found = registry.find("dncnn.photo", camera=str(tmp_path / "camera.json"))
    assert found.parameters["camera"] == profile.to_numbers()
    again = registry.find("dncnn.photo", camera=list(profile.to_numbers()))  # as read from a weight file
    assert again.degradation == found.degradation != dncnn.photo().degradation
    usual, own = (sid_unet.any_camera(camera=numbers).degradation for numbers in (None, profile.to_numbers()))
    assert usual != own
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file"):
        registry.find("dncnn.photo", camera=str(tmp_path / "none.json"))


def test_a_wrong_count_of_numbers_is_not_a_file() -> None:
    with pytest.raises(RecipeError, match=r"camera=1,2\.5,-3e1 is not possible; expected 8 numbers"):
        registry.find("dncnn.photo", camera="1,2.5,-3e1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "camera is missing"),
        ('{"camera": "x"}', "black is missing"),
        ("[1]", "it is not a JSON object"),
        ("hello", "it is not JSON"),
        (
            '{"camera": "x", "black": 0, "white": 1, "isos": []}',
            "isos=[] is not possible; expected 1 or more entries",
        ),
    ],
)
def test_other_files_are_no_camera_files(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError) as caught:
        registry.find("dncnn.photo", camera=str(tmp_path / "bad.json"))
    assert f"bad.json is not a camera file: {reason}; 'pellucid calibrate' writes one" in str(caught.value)


def test_frames_that_cannot_be_used_are_reported(frames: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    write_frames(tmp_path, isos=(100,), num_pairs=1)
    light = np.full(SIZE, 9000.0)
    dng.write(make_frame(light, 400, rng), tmp_path / "flats" / "400.dng")
    dng.write(make_frame(np.zeros(SIZE), 1600, rng), tmp_path / "darks" / "1600-0.dng")
    dng.write(make_frame(np.zeros(SIZE), 1600, rng), tmp_path / "darks" / "1600-1.dng")
    messages = calibrate(tmp_path / "flats", tmp_path / "darks").messages
    assert any("400.dng is left out: frames of one exposure are used in pairs" in one for one in messages)
    assert "ISO 1600 has only pairs of dark frames, and is left out" in messages


def test_denoised_frames_are_reported(tmp_path: Path) -> None:
    write_frames(tmp_path, isos=(400,), num_pairs=2)
    rng = np.random.default_rng(3)
    for number in range(2):  # half of the noise, only in the brightest frames
        light = np.full(SIZE, 0.85 * (WHITE - BLACK) / 0.96)
        mosaic = make_frame(light, 400, rng, time_s=1.0)
        samples = (0.5 * mosaic.samples + 0.5 * (0.96 * light + BLACK)).round().astype(np.uint16)
        dng.write(
            Mosaic(samples, mosaic.pattern, BLACK, WHITE, exposure=mosaic.exposure),
            tmp_path / f"flats/d{number}.dng",
        )
    (message,) = calibrate(tmp_path / "flats", tmp_path / "darks").messages
    assert "ISO 400: the variance differs from that of shot noise" in message


def test_smoothed_frames_are_reported(tmp_path: Path) -> None:
    """Their variance is proportional to the signal, but too small: each sample is the mean of four."""
    write_frames(tmp_path, isos=(400,), num_pairs=2)
    for path in (tmp_path / "flats").iterdir():
        mosaic = raw.read(path)
        levels = mosaic.samples.astype(np.float64)
        mean = (levels + np.roll(levels, 2, 0) + np.roll(levels, 2, 1) + np.roll(levels, (2, 2), (0, 1))) / 4
        path.unlink()
        dng.write(replace(mosaic, samples=mean.round().astype(np.uint16)), path)
    messages = calibrate(tmp_path / "flats", tmp_path / "darks").messages
    assert "ISO 400: the noise of neighboring samples of one color is correlated (0.5" in messages[-1]


def test_dark_frames_with_light_are_refused(frames: Path) -> None:
    with pytest.raises(
        DataError, match=r"dark frames of ISO 100 are not dark: their level is \d+, and black is 512"
    ):
        calibrate(frames / "flats", frames / "flats")


def test_impossible_frames_are_one_line(frames: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "clipped", isos=(1600,), num_pairs=1, black=0)
    with pytest.raises(DataError, match="dark frames of ISO 1600 are clipped at black: 5.% of its samples"):
        calibrate(tmp_path / "clipped" / "flats", tmp_path / "clipped" / "darks")
    with pytest.raises(DataError, match="have 0 areas with light and without saturation"):
        calibrate(frames / "darks", frames / "darks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty contains no pictures; camera RAW files are needed"):
        calibrate(tmp_path / "empty", frames / "darks")
    dng.write(
        replace(make_frame(np.zeros(SIZE), 100, np.random.default_rng(4)), white_level=4095.0),
        tmp_path / "flats.dng",
    )
    with pytest.raises(
        DataError, match="its white level is 4095, but 16383 in .*; calibrate one camera at a time"
    ):
        calibrate(tmp_path, frames / "darks")


def test_the_command_writes_profile_and_plot(frames: Path, tmp_path: Path) -> None:
    camera, plot = tmp_path / "camera.json", tmp_path / "camera.png"
    arguments = ["calibrate", str(frames / "flats"), str(frames / "darks"), "--out", str(camera)]
    result = CliRunner().invoke(cli.app, [*arguments, "--plot", str(plot)])
    assert result.exit_code == 0 and "levels per electron" in result.output
    assert [one.iso for one in CameraProfile.read(camera).isos] == list(NOISE)
    assert images.read(plot).width > 800
    again = CliRunner().invoke(cli.app, arguments)
    assert isinstance(again.exception, OutputError)
