"""A chain of models is one model after the other, without rounding in between."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid
from pellucid.backends.eager import TorchBackend
from pellucid.errors import ArgumentError, PellucidError, PictureError, RecipeError, WeightsError
from pellucid.pictures import images
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.recipes import registry
from pellucid.restoration.report import make_report
from pellucid.restoration.restorer import Restorer, load
from pellucid.weights import checkpoint
from pellucid.weights.models import list_models
from small_models import build_restorer

DENOISER = build_restorer("dncnn.blind", depth=4, width=8, channels=3)
ENLARGER = build_restorer("srcnn.tuned", scale=2)
DEVELOPER = build_restorer("sid_unet.any_camera", width=4)
CHAINS = {
    "denoise and enlarge": [DENOISER, ENLARGER],
    "enlarge and denoise": [ENLARGER, DENOISER],
    "enlarge twice": [ENLARGER, ENLARGER],
}


def test_all_models_that_ship_can_be_joined() -> None:
    """Also those whose degradation makes its own target, which no other degradation can contain."""
    one = load("srcnn-x2", device="cpu")
    for model in list_models():
        first = load(model.name, device="cpu")
        if first.recipe.domain.gives_mosaic:
            continue
        chain = Restorer.chain([first, one])
        assert chain.recipe.name.endswith("+srcnn.tuned")
        if not first.recipe.domain.takes_mosaic:
            assert Restorer.chain([one, first]).scale == 2 * first.scale


def _picture(height: int = 40, width: int = 53, dtype: str = "uint8", channels: int = 3) -> Picture:
    rng = np.random.default_rng(height * width)
    return Picture(rng.random((height, width, channels), np.float32)).as_depth(dtype)


def _mosaic() -> Mosaic:
    samples = np.random.default_rng(0).integers(600, 3000, (64, 48), np.uint16)
    return Mosaic(samples, ("RG", "GB"), 512.0, 16383.0, exposure_ratio=7.0, orientation=6)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with denoise.safetensors and enlarge.safetensors."""
    folder = tmp_path_factory.mktemp("models")
    for name, recipe, keywords in (
        ("denoise", "dncnn.gaussian", {"depth": 3, "width": 4}),
        ("enlarge", "srcnn.tuned", {"scale": 2}),
    ):
        torch.manual_seed(1)
        chosen = registry.find(recipe, **keywords)
        metadata = checkpoint.WeightsMetadata(chosen.name, chosen.parameters, f"random {name}", "CC0")
        checkpoint.save(folder / f"{name}.safetensors", chosen.network(), metadata)
    return folder


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_one_model_after_the_other_in_floating_point(name: str) -> None:
    first, second = CHAINS[name]
    picture = _picture()
    intermediate = first.restore(picture.as_depth("float32"))
    expected = second.restore(intermediate).as_depth("uint8")
    found = Restorer.chain(CHAINS[name]).restore(picture)
    assert np.array_equal(found.samples, expected.samples)
    rounded = second.restore(intermediate.as_depth("uint8"))
    assert not np.array_equal(found.samples, rounded.samples)


def test_a_mosaic_is_developed_first() -> None:
    chain = Restorer.chain([DEVELOPER, ENLARGER])
    developed = DEVELOPER.restore(_mosaic().as_depth("float32"))
    found = chain.restore(_mosaic())
    assert found.dtype == "uint16" and (found.width, found.height) == (2 * 64, 2 * 48)
    assert np.array_equal(found.samples, ENLARGER.restore(developed).as_depth("uint16").samples)
    with pytest.raises(WeightsError, match=r"can only be the first model of a chain; put it first"):
        Restorer.chain([ENLARGER, DEVELOPER])


@pytest.mark.parametrize("name", CHAINS)
@settings(max_examples=10)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile_px=st.integers(4, 50))
def test_tiles_of_a_chain_equal_the_whole(name: str, height: int, width: int, tile_px: int) -> None:
    chain, picture = Restorer.chain(CHAINS[name]), _picture(height, width, "float32")
    whole, tiled = chain.restore(picture, tile_px=10_000), chain.restore(picture, tile_px=tile_px)
    assert np.array_equal(tiled.samples, whole.samples)


@pytest.mark.parametrize("name", CHAINS)
def test_halo_of_a_chain_is_how_far_it_sees(name: str) -> None:
    chain, size = Restorer.chain(CHAINS[name]), 75
    picture = _picture(size, size, "float32", 1)
    far, near = (picture.samples.copy() for _ in range(2))
    center = size // 2
    far[: center - chain.halo_px] = 0.5
    near[: center - chain.halo_px + 1] = 0.5
    rows = slice(center * chain.scale, (center + 1) * chain.scale)
    whole, from_far, from_near = (
        chain.restore(Picture(samples)).samples[rows] for samples in (picture.samples, far, near)
    )
    assert np.array_equal(from_far, whole) and not np.array_equal(from_near, whole)


@pytest.mark.parametrize("name", CHAINS)
def test_halo_error_of_a_chain_is_what_a_smaller_halo_changes(name: str) -> None:
    chain, picture = Restorer.chain(CHAINS[name]), _picture(90, 80, "float32")
    assert chain.halo_error(picture, halo_px=0, tile_px=30) > 1e-6
    assert chain.halo_error(picture, halo_px=chain.halo_px, tile_px=30) == 0
    assert chain.halo_error(picture, halo_px=0, tile_px=180) == 0


def test_progress_of_a_chain_reaches_the_end() -> None:
    calls: list[tuple[int, int]] = []
    Restorer.chain([ENLARGER, DENOISER]).restore(_picture(), tile_px=20, progress=lambda *call: calls.append(call))
    done = [done for done, _ in calls]
    assert done == sorted(done) and calls[-1][0] == calls[-1][1] == 40 * 53 * 5


# Loading


def test_a_chain_is_loaded_by_names(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", str(files))
    chain = load("denoise+enlarge", device="cpu")
    assert chain.name == "denoise+enlarge" and chain.scale == 2
    assert chain.recipe.name == "dncnn.gaussian+srcnn.tuned"
    assert chain.metadata is not None and chain.metadata.license == "CC0"
    assert chain.metadata.provenance == "denoise: random denoise; enlarge: random enlarge"
    assert repr(chain).startswith("<Restorer denoise+enlarge: dncnn.gaussian+srcnn.tuned, torch float32 on cpu+")
    by_path = load(f"{files / 'denoise.safetensors'}+{files / 'enlarge.safetensors'}", device="cpu")
    assert by_path.fingerprint() == chain.fingerprint() != load("enlarge+denoise", device="cpu").fingerprint()
    with pytest.raises(PellucidError, match="is a chain of models"):
        _ = chain.backend


def test_names_with_a_plus_are_names(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path))
    (tmp_path / "a+b.safetensors").write_bytes((files / "enlarge.safetensors").read_bytes())
    assert load("a+b").name == load(tmp_path / "a+b.safetensors").name == "a+b"


@pytest.mark.parametrize("name", ["denoise+", "+denoise", "denoise++enlarge", "+"])
def test_an_empty_name_in_a_chain_is_an_error(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", str(files))
    with pytest.raises(ArgumentError, match=r"has an empty name next to \+"):
        load(name)
    with pytest.raises(WeightsError, match="no model 'denoisy'; did you mean denoise"):
        load("denoisy+enlarge")


def test_keywords_go_to_the_model_that_has_them(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", str(files))
    assert load("denoise+enlarge", sigma_255=15).recipe.parameters["1 denoise"]["sigma_255"] == 15
    with pytest.raises(RecipeError, match="enlarge and enlarge have the keyword scale"):
        load("enlarge+enlarge", scale=3)
    with pytest.raises(RecipeError, match=r"no model of denoise\+enlarge has the keyword 'x'"):
        load("denoise+enlarge", x=3)


# Files, reports and scores


def test_manifest_and_report_know_the_chain(album: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_MODELS", str(files))
    chain, out = load("denoise+enlarge", device="cpu"), album.parent / "out"
    (outcome,) = pellucid.restore(album / "deep", chain, out)
    assert outcome.error is None and images.read(out / "c.png").width == 2 * 31
    (again,) = pellucid.restore(album / "deep", "denoise+enlarge", out)
    assert again.is_skipped
    (other,) = pellucid.restore(album / "deep", "enlarge+denoise", out)
    assert other.target == out / "c-enlarge+denoise.png"
    (out / "report.json").write_text(json.dumps(make_report([outcome], chain)))
    report = json.loads((out / "report.json").read_bytes())
    assert (report["model"], report["recipe"]) == ("denoise+enlarge", "dncnn.gaussian+srcnn.tuned")
    assert report["parameters"]["2 enlarge"]["scale"] == 2


def test_a_chain_is_scored_on_what_all_its_models_undo(album: Path) -> None:
    (album / "broken.png").unlink()
    report = pellucid.evaluate(Restorer.chain([DENOISER, ENLARGER]), album)
    assert "Shrink" in report.protocol["degradation"] and "GaussianNoise" in report.protocol["degradation"]
    assert len(report.scores) == 3 and report.protocol["clean_sizes_cut_to_multiples_of"] == 2
    json.dumps(report.to_json())


# Masks


def test_a_mask_restores_where_it_is_white() -> None:
    picture, mask = _picture(), np.zeros((40, 53), np.uint8)
    mask[:, 20:], mask[:, 30:] = 128, 255
    for restorer in (DENOISER, ENLARGER):
        found = restorer.restore(picture.as_depth("float32"), mask=mask)
        full = restorer.restore(picture.as_depth("float32"))
        none = restorer.restore(picture.as_depth("float32"), strength=0)
        half = restorer.restore(picture.as_depth("float32"), strength=128 / 255)
        scale = restorer.scale
        for columns, expected in ((slice(0, 17), none), (slice(23, 27), half), (slice(33, 53), full)):
            columns = slice(columns.start * scale, columns.stop * scale)
            np.testing.assert_allclose(found.samples[:, columns], expected.samples[:, columns], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*CHAINS, "denoise"])
def test_masks_do_not_depend_on_tiles(name: str) -> None:
    restorer = Restorer.chain(CHAINS.get(name, [DENOISER]))
    picture, mask = _picture(dtype="float32"), _picture(channels=1)
    mask.samples[:20] = 0
    whole, tiled = (restorer.restore(picture, mask=mask, tile_px=px) for px in (1000, 11))
    np.testing.assert_allclose(tiled.samples, whole.samples, rtol=0, atol=1e-6)


def test_a_black_mask_returns_the_picture_without_running_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(TorchBackend, "__call__", fail)
    picture = _picture()
    for options in ({"mask": np.zeros((40, 53), np.uint8)}, {"strength": 0}):
        assert np.array_equal(DENOISER.restore(picture, **options).samples, picture.samples)


@pytest.mark.parametrize(("white", "is_named"), [(1, True), (31, True), (32, False), (0, False)])
def test_masks_with_another_white_are_named(white: int, is_named: bool) -> None:
    mask = np.zeros((40, 53), np.uint8)
    mask[:20] = white
    if is_named:
        text = f"no sample of the mask is above {white} of 255: at most {white / 255:.1%} is restored"
        with pytest.warns(UserWarning, match=text):
            DENOISER.restore(_picture(), mask=mask)
    else:
        DENOISER.restore(_picture(), mask=mask)


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PictureError, match=r"a mask of 40 x 53 px for a picture of 53 x 40 px"):
        DENOISER.restore(_picture(), mask=np.zeros((53, 40), np.uint8))
    with pytest.raises(PictureError, match="a mosaic is restored without a mask"):
        DEVELOPER.restore(_mosaic(), mask=np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize(
    ("restorers", "message"),
    [
        ([], "a chain of 0 restorers; at least one is needed"),
        ([DENOISER, 3], r"restorers\[1\] is 3; a pellucid.Restorer is needed; pellucid.load returns one"),
        (3, "restorers is 3; a list of pellucid.Restorers is needed"),
    ],
)
def test_only_restorers_can_be_joined(restorers: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Restorer.chain(restorers)


@pytest.mark.parametrize("name", ["name_or_file", "device", "backend", "precision"])
def test_arguments_of_other_types_load_nothing(name: str) -> None:
    given: dict[str, Any] = {name: 3}
    with pytest.raises(ArgumentError, match=f"{name} is 3; "):
        load(given.pop("name_or_file", "srcnn-x2"), **given)


def test_progress_that_is_not_a_function_is_refused() -> None:
    not_a_function: Any = 3
    with pytest.raises(ArgumentError, match="progress is 3; a function is needed"):
        DENOISER.restore(_picture(), progress=not_a_function)
