"""Every file in `formats` is a format, found by its name or by its suffix."""

import pkgutil
from pathlib import Path

import pytest

import pellucid
from pellucid.exporting import formats, registry


def test_every_file_is_a_format_of_the_same_name() -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    assert [each.name for each in registry.list_formats()] == names
    assert names == ["air", "aoti", "mindir", "onnx", "openvino", "torch"]


def test_each_suffix_has_one_default_format() -> None:
    known = registry.list_formats()
    for suffix in {each.suffix for each in known}:
        assert len([each for each in known if each.suffix == suffix and each.is_default]) == 1


@pytest.mark.parametrize(
    ("name", "out", "found"),
    [(None, "a.pt2", "torch"), ("aoti", "a.pt2", "aoti"), (None, "a.xml", "openvino"), ("onnx", "a.onnx", "onnx")],
)
def test_a_format_is_found_by_name_or_suffix(name: str | None, out: str, found: str) -> None:
    assert registry.find_format(name, Path(out)).name == found


def test_the_public_function_is_not_hidden_by_a_module() -> None:
    assert callable(pellucid.export)
    assert callable(pellucid.export)  # the first access imports its module
