"""Arguments of the wrong type are errors of one line in all public functions, and nothing is written."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.errors import ArgumentError, PellucidError

P: Any = pellucid  # without types, so that calls may be wrong


@pytest.mark.parametrize(
    "call",
    [
        lambda: P.restore("a.png", "srcnn-x2", overwrite="no"),
        lambda: P.write(P.read("a.png"), "a.png", overwrite="no"),
        lambda: P.convert("a.pth", "dncnn.gaussian", "a.safetensors", overwrite=1),
        lambda: P.convert("a.pth", None, "a.safetensors"),
        lambda: P.prepare("folder", ["."], "s", overwrite="no"),
        lambda: P.prepare("folder", ["."], "s", workers=0),
        lambda: P.prepare("folder", ["."], "s", workers="x"),
        lambda: P.prepare("folder", ["."], "s", min_px=-1),
        lambda: P.prepare(None, ["."], "s"),
        lambda: P.train(P.find("dncnn.gaussian"), ".", "run", tune="no"),
        lambda: P.export("srcnn-x2", "a.onnx", whole="no"),
        lambda: P.plan("a.png", strict="no"),
        lambda: P.plan("a.png", shard="1/2"),
        lambda: P.find(None),
        lambda: P.Shard("1", "2"),
        lambda: P.Shard.parse(3),
        lambda: P.bench("srcnn-x2", megapixels="x"),
        lambda: P.read("a.png", sidecar="text"),
        lambda: P.Settings(ensemble="no"),
    ],
)
def test_wrong_types_are_one_line(
    call: Callable[[], object], album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    before = sorted((path, path.read_bytes()) for path in album.rglob("*") if path.is_file())
    with pytest.raises(ArgumentError) as error:
        call()
    assert "\n" not in str(error.value)
    assert before == sorted((path, path.read_bytes()) for path in album.rglob("*") if path.is_file())


PIXELS = np.zeros((40, 50, 3), np.uint8)
PICTURE = P.Picture.from_array(PIXELS)
SAMPLES = np.full((8, 8), 700, np.uint16)
MOSAIC = P.Mosaic(SAMPLES, ("RG", "GB"), 600.0, 9000.0)
RESTORER = P.load("srcnn-x2")
NOISE = P.IsoNoise(100, 1, 1, 1, 0, 1, 1, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: P.Restorer.of([]), "a chain of 0 restorers"),
        (lambda: RESTORER.restore(PIXELS, reserved_bytes=-1), "reserved_bytes can be a whole number of 0 or more"),
        (lambda: RESTORER.working_bytes(PICTURE, tile_px=0), "tile_px can be a whole number of 1 or more"),
        (lambda: RESTORER.restore(PIXELS, mask=np.full((40, 50), 128, np.float32)), "values from 128 to 128"),
        (lambda: P.restore(PIXELS, RESTORER, settings=P.Settings(page=2)), "page is only for files"),
        (lambda: P.restore(PIXELS, RESTORER, settings=P.Settings(compare=True)), "compare is only for files"),
        (lambda: P.restore_crop(RESTORER, PICTURE, 0, 0, 5, 5, P.Settings(crop=(0, 0, 3, 3))), "have a crop, too"),
        (lambda: P.restore_crop(RESTORER, PICTURE, -1, 0, 5, 5), "a crop of .* is not possible"),
        (lambda: P.Shard(1, 2).takes(5), "name is 5; text is needed"),
        (lambda: P.Job("a", "b"), "source is 'a'; a pathlib.Path or a URL is needed"),
        (lambda: P.Url(1, 2, 3), "a part of a URL is of type int"),
        (lambda: P.Url("s3", "b", "c").relative_to("s3://b"), "folder is 's3://b'; a pellucid.Url is needed"),
        (lambda: P.read("s3://b/x.png"), "s3://b/x.png is a URL; a file is needed"),
        (lambda: P.read("a.png", max_pixels=-1), "max_pixels can be a whole number of 1 or more"),
        (lambda: P.read("a.png", sidecar=b"rubbish"), "the sidecar is not XMP"),
        (lambda: RESTORER.restore(np.ma.masked_array(PIXELS, mask=PIXELS == 0)), "an array with masked samples"),
        (lambda: P.score(".", ".").write_json("a.png", overwrite=True), "a.png is a file, but not a report"),
        (lambda: P.Picture(None), "samples of type NoneType"),
        (lambda: P.Picture(PIXELS, metadata=5), "metadata is 5; a dictionary is needed"),
        (lambda: PICTURE.crop(3, 4), "rows is 3; a slice is needed"),
        (lambda: PICTURE.paste(PICTURE, slice(3), slice(3)), "a part of 50 x 40 px for a place of 3 x 3 px"),
        (lambda: PICTURE.paste(PIXELS, slice(3), slice(3)), "part is of type ndarray"),
        (lambda: PICTURE.empty_like(-1, 3), "height can be a whole number of 1 or more"),
        (lambda: PICTURE.map_planes(5), "change is 5; a function is needed"),
        (lambda: PICTURE.fill_hidden(-3), "reach_px can be a whole number of 0 or more"),
        (
            lambda: P.Picture.from_tensor(torch.full((1, 3, 4, 4), torch.nan), "uint8"),
            "uint8 cannot store them",
        ),
        (lambda: P.Mosaic(SAMPLES, None, 600.0, 9000.0), "pattern is None; a list of texts is needed"),
        (
            lambda: P.Mosaic(SAMPLES, ("RG", "GB"), "600", 9000.0),
            "or a list of lists of numbers is needed",
        ),
        (
            lambda: P.Mosaic(SAMPLES.astype(int), ("RG", "GB"), 600.0, 9000.0),
            "a mosaic has uint8, uint16, float32",
        ),
        (lambda: P.Mosaic(SAMPLES, ("RG", "GB"), 600.0, 9000.0, noise=0.1), "a pellucid.NoiseLevel is needed"),
        (lambda: MOSAIC.as_depth("uint8"), "a mosaic becomes uint16 or float32"),
        (lambda: MOSAIC.from_linear(torch.zeros(4, 4)), r"\(1, 1, h, w\) is needed"),
        (lambda: MOSAIC.from_linear(torch.zeros(1, 1, 4, 4), top=-1), "top can be a whole number of 0 or more"),
        (lambda: P.CameraFacts(color_matrix=(1, 2, 3)), "a color matrix of 3 numbers"),
        (lambda: replace(NOISE, gain=0), "gain can be a number above 0"),
        (lambda: P.CameraProfile("x", 0.0, 100.0, ()), "a camera profile without the noise of any ISO"),
        (lambda: P.CameraProfile("x", 100.0, 0.0, (NOISE,)), "is not below the white level"),
        (lambda: P.score(".", ".", record="a.png"), "another file, not a record of scores"),
        (
            lambda: P.Settings(exposure="a.png"),
            "a number, a pathlib.Path or 'auto' is needed",
        ),
        (
            lambda: P.train(replace(P.find("dncnn.gaussian"), num_steps=-5), ".", "run"),
            "num_steps=-5",
        ),
        (lambda: replace(P.find("dncnn.gaussian"), batch_size="x"), "batch_size is 'x'; a whole number is needed"),
        (lambda: P.export("srcnn-x2", "b.onnx", shape=(999999999, 1, 999999, 999999)), "choose a smaller shape"),
    ],
)
def test_impossible_arguments_are_one_line(
    call: Callable[[], object], message: str, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    before = sorted((path, path.read_bytes()) for path in album.rglob("*") if path.is_file())
    with pytest.raises(PellucidError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert before == sorted((path, path.read_bytes()) for path in album.rglob("*") if path.is_file())


def test_settings_apply_to_pictures_in_memory() -> None:
    """As to files; a picture that fails does not stop the others."""
    tight = P.Settings(timeout_s=1e-9, tile_px=8)
    (outcome,) = P.restore(PIXELS, RESTORER, settings=tight)
    assert "takes longer than" in str(outcome.error)
    (outcome,) = P.restore(PIXELS, RESTORER, settings=P.Settings(exposure=3))
    assert outcome.warnings == ("the exposure ratio has no effect: srcnn-x2 restores developed pictures",)


def test_warnings_point_to_the_caller() -> None:
    """Not to the decorator, where all of them would count as one."""
    with pytest.warns(UserWarning, match="white") as caught:
        RESTORER.restore(np.full((8, 8), 900, np.uint16))
    assert caught[0].filename == __file__


FUNCTIONS = [name for name in pellucid.__all__ if inspect.isfunction(getattr(pellucid, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_of_every_public_function_is_checked(name: str) -> None:
    function = getattr(pellucid, name)
    parameters = inspect.signature(function).parameters.values()
    required = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        examples = {one: EXAMPLES.get(one, "a.png") for one in required}
        if name == "convert":
            examples["recipe"] = "dncnn.gaussian"
        wrong = examples | {parameter.name: object()}
        positional = [wrong.pop(one.name) for one in parameters if one.kind is one.POSITIONAL_ONLY]
        with pytest.raises(PellucidError, match="needed|accepts") as error:
            function(*positional, **wrong)
        assert "object" in str(error.value)


CLASSES: dict[str, Any] = {
    "Picture": PICTURE,
    "Mosaic": MOSAIC,
    "Restorer": RESTORER,
    "Shard": P.Shard(1, 2),
    "CameraProfile": P.CameraProfile("x", 0.0, 100.0, (NOISE,)),
    "Validation": P.Validation("a"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_parameter_of_public_methods_is_checked(name: str) -> None:
    methods = {key: value for key, value in vars(type(CLASSES[name])).items() if not key.startswith("_")}
    checked = 0
    for key, member in methods.items():
        if not inspect.isfunction(member) and not isinstance(member, classmethod):
            continue
        method = getattr(CLASSES[name], key)
        parameters = list(inspect.signature(method).parameters.values())
        required = [one.name for one in parameters if one.default is one.empty]
        for parameter in parameters:
            with pytest.raises(PellucidError, match="needed|accepts"):
                method(**{one: object() for one in required} | {parameter.name: object()})
            checked += 1
    assert checked


EXAMPLES: dict[str, Any] = {
    "recipe": pellucid.find("dncnn.gaussian"),
    "restorer": pellucid.load("srcnn-x2"),
    "paths": ["a.png"],
    "shard": pellucid.Shard(1, 2),
    "picture": pellucid.Picture.from_array(np.zeros((8, 8), np.uint8)),
    "degraded": pellucid.Picture.from_array(np.zeros((8, 8), np.uint8)),
    "x": 0,
    "y": 0,
    "width": 8,
    "height": 8,
}
