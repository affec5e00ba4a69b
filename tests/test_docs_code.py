"""Every code block of the README and of docs/ runs as it is written, page by page, from top to bottom.

A page's blocks share one folder and one Python session, which hold what the page's text takes for granted: files of
reviews, a trained model, arrays. What needs a provider, a browser or an hour is listed in `PARSED` and `OTHERS`: the
options of its command lines are checked all the same.
"""

from __future__ import annotations

import csv
import doctest
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import ketfit.cli.main
from ketfit import HeadConfig, TextClassifier, TrainConfig
from ketfit.base_config import read_toml
from ketfit.circuit import reuploading_circuit
from ketfit.circuit.export import to_qasm3
from ketfit.data.dataset import load_dataset
from ketfit.energy.profiles import ProcessorProfile
from ketfit.hardware.pricing import load_device
from ketfit.model.config import FitConfig
from ketfit.study.spec import StudyPlan
from tests.conftest import write_tiny_body

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"\A# (\w+\.(?:py|toml))$", re.MULTILINE)
BODY, LARGE_BODY = "all-MiniLM-L6-v2", "all-mpnet-base-v2"

# Command lines of ketfit that are parsed and not run, by a part of them, and where the work behind them is tested.
PARSED = {
    " --engine ray ": "starts a cluster; tests/faults/test_ray.py",
    "ketfit app ": "waits for a browser; tests/browser",
    "ketfit compare reviews.csv ": "trains all heads; tests/cli/test_compare.py",
    "ketfit demo ": "make demo",
    "ketfit distill my-model ": "the pages' model has the student's body; tests/cli/test_distill.py",
    "ketfit energy --measure ": "reads counters that not every machine has; tests/energy/test_meters.py",
    "ketfit fit reviews.csv -o my-model --set head.shots=1000 ": "takes minutes; tests/estimators/test_quantum.py",
    " ionq:": "asks a provider; tests/hardware/backends/test_ionq.py",
    " run-on-forte ": "asks a provider; tests/hardware/backends/test_ionq.py",
    " ibm:": "asks a provider; tests/hardware/backends/test_ibm.py",
    " run-on-torino ": "asks a provider; tests/hardware/backends/test_ibm.py",
}
# Commands that are not run: they install, take an hour, or change the user's shell.
OTHERS = ("make ", "pip install ", "accelerate launch ", "python studies/", "python examples/", "export ")
OTHERS += ("ketfit --install-completion",)

STUDY = """
name = "Small"
seeds = 2
bodies = ["all-MiniLM-L6-v2"]
train = { epochs = 2 }
[data]
source = "reviews.csv"
per_label = 8
[heads.quantum]
kind = "quantum"
settings = { n_qubits = 4, encoder_layers = 1, main_layers = 1 }
[heads."logistic regression"]
kind = "logistic-regression"
[factors]
"head.connectivity" = [1, 2]
[design]
kind = "full"
estimate = "main effects"
[report]
reference = "logistic regression"
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page; a title is the name of the file that it shows, in a comment on its first line."""

    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = [Block(language, "".join(TITLE.findall(code)), code) for language, code in BLOCK.findall(text)]
    assert len(found) == len(re.findall(r"^\s*```", text, re.MULTILINE)) / 2, f"{page.name}: a block was not understood"
    return found


def command_lines(block: Block) -> list[str]:
    """Return the commands of a block, without comments and the remarks behind three spaces."""
    if block.language not in ("", "bash", "sh"):
        return []
    lines = (re.sub(r"\s{3,}\S.*$", "", line) for line in re.sub(r"\s*\\\n\s*", " ", block.code).splitlines())
    lines = (re.sub(r"\s+#\s.*$", "", line).strip() for line in lines)
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages' text takes for granted; the bodies of the pages are tiny ones here."""
    folder = tmp_path_factory.mktemp("docs")
    dataset = load_dataset("rotten-tomatoes")
    short = [row for row in zip(dataset.texts, dataset.labels, strict=True) if len(row[0]) < 50]  # read in no time
    rows = [row for label in dataset.classes for row in [row for row in short if row[1] == label][:320]]
    parts = {"reviews": rows, "others": rows[::16], "big": rows[::4], "sst2": rows}
    for name, part in parts.items():
        for suffix, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
            with (folder / f"{name}.{suffix}").open("w", newline="", encoding="utf-8") as file:
                table = [(*row, 1 + number % 2, f"author {number // 4}") for number, row in enumerate(part)]
                csv.writer(file, dialect).writerows([("text", "label", "weight", "author"), *table])
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "shards").mkdir()
    for name in ("big.parquet", "shards/part-0.parquet"):
        parquet.write_table(pa.table({"text": [text for text, _ in rows]}), folder / name)
    for name in ("sentences.txt", "unlabelled.txt"):
        (folder / name).write_text("\n".join(text for text, _ in rows[::10]) + "\n", encoding="utf-8")
    for layers, name in enumerate((LARGE_BODY, BODY), start=1):
        (folder / name).mkdir()
        write_tiny_body(folder / name, layers=layers)
    (folder / "circuit.qasm").write_text(to_qasm3(reuploading_circuit(8, 1, 1, 1, 1)), encoding="utf-8")
    (folder / "studies").mkdir()
    (folder / "studies" / "paper").mkdir()
    for plan in (ROOT / "studies").rglob("*.toml"):
        (folder / plan.relative_to(ROOT)).write_text(STUDY, encoding="utf-8")
    head = HeadConfig(n_qubits=5, encoder_layers=1, main_layers=1)
    texts, labels = zip(*rows[::20], strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        TextClassifier(BODY, head=head, train=TrainConfig(epochs=2)).fit(texts, labels).save_pretrained("my-model")
    (folder / "build").mkdir()
    (folder / "build" / "demo-model").symlink_to(folder / "my-model")
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(prepared, tmp_path / "docs"))
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(str(copy))
    return copy


def session(page: Path) -> dict[str, Any]:
    """Return the names that a page's Python blocks take for granted."""
    dataset = load_dataset("reviews.csv")
    few = dataset.take(np.arange(0, len(dataset), 16))
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 24)).astype(np.float32), np.arange(40) % 2
    names: dict[str, Any] = {"texts": few.texts, "labels": few.labels, "X": X, "y": y}
    names["sentences"] = few.texts
    if page.stem == "hub":
        names["classifier"] = TextClassifier.from_pretrained("my-model")
    if page.stem == "wide-circuits":
        names |= {"weights": rng.normal(size=600), "inputs": rng.normal(size=100)}
    return names


def run_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command; one of ketfit's that is in `PARSED` is parsed only."""
    if line.startswith(OTHERS):
        return
    words = shlex.split(line)
    if Path(words[0]).name != "ketfit":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["bash", "-c", line], check=True, env={**os.environ, "PATH": path}, timeout=60)
        return
    if any(part in f"{line} " for part in PARSED):
        parse(words[1:])
        return
    try:
        ketfit.cli.main.main(words[1:])
    except SystemExit as stop:
        assert not stop.code, f"{line}\n{capsys.readouterr().err}"


def parse(arguments: list[str]) -> None:
    """Parse a command line as ketfit would, and do nothing.

    Raises:
        click.UsageError: it has no such command or option, or a value is not allowed.
    """
    command: Any = typer.main.get_command(ketfit.cli.main.app)
    context = command.make_context("ketfit", arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def read_settings(block: Block) -> None:
    """Read a block of TOML as what it is."""
    path = Path(block.title or "block.toml")
    path.write_text(block.code, encoding="utf-8")
    tables = read_toml(path)
    if "heads" in tables:
        StudyPlan.read(path)
    elif "price" in tables:
        load_device(path)
    elif tables.keys() <= FitConfig.model_fields.keys():
        FitConfig.from_toml(path)
    else:
        ProcessorProfile.from_toml(path)


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # by the Hub's client, of its own library
@pytest.mark.filterwarnings("default")
@pytest.mark.filterwarnings("error:::ketfit")
def test_code_of_page_runs_as_written(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = session(page)
    for block in blocks(page):
        if block.language == "python":
            if block.title:
                Path(block.title).write_text(block.code, encoding="utf-8")
            else:
                exec(compile(block.code, f"{page.name}: {block.code[:40]!r}", "exec"), names)
        elif block.language == "toml":
            read_settings(block)
        for line in command_lines(block):
            run_command(line, capsys)


def test_program_that_a_page_names_exists() -> None:
    lines = [line for page in PAGES for block in blocks(page) for line in command_lines(block)]
    programs = [line.split()[1] for line in lines if line.startswith("python ")]
    assert programs
    assert [program for program in programs if not (ROOT / program).is_file()] == []


SOURCE = ROOT / "src"
WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.name)
def test_examples_of_docstrings_run(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
