"""Odd values of every option end with exit code 2 and a message that names the option, before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.models import OptionInfo
from typer.testing import CliRunner

from ketfit.cli.main import app
from tests.cli.running import LABELS, SENTENCES
from tests.cli.test_study import PLAN

ELSEWHERE = ("energy", "hardware")  # they have tests of their own

# What is wrong for an option that takes text or a path. A new one of these has to be added here.
ODD_TEXT = {
    "--data": ["no-such-file.csv", "FOLDER", "a b", ""],
    "--body": ["no-such-body", "FILE", ""],
    "--student": ["no-such-body", "FILE", ""],
    "--noise": ["nonsense", "no-such-file.toml"],
    "--mitigate": ["nonsense", ""],
    "--text-column": ["nonsense", "label", ""],
    "--label-column": ["nonsense", "text", ""],
    "--weight-column": ["nonsense", "text", "label", ""],
    "--group-column": ["nonsense", "text", "label", ""],
    "--split": ["train", ""],
    "--encoding": ["nonsense", "hex", "rot13", ""],
    "--delimiter": [";", ";;", '"', "\n", ""],
    "--tune": ["nonsense", "", "contrastive,", "contrastive,contrastive", "full,contrastive", "frozen,full"],
    "--set": ["nonsense", "", "=", "head=", ".x=1", "no_such=1", "head.n_qubits=many", "class_weight=heavy", "seed=-1"],
    "--config": ["no-such-file.toml", "FOLDER", "FILE"],
    "--checkpoint": ["FOLDER"],
    "--html": ["FOLDER"],
    "--study": ["FILE"],
    "--head": ["nonsense", ""],
    "--host": ["no such host", "256.0.0.1", "a..b"],
    "--address": ["auto", ""],
    "--input": ["JSON", "OTHER", "FOLDER"],
    "--plan": ["no-such-file.qasm", "FOLDER", "FILE"],
    "--memory": ["nonsense", "", "64XB", "-1GiB", "0", "nan"],
    "--bandwidth": ["nonsense", "", "10Gb/s/s", "-1GB/s", "0GB/s"],
}
ODD_OUTPUT = {"predict": ["out.xlsx", "out", "out.json"], "draw": ["picture.bmp", "picture"]}
ODD_NUMBERS = ["nonsense", "", "1.5", "nan", "1e3", "-1"]


def options(commands: typer.Typer = app, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str, Any, OptionInfo]]:
    """Every option that takes a value: its command, its name, the type of the value, and what Typer knows of it."""
    for group in commands.registered_groups:
        if group.name not in ELSEWHERE:
            assert group.typer_instance is not None
            yield from options(group.typer_instance, (*words, str(group.name)))
    for command in commands.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        if name in ELSEWHERE:
            continue
        for parameter, hint in get_type_hints(command.callback, include_extras=True).items():
            info = next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, OptionInfo)), None)
            kinds = (
                [kind for kind in get_args(hint.__origin__) or [hint.__origin__] if kind is not NoneType]
                if info
                else []
            )
            if info is not None and kinds != [bool]:
                words_of = [info.default, *(info.param_decls or ())]  # in Annotated, Typer keeps the first one there
                declared = [word for word in words_of if isinstance(word, str) and word.startswith("--")]
                option = declared[0] if declared else f"--{parameter.replace('_', '-')}"
                yield " ".join((*words, name)), option, kinds, info


def odd_values(command: str, option: str, kinds: list[Any], info: OptionInfo) -> list[str]:
    if kinds[0] in (int, float) and option not in ODD_TEXT:
        return [*ODD_NUMBERS, *([] if info.max is None else [str(int(info.max) + 1)])]
    if option == "--output":
        return ODD_OUTPUT.get(command, ["FILE"])
    if option in ODD_TEXT:
        right = ["label"] if command in ("predict", "distill") else []  # a column of text like any other
        return [value for value in ODD_TEXT[option] if value not in right]
    assert kinds[0] not in (str, Path), f"{command} {option} is new: say in ODD_TEXT which values are wrong"
    return ["nonsense", "", "CSV"]  # of a list of words


CASES = [
    pytest.param(command, option, value, id=f"{command} {option} {value!r}")
    for command, option, kinds, info in options()
    for value in odd_values(command, option, kinds, info)
]


def test_options_cover_every_command() -> None:
    found = {command for command, *_ in options()}
    assert found == {"demo", "compare", "fit", "distill", "evaluate", "predict", "draw", "app", "doctor", "study run"}
    assert len(CASES) > 200


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_body_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("options")
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(SENTENCES, LABELS, strict=True))
    (folder / "reviews.tsv").write_text(f"text\tlabel\n{rows}")
    (folder / "plan.toml").write_text(PLAN.format(body=tiny_body_folder, data=folder / "reviews.tsv"))
    (folder / "a.json").write_text('[{"text": "a"}]')
    (folder / "circuit.qasm").write_text("OPENQASM 3.0; qubit[2] q; U(1, 2, 3) q[0];")
    (folder / "a.other").write_text("text\na\n")
    (folder / "folder").mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option", "value"), CASES)
def test_option_with_wrong_value_exits_with_code_2(
    place: Path, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str, value: str
) -> None:
    monkeypatch.chdir(place)
    for name in ("ketfit.bodies.body.load_files", "ketfit.estimators.text.TextClassifier.from_pretrained"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("a body was loaded"))
    right: dict[str, list[Any]] = {
        "demo": ["--data", "reviews.tsv", "--body", tiny_body_folder, "--per-label", "4", "-o", "out"],
        "compare": ["reviews.tsv", "--body", tiny_body_folder],
        "fit": ["reviews.tsv", "--body", tiny_body_folder, "-o", "out"],
        "distill": ["no-such-model", "reviews.tsv", "-o", "out"],
        "evaluate": ["no-such-model", "reviews.tsv"],
        "predict": ["no-such-model", "--input", "reviews.tsv"],
        "draw": ["--module", "qpu"],
        "app": ["no-such-model", "--data", "reviews.tsv", "--port", "0"],
        "doctor": ["--plan", "circuit.qasm"],
        "study run": ["plan.toml", "-o", "out"],
    }
    named = {"FILE": "a.json", "FOLDER": "folder", "JSON": "a.json", "OTHER": "a.other"}
    arguments = [*command.split(), *map(str, right[command]), option, named.get(value, value)]
    if command == "draw" and option == "--encoder":
        arguments += ["--module", "encoder"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    told = " ".join(result.output.split())
    assert result.exit_code == 2, told
    assert option in told or option.removeprefix("--").replace("-", "_") in told, told
    assert "unexpected error" not in told
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["predict", "m", "a film", "--text-column", "review"], "--text-column"),
        (["predict", "m", "a film", "--format", "csv"], "--format"),
        (["predict", "m", "a film", "--encoding", "cp1252"], "--encoding"),
        (["predict", "m", "a film", "--delimiter", ";"], "--delimiter"),
        (["predict", "m", "a film", "--output", "out.csv"], "--output"),
        (["predict", "m", "--input", "lines.txt", "--text-column", "review"], "--text-column"),
        (["predict", "m", "--input", "lines.txt", "--delimiter", ";"], "delimiter"),
        (["predict", "m", "--input", "a.parquet", "--encoding", "cp1252"], "encoding"),
        (["predict", "m", "--input", "lines.txt", "--engine", "ray"], "--engine"),
        (["predict", "m", "--input", "lines.txt", "-o", "out.csv", "--address", "auto"], "--address"),
        (["predict", "m", "--input", "folder", "-o", "out", "--encoding", "cp1252"], "--encoding"),
        (["predict", "m", "--input", "folder", "-o", "out", "--format", "csv"], "--format"),
        (["draw", "--encoder", "1"], "--encoder"),
        (["doctor", "--nodes", "4"], "--nodes"),
        (["doctor", "--memory", "64GiB"], "--memory"),
        (["doctor", "--bandwidth", "10GB/s"], "--bandwidth"),
        (["app", "m", "--label-column", "stars"], "--label-column"),
        (["app", "m", "--few-shot", "3"], "--few-shot"),
        (["study", "run", "plan.toml", "-o", "out", "--engine", "ray", "--workers", "2"], "--workers"),
        (["evaluate", "m", "rotten-tomatoes", "--text-column", "review"], "text_column"),
        (["fit", "rotten-tomatoes", "-o", "out", "--weight-column", "w"], "weight_column"),
    ],
)
def test_option_without_effect_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], option: str
) -> None:
    monkeypatch.chdir(place)
    for name in ("lines.txt", "a.parquet"):
        (place / name).write_text("a film\n")
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    assert result.exit_code == 2, result.output
    assert option in result.output
