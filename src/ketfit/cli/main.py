"""Assemble the command line ``ketfit``.

Exit code 0 means success, 1 failure, 2 wrong usage, 130 Ctrl-C. With ``--json`` a command prints one JSON object on
stdout and nothing else; progress and errors go to stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import ketfit
from ketfit.cli.app import app as web_demo
from ketfit.cli.compare import compare
from ketfit.cli.demo import demo
from ketfit.cli.distill import distill
from ketfit.cli.doctor import doctor
from ketfit.cli.draw import draw
from ketfit.cli.energy import energy
from ketfit.cli.errors import CommandGroup
from ketfit.cli.evaluate import evaluate
from ketfit.cli.fit import fit
from ketfit.cli.hardware import app as hardware_app
from ketfit.cli.inspect import inspect
from ketfit.cli.predict import predict
from ketfit.cli.study import app as study_app

app = typer.Typer(
    cls=CommandGroup,
    help="Fine-tune sentence transformers with quantum classification heads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, compare, fit, distill, evaluate, predict, inspect, draw, energy, doctor):
    app.command()(command)
app.command("app")(web_demo)
app.add_typer(study_app, name="study")
app.add_typer(hardware_app, name="hardware")


def _version(show: bool) -> None:
    if show:
        print(ketfit.__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tune sentence transformers with quantum classification heads."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point ``ketfit``."""
    app(arguments)
