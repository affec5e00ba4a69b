"""Test that runs with other options do not add to the rows of a file, and that committed rows are found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import heads
import numpy as np
import pytest
import qpu_head
import regularization
import run_options
import tuning_recipe

from ketfit.errors import DataError

OPTIONS = {
    qpu_head: ("body", "per_label", "test", "aer"),
    heads: ("body", "per_label"),
    regularization: ("body", "per_label", "score"),
    tuning_recipe: ("sentences",),
}
REVIEWS = ["--data", "customer_reviews.tsv", "--data", "trec.tsv"]
COMMITTED = [
    (qpu_head, "rotten-tomatoes", [], 10),
    (qpu_head, "sst2", ["--data", "sst2.tsv", "--body", "all-mpnet-base-v2"], 10),
    (heads, "sst2", ["--data", "sst2.tsv"], 260),
    (heads, "trec", ["--data", "trec.tsv", "--per-label", "64", "--seeds", "3"], 48),
    (
        regularization,
        "customer_reviews-all-MiniLM-L6-v2-validation",
        ["--data", "customer_reviews.tsv", "--body", "all-MiniLM-L6-v2", "--draws", "4", "--score", "validation"],
        36,
    ),
    (regularization, "sst2-all-mpnet-base-v2-test", ["--data", "sst2.tsv", "--first-draw", "10"], 45),
    (tuning_recipe, "contrastive", REVIEWS, 58),
    (tuning_recipe, "few-sentences", [*REVIEWS, "--stage", "few-sentences"], 94),
    (tuning_recipe, "end-to-end", [*REVIEWS, "--stage", "end-to-end"], 20),
]
OTHER = {"body": "another", "per_label": 32, "test": 5, "aer": 3, "score": "other", "sentences": 100}


@pytest.mark.parametrize(("program", "name", "arguments", "count"), COMMITTED)
def test_check_options_accepts_committed_rows_with_their_command_only(
    program: ModuleType, name: str, arguments: list[str], count: int
) -> None:
    path = program.RESULTS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    options = {each: getattr(program.parse(arguments), each) for each in OPTIONS[program]} | {"data": "0" * 64}
    assert len(rows) == count
    run_options.check_options(path, rows, options, program.parse)
    for each in OPTIONS[program]:
        flag = f"--{each.replace('_', '-')}"
        with pytest.raises(DataError, match=f"has rows of {flag} {options[each]}, this run has {flag} {OTHER[each]}; "):
            run_options.check_options(path, rows, options | {each: OTHER[each]}, program.parse)


def row_of_qpu_head(name: str, parts: Any, seed: int, aer: int) -> dict[str, Any]:
    return {"head": name, "seed": seed, "test_size": len(parts[2].y), "seconds": 0.0}


def row_of_heads(name: str, variant: Any, parts: Any, seed: int) -> dict[str, Any]:
    return {"variant": name, "seed": seed, "test_size": len(parts.test[1]), "test_accuracy": 0.5, "seconds": 0.0}


def row_of_regularization(name: str, split: Any, x: Any, y: Any, seed: int, score: str) -> dict[str, Any]:
    size = len(regularization.scored_sentences(split, score))
    return {"way": name, "draw": seed, "size": size, "accuracy": 0.5, "seconds": 0.0}


def row_of_tuning_recipe(body: Any, draw: Any, stage: str, recipe: str) -> dict[str, Any]:
    sizes = {"per_label": draw.per_label, "train_size": len(draw.train[0])}
    return {"data": draw.data, "body": body.name, "recipe": recipe, "draw": draw.number, **sizes}


ROWS = {
    qpu_head: row_of_qpu_head,
    heads: row_of_heads,
    regularization: row_of_regularization,
    tuning_recipe: row_of_tuning_recipe,
}


@dataclass
class Program:
    """A program whose rows need no training, with the arguments of a run on few sentences."""

    module: ModuleType
    folder: Path
    arguments: list[str]
    calls: list[Any]

    def run(self, *more: str) -> int:
        """Run it and return the number of rows made."""
        before = len(self.calls)
        self.module.main([*self.arguments, *more])
        return len(self.calls) - before

    @property
    def rows(self) -> Path:
        (path,) = self.folder.glob("*.jsonl")
        return path


def write_sentences(path: Path, word: str) -> None:
    lines = [f"{word} {number}\t{'good' if number % 2 else 'bad'}" for number in range(160)]
    path.write_text("\n".join(["text\tlabel", *lines, ""]), encoding="utf-8")


@pytest.fixture(params=OPTIONS, ids=lambda module: module.__name__)
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    module, calls = request.param, []
    body = SimpleNamespace(name="body", encode=lambda texts, **_: np.zeros((len(texts), 4), np.float32))

    def run(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        return ROWS[module](*arguments)

    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "load_body", lambda *_, **__: body)
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "table", lambda *arguments: f"Made by `{arguments[-1]}`: rows.\n")
    write_sentences(tmp_path / "few.tsv", "review")
    size = ["--sentences", "40"] if module is tuning_recipe else ["--per-label", "20"]
    return Program(module, tmp_path / "results", ["--data", str(tmp_path / "few.tsv"), *size], calls)


CHANGES = {
    qpu_head: (["--body", "other"], ["--per-label", "30"], ["--test", "50"], ["--aer", "3"]),
    heads: (["--body", "other"], ["--per-label", "30"]),
    regularization: (["--per-label", "30"],),
    tuning_recipe: (["--sentences", "60"],),
}


@pytest.mark.parametrize("with_options", [True, False], ids=["rows with options", "rows of earlier versions"])
def test_main_refuses_other_options_and_resumes_with_the_same(program: Program, with_options: bool) -> None:
    assert program.run() > 0 and program.run() == 0
    if not with_options:
        rows = [json.loads(line) for line in program.rows.read_text().splitlines()]
        bare = [{key: value for key, value in row.items() if key != "options"} for row in rows]
        program.rows.write_text("".join(f"{json.dumps(row)}\n" for row in bare))
        assert program.run() == 0
    content = program.rows.read_bytes()
    for flag, value in CHANGES[program.module]:
        with pytest.raises(DataError, match=rf"has rows of {flag} \S+, this run has {flag} {value}; give {flag}"):
            program.run(flag, value)
    assert program.rows.read_bytes() == content


def test_main_refuses_another_file_of_the_same_name(program: Program, tmp_path: Path) -> None:
    program.run()
    write_sentences(tmp_path / "few.tsv", "film")
    with pytest.raises(DataError, match="has rows of --data with the fingerprint [0-9a-f]{12}, this run has"):
        program.run()


def test_main_adds_rows_of_other_sentences_where_they_are_part_of_the_key(program: Program, tmp_path: Path) -> None:
    write_sentences(tmp_path / "more.tsv", "film")
    more = ["--data", str(tmp_path / "more.tsv")]
    made = program.run()
    if program.module is tuning_recipe:
        with pytest.raises(DataError, match="has rows of --sentences 40, this run has --sentences 60"):
            tuning_recipe.main([*more, "--sentences", "60"])
        assert program.run(*more) == made, "the rows of the first data set are found"
    else:
        assert program.run(*more) == made
        assert len(list(program.folder.glob("*.jsonl"))) == 2, "a file of its own"


def test_main_rows_without_options_and_table_are_refused(program: Program) -> None:
    program.run()
    rows = [json.loads(line) for line in program.rows.read_text().splitlines()]
    for row in rows:
        del row["options"]
    program.rows.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    program.rows.with_suffix(".md").unlink()
    with pytest.raises(DataError, match="has rows without options, and .* with their command is missing; restore it"):
        program.run()


@pytest.mark.parametrize("seed", [0, 1])
def test_check_test_sizes_other_size_raises(tmp_path: Path, seed: int) -> None:
    path, sizes = tmp_path / "trec.jsonl", {0: 5068, 1: 5068}
    run_options.check_test_sizes(path, sizes, [(0, 5068), (1, 5068), (2, 5551)])
    with pytest.raises(DataError, match=f"rows of 5551 test sentences for seed {seed}, this run has 5068; give the "):
        run_options.check_test_sizes(path, sizes, [(seed, 5551)])


def test_tuning_recipe_two_files_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parse: Callable[[list[str]], argparse.Namespace] = tuning_recipe.parse
    with pytest.raises(SystemExit):
        parse(["--data", "a/trec.tsv", "--data", "b/trec.tsv"])
    assert "two files of --data have the same name: a/trec.tsv, b/trec.tsv; rename one" in capsys.readouterr().err
