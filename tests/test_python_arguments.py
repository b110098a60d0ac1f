"""Arguments of the wrong type are errors of one line in all public functions, and nothing is written."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
