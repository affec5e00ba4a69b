"""Turn errors, warnings, log messages and Ctrl-C into lines on stderr and exit codes."""

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
    """A group of commands whose errors become one line on stderr; with ``--debug`` the traceback comes first.

    The exit code is 2 for wrong usage, 130 for Ctrl-C and 1 for everything else.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context."""
        escape_unprintable()
        try:
            with _warnings_as_lines(), _log_on_stderr():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            echo_stderr("interrupted; partial output was discarded")
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
            if isinstance(error, OSError) and error.filename is not None:
                echo_stderr(f"error: cannot use {error.filename}: {error.strerror}")
                sys.exit(1)
            message = " ".join(str(error).split())
            echo_stderr(
                f"error: {type(error).__name__}: {message}; unexpected error: "
                "rerun with ketfit --debug and report the traceback"
            )
            sys.exit(1)


@contextmanager
def exit_on_interrupt(message: str) -> Iterator[None]:
    """Exit with code 130 on Ctrl-C in the block, and print what is kept and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        echo_stderr(f"interrupted; {message}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print each warning of KetFit once as a line on stderr; leave those of other packages unchanged."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", KetFitWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            """Print a new warning."""
            if not issubclass(category, KetFitWarning):
                others(message, category, *place, **more)
            elif str(message) not in shown:
                shown.add(str(message))
                echo_stderr(f"warning: {message}")

        warnings.showwarning = show
        yield


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        echo_stderr(record.getMessage())


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Print the log messages of KetFit from INFO on stderr."""
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
    """Return whether Click raised the error and prints it."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")
