"""Print the API reference: signature and docstring of every public name, as Markdown for docs/api.md.

    python tools/api_reference.py > docs/api.md

`make docs` runs this, and a test compares the result with docs/api.md.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pellucid

SECTIONS = {
    "Restore": "load restore iter_restore restore_crop plan Restorer Settings Job Plan Shard Outcome Position Url",
    "Pictures": "read write Picture Mosaic Exposure NoiseLevel CameraFacts",
    "Score": "evaluate score Report Score",
    "Models and recipes": "list_models NamedModel convert WeightsMetadata find Recipe add_network NetworkFile",
    "Train": "prepare Prepared prepare_shard PreparedShard train Validation Status Stopped "
    "calibrate Calibration CameraProfile IsoNoise",
    "Deploy": "export Exported bench Timing",
    "Errors": "PellucidError ArgumentError PictureError RecipeError StorageError WeightsError DataError "
    "OutputError NotEnoughMemoryError MissingExtraError",
}

HEAD = """# API reference

Everything that `import pellucid` provides. Written by `make docs` from the docstrings; edit those.
Also public are the names that [degradations.md](degradations.md) imports from `pellucid.degradations`. All
other names can change in any release.
"""


def reference() -> str:
    """The whole page."""
    listed = [name for names in SECTIONS.values() for name in names.split()]
    public = set(pellucid.__all__) - {"__version__"}
    if sorted(listed) != sorted(public):
        raise SystemExit(f"SECTIONS does not list each public name once: {sorted({*listed} ^ public)}")
    parts = [HEAD, " · ".join(f"[{title}](#{_anchor(title)})" for title in SECTIONS)]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}")
        for name in names.split():
            parts += [f"### {name}", *_describe(name, getattr(pellucid, name))]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _describe(name: str, value: Any) -> Iterator[str]:
    node = _parse(value)
    module = sys.modules[value.__module__]
    if isinstance(node, ast.FunctionDef):
        yield _code(_signature(f"pellucid.{name}", node))
        yield _markdown(value, [arg.arg for arg in _arguments(node)])
        yield from _explain_aliases(node, module)
        return
    assert isinstance(node, ast.ClassDef)
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    names = [ast.unparse(field.target) for field in fields]
    bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
    is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    yield _code(
        _join(f"class pellucid.{name}", map(ast.unparse, fields))
        if is_dataclass
        else f"class pellucid.{name}{bases}"
    )
    init = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
    yield _markdown(value, names + [arg.arg for function in init for arg in _arguments(function)])
    attributes = [f"- `{key}`: {text}" for key, text in _documented_attributes(node)]
    if attributes:
        yield "\n".join(attributes)
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_") and not _is_overload(child):
            yield from _describe_member(name, value, child)
            yield from _explain_aliases(child, module)


def _describe_member(owner: str, value: Any, node: ast.FunctionDef) -> Iterator[str]:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    member = inspect.getattr_static(value, node.name)
    if decorators & {"property", "cached_property"}:
        text = _code(f"{owner}.{node.name}: {ast.unparse(node.returns)}" if node.returns else node.name)
    else:
        text = _code(_signature(f"{owner}.{node.name}", node, skip_first="staticmethod" not in decorators))
    docstring = _markdown(member, [arg.arg for arg in _arguments(node)])
    yield f"{text}\n\n{docstring}" if docstring else text


def _is_overload(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)


def _explain_aliases(node: ast.FunctionDef, module: ModuleType) -> Iterator[str]:
    """Definitions of the short names of types in a signature."""
    annotations = [arg.annotation for arg in _arguments(node)] + [node.returns]
    lines: dict[str, str] = {}
    waiting = [(part, module) for part in annotations if part is not None]
    while waiting:
        annotation, where = waiting.pop(0)
        for name in [part.id for part in ast.walk(annotation) if isinstance(part, ast.Name)]:
            alias = _find_alias(name, where)
            if alias is not None and name not in lines:
                definition, text, home = alias
                lines[name] = f"- `{name}` is `{ast.unparse(definition)}`" + (f". {text}" if text else "")
                waiting.append((definition, home))
    if lines:
        yield "\n".join(lines.values())


def _find_alias(name: str, module: ModuleType) -> tuple[ast.expr, str, ModuleType] | None:
    """Definition, docstring and module of a type alias that a module of the package defines or imports."""
    body = ast.parse(inspect.getsource(module)).body
    for i, node in enumerate(body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value, _string_at(body, i + 1), module
        if (
            isinstance(node, ast.ImportFrom)
            and str(node.module).startswith("pellucid.")
            and name in [alias.asname or alias.name for alias in node.names]
        ):
            return _find_alias(name, import_module(str(node.module)))
    return None


def _string_at(body: list[ast.stmt], i: int) -> str:
    """The text of a statement that is only a string, i.e. the docstring of what is above it."""
    node = body[i] if i < len(body) else None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return inspect.cleandoc(str(node.value.value)).replace("\n", " ")
    return ""


def _parse(value: Any) -> ast.stmt:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _arguments(node: ast.FunctionDef) -> list[ast.arg]:
    extra = [arg for arg in (node.args.vararg, node.args.kwarg) if arg is not None]
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, *extra]


def _signature(name: str, node: ast.FunctionDef, *, skip_first: bool = False) -> str:
    """The signature as the source spells its types. skip_first: without self or cls."""
    arguments = list(_unparse_arguments(node.args))[1 if skip_first else 0 :]
    return _join(name, arguments) + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def _unparse_arguments(arguments: ast.arguments) -> Iterator[str]:
    by_position = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(by_position) - len(arguments.defaults)) + [*arguments.defaults]
    for i, (argument, default) in enumerate(zip(by_position, defaults, strict=True), start=1):
        yield _unparse_argument(argument, default)
        if i == len(arguments.posonlyargs):
            yield "/"
    if arguments.vararg or arguments.kwonlyargs:
        yield "*" if arguments.vararg is None else f"*{ast.unparse(arguments.vararg)}"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _unparse_argument(argument, default)
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _unparse_argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def _join(name: str, arguments: Iterable[str]) -> str:
    arguments = list(arguments)
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def _documented_attributes(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Attributes with a string below them, in the class or in its __init__."""
    bodies = [node.body]
    bodies += [
        child.body for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"
    ]
    for body in bodies:
        for i, statement in enumerate(body):
            text = _string_at(body, i + 1)
            if text and isinstance(statement, ast.AnnAssign):
                yield ast.unparse(statement.target), text
            elif text and isinstance(statement, ast.Assign):
                yield ast.unparse(statement.targets[0]).removeprefix("self."), text


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _markdown(value: Any, parameters: list[str]) -> str:
    """A docstring with a bullet for each parameter, explained as `name: text` at the start of a sentence."""
    names = "|".join(parameters)
    docstring = re.sub(rf"(?<=\.) (?=({names}): )", "\n", inspect.getdoc(value) or "")
    lines: list[str] = []
    in_bullet = False
    for line in docstring.splitlines():
        head = re.match(r"(\w+(?:, \w+)*): ", line)
        if head and set(head[1].split(", ")) & set(parameters):
            if lines and lines[-1] and not in_bullet:
                lines.append("")
            lines.append(f"- `{head[1]}`: {line[head.end() :]}")
            in_bullet = True
        elif in_bullet and line and (line.startswith(" ") or not line[0].isupper()):
            lines.append(f"  {line.strip()}")
        else:
            if in_bullet and line:
                lines.append("")
            in_bullet = False
            lines.append(line)
    return "\n".join(lines).strip()


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


if __name__ == "__main__":
    sys.stdout.write(reference())
