"""Scores: how they are computed, and that they depend on nothing but the picture and the protocol."""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from pellucid.backends.eager import TorchBackend
from pellucid.data.preparing import prepare
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.errors import DataError, OutputError, PellucidError
from pellucid.evaluation.evaluate import evaluate, strip
from pellucid.pictures import images
from pellucid.pictures.color import rgb_to_luma
from pellucid.pictures.picture import Picture
from pellucid.pictures.resize import resize
from pellucid.pictures.samples import Samples
from pellucid.recipes import registry
from pellucid.recipes.network import Network
from pellucid.restoration.restorer import Restorer


class Identity(Network):
    """Returns its input."""

    scale, multiple, halo = 1, 1, 0

    def forward(self, degraded: Tensor) -> Tensor:
        return degraded


def _restorer(name: str, **parameters: Any) -> Restorer:
    return Restorer("identity", registry.find(name, **parameters), TorchBackend(Identity(), "cpu"))


def _photo(seed: int, height: int = 40, width: int = 52, channels: int = 3) -> Samples:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, channels, height // 4, width // 4)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return np.ascontiguousarray((smooth[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(("a.png", "b.png", "deep/c.png")):
        images.write(Picture(_photo(i)), tmp_path / "clean" / name)
    return tmp_path / "clean"


def test_score_depends_on_its_picture_only(folder: Path) -> None:
    restorer = _restorer("dncnn.gaussian")
    alone = folder.parent / "alone"
    images.write(images.read(folder / "b.png"), alone / "x.png")
    together = {score.name: score.psnr_db for score in evaluate(restorer, folder).scores}
    assert evaluate(restorer, alone).scores[0].psnr_db == together["b.png"]
    assert len(together) == 3 and len(set(together.values())) == 3


def test_noise_has_the_level_of_the_protocol(folder: Path) -> None:
    report = evaluate(_restorer("dncnn.gaussian", sigma_255=25), folder)
    assert report.mean_psnr_db == pytest.approx(
        -20 * math.log10(25 / 255), abs=0.3
    )  # clipping reduces it a little
    assert evaluate(_restorer("dncnn.gaussian", sigma_255=0), folder).to_json()["mean"]["psnr_db"] is None


def test_super_resolution_is_scored_on_luma_inside_the_border(folder: Path) -> None:
    report = evaluate(_restorer("srcnn.paper", scale=3), folder)
    score = next(score for score in report.scores if score.name == "a.png")
    luma = rgb_to_luma(torch.from_numpy(_photo(0)).permute(2, 0, 1)[None] / 255)
    luma = (luma * 255).round()[..., :39, :51] / 255
    bicubic = (resize(resize(luma, Fraction(1, 3)), 3) * 255).round() / 255
    inner = (0, 0, slice(3, -3), slice(3, -3))
    expected = peak_signal_noise_ratio(luma[inner].numpy(), bicubic[inner].numpy(), data_range=1)
    assert score.psnr_db == pytest.approx(expected, abs=1e-6)
    assert score.degraded_psnr_db == score.psnr_db


def test_pairs_are_scored_without_degrading(folder: Path) -> None:
    degraded = folder.parent / "degraded"
    for path in images.find(folder):
        samples = images.read(path).samples
        noisy = np.clip(samples.astype(int) + 10, 0, 255).astype(np.uint8)
        images.write(Picture(noisy), degraded / path.relative_to(folder))
    report = evaluate(_restorer("mimo_unet.gopro"), degraded, target=folder)
    expected = peak_signal_noise_ratio(
        images.read(folder / "a.png").samples, images.read(degraded / "a.png").samples, data_range=255
    )
    assert report.scores[0].psnr_db == pytest.approx(expected, abs=1e-4)
    assert report.protocol["degradation"] == "given pairs, matched by name"


def test_pairs_without_a_common_name_are_matched_by_order_if_the_counts_agree(
    folder: Path, tmp_path: Path
) -> None:
    for i in range(3):
        images.write(Picture(_photo(i)), tmp_path / "blur" / f"blur{i}.png")
    report = evaluate(_restorer("mimo_unet.gopro"), tmp_path / "blur", target=folder)
    assert report.to_json()["mean"]["psnr_db"] is None  # equal pictures
    images.write(Picture(_photo(9)), tmp_path / "blur" / "blur9.png")
    with pytest.raises(DataError, match="4 of 4 pictures .* no target of the same name"):
        evaluate(_restorer("mimo_unet.gopro"), tmp_path / "blur", target=folder)


def test_bad_picture_is_reported_and_does_not_stop_the_others(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    images.write(Picture(_photo(0, 4, 4)), folder / "tiny.png")
    report = evaluate(_restorer("srcnn.paper", scale=4), folder)
    assert len(report.scores) == 3
    assert [path.name for path, _ in report.failures] == ["broken.png", "tiny.png"]
    assert len(report.to_json()["failures"]) == 2


def test_report_contains_its_protocol(folder: Path, tmp_path: Path) -> None:
    report = evaluate(_restorer("dncnn.three_tasks", quality=10), folder, save=tmp_path / "saved")
    report.write_json(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["recipe"]["name"] == "dncnn.three_tasks"
    assert written["protocol"]["degradation"] == "Jpeg(quality=10)"
    assert written["protocol"]["num_pictures"] == 3 and len(written["pictures"]) == 3
    assert set(written["mean"]) == {"psnr_db", "ssim", "degraded_psnr_db"}
    assert written["pictures"][0]["name"] == "a.png"
    assert (tmp_path / "saved" / "deep" / "c.png").exists()


def test_saving_never_overwrites_a_picture_to_score(folder: Path) -> None:
    before = (folder / "a.png").read_bytes()
    with pytest.raises(OutputError, match="one of the pictures to score"):
        evaluate(_restorer("dncnn.gaussian"), folder, save=folder, overwrite=True)
    assert (folder / "a.png").read_bytes() == before
    images.write(images.read(folder / "a.png"), folder / "a.tif")
    with pytest.raises(OutputError, match="would both be saved"):
        evaluate(_restorer("dncnn.gaussian"), folder, save=folder.parent / "saved")
    with pytest.raises(DataError, match="could both be the target"):
        evaluate(_restorer("mimo_unet.gopro"), folder, target=folder)


def _prepared(kind: str, *sources: Path) -> Path:
    out = sources[0].parent / f"{kind}-store"
    prepare(kind, sources, out)
    return out


def test_store_has_the_scores_of_its_folder(folder: Path) -> None:
    restorer = _restorer("srcnn.paper", scale=3)
    from_store, from_folder = (evaluate(restorer, data) for data in (_prepared("folder", folder), folder))
    assert from_store.scores == from_folder.scores
    assert from_store.protocol == from_folder.protocol


def test_store_of_pairs_has_the_scores_of_its_folders(folder: Path) -> None:
    degraded = folder.parent / "degraded"
    for path in images.find(folder):
        images.write(Picture(np.roll(images.read(path).samples, 1, 1)), degraded / path.relative_to(folder))
    restorer = _restorer("mimo_unet.gopro")
    made = _prepared("pairs", degraded, folder)
    assert evaluate(restorer, made).scores == evaluate(restorer, degraded, target=folder).scores
    assert evaluate(restorer, made).protocol["degradation"] == "given pairs, matched by the store"
    with pytest.raises(DataError, match="contains its targets; omit target"):
        evaluate(restorer, made, target=folder)


def test_store_of_the_wrong_kind_is_refused(folder: Path) -> None:
    made = _prepared("folder", folder)
    with pytest.raises(DataError, match="scored on pairs .*; give a store of pairs"):
        evaluate(_restorer("mimo_unet.gopro"), made)
    with pytest.raises(DataError, match="scored on a store of mosaics"):
        evaluate(_restorer("sid_unet.sony"), made)
    (made / "index.json").unlink()
    with pytest.raises(DataError, match="unfinished store"):
        evaluate(_restorer("dncnn.gaussian"), made)


def test_names_in_a_store_cannot_save_outside_the_folder(folder: Path, tmp_path: Path) -> None:
    made = _prepared("folder", folder)
    index = json.loads((made / "index.json").read_text())
    index["items"][0][0] = "../../escaped.png"
    (made / "index.json").write_text(json.dumps(index))
    with pytest.raises(OutputError, match="outside"):
        evaluate(_restorer("dncnn.gaussian"), made, save=tmp_path / "deep" / "saved")


class Developing(Network):
    """Red, the mean of the greens, and blue of each cell, as four equal pixels."""

    scale, multiple, halo = 2, 1, 0

    def forward(self, packed: Tensor) -> Tensor:
        red, green, blue, green_too = packed.unbind(1)
        colors = torch.stack([red, (green + green_too) / 2, blue], dim=1)
        return torch.nn.functional.interpolate(colors, scale_factor=2)


@pytest.mark.parametrize("pattern", [("RG", "GB"), ("GR", "BG"), ("BG", "GR")])
def test_mosaics_are_scored_in_the_covered_area(tmp_path: Path, pattern: tuple[str, ...]) -> None:
    """A target of flat cells, seen through filters in any phase, is developed without error."""
    down, right = next((row, col) for row in range(2) for col in range(2) if pattern[row][col] == "R")
    cells = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint16) * 257
    target = cells.repeat(2, 0).repeat(2, 1)[2 - down :, 2 - right :][:22, :30]
    rows, cols = np.mgrid[:22, :30]
    channels = np.array([["RGB".index(color) for color in row] for row in pattern])[rows % 2, cols % 2]
    samples = (target[rows, cols, channels] // 257).astype(np.uint16)
    facts = {"pattern": list(pattern), "black_level": 0.0, "white_level": 510.0}
    with StoreWriter(tmp_path / "store", {}) as writer:
        writer.put("long", Stamp(1, 2, "3"), np.ascontiguousarray(target))
        writer.put("short", Stamp(1, 2, "3"), samples, metadata=facts)
        items = [Planned(name, "long", "short", 2.0, name == "shifted") for name in ("a", "shifted")]
        writer.finish("raw", items, [])
    restorer = Restorer("developing", registry.find("sid_unet.sony"), TorchBackend(Developing(), "cpu"))
    report = evaluate(restorer, tmp_path / "store")
    (score,) = report.scores
    assert score.psnr_db == math.inf and report.protocol["misaligned_left_out"] == 1
    assert score.degraded_psnr_db is not None and 5 < score.degraded_psnr_db < 40
    with pytest.raises(DataError, match="scored on developed pictures"):
        evaluate(_restorer("mimo_unet.gopro"), tmp_path / "store")


def test_mosaic_too_small_for_libraw_has_no_baseline(tmp_path: Path) -> None:
    facts = {"pattern": ["RG", "GB"], "black_level": 0.0, "white_level": 255.0}
    with StoreWriter(tmp_path / "store", {}) as writer:
        writer.put("long", Stamp(1, 2, "3"), _photo(0, 20, 16))
        writer.put("short", Stamp(1, 2, "3"), _photo(0, 20, 16, 1)[..., 0].astype(np.uint16), metadata=facts)
        writer.finish("raw", [Planned("a", "long", "short", 1.0)], [])
    restorer = Restorer("developing", registry.find("sid_unet.sony"), TorchBackend(Developing(), "cpu"))
    report = evaluate(restorer, tmp_path / "store")
    assert report.scores[0].degraded_psnr_db is None and report.to_json()["mean"]["degraded_psnr_db"] is None
    assert strip(restorer, tmp_path / "store").samples.shape == (20, 3 * 16, 3)


def test_clean_pictures_are_scored_as_synthetic_mosaics(folder: Path) -> None:
    """Any folder will do; the baseline is LibRaw's development of the dark, noisy mosaic."""
    restorer = Restorer("developing", registry.find("sid_unet.any_camera"), TorchBackend(Developing(), "cpu"))
    report = evaluate(restorer, folder)
    assert len(report.scores) == 3
    for score in report.scores:
        assert 5 < score.psnr_db < 40
        assert score.degraded_psnr_db is not None and 5 < score.degraded_psnr_db < 40
    assert report.protocol["degraded_psnr_of"] == "the mosaic developed by LibRaw, scaled to the target's mean"
    assert "SyntheticRaw" in report.protocol["degradation"]
    assert "misaligned_left_out" not in report.protocol
    assert evaluate(restorer, folder).scores == report.scores
    assert strip(restorer, folder).width == 3 * 52


def test_values_drawn_once_per_picture_depend_on_its_name(folder: Path) -> None:
    """One seed for all would score one camera trajectory only; names do not depend on other pictures."""
    images.write(images.read(folder / "a.png"), folder / "same.png")
    restorer = _restorer("mimo_unet.synthetic")
    scores = {score.name: score for score in evaluate(restorer, folder).scores}
    assert scores["a.png"].psnr_db != scores["same.png"].psnr_db
    (folder / "b.png").unlink()
    report = evaluate(restorer, folder)
    assert {score.name: score for score in report.scores}["same.png"] == scores["same.png"]
    assert report.protocol["noise_seed"] == "0 and the picture's name"
    assert report.protocol["jpeg_encoder"] == "libjpeg, 4:2:0"


def test_protocol_contains_the_seed_of_random_degradations(folder: Path) -> None:
    assert evaluate(_restorer("dncnn.gaussian"), folder).protocol["noise_seed"] == 0
    jpeg = evaluate(_restorer("dncnn.three_tasks", quality=10), folder).protocol
    assert (jpeg["noise_seed"], jpeg["jpeg_encoder"]) == (None, "libjpeg, gray")


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("missing", "dncnn.gaussian", "does not exist"),
        ("clean/a.png", "dncnn.gaussian", "a folder of pictures is needed"),
        ("empty", "dncnn.gaussian", "contains no pictures"),
        ("clean", "mimo_unet.gopro", "its clean pictures as target"),
        ("clean", "sid_unet.sony", "a store of mosaics"),
    ],
)
def test_wrong_data_is_refused(folder: Path, data: str, name: str, message: str) -> None:
    (folder.parent / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        evaluate(_restorer(name), folder.parent / data)


def test_only_restorers_are_scored(folder: Path) -> None:
    name: Any = "dncnn-gray-25"
    with pytest.raises(
        PellucidError,
        match="restorer is 'dncnn-gray-25'; a pellucid.Restorer is needed",
    ):
        evaluate(name, folder)


def test_a_report_is_written_to_a_path_in_text(folder: Path, tmp_path: Path) -> None:
    evaluate(_restorer("dncnn.gaussian"), folder).write_json(str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text())["pictures"]


def _write_12_bit_pair(folder: Path, *, states_white: bool) -> tuple[Samples, Samples]:
    """Degraded and clean pictures of 12 bits in 16-bit TIFF."""
    clean = (_photo(0).astype(np.uint16) * 16)[..., :3]
    noisy = np.clip(clean.astype(int) + np.random.default_rng(0).integers(-99, 99, clean.shape), 0, 4095)
    tags = [(281, "H", 1, 4095, True)] if states_white else []
    for name, samples in (("degraded", noisy), ("clean", clean)):
        (folder / name).mkdir()
        tifffile.imwrite(
            folder / name / "a.tif", samples.astype(np.uint16), photometric="rgb", extratags=tags, metadata=None
        )
    return noisy, clean


@pytest.mark.parametrize("states_white", [False, True])
def test_12_bits_in_16_are_scored_with_their_own_white(states_white: bool, tmp_path: Path) -> None:
    noisy, clean = _write_12_bit_pair(tmp_path, states_white=states_white)
    report = evaluate(
        _restorer("mimo_unet.gopro"),
        tmp_path / "degraded",
        target=tmp_path / "clean",
        white=None if states_white else 4095,
    )
    to_8_bits = [np.round(samples / 4095 * 255) for samples in (clean, noisy)]
    expected = peak_signal_noise_ratio(*to_8_bits, data_range=255)
    assert report.scores[0].psnr_db == pytest.approx(expected, abs=0.1) and report.warnings == ()


def test_12_bits_in_16_without_white_give_a_warning(tmp_path: Path) -> None:
    _write_12_bit_pair(tmp_path, states_white=False)
    report = evaluate(_restorer("mimo_unet.gopro"), tmp_path / "degraded", target=tmp_path / "clean")
    assert [warning.split(" no sample")[0] for warning in report.warnings] == ["a.tif:", "a.tif: target:"]
    assert report.to_json()["warnings"] == list(report.warnings)


def test_several_pages_are_not_scored(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    tifffile.imwrite(tmp_path / "clean" / "a.tif", np.stack([_photo(0), _photo(1)]), photometric="rgb")
    with pytest.raises(DataError, match=r"a\.tif has 2 pages; one is needed"):
        evaluate(_restorer("dncnn.gaussian"), tmp_path / "clean")


def test_other_channels_are_not_scored_and_saved(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    samples = np.concatenate([_photo(0), _photo(1, channels=1)], axis=2)
    tifffile.imwrite(tmp_path / "clean" / "a.tif", samples, photometric="rgb", extrasamples=[0])
    restorer = _restorer("mimo_unet.gopro")
    saved = tmp_path / "saved"
    evaluate(restorer, tmp_path / "clean", target=tmp_path / "clean", save=saved)
    assert np.array_equal(images.read(saved / "a.png").samples, samples[..., :3])
