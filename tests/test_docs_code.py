"""Every code block of the README and of docs/ runs as it is written, page by page, from top to bottom.

A page's blocks share one folder and one Python session, which hold what the page's text takes for granted: files of
reviews, a trained model, arrays. What needs a provider, a browser or an hour is listed in `PARSED` and `OTHERS`: the
options of its command lines are checked all the same.
"""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from huggingface_hub import constants

import ketfit.cli
from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.circuit import reuploading_circuit
from ketfit.energy import profiles
from ketfit.energy.profiles import ProcessorProfile
from ketfit.hardware.cost import DeviceCost
from ketfit.learn import hub as hub_seam
from ketfit.learn.data import load_dataset
from ketfit.model.config import FitConfig
from ketfit.settings import read_toml
from ketfit.study.plan import StudyPlan
from tests.conftest import write_tiny_body
from tests.learn.conftest import online as online  # a fixture
from tests.learn.fake_hub import WritableHub

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if "hardware" not in page.name]
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BODY = "all-MiniLM-L6-v2"

# Command lines of ketfit that are parsed and not run, by how they begin, and where the work behind them is tested.
PARSED = {
    "ketfit app": "waits for a browser; tests/browser",
    "ketfit demo": "make demo",
    "ketfit energy --measure": "reads counters that not every machine has; tests/energy/test_meters.py",
    "ketfit fit reviews.csv -o my-model --set head.shots=1000": "takes minutes; tests/learn/test_measured.py",
}
# Commands that are not run: of other programs, and what would change the user's shell.
OTHERS = (
    *("make ", "pip install ", "accelerate launch ", "python studies/", "python examples/", "export "),
    "ketfit --install-completion",
)

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
    """One fenced block of a page."""

    language: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = [Block(*match) for match in BLOCK.findall(text)]
    assert len(found) == len(re.findall(r"^\s*```", text, re.MULTILINE)) / 2, f"{page.name}: a block was not understood"
    return found


def command_lines(code: str) -> Iterator[list[str]]:
    """Yield the words of each command of a block, without comments and the remarks behind three spaces."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"\s{3,}\S.*$", "", line), comments=True)
        if words:
            yield words


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages' text takes for granted; the body of the pages is a tiny one here."""
    folder = tmp_path_factory.mktemp("docs")
    dataset = load_dataset("rotten-tomatoes")
    short = [row for row in zip(dataset.texts, dataset.labels, strict=True) if len(row[0]) < 50]  # read in no time
    rows = [row for label in dataset.classes for row in [row for row in short if row[1] == label][:320]]
    parts = {"reviews": rows, "others": rows[::16], "big": rows[::4], "sst2": rows}
    for name, part in parts.items():
        for suffix, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
            with (folder / f"{name}.{suffix}").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, dialect).writerows([("text", "label"), *part])
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": [text for text, _ in rows]}), folder / "big.parquet")
    (folder / BODY).mkdir()
    write_tiny_body(folder / BODY, layers=2)
    (folder / "settings.toml").write_text("[head]\nmain_layers = 4\n", encoding="utf-8")
    shutil.copy(Path(profiles.__file__).parent / "profiles" / "laptop.toml", folder / "mine.toml")
    (folder / "studies").mkdir()
    for plan in (ROOT / "studies").glob("*.toml"):
        (folder / "studies" / plan.name).write_text(STUDY, encoding="utf-8")
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


@pytest.fixture
def hub(online: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A Hub on this machine that takes what is pushed."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_seam, "SECONDS", 5.0)
    server = WritableHub()
    online(server.url)
    yield server
    server.server.shutdown()
    server.server.server_close()


def session(page: Path, folder: Path) -> dict[str, Any]:
    """Return the names that a page's Python blocks take for granted."""
    dataset = load_dataset("reviews.csv")
    few = dataset.take(np.arange(0, len(dataset), 16))
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 24)).astype(np.float32), np.arange(40) % 2
    names: dict[str, Any] = {"texts": few.texts, "labels": few.labels, "X": X, "y": y, "folder": folder / "runs"}
    if page.name == "hub.md":
        names["classifier"] = TextClassifier.from_pretrained("my-model")
    if page.name == "energy.md":
        names["circuit"] = HeadConfig().qpu_circuit()
    if page.name == "wide-circuits.md":
        generator = torch.Generator().manual_seed(0)
        names |= {"weights": torch.randn(5000, generator=generator), "inputs": torch.randn(100, generator=generator)}
        circuit = reuploading_circuit(100, n_reuploads=1, reupload_layers=1, main_layers=3, connectivity=1)
        names["weights"] = names["weights"][: circuit.n_weights].tolist()
    if page.name == "hardware.md":
        head = QuantumHeadClassifier(HeadConfig(n_qubits=5, encoder_layers=1, main_layers=1), TrainConfig(epochs=2))
        names |= {"head": head.fit(X, y), "embeddings": X, "others": X[:9], "their_labels": y[:9]}
        names["labels"] = y
    return names


def run_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command line of ketfit, or only parse it if it is one of `PARSED`."""
    line = " ".join(words)
    if any(line.startswith(start) for start in PARSED):
        parse(words[1:])
        return
    try:
        ketfit.cli.main(words[1:])
    except SystemExit as stop:
        assert not stop.code, f"{line}\n{capsys.readouterr().err}"


def parse(arguments: list[str]) -> None:
    """Parse a command line as ketfit would, and do nothing.

    Raises:
        click.UsageError: it has no such command or option, or a value is not allowed.
    """
    command: Any = typer.main.get_command(ketfit.cli.app)
    context = command.make_context(
        "ketfit", [word for word in arguments if word != "--install-completion"] or ["doctor"]
    )
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
        DeviceCost.from_toml(path)
    elif tables.keys() <= FitConfig.model_fields.keys():
        FitConfig.from_toml(path)
    else:
        ProcessorProfile.from_toml(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # by the Hub's client, of its own library
@pytest.mark.filterwarnings("default")
@pytest.mark.filterwarnings("error:::ketfit")
def test_code_of_page_runs_as_written(
    page: Path, folder: Path, hub: WritableHub, capsys: pytest.CaptureFixture[str]
) -> None:
    names = session(page, folder)
    for block in blocks(page):
        if block.language == "python":
            if block.title:
                Path(block.title).write_text(block.code, encoding="utf-8")
            else:
                exec(compile(block.code, f"{page.name}: {block.code[:40]!r}", "exec"), names)
        elif block.language == "toml":
            read_settings(block)
        elif block.language in ("", "bash", "sh") and "─▶" not in block.code:
            for words in command_lines(block.code):
                if " ".join(words).startswith(OTHERS):
                    continue
                assert Path(words[0]).name == "ketfit", f"{page.name}: unknown command {' '.join(words)}"
                run_command(words, capsys)


def test_program_that_a_page_names_exists() -> None:
    programs = [
        words[1]
        for page in PAGES
        for block in blocks(page)
        for words in (command_lines(block.code) if block.language in ("", "bash", "sh") else ())
        if words[0] == "python"
    ]
    assert programs
    assert [program for program in programs if not (ROOT / program).is_file()] == []
