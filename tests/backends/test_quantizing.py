"""Eight bits inside, float at the ends, close to the network."""

import sys
from pathlib import Path

import pytest

import exports
from pellucid import exporting, restorer
from pellucid.backends import parity, runtimes
from pellucid.errors import MissingExtraError
from pellucid.pictures import images
from pellucid.pictures.picture import Picture

pytest.importorskip("openvino")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    chosen, _ = exports.built("dncnn.gaussian")
    for seed in range(2):
        for i, planes in enumerate(parity.made_up(chosen, 48, seed=seed)):
            picture = Picture.from_tensor(planes[None].clamp(0, 1)).as_depth("uint8")
            images.write(picture, tmp_path / "album" / f"{seed}{i}.png")
    return tmp_path / "album"


# NNCF goes on using what numpy and networkx deprecate.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_eight_bits_inside_and_float_at_the_ends(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    weights = exports.weights(tmp_path, "dncnn.gaussian")
    out = tmp_path / "a.xml"
    exported = exporting.export(weights, out, precision="int8", calibrate=album, data=album)
    assert capsys.readouterr().out == ""
    assert parity.BOUNDS_DB["int8"] < exported.agreement.psnr_db < 90
    assert exported.loss_db is not None and abs(exported.loss_db) < 0.5
    graph = out.read_text()
    assert graph.count('element_type="i8"') == 2  # the weights of both inner convolutions, of four
    chosen = restorer.load(out)
    assert (chosen.backend.name, runtimes.read_facts(out).precision) == ("openvino int8 on cpu", "int8")


def test_a_missing_package_is_named(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    weights = exports.weights(tmp_path, "dncnn.gaussian")
    with pytest.raises(MissingExtraError, match=r"pip install 'pellucid\[int8\]'"):
        exporting.export(weights, tmp_path / "a.xml", precision="int8", calibrate=album)
