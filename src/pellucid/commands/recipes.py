"""`pellucid recipes`."""

from typing import Annotated

import typer

from pellucid.commands.options import Json, NetworkFiles, OverwriteJson, add_networks, check_overwrite
from pellucid.commands.terminal import add_row, is_stdout, print_line, print_table, table, write_json


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A recipe, e.g. dncnn.gaussian: show its keywords.")
    ] = None,
    networks: NetworkFiles = None,
    json_file: Json = None,
    overwrite: OverwriteJson = False,
) -> None:
    """List the recipes, or show the keywords of one: default, possible values, meaning."""
    from pellucid.recipes import registry

    check_overwrite(overwrite, {"--json": json_file})
    add_networks(networks)
    if json_file is not None:
        write_json(json_file, _to_json(name), overwrite=overwrite)
    if is_stdout(json_file):
        return
    if name is None:
        rows = table("recipe", "description")
        for known in registry.list_names():
            add_row(rows, known, registry.summarize(known))
    else:
        own = registry.own_keywords(name)
        print_line(f"{name}: {registry.summarize(name)}")
        rows = table("keyword", "default", "values", "meaning")
        for keyword, described in own.items():
            add_row(rows, keyword, _to_text(described.default), described.values, described.meaning)
        rows.add_section()
        for keyword, described in registry.describe_training(registry.find(name)).items():
            if keyword not in own:
                default = "-" if described.default is None else _to_text(described.default)
                add_row(rows, keyword, default, described.values, described.meaning)
    print_table(rows)


def _to_json(name: str | None) -> object:
    """All recipes, or the keywords of one."""
    from pellucid.recipes import registry

    if name is None:
        return [{"name": known, "description": registry.summarize(known)} for known in registry.list_names()]
    keywords = registry.describe_training(registry.find(name)) | registry.own_keywords(name)
    described = {key: keyword._asdict() for key, keyword in keywords.items()}
    return {"name": name, "description": registry.summarize(name), "keywords": described}


def _to_text(default: object) -> str:
    """A default as it is written after KEY=."""
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
