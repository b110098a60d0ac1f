"""The architecture as a test: imports point upwards only, and heavy things are loaded late."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pellucid"
DOORS = {"__init__", "__main__"}  # the public table and the module entry stand above all floors


Floor = tuple[int, int]
"""Which line of the list, and which part of it: rooms have floors of their own."""


def _floors() -> dict[str, Floor]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    match = re.search(r"## Import floors.*?```\n(.*?)```", text, re.DOTALL)
    assert match is not None
    floors: dict[str, Floor] = {}
    for row, line in enumerate(match[1].strip().splitlines()):
        room, _, inside = line.rpartition(":")
        for part, names in enumerate(inside.split("/")):
            for name in (f"{room}.{name}".lstrip(".") for name in names.split()):
                assert name not in floors, f"{name} stands there twice"
                floors[name] = (row, part)
    return floors


def _name(path: Path) -> str:
    """pictures/png.py -> pictures.png; networks/dncnn.py -> networks, which the list has for all its files."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return _nearest(name, set(_floors())) or name


def _nearest(name: str, known: set[str]) -> str:
    """The module, or the innermost folder around it, that is in the list; empty if there is none."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def _imported(source: str, known: set[str]) -> set[str]:
    """Modules of the package that a source imports, anywhere in it, as they stand among the floors."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import without its whole name"
            head, _, path = (node.module or "").partition(".")
            if head == "pellucid":
                found |= {_home(path, alias.name, known) for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "pellucid" for alias in node.names), "all of pellucid"
    return found


def _home(path: str, name: str, known: set[str]) -> str:
    """The module that `from pellucid.PATH import NAME` loads."""
    module = _nearest(f"{path}.{name}".lstrip("."), known)
    assert module, f"{name} is imported from pellucid.{path}, which is not a module"
    return module


FILES = {path: _name(path) for path in sorted(PACKAGE.rglob("*.py")) if path.stem not in DOORS}


def test_every_module_has_a_floor() -> None:
    assert set(FILES.values()) == set(_floors())


@pytest.mark.parametrize("path", FILES, ids=FILES.get)
def test_imports_point_to_higher_floors_only(path: Path) -> None:
    floors = _floors()
    mine = floors[FILES[path]]
    wrong = {name for name in _imported(path.read_text(), set(floors)) if floors[name] >= mine}
    assert not wrong, f"{path.name} imports {wrong}, which do not stand above it"


@pytest.mark.parametrize(
    ("source", "loads"),
    [
        ("from pellucid.pictures import png, raw", {"pictures.png", "pictures.raw"}),
        ("def late():\n    from pellucid.pictures.raw import read", {"pictures.raw"}),
        ("from pellucid.networks import dncnn", {"networks"}),
        ("from pellucid.weights.foreign.matlab import read", {"weights.foreign"}),
        ("from pellucid.weights.foreign.reading import read", {"weights.foreign.reading"}),
        ("from pellucid import __version__, domains\nimport os", {"domains"}),
    ],
)
def test_imports_are_seen(source: str, loads: set[str]) -> None:
    assert _imported(source, set(_floors())) == loads


@pytest.mark.parametrize(
    "source",
    ("from . import png", "import pellucid.recipes", "from pellucid import load", "from pellucid.x import y"),
)
def test_imports_that_would_not_be_seen_are_refused(source: str) -> None:
    with pytest.raises(AssertionError):
        _imported(source, set(_floors()))


def test_rooms_say_what_they_are_and_no_more() -> None:
    for path in PACKAGE.glob("*/**/__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{path.parent.name} hands things on"


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout


@pytest.mark.parametrize("heavy", ["torch", "numpy", "pyvips", "rawpy", "tifffile", "scipy", "h5py"])
def test_import_and_help_do_not_wait_for_heavy_packages(heavy: str) -> None:
    code = f"""
import sys, contextlib, io
sys.modules[{heavy!r}] = None  # importing it now fails
import pellucid
assert "restore" in dir(pellucid)
from pellucid.cli import app
COMMANDS = ("restore", "prepare", "train", "evaluate")
for arguments in (["--help"], *([command, "--help"] for command in COMMANDS), ["--version"]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app(arguments, standalone_mode=False)
    assert out.getvalue()
"""
    _run(code)


def test_restores_with_torchvision_blocked(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torchvision"] = None
import numpy as np, torch, pellucid
from pellucid.recipes import registry
from pellucid.weights import checkpoint
tiny = registry.find("dncnn.gaussian", depth=3, width=4)
card = checkpoint.WeightsMetadata(tiny.name, tiny.parameters, "random", "none")
checkpoint.save(__import__("pathlib").Path({str(tmp_path)!r}) / "tiny.safetensors", tiny.network(), card)
picture = pellucid.Picture(np.zeros((8, 9, 3), np.uint8))
print(pellucid.load({str(tmp_path / "tiny.safetensors")!r}).restore(picture).samples.shape)
"""
    assert _run(code).strip() == "(8, 9, 3)"


def test_all_public_names_resolve() -> None:
    import pellucid

    for name in pellucid.__all__:
        assert getattr(pellucid, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        getattr(pellucid, "nothing_here")  # noqa: B009  # a name the type checker need not know


def test_unmeasured_kits_are_no_dependencies() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r'^\s*"(torchvision|spandrel|timm|lpips|pyiqa)', text, re.MULTILINE)
