"""Options of the runs that add rows to one file. A run with other options is refused, since it would mix their rows.

Each row holds the options of its run that its key lacks. The rows of earlier versions hold none; theirs are in the
command on the first line of the table beside them.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ketfit.data.dataset import Dataset
from ketfit.errors import DataError

ParseArguments = Callable[[list[str]], argparse.Namespace]


def options_of(arguments: argparse.Namespace, dataset: Dataset, *names: str) -> dict[str, Any]:
    """Return the named options of a run, and as `data` the fingerprint of its sentences."""
    return {name: getattr(arguments, name) for name in names} | {"data": dataset.fingerprint}


def check_options(
    path: Path, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any], parse: ParseArguments
) -> None:
    """Check that rows come from runs with these options.

    Args:
        path: File of the rows; the table beside it has the suffix ``.md``.
        rows: The rows to check.
        options: Options of this run that the rows must have, see `options_of`.
        parse: Parser of the arguments of the program.

    Raises:
        DataError: A row comes from a run with another option, or its options are unknown.
    """
    earlier = {} if all("options" in row for row in rows) else _options_of_table(path, parse)
    for row in rows:
        # A table names the file of the sentences, not their fingerprint; `check_test_sizes` notices most other files.
        found = row.get("options", {**earlier, "data": options.get("data")})
        for name, value in options.items():
            if found.get(name) != value:
                theirs, ours = (_describe(name, each) for each in (found.get(name), value))
                raise DataError(f"{path} has rows of {theirs}, this run has {ours}; {_remedy(path, theirs)}")


def check_test_sizes(path: Path, sizes: Mapping[int, int], found: Iterable[tuple[int, int]]) -> None:
    """Check that each row has as many test sentences as this run has for its seed.

    Args:
        path: File of the rows.
        sizes: Number of test sentences of each seed of this run; rows of other seeds are not checked.
        found: Seed and number of test sentences of each row.

    Raises:
        DataError: A row has another number of test sentences.
    """
    for seed, size in found:
        if size != sizes.get(seed, size):
            message = f"{path} has rows of {size} test sentences for seed {seed}, this run has {sizes[seed]}"
            raise DataError(f"{message}; {_remedy(path, 'the --data of these rows')}")


def _options_of_table(path: Path, parse: ParseArguments) -> dict[str, Any]:
    """Return the options of the command on the first line of the table beside a file of rows."""
    table = path.with_suffix(".md")
    if not table.exists():
        raise DataError(f"{path} has rows without options, and {table.name} with their command is missing; restore it")
    _, command, *_ = table.read_text(encoding="utf-8").split("`")
    return vars(parse(shlex.split(command)[2:]))


def _describe(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    return f"{flag} with the fingerprint {str(value)[:12]}" if name == "data" else f"{flag} {value}"


def _remedy(path: Path, theirs: str) -> str:
    return f"give {theirs}, or move {path.name} and its table away to start anew"
