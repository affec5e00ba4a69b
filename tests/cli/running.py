"""Run the command line in process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ketfit.cli.main import main

GOOD = ["a warm and funny film", "bright and tender", "a joy from start to end", "funny and wise", "great fun"]
BAD = ["a cold and empty film", "dull and long", "a bore from start to end", "slow and stale", "no fun"]
SENTENCES = [f"{text} {number}" for number in range(8) for text in (*GOOD, *BAD)]
LABELS = ["good" if text.rsplit(" ", 1)[0] in GOOD else "bad" for text in SENTENCES]
SMALL = ["--set", "head.n_qubits=6", "--set", "head.main_layers=1", "--set", "train.epochs=3"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The one JSON object that a command prints with --json."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)
