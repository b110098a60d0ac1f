"""All steps for camera RAW files and for real blurred pairs: prepare, train, evaluate, restore."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pellucid.cli import app
from pellucid.data import store
from pellucid.degradations.cameras import Sensor
from pellucid.degradations.raw_synthesis import SensorNoise, Unprocess
from pellucid.pictures import images, metrics
from pellucid.pictures.camera import dng, raw
from pellucid.pictures.camera.packing import BAYER, XTRANS
from pellucid.pictures.picture import Exposure, Mosaic
from pellucid.restoration import restorer
from pellucid.training import run_folder

HEIGHT_PX, WIDTH_PX = 48, 64
BLACK, WHITE = 512, 16383
LONG_S, SHORT_S = 10.0, 0.1
ROTATED = 6

SHORT_FILE = "Sony/short/10003_00_0.1s.ARW"


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def sensor_signal(
    seed: int, pattern: tuple[str, ...] = BAYER, size: tuple[int, int] = (HEIGHT_PX, WIDTH_PX)
) -> torch.Tensor:
    """The signal of a sensor without noise, of a smooth picture: (1, 1, H, W) linear, white is 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return Unprocess(pattern, red_gain=2.0, blue_gain=1.6)(picture, generator)


def write_raw(
    path: Path, signal: torch.Tensor, time_s: float, orientation: int = 1, pattern: tuple[str, ...] = BAYER
) -> None:
    """Write a DNG with the name of a camera's file; LibRaw looks only at the content."""
    samples = (signal[0, 0] * (WHITE - BLACK) + BLACK).round().numpy().astype(np.uint16)
    mosaic = Mosaic(
        samples,
        pattern,
        float(BLACK),
        float(WHITE),
        white_balance=(2.0, 1.0, 1.6),
        exposure=Exposure(time_s, 200.0, 8.0),
        orientation=orientation,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dng.encode(mosaic))


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small See in the Dark: two training scenes, a rotated test scene, and a misaligned one."""
    root = tmp_path_factory.mktemp("dark")
    ratio = LONG_S / SHORT_S
    noise = SensorNoise(Sensor(2e-4, 1e-7), num_levels=WHITE - BLACK)
    for scene, orientation in (("00001", 1), ("00002", ROTATED), ("10003", ROTATED), ("10034", 1)):
        bright = sensor_signal(int(scene))
        dim = noise(bright / ratio, torch.Generator().manual_seed(int(scene)))
        write_raw(root / f"Sony/long/{scene}_00_10s.ARW", bright, LONG_S, orientation)
        write_raw(root / f"Sony/short/{scene}_00_0.1s.ARW", dim, SHORT_S, orientation)
    return root


@pytest.fixture(scope="module")
def stores(dark: Path) -> dict[str, Path]:
    made = {split: dark / f"{split}-store" for split in ("train", "test")}
    for split, folder in made.items():
        run("prepare", "sid-sony", dark, "--set", f"split={split}", "--out", folder)
    return made


@pytest.fixture(scope="module")
def weights(stores: dict[str, Path], dark: Path) -> Path:
    small = ("patch_px=32", "batch_size=2", "validate_every=2")
    options = ("--steps", 3, "--tune", "off", "--device", "cpu", "--val", stores["test"])
    run("train", "sid_unet.sony", *small, "--data", stores["train"], *options, "--out", dark / "run")
    return dark / "run" / "weights.safetensors"


def test_training_validates_on_a_store(weights: Path) -> None:
    scored = [line for line in run_folder.read_metrics(weights.parent) if line.get("psnr_db") is not None]
    assert [line["step"] for line in scored] == [2, 3]
    strip = images.read(weights.parent / "validation" / "step-000000003.png")
    assert (strip.height, strip.width) == (HEIGHT_PX, 3 * WIDTH_PX)


def test_scores_of_a_store_of_mosaics_are_those_of_its_restored_files(
    weights: Path, stores: dict[str, Path], dark: Path
) -> None:
    report_file, saved = dark / "report.json", dark / "saved"
    run("evaluate", weights, "--data", stores["test"], "--json", report_file, "--save", saved, "--device", "cpu")
    report = json.loads(report_file.read_text())
    (picture,) = report["pictures"]
    assert picture["name"] == SHORT_FILE and report["failures"] == []
    assert report["protocol"]["misaligned_left_out"] == 1
    assert report["protocol"]["degradation"] == "given mosaics, times their exposure ratios"

    # Files are restored and developed upright; the store keeps both in the orientation of the sensor.
    restored_file, long_file = dark / "restored.png", dark / "Sony/long/10003_00_10s.ARW"
    given = ("--model", weights, "--device", "cpu")
    run("restore", dark / SHORT_FILE, *given, "--exposure-ratio", 100, "--out", restored_file)
    restored, target = images.read(restored_file), raw.develop(long_file)
    assert (restored.height, restored.width) == (target.height, target.width) == (WIDTH_PX, HEIGHT_PX)
    eight_bit = (part.as_depth("uint8").to_tensor() for part in (restored, target))
    assert metrics.psnr(*eight_bit) == pytest.approx(picture["psnr_db"], abs=0.02)
    unrotated = images.read((saved / SHORT_FILE).with_suffix(".png"))
    assert (
        np.abs(unrotated.apply_orientation(ROTATED).samples.astype(int) - restored.as_depth("uint8").samples).max()
        <= 1
    )

    by_reference = dark / "by-reference.png"
    run("restore", dark / SHORT_FILE, *given, "--reference", long_file, "--out", by_reference)
    assert np.array_equal(images.read(by_reference).samples, restored.samples)


def test_the_baseline_is_the_scaled_development(weights: Path, stores: dict[str, Path]) -> None:
    from pellucid.evaluation.evaluate import evaluate

    found = store.open(stores["test"])
    developed, target = raw.develop_mosaic(found.mosaic(0)).to_tensor(), found.target(0) / 65535
    scaled = (developed * (target.mean() / developed.mean()) * 255).clamp(0, 255).round() / 255
    rounded = torch.from_numpy((target * 255).round() / 255).permute(2, 0, 1)[None]
    (score,) = evaluate(restorer.load(weights, device="cpu"), stores["test"]).scores
    assert score.degraded_psnr_db == pytest.approx(metrics.psnr(scaled, rounded), abs=0.01)


def test_x_trans_files_pass_all_steps(tmp_path: Path) -> None:
    """The other camera of See in the Dark: one training scene and one test scene."""
    for scene in ("00001", "10003"):
        signal = sensor_signal(int(scene), XTRANS, (516, 522))  # LibRaw cannot develop smaller ones
        write_raw(tmp_path / f"Fuji/long/{scene}_00_10s.RAF", signal, LONG_S, pattern=XTRANS)
        write_raw(tmp_path / f"Fuji/short/{scene}_00_0.1s.RAF", signal * SHORT_S / LONG_S, SHORT_S, pattern=XTRANS)
    for split in ("train", "test"):
        run("prepare", "sid-fuji", tmp_path, "--set", f"split={split}", "--out", tmp_path / split)
    (made,) = store.open(tmp_path / "train").names
    assert made == "Fuji/short/00001_00_0.1s.RAF"
    options = ("--steps", 2, "--tune", "off", "--device", "cpu", "--out", tmp_path / "run")
    run("train", "sid_unet.fuji", "patch_px=48", "--data", tmp_path / "train", *options)
    weights, report_file = tmp_path / "run" / "weights.safetensors", tmp_path / "report.json"
    run("evaluate", weights, "--data", tmp_path / "test", "--json", report_file, "--device", "cpu")
    (picture,) = json.loads(report_file.read_text())["pictures"]
    assert picture["degraded_psnr_db"] > 20  # the development by LibRaw, of a picture without noise
    given = ("--model", weights, "--device", "cpu", "--exposure-ratio", 100, "--out", tmp_path / "x.png")
    run("restore", tmp_path / "Fuji/short/10003_00_0.1s.RAF", *given)
    assert images.read(tmp_path / "x.png").dtype == "uint16"


def test_real_blurred_pairs_pass_all_steps(data: Path, tmp_path: Path) -> None:
    """Trained on small frames of REDS; scored on GoPro pairs whose blurred PSNR is published."""
    for kind in ("blur", "sharp"):
        (tmp_path / kind).mkdir()
        for scene in ("Flower", "Istanbul"):
            given = data / f"deblurring/gopro_pairs/{scene}_{kind}1.png"
            (tmp_path / kind / f"{scene}.png").symlink_to(given)
    reds = data / "deblurring/reds_small"
    run("prepare", "pairs", reds / "train_blur", reds / "train_sharp", "--out", tmp_path / "store")
    tiny = ("num_blocks=1", "width=4", "patch_px=64", "batch_size=2")
    run("train", "mimo_unet.gopro", *tiny, "--data", tmp_path / "store", "--steps", 2, "--out", tmp_path / "run")

    weights, report_file = tmp_path / "run" / "weights.safetensors", tmp_path / "report.json"
    run("evaluate", weights, "--data", tmp_path / "blur", "--target", tmp_path / "sharp", "--json", report_file)
    blurred_db = {p["name"]: p["degraded_psnr_db"] for p in json.loads(report_file.read_text())["pictures"]}
    assert blurred_db == pytest.approx({"Flower.png": 25.11, "Istanbul.png": 24.05}, abs=0.01)
