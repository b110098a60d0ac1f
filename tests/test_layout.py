"""The architecture as a test: import levels, one name per thing, late imports, and the public table."""

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_reference import reference
from PIL.Image import Image

import pellucid

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pellucid"
ENTRY_POINTS = {"__init__", "__main__"}  # the public table and `python -m pellucid` are above all levels

FILES = {
    path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem not in ENTRY_POINTS
}
TREES = {path: ast.parse(path.read_text()) for path in FILES}
FOLDERS = sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*/__init__.py"))


# Import levels

Level = tuple[int, int]
"""Line of the list in docs/architecture.md, and part of that line."""


def _levels() -> dict[str, Level]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    match = re.search(r"## Import levels.*?```\n(.*?)```", text, re.DOTALL)
    assert match is not None
    levels: dict[str, Level] = {}
    for row, line in enumerate(match[1].strip().splitlines()):
        folder, _, inside = line.rpartition(":")
        for part, names in enumerate(re.split(r"\s/\s", f"{inside} ")):
            for name in (f"{folder}.{name}".lstrip(".") for name in names.split()):
                assert name not in levels, f"{name} is in the list twice"
                levels[name] = (row, part)
    return levels


def _listed(module: str, known: set[str]) -> str:
    """The module, or the innermost folder around it, that is in the list; empty if there is none."""
    while module and module not in known:
        module = module.rpartition(".")[0]
    return module


def _imported_modules(source: str, known: set[str]) -> set[str]:
    """Modules of the package that a source imports, at its top or inside functions, by their names in the list."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            head, _, path = (node.module or "").partition(".")
            if head == "pellucid":
                found |= {
                    _module_of(path, alias.name, known) for alias in node.names if alias.name != "__version__"
                }
        elif isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "pellucid" for alias in node.names), "import pellucid"
    return found


def _module_of(path: str, name: str, known: set[str]) -> str:
    """The module that `from pellucid.PATH import NAME` loads."""
    module = _listed(f"{path}.{name}".lstrip("."), known)
    assert module, f"{name} is imported from pellucid.{path}, which is not a module"
    return module


def test_every_module_has_a_level() -> None:
    levels = set(_levels())
    assert {_listed(module, levels) or module for module in FILES.values()} == levels


@pytest.mark.parametrize("path", FILES, ids=FILES.get)
def test_imports_point_to_higher_levels_only(path: Path) -> None:
    levels = _levels()
    own = levels[_listed(FILES[path], set(levels))]
    wrong = {name for name in _imported_modules(path.read_text(), set(levels)) if levels[name] >= own}
    assert not wrong, f"{path.name} imports {wrong}, which are not above it in docs/architecture.md"


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("from pellucid.pictures import vips, images", {"pictures.vips", "pictures.images"}),
        ("def late():\n    from pellucid.pictures.camera.raw import read", {"pictures.camera.raw"}),
        ("from pellucid.networks import dncnn", {"networks"}),
        ("from pellucid.weights.foreign.matlab import read", {"weights.foreign"}),
        ("from pellucid.weights.foreign.reading import read", {"weights.foreign.reading"}),
        ("from pellucid import __version__, domains\nimport os", {"domains"}),
    ],
)
def test_every_form_of_import_is_found(source: str, imported: set[str]) -> None:
    assert _imported_modules(source, set(_levels())) == imported


@pytest.mark.parametrize(
    "source",
    ("from . import png", "import pellucid.recipes", "from pellucid import load", "from pellucid.x import y"),
)
def test_imports_that_hide_their_module_are_refused(source: str) -> None:
    with pytest.raises(AssertionError):
        _imported_modules(source, set(_levels()))


# Folders


def test_the_map_lists_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `([\w/]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == [folder for folder in FOLDERS if "/" not in folder or folder.startswith("pictures/")]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_a_docstring_and_reexports_nothing(folder: str) -> None:
    body = ast.parse((PACKAGE / folder / "__init__.py").read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{folder}/__init__.py contains more than a docstring"


def test_no_folder_hides_a_public_name() -> None:
    """After `import pellucid.folder.module`, `pellucid.folder` is the folder, whatever the table says."""
    top_level = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert not top_level & set(pellucid.__all__)


# One name per thing

SHARED_NAMES = {
    "adapt": "one for each kind of metadata",
    "check_format": "planning calls images",
    "check_installed": "runtimes calls optional_packages",
    "collect": "evaluate calls eval_samples",
    "decoding_cost": "images calls readers",
    "describe": "a protocol, or keywords",
    "encoding_bytes": "images calls writers",
    "find": "a file, a model or a recipe by its name",
    "load": "checkpoint.load reads the network, restorer.load makes a restorer of it",
    "own_keywords": "of a recipe or a kind of data set",
    "plan": "of files to restore, tiles, or files to decode",
    "probe_size": "one for each format that libvips does not decode",
    "read": "one for each kind of file",
    "read_metadata": "of a weight file or an exported file",
    "result_name": "images calls formats",
    "run": "mindspore calls its process",
    "summarize": "a recipe or a kind of data set",
    "translate": "weights, or layers for MindSpore",
    "write": "one for each kind of file",
}
"""Function names that several modules share, with the reason: a caller and what it calls, or different things."""


def _public_definitions(kind: type[ast.stmt]) -> dict[str, list[str]]:
    """Name -> modules that define it.

    Without commands, which are named like the functions that they call, and without files that share a level, e.g.
    networks, which define the same things for different cases.
    """
    found = defaultdict(list)
    levels = set(_levels())
    for path, tree in TREES.items():
        if path.parent.name != "commands" and FILES[path] in levels:
            for node in tree.body:
                if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                    found[node.name].append(FILES[path])  # type: ignore[attr-defined]
    return {name: [*dict.fromkeys(modules)] for name, modules in found.items()}  # overloads count once


def test_no_two_public_classes_share_a_name() -> None:
    shared = {name: modules for name, modules in _public_definitions(ast.ClassDef).items() if len(modules) > 1}
    assert not shared


def test_no_two_public_functions_share_a_name_without_reason() -> None:
    shared = {name for name, modules in _public_definitions(ast.FunctionDef).items() if len(modules) > 1}
    assert shared <= SHARED_NAMES.keys(), "rename them, or list them with a reason"
    assert SHARED_NAMES.keys() <= shared, "no longer shared: remove them from the list"


# What the ideas in docs/architecture.md rule out

KINDS = {
    node.name
    for path, tree in TREES.items()
    if path.stem == "domains" or path.parent.name == "degradations"
    for node in tree.body
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
} - {"Degradation", "Domain"}


def _tested_classes(tree: ast.AST) -> Iterator[str]:
    """Classes that a source tests for, by `isinstance` or `case Class()`."""
    for node in ast.walk(tree):
        tested: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            tested = node.args[1]
        elif isinstance(node, ast.MatchClass):
            tested = node.cls
        for name in ast.walk(tested) if tested is not None else ():
            if isinstance(name, ast.Name | ast.Attribute):
                yield name.id if isinstance(name, ast.Name) else name.attr


def test_no_other_folder_asks_which_domain_or_degradation_it_has() -> None:
    """They answer for themselves, e.g. `domain.takes_mosaic`, so that a new one needs no change elsewhere."""
    found = {
        FILES[path]: asked
        for path, tree in TREES.items()
        if path.stem != "domains" and path.parent.name != "degradations"
        if (asked := KINDS & set(_tested_classes(tree)))
    }
    assert not found


def test_tests_for_a_class_are_found() -> None:
    source = "isinstance(a, domains.Gray | Y)\nmatch a:\n    case Jpeg():\n        pass"
    assert set(_tested_classes(ast.parse(source))) >= {"Gray", "Y", "Jpeg"}


def test_forward_has_no_mode_flag() -> None:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "forward":
                annotations = [ast.unparse(arg.annotation) for arg in node.args.args[1:] if arg.annotation]
                are_tensors = set(annotations) <= {"Tensor", "Tensor | None"}
                assert are_tensors and not node.args.kwonlyargs, f"{path.name}:{node.lineno}"


RUNS_CODE = re.compile(
    r"eval|exec|pickle\.(load|loads|Unpickler)|torch\.(load|jit\.load)|(np|numpy)\.load|joblib\.load"
)
SAFE_ARGUMENT = re.compile(r"weights_only=True|\bnp\.load\((?!.*allow_pickle=True)")


def test_no_loader_runs_code_from_a_file() -> None:
    """Except for network files, which users name for that: not a single file that pellucid reads can name one.

    `clusters.local_processes` unpickles what a process and its parent, which started it, write into their pipes.
    """
    found = [
        f"{FILES[path]}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and RUNS_CODE.fullmatch(ast.unparse(node.func))
        if not SAFE_ARGUMENT.search(ast.unparse(node))
    ]
    assert {line.split(":")[0] for line in found} == {"recipes.network_files", "clusters.local_processes"}


# Late imports


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout


@pytest.mark.parametrize("heavy", ["torch", "numpy", "pyvips", "rawpy", "tifffile", "scipy", "h5py"])
def test_import_and_help_do_not_wait_for_heavy_packages(heavy: str) -> None:
    code = f"""
import sys, contextlib, io
sys.modules[{heavy!r}] = None  # importing it fails from now on
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


def test_restores_without_torchvision(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torchvision"] = None
import numpy as np, torch, pellucid
from pellucid.recipes import registry
from pellucid.weights import checkpoint
tiny = registry.find("dncnn.gaussian", depth=3, width=4)
metadata = checkpoint.WeightsMetadata(tiny.name, tiny.parameters, "random", "none")
checkpoint.save(__import__("pathlib").Path({str(tmp_path)!r}) / "tiny.safetensors", tiny.network(), metadata)
picture = pellucid.Picture(np.zeros((8, 9, 3), np.uint8))
print(pellucid.load({str(tmp_path / "tiny.safetensors")!r}).restore(picture).samples.shape)
"""
    assert _run(code).strip() == "(8, 9, 3)"


def test_unmeasured_kits_are_not_dependencies() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert not re.search(r'^\s*"(torchvision|spandrel|timm|lpips|pyiqa)', text, re.MULTILINE)


# The public table


def test_all_public_names_resolve() -> None:
    for name in pellucid.__all__:
        assert getattr(pellucid, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        getattr(pellucid, "nothing_here")  # noqa: B009  # the type checker does not know this name


def test_public_names_stay_what_they_are() -> None:
    first = {name: getattr(pellucid, name) for name in pellucid.__all__}
    assert not [name for name, value in first.items() if isinstance(value, types.ModuleType)]
    assert {name: getattr(pellucid, name) for name in pellucid.__all__} == first


def test_type_checkers_see_the_public_table() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: str(node.module).removeprefix("pellucid.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    table = {name: module for module, names in pellucid._TABLE.items() for name in names.split()}
    assert seen == table


def _named_types(annotation: object) -> Iterator[type]:
    """Classes of the package in an annotation."""
    for argument in typing.get_args(annotation):
        for part in argument if isinstance(argument, list) else [argument]:  # a list: arguments of a Callable
            yield from _named_types(part)
    if isinstance(annotation, type) and annotation.__module__.startswith("pellucid."):
        yield annotation


def _public_functions() -> Iterator[tuple[str, typing.Any]]:
    for name in pellucid.__all__:
        value = getattr(pellucid, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            members = inspect.getmembers(value, inspect.isfunction)
            yield from ((f"{name}.{key}", member) for key, member in members if not key.startswith("_"))


@pytest.mark.parametrize(("name", "function"), [pytest.param(*pair, id=pair[0]) for pair in _public_functions()])
def test_arguments_and_results_are_public(name: str, function: typing.Any) -> None:
    hints = typing.get_type_hints(function, localns={"Image": Image})  # imported late where it is used
    hidden = {
        f"{key}: {kind.__name__}"
        for key, hint in hints.items()
        for kind in _named_types(hint)
        if getattr(pellucid, kind.__name__, None) is not kind
    }
    assert not hidden


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for name in set(pellucid.__all__) - {"__version__"}:
        value = getattr(pellucid, name)
        text = inspect.getdoc(value)
        if not text or (dataclasses.is_dataclass(value) and text.startswith(f"{name}(")):
            missing.append(name)
    assert not missing


def test_the_api_reference_is_current() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == reference(), "run `make docs`"


def test_the_first_page_is_short_and_opens_with_the_table_of_models() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    headings = [line for line in lines if line.startswith("## ")]
    assert headings[0] == "## Which model for which problem"


# Language

QUAINT = re.compile(
    r"\b(anew|go(es)? on|l(ies|ying) (in|beside|there)|stands? (in|there)|beside|(?<!here )(is|are) no [a-z]+"
    r"|taken for|mend(s|ed)?|begun|shall|told (what|that)|that does\.|such as are|by itself|by themselves)\b"
)
"""Words for which texts use the usual ones: again, continues, is in, next to, is not a, fix, must."""


def _quaint(text: str) -> list[str]:
    flat = " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
    return [flat[max(0, found.start() - 40) : found.end() + 40] for found in QUAINT.finditer(flat)]


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda p: p.name,
)
def test_documents_are_in_plain_english(path: Path) -> None:
    assert _quaint(path.read_text()) == []


COMMANDS = sorted(path.stem for path in (PACKAGE / "commands").glob("*.py"))
HELPERS = {
    *("__init__", "options", "process", "standard_streams", "terminal"),
    *("restore_auto", "restore_options", "restore_status"),
}


@pytest.mark.parametrize("command", ["", *(name for name in COMMANDS if name not in HELPERS)])
def test_help_is_in_plain_english(command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pellucid", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "Usage" in result.stdout and not re.search(r"<(bool|str|path|list)|\[\[", result.stdout)
    assert _quaint(result.stdout) == []
