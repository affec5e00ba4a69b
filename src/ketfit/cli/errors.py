"""How a command ends: with what went wrong in one line, or, after Ctrl-C, with how to go on."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from ketfit.cli.output import echo_stderr, escape_unprintable, fail
from ketfit.errors import ConfigError, DataOptionError, KetFitError, KetFitWarning

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class CommandGroup(TyperGroup):
    """The commands, each of whose errors becomes a line on stderr and an exit code; with ``--debug``, behind its trace.

    Code 2 is wrong usage, 130 is Ctrl-C, and 1 is everything else.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        escape_unprintable()
        try:
            with _warnings_as_lines(), _log_on_stderr():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            echo_stderr("stopped; what was begun and not finished is not there")
            sys.exit(INTERRUPTED)
        except KetFitError as error:
            _trace(ctx)
            fail(error, 2 if isinstance(error, (ConfigError, DataOptionError)) else 1)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if _is_usage(error):
                raise
            _trace(ctx)
            if isinstance(error, OSError) and error.filename is not None:  # a name too long, a folder out of bounds
                echo_stderr(f"error: cannot use {error.filename}: {error.strerror}")
                sys.exit(1)
            told = " ".join(str(error).split())
            echo_stderr(
                f"error: {type(error).__name__}: {told}; nobody foresaw this: report what ketfit --debug ... prints"
            )
            sys.exit(1)


@contextmanager
def exit_on_interrupt(go_on: str) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with code 130 and with this line, which says what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        echo_stderr(f"stopped; {go_on}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Inside, each warning of KetFit's own is a line on stderr, once; those of other packages stay as they are."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", KetFitWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            """Print a warning that was not printed before."""
            if not issubclass(category, KetFitWarning):
                others(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                echo_stderr(f"warning: {message}")

        warnings.showwarning = show
        yield


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        echo_stderr(record.getMessage())


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Inside, print what KetFit logs, from INFO on, on stderr."""
    logger, handler = logging.getLogger("ketfit"), _StderrHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _trace(ctx: Any) -> None:
    if ctx.params.get("debug"):
        traceback.print_exc()


def _is_usage(error: Exception) -> bool:
    """Whether it is the command line's own complaint, which it prints itself."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")
