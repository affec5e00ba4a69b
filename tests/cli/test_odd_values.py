"""Odd values of every option of ``ketfit hardware`` and ``ketfit energy`` end in an error that names the option."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ketfit.cli.main import app
from tests.cli.running import LABELS, SENTENCES, run

ODD = ("inf", "-inf", "nan", "-1", "0", "0.5", "1e400", "9" * 40, "9" * 5000, "", "a", "[1]", "true")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield path, command


OPTIONS = [
    (path, option.opts[0])
    for path, command in commands(typer.main.get_command(app))
    if path[0] in ("hardware", "energy")
    for option in command.params
    if option.opts[0].startswith("-") and not getattr(option, "is_flag", False) and option.name != "help"
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_body_folder: Path) -> Path:
    """A folder with a model, data and a run."""
    from ketfit import HeadConfig, TextClassifier, TrainConfig

    folder = tmp_path_factory.mktemp("odd")
    head = HeadConfig(n_qubits=4, main_layers=1, encoder_layers=1)
    TextClassifier(str(tiny_body_folder), head, TrainConfig(epochs=1)).fit(SENTENCES, LABELS).save_pretrained(
        folder / "model"
    )
    rows = [f"{text}\t{label}" for text, label in zip(SENTENCES, LABELS, strict=True)]
    (folder / "data.tsv").write_text("\n".join(["text\tlabel", *rows, ""]), encoding="utf-8")
    return folder


ARGUMENTS = {
    "plan": ("model", "data.tsv", "-o", "out", "--first", 1),
    "check": ("simulator",),
    "energy": ("--against", "laptop"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_option_with_odd_value_is_refused_by_name_or_accepted(
    capsys: pytest.CaptureFixture[str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str, ...],
    option: str,
) -> None:
    monkeypatch.chdir(place)
    if path[-1] in ("submit", "status", "fetch", "cancel") and not Path("run").exists():
        assert run(capsys, "hardware", "plan", "model", "data.tsv", "-o", "run", "--first", 1)[0] == 0
        assert run(capsys, "hardware", "submit", "run")[0] == 0
    for value in ODD:
        code, out, err = run(capsys, *path, *ARGUMENTS.get(path[-1], ("run",)), option, value, "--json")
        shutil.rmtree("out", ignore_errors=True)
        told = f"{option} {value[:50]!r} ended with {code}: {out[-200:]} {err[-300:]}"
        assert code in (0, 1, 2) and "unexpected error" not in err, told
        if code:
            named = option.strip("-").replace("-", "_") in err.replace("-", "_")
            assert named or (option == "--output" and value in out + err), told
        else:
            assert not {"Infinity", "NaN"} & set(re.findall(r"\w+", out)), told
            json.loads(out)


@pytest.mark.parametrize("command", ["submit", "status", "fetch", "cancel", "check"])
@pytest.mark.parametrize("value", ["", "nowhere", "9" * 5000, "inf"])
def test_hardware_odd_run_or_backend_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "hardware", command, value)
    assert code == (2 if command == "check" or not value else 1) and "unexpected error" not in err
    assert ("is empty" in err or "unknown backend ''" in err) if not value else value in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [("a=1", "a=2"), ("a",), ("=1",), ("max_circuits=inf",), ("nothing=1",), ("seed=1",)])
def test_hardware_odd_backend_option_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], given: tuple[str, ...]
) -> None:
    options = [word for option in given for word in ("--option", option)]
    code, _, err = run(capsys, "hardware", "check", "simulator", *options)
    assert code == 2
    assert given[0].partition("=")[0] in err
