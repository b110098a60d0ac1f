"""Arguments of the wrong type are errors of one line in all public functions, and nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pellucid
from pellucid.errors import ArgumentError

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
