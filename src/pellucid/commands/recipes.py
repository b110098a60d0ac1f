"""`pellucid recipes`."""

from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.commands.terminal import add_row, print_table, table

if TYPE_CHECKING:
    pass


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="As dncnn.gaussian.")] = None,
) -> None:
    """List the recipes, or the keywords of one."""
    from pellucid.recipes import registry

    if name is None:
        rows = table("recipe", "what it is")
        for known in registry.list_names():
            add_row(rows, known, registry.summarize(known))
    else:
        own = registry.own_keywords(name)
        typer.echo(f"{name}: {registry.summarize(name)}")
        rows = table("keyword", "default", "values", "meaning")
        for keyword, described in own.items():
            add_row(rows, keyword, str(described.default), described.values, described.meaning)
        rows.add_section()
        for keyword, described in registry.describe_training(registry.find(name)).items():
            if keyword not in own:
                value = "-" if described.default is None else str(described.default)
                add_row(rows, keyword, value, described.values, described.meaning)
    print_table(rows)
