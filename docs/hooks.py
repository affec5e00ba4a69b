"""Insert the commands of ``ketfit`` and their options into the page on the command line; mkdocs calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

import ketfit.cli.main

MARKER = "<!-- the commands and their options -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page with the commands in the place of the marker."""
    return markdown.replace(MARKER, "\n".join(_describe(typer.main.get_command(ketfit.cli.main.app), "ketfit")))


def _describe(command: Any, name: str) -> Iterator[str]:
    """Yield the lines of a command: its help, a table of its parameters, and the same for the commands below it."""
    if hasattr(command, "commands"):
        for child in command.commands.values():
            yield from _describe(child, f"{name} {child.name}")
        return
    context = typer.Context(command, info_name=name)
    yield f"### {name}\n\n{command.help}\n"
    yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    yield "| parameter | meaning | default |\n|---|---|---|"
    for parameter in command.params:
        names = ", ".join(f"`{option}`" for option in reversed(parameter.opts))
        help_text = (parameter.help or "").replace("|", r"\|")
        default = parameter.get_default(context, call=False)
        shown = (
            "required" if parameter.required else "" if default in ("", None) or default is False else f"`{default}`"
        )
        yield f"| {names} | {help_text} | {shown} |"
    yield ""
