"""The figures, the links and the length of the documentation."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer

import ketfit.cli.main
from ketfit.base_config import read_toml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^()\s]+)\)")


def test_figures_equal_those_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path)])
    runpy.run_path(str(DOCS / "figures.py"), run_name="__main__")
    made = sorted(tmp_path.iterdir())
    names = ["ansatz.svg", "architecture.svg", "layers.svg", "model.svg", "reuploading.svg"]
    assert [path.name for path in made] == names
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in made:
        text = path.read_text(encoding="utf-8")
        assert text == (IMAGES / path.name).read_text(encoding="utf-8"), f"{path.name}: run python docs/figures.py"
        assert f"images/{path.name})" in pages


def test_layers_figure_equals_import_contract() -> None:
    settings = read_toml(ROOT / "pyproject.toml")
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = runpy.run_path(str(DOCS / "figures.py"))["LAYERS"]
    expected = [[name.removeprefix("ketfit.") for name in layer.split(" | ")] for layer in layers]
    assert [[name for name, _ in packages] for packages in drawn] == expected
    modules = {path.stem for path in (ROOT / "src" / "ketfit").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert modules == {name for layer in expected for name in layer}


def test_ansatz_figure_equals_the_papers_gate_by_gate() -> None:
    """Check four qubits, three layers and connectivity 2 against the paper's Figure 3: 28 angles and 24 CNOTs."""
    root = ElementTree.fromstring((IMAGES / "ansatz.svg").read_text(encoding="utf-8"))
    svg = "{http://www.w3.org/2000/svg}"
    angles = {part.text for part in root.iter(f"{svg}text") if part.get("class") == "angle"}
    assert angles == {f"θ{number}" for number in range(28)}
    assert sum(part.get("class") == "dot" for part in root.iter(f"{svg}circle")) == 24


def test_readme_has_at_most_700_words() -> None:
    """Count words as ``wc -w`` does, with code and tables."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_page_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if not link.startswith(("https://", "#"))]
    assert [file for file in files if not (page.parent / file).is_file()] == []


def test_images_are_shown_and_small() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in IMAGES.iterdir():
        assert path.stat().st_size < 150_000, path.name
        assert f"images/{path.name})" in pages, path.name


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that has no subcommands, with its full name."""
    for child in getattr(command, "commands", {}).values():
        yield from commands(child, f"{name} {child.name}")
    if not hasattr(command, "commands"):
        yield name, command


def test_command_line_page_lists_every_option() -> None:
    hooks = runpy.run_path(str(DOCS / "hooks.py"))
    source = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = hooks["on_page_markdown"](source).split("\n### ")
    sections = {section.partition("\n")[0]: section for section in sections[1:]}
    found = dict(commands(typer.main.get_command(ketfit.cli.main.app), "ketfit"))
    assert sections.keys() == found.keys()
    for name, command in found.items():
        for parameter in command.params:
            assert all(f"`{option}`" in sections[name] for option in parameter.opts), (name, parameter.opts)
        overview = source.partition("## Commands and options")[0]
        assert name.split()[1] in overview
