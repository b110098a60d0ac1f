import ast
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid import domains
from pellucid.degradations.degradation import degrade, makes_mosaic, warnings_for
from pellucid.degradations.raw_synthesis import SyntheticRaw
from pellucid.degradations.standard import GaussianNoise
from pellucid.domains import RGB, Domain, Gray, Luma, PackedRaw
from pellucid.errors import PictureError
from pellucid.pictures.camera.packing import BAYER, XTRANS, pack_bayer, pack_xtrans
from pellucid.pictures.color import rgb_to_ycbcr
from pellucid.pictures.picture import Mosaic, Picture
from pellucid.pictures.resize import resize

OF_PICTURES: list[Domain] = [Gray(), RGB(), Luma()]
ALL: list[Domain] = [*OF_PICTURES, Luma(2), Luma(3), Luma(4), PackedRaw("bayer"), PackedRaw("xtrans")]


def picture(channels: int = 3, dtype: str = "uint8", *, height: int = 4, width: int = 5, seed: int = 0) -> Picture:
    drawn = np.random.default_rng(seed).random((height, width, channels))
    return Picture((drawn * (np.iinfo(dtype).max if dtype != "float32" else 1)).astype(dtype))


def mosaic(pattern: tuple[str, ...] = BAYER, height: int = 12, width: int = 18) -> Mosaic:
    samples = np.random.default_rng(0).integers(0, 1000, (height, width)).astype(np.uint16)
    return Mosaic(samples, pattern, 100, 1100, exposure_ratio=2.5, metadata={"exif": b"camera"})


def to_picture(domain: Domain, output: torch.Tensor, like: Picture | Mosaic) -> Picture:
    return Picture.from_tensor(domain.output_to_planes(output, domain.to_planes(like)), like.dtype)


def test_domains_state_what_they_take() -> None:
    for domain in ALL:
        degraded = mosaic(XTRANS) if domain == PackedRaw("xtrans") else mosaic(BAYER)
        assert domain.takes_mosaic == isinstance(domain, PackedRaw)
        domain.accept(degraded if domain.takes_mosaic else picture())


@pytest.mark.parametrize("domain", OF_PICTURES, ids=repr)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@given(seed=st.integers(0, 10**6), height=st.integers(1, 20), width=st.integers(1, 20))
def test_identity_network_returns_the_picture(
    domain: Domain, dtype: str, channels: int, seed: int, height: int, width: int
) -> None:
    given_picture = picture(channels, dtype, height=height, width=width, seed=seed)
    result = to_picture(domain, domain.to_input(given_picture), given_picture)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.samples, given_picture.samples)


@pytest.mark.parametrize("domain", [Luma(), RGB(), Gray()], ids=repr)
def test_every_16_bit_gray_is_kept(domain: Domain) -> None:
    gray = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    for samples in (gray, gray.repeat(3, axis=2)):
        result = to_picture(domain, domain.to_input(Picture(samples)), Picture(samples))
        np.testing.assert_array_equal(result.samples, samples)


def test_gray_domain_takes_color_plane_by_plane() -> None:
    color = picture()
    planes = Gray().to_input(color)
    assert planes.shape == (3, 1, 4, 5)
    assert torch.equal(planes[:, 0], color.to_tensor()[0])
    # A change of one plane changes the same plane of the picture.
    changed = to_picture(Gray(), planes * torch.tensor([0.0, 1.0, 0.5]).reshape(3, 1, 1, 1), color)
    assert (changed.samples[..., 0] == 0).all()
    np.testing.assert_array_equal(changed.samples[..., 1], color.samples[..., 1])
    np.testing.assert_array_equal(changed.samples[..., 2], (color.samples[..., 2] + 1) // 2)


def test_rgb_domain_takes_gray_as_three_planes_and_returns_their_mean() -> None:
    gray = picture(1)
    planes = RGB().to_input(gray)
    assert planes.shape == (1, 3, 4, 5)
    assert all(torch.equal(planes[0, i], gray.to_tensor()[0, 0]) for i in range(3))
    changed = to_picture(RGB(), torch.tensor([0.1, 0.3, 0.8]).reshape(1, 3, 1, 1).expand(1, 3, 4, 5), gray)
    assert (changed.samples == 102).all()  # (0.1 + 0.3 + 0.8) / 3 * 255
    assert changed.channels == 1


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_luma_domain_only_enlarges_chroma(scale: int) -> None:
    color = picture(dtype="float32")
    luma = torch.full((1, 1, 4 * scale, 5 * scale), 0.5)
    result = rgb_to_ycbcr(to_picture(Luma(scale), luma, color).to_tensor())
    torch.testing.assert_close(result[:, :1], luma, rtol=0, atol=1e-6)
    expected = resize(rgb_to_ycbcr(color.to_tensor()), scale)[:, 1:]
    torch.testing.assert_close(result[:, 1:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_luma_domain_takes_the_enlarged_luma(scale: int) -> None:
    color, gray = picture(dtype="float32"), picture(1)
    luma = rgb_to_ycbcr(color.to_tensor())[:, :1]
    assert torch.equal(Luma(scale).to_target(color), luma)
    assert torch.equal(Luma(scale).to_input(color), resize(luma, scale))
    assert torch.equal(Luma(scale).to_input(gray), resize(gray.to_tensor(), scale))
    assert torch.equal(Luma(scale).encode(luma), resize(luma, scale))


def test_targets_are_in_the_colors_of_the_domain() -> None:
    color, gray = picture(), picture(1)
    assert Gray().to_target(color).shape == (1, 1, 4, 5)
    assert torch.equal(Gray().to_target(gray), gray.to_tensor())
    assert torch.equal(RGB().to_target(color), color.to_tensor())
    assert torch.equal(RGB().to_target(gray), gray.to_tensor().repeat(1, 3, 1, 1))
    assert torch.equal(Luma(2).to_target(gray), gray.to_tensor())
    assert torch.equal(PackedRaw().to_target(color), color.to_tensor())
    assert [domain.colors for domain in (Gray(), RGB(), Luma(2), PackedRaw())] == ["gray", "rgb", "y", "rgb"]


@pytest.mark.parametrize("domain", [Gray(), RGB(), Luma(), Luma(3)], ids=repr)
def test_training_and_restoration_see_the_same(domain: Domain) -> None:
    """Planes of a target and a picture with these planes give the same input."""
    gray = picture(1, "float32")
    assert torch.equal(domain.to_input(gray), domain.encode(domain.to_target(gray)))


@pytest.mark.parametrize(
    ("sensor", "pattern", "pack"), [("bayer", BAYER, pack_bayer), ("xtrans", XTRANS, pack_xtrans)]
)
def test_mosaic_is_packed_amplified_and_clipped_at_white(
    sensor: str, pattern: tuple[str, ...], pack: object
) -> None:
    assert callable(pack)
    domain = PackedRaw("bayer" if sensor == "bayer" else "xtrans")
    raw = mosaic(pattern)
    linear = (raw.samples.astype(np.float32) - 100).clip(min=0) / 1000 * 2.5
    expected = pack(torch.from_numpy(linear)[None, None]).clamp(max=1)
    torch.testing.assert_close(domain.to_input(raw), expected, rtol=0, atol=1e-6)
    assert domain.to_input(raw).max() == 1
    assert domain.to_input(raw).min() == 0


@pytest.mark.parametrize(
    ("white_balance", "expected"),
    [
        ((2.0, 1.0, 1.5), [0.2, 0.1, 0.15, 0.1]),  # R, G, B, G
        ((0.5, 1.0, 2.0), [0.1, 0.2, 0.4, 0.2]),  # white stays white if the gain of red is below 1
        (None, [0.215, 0.1, 0.17, 0.1]),  # typical of daylight
    ],
)
def test_white_balanced_mosaic_is_multiplied_by_its_gains(
    white_balance: tuple[float, float, float] | None, expected: list[float]
) -> None:
    flat = Mosaic(np.full((4, 4), 150, np.uint16), BAYER, 100, 1100, 2.0, white_balance=white_balance)
    planes = PackedRaw(white_balanced=True).to_input(flat)
    assert planes[0, :, 1, 1].tolist() == pytest.approx(expected, rel=1e-5)
    assert PackedRaw().to_input(flat).unique().tolist() == pytest.approx([0.1])
    white = Mosaic(np.full((4, 4), 1100, np.uint16), BAYER, 100, 1100, white_balance=white_balance)
    assert PackedRaw(white_balanced=True).to_input(white).unique().tolist() == [1]  # no colored highlights


def test_white_balance_does_not_depend_on_the_crop() -> None:
    raw = Mosaic(
        np.random.default_rng(0).integers(100, 1100, (12, 16), np.uint16),
        BAYER,
        100,
        1100,
        white_balance=(2, 1, 1.5),
    )
    domain = PackedRaw(white_balanced=True)
    part = domain.to_input(raw.crop(slice(4, 10), slice(2, 8)))
    assert torch.equal(part, domain.to_input(raw)[..., 2:5, 1:4])


def test_developed_mosaic_is_a_16_bit_picture() -> None:
    output = torch.tensor([-0.5, 0.5, 2.0]).reshape(1, 3, 1, 1).expand(1, 3, 12, 18)
    developed = to_picture(PackedRaw(), output, mosaic())
    assert developed.dtype == "uint16"
    assert developed.samples[0, 0].tolist() == [0, 32768, 65535]


def test_rows_and_columns_that_cannot_be_packed_are_cut_off() -> None:
    accepted = PackedRaw("bayer").accept(mosaic(("GB", "RG"), 7, 9))
    assert isinstance(accepted, Mosaic)
    assert (accepted.pattern, accepted.height, accepted.width) == (BAYER, 6, 8)
    color = picture()
    assert Gray().accept(color) is color


@pytest.mark.parametrize("domain", [Gray(), RGB(), Luma(2)], ids=repr)
def test_mosaic_instead_of_a_picture_gives_one_clear_line(domain: Domain) -> None:
    for call in (
        lambda: domain.accept(mosaic()),
        lambda: domain.to_input(mosaic()),
        lambda: to_picture(domain, torch.zeros(1, 1, 12, 18), mosaic()),
    ):
        with pytest.raises(PictureError, match=r"camera mosaic.*developed pictures") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_picture_instead_of_a_mosaic_gives_one_clear_line() -> None:
    domain = PackedRaw()
    for call in (
        lambda: domain.accept(picture()),
        lambda: domain.to_input(picture()),
        lambda: to_picture(domain, torch.zeros(1, 3, 4, 5), picture()),
    ):
        with pytest.raises(PictureError, match=r"developed picture.*mosaics of camera RAW") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_mosaic_of_another_sensor_is_refused() -> None:
    with pytest.raises(PictureError, match="this recipe needs"):
        PackedRaw("bayer").accept(mosaic(XTRANS))
    with pytest.raises(PictureError, match="this recipe needs"):
        PackedRaw("xtrans").accept(mosaic(BAYER))


@pytest.mark.parametrize("domain", ALL, ids=repr)
def test_rate_is_the_ratio_of_sizes(domain: Domain) -> None:
    degraded: Picture | Mosaic = picture(height=12, width=18)
    if isinstance(domain, PackedRaw):
        degraded = mosaic(BAYER if domain.sensor == "bayer" else XTRANS)
    planes = domain.to_input(domain.accept(degraded))
    assert [Fraction(n) for n in planes.shape[-2:]] == [12 * domain.rate, 18 * domain.rate]


@pytest.mark.parametrize(
    ("domain", "halo", "expected"),
    [
        (Gray(), 17, 17),
        (RGB(), 241, 241),
        (Luma(), 20, 20),
        # 8 enlarged pixels beyond either phase: 4 pixels of the picture, and the kernel's 2.
        (Luma(2), 8, 6),
        # 107 packed pixels are 107 cells, and the rest of the pixel's own cell.
        (PackedRaw("bayer"), 107, 215),
        (PackedRaw("xtrans"), 107, 323),
        (PackedRaw("bayer"), 0, 1),
    ],
)
def test_halo_in_picture_pixels(domain: Domain, halo: int, expected: int) -> None:
    assert domain.halo_px(halo) == expected


@pytest.mark.parametrize("domain", ALL, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_colors_of_batches_are_those_of_targets(domain: Domain, channels: int) -> None:
    pictures = [picture(channels, seed=seed) for seed in (1, 2)]
    together = domain.to_colors(torch.cat([one.to_tensor() for one in pictures]))
    assert torch.equal(together, torch.cat([domain.to_target(one) for one in pictures]))


@pytest.mark.parametrize("domain", ALL, ids=repr)
def test_covered_area_is_the_part_that_accept_returns(domain: Domain) -> None:
    degraded: Picture | Mosaic = picture(height=12, width=18)
    if domain.takes_mosaic:  # in another phase, so that rows and columns are cut off on both sides
        pattern = ("GB", "RG") if domain == PackedRaw("bayer") else (*XTRANS[1:], XTRANS[0])
        degraded = mosaic(pattern, height=23, width=20)
    rows, cols = domain.covered_area(degraded)
    accepted = domain.accept(degraded)
    np.testing.assert_array_equal(degraded.samples[rows, cols], accepted.samples)
    assert (rows.start > 0) == domain.takes_mosaic


@pytest.mark.parametrize("domain", ALL, ids=repr)
def test_synthetic_inputs_have_the_planes_of_the_network(domain: Domain) -> None:
    photos = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    made = domain.synthesize(photos, None, torch.Generator().manual_seed(1))
    assert made.shape == (2, domain.num_planes, 12 * domain.rate, 12 * domain.rate)


def test_degrade_returns_what_the_restorer_takes() -> None:
    clean, generator = torch.full((1, 3, 8, 8), 0.5), torch.Generator().manual_seed(0)
    assert makes_mosaic(SyntheticRaw()) and isinstance(degrade(SyntheticRaw(), clean, generator)[0], Mosaic)
    assert not makes_mosaic(None) and not makes_mosaic(GaussianNoise(25))
    assert isinstance(degrade(GaussianNoise(25), clean, generator)[0], Picture)


def test_mosaics_unlike_those_in_training_give_warnings() -> None:
    degraded = mosaic()
    assert degraded.white_balance is None
    assert not list(PackedRaw().warnings_for(degraded))
    assert "no white balance" in next(PackedRaw(white_balanced=True).warnings_for(degraded))
    assert "trained for 50 to 300" in next(warnings_for(SyntheticRaw(), degraded))
    assert not list(warnings_for(SyntheticRaw(exposure_ratio=(1.0, 3.0)), degraded))
    assert not list(warnings_for(None, degraded))


PACKAGE = Path(domains.__file__).parent
OWNERS = [PACKAGE / "domains.py", *(PACKAGE / "degradations").glob("*.py")]


def test_no_other_module_asks_for_the_class_of_a_domain_or_degradation() -> None:
    """A new domain or degradation must work everywhere without an edit elsewhere."""
    classes = {
        node.name for path in OWNERS for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    }
    assert {"Luma", "PackedRaw", "SyntheticRaw", "Chain"} <= classes
    for path in set(PACKAGE.rglob("*.py")) - set(OWNERS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                assert not asked & classes, f"{path.name}:{node.lineno} asks for {asked & classes}"
