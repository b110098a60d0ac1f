"""The authors' own weights give the authors' own numbers, through `convert` and `evaluate`.

Expected: the papers' tables (SRCNN: Dong et al. 2016, Tables 2 and 5; DnCNN: Zhang et al. 2017, Tables II, III
and V), and for SaoYan's weights his published scores. Gaussian noise differs by seed, by up to 0.05 dB on
Set12; SRCNN's protocol has no random numbers.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pellucid.evaluation.evaluate import evaluate
from pellucid.evaluation.report import Report
from pellucid.restoration.restorer import load
from pellucid.weights.converting import convert
from weights import FOLDERS

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif("PELLUCID_DATA" not in os.environ, reason="needs PELLUCID_DATA: test sets and weights"),
]

SRCNN_TOLERANCE_DB = 0.02
DNCNN_TOLERANCE_DB = 0.05


def _report(
    data: Path, weights: str, recipe: str, parameters: str, folder: Path, task: str, test_set: str
) -> Report:
    out = folder / "weights.safetensors"
    convert(data / "weights" / weights, recipe, out, **_keywords(parameters))
    return evaluate(load(out, **_keywords(task)), data / FOLDERS[test_set])


def _keywords(text: str) -> dict[str, Any]:
    return dict(pair.split("=") for pair in text.split())


@pytest.mark.parametrize(
    ("weights", "scale", "mapping_px", "test_set", "expected_db"),
    [
        ("9-5-5_ImageNet", 2, 5, "Set5", 36.66),
        ("9-5-5_ImageNet", 3, 5, "Set5", 32.75),
        ("9-5-5_ImageNet", 4, 5, "Set5", 30.48),  # 30.49 in the paper; 30.48 by the released code
        ("9-5-5_ImageNet", 2, 5, "Set14", 32.45),
        ("9-5-5_ImageNet", 3, 5, "Set14", 29.29),  # 29.30 in the paper
        ("9-5-5_ImageNet", 4, 5, "Set14", 27.50),
        ("9-1-5_91_images", 2, 1, "Set5", 36.34),
        ("9-1-5_91_images", 3, 1, "Set5", 32.39),
        ("9-1-5_91_images", 4, 1, "Set5", 30.08),  # 30.09 in the paper
    ],
)
def test_srcnn(
    data: Path, tmp_path: Path, weights: str, scale: int, mapping_px: int, test_set: str, expected_db: float
) -> None:
    parameters = f"scale={scale} mapping_px={mapping_px}"
    report = _report(data, f"srcnn/{weights}/x{scale}.mat", "srcnn.paper", parameters, tmp_path, "", test_set)
    assert report.mean_psnr_db == pytest.approx(expected_db, abs=SRCNN_TOLERANCE_DB)


@pytest.mark.parametrize(
    ("scale", "test_set", "expected_db"),
    [
        (2, "Set5", 33.66),
        (3, "Set5", 30.39),
        (4, "Set5", 28.42),
        (2, "Set14", 30.23),
        (3, "Set14", 27.54),
        (4, "Set14", 26.00),
    ],
)
def test_the_bicubic_baseline(data: Path, tmp_path: Path, scale: int, test_set: str, expected_db: float) -> None:
    weights = f"srcnn/9-1-5_91_images/x{scale}.mat"
    report = _report(data, weights, "srcnn.paper", f"scale={scale} mapping_px=1", tmp_path, "", test_set)
    assert report.mean_degraded_psnr_db == pytest.approx(expected_db, abs=SRCNN_TOLERANCE_DB)


SLOW_DNCNN = [
    ("dncnn/gray_sigma_15.mat", "dncnn.gaussian", "sigma_255=15", "", "Set12", 32.86),
    ("dncnn/gray_sigma_25.mat", "dncnn.gaussian", "sigma_255=25", "", "Set12", 30.44),
    ("dncnn/gray_blind.mat", "dncnn.blind", "", "sigma_255=15", "Set12", 32.68),
    ("dncnn/gray_blind.mat", "dncnn.blind", "", "sigma_255=25", "Set12", 30.36),
    ("dncnn/gray_blind.mat", "dncnn.blind", "", "sigma_255=50", "Set12", 27.21),
    ("dncnn_pytorch/DnCNN-S-15.pth", "dncnn.gaussian", "sigma_255=15", "", "Set12", 32.84),
    ("dncnn_pytorch/DnCNN-S-25.pth", "dncnn.gaussian", "sigma_255=25", "", "Set12", 30.40),
    ("dncnn_pytorch/DnCNN-S-50.pth", "dncnn.gaussian", "sigma_255=50", "", "Set12", 27.17),
    ("dncnn/gray_sigma_50.mat", "dncnn.gaussian", "sigma_255=50", "", "Set12", 27.18),
    ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "quality=10", "classic5", 29.40),
    ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "quality=20", "classic5", 31.63),
    ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "quality=30", "classic5", 32.91),
    ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "quality=40", "classic5", 33.77),
    ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "scale=2", "Set5", 37.58),
    ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "scale=3", "Set5", 33.75),
    ("dncnn_pytorch/DnCNN-B.pth", "dncnn.blind", "", "sigma_255=25", "Set12", 30.34),
    ("dncnn/gray_sigma_25.mat", "dncnn.gaussian", "sigma_255=25", "", "BSD68", 29.23),
    ("dncnn/color_blind.mat", "dncnn.blind", "channels=3", "sigma_255=25", "CBSD68", 31.23),
]
"""Each takes half a minute or more: `make golden` measures them all."""


@pytest.mark.parametrize(
    ("weights", "recipe", "parameters", "task", "test_set", "expected_db"),
    [
        ("dncnn/three_tasks.mat", "dncnn.three_tasks", "", "scale=4", "Set5", 31.40),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW_DNCNN),
    ],
)
def test_dncnn(
    data: Path,
    tmp_path: Path,
    weights: str,
    recipe: str,
    parameters: str,
    task: str,
    test_set: str,
    expected_db: float,
) -> None:
    report = _report(data, weights, recipe, parameters, tmp_path, task, test_set)
    assert report.mean_psnr_db == pytest.approx(expected_db, abs=DNCNN_TOLERANCE_DB)


@pytest.mark.slow
def test_color_of_one_known_level_beats_the_blind_network(data: Path, tmp_path: Path) -> None:
    # The papers print a score on CBSD68 for the blind network only.
    parameters = "sigma_255=25 channels=3 depth=20"
    report = _report(data, "dncnn/color_sigma_25.mat", "dncnn.gaussian", parameters, tmp_path, "", "CBSD68")
    assert 31.23 < report.mean_psnr_db < 31.5


def test_the_batch_norm_file_equals_its_folded_twin(data: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(data / FOLDERS["Set12"] / "01.png", pictures)
    reports = []
    for name in ("gray_sigma_25", "gray_sigma_25_with_batchnorm"):
        out = tmp_path / f"{name}.safetensors"
        convert(data / "weights" / "dncnn" / f"{name}.mat", "dncnn.gaussian", out, sigma_255=25)
        reports.append(evaluate(load(out), pictures))
    folded, with_norm = reports
    assert folded.recipe is not None and with_norm.recipe is not None
    assert (folded.recipe.parameters["batch_norm"], with_norm.recipe.parameters["batch_norm"]) == (False, True)
    for one, other in zip(folded.scores, with_norm.scores, strict=True):
        assert one.psnr_db == pytest.approx(other.psnr_db, abs=0.005)
