"""The figures of the documentation are those that their command makes."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_figures_are_those_that_the_library_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path)])
    runpy.run_path(str(DOCS / "figures.py"), run_name="__main__")
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == ["ansatz.svg", "model.svg", "reuploading.svg"]
    page = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    for path in made:
        text = path.read_text(encoding="utf-8")
        assert text == (DOCS / path.name).read_text(encoding="utf-8"), f"{path.name}: run python docs/figures.py"
        assert f"]({path.name})" in page


def test_the_ansatz_is_the_papers_gate_by_gate() -> None:
    """Four qubits, three layers, connectivity 2, read off Figure 3: 28 angles and 24 CNOTs."""
    root = ElementTree.fromstring((DOCS / "ansatz.svg").read_text(encoding="utf-8"))
    svg = "{http://www.w3.org/2000/svg}"
    angles = {part.text for part in root.iter(f"{svg}text") if part.get("class") == "angle"}
    assert angles == {f"θ{number}" for number in range(28)}
    assert sum(part.get("class") == "dot" for part in root.iter(f"{svg}circle")) == 24
