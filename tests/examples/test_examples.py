"""Run every example, without warnings, and check its output."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULES = {"topics"}
"""What is imported by the others."""

# What a run prints, with a figure that a broken head would miss.
PROMISES = {
    "columns": r"one head: (6[5-9]|[7-9]\d)\.\d% of 160 right\nthree heads: (6[5-9]|[7-9]\d)\.\d% of 160 right\n",
    "custom_circuit": r"step 200: mean squared error 0\.00[0-4]\d\d\n",
    "few_qubits": r"31 components: 5 qubits, 219 parameters, (6[0-9]|7\d)\.\d% of 400 right\n",
    "grid_search": r"parameters, (8[5-9]|9\d)\.\d% of 369 test samples\n",
    "multiclass": r"quantum head +(7\d|8\d|9\d|100)% of 12\n",
    "qiskit_network": r"(8[5-9]|9\d)\.\d% of 143 .*\n4 samples .*\nthe gradients are the same to \de-1[2-9]\n",
    "setfit_head": r"16 sentences to learn from, (5[5-9]|[6-9]\d)% of 1\d\d right\n",
    "study": r"StudyProgress\(done=9, failed=0, .*\n",
}
# Run by tests of their own, where their extra is tested.
ELSEWHERE = {"hardware_on_aer"}


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} - MODULES - ELSEWHERE == PROMISES.keys()
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == NOTEBOOKS.keys()


@pytest.mark.parametrize("name", sorted(PROMISES))
@pytest.mark.filterwarnings("default")
@pytest.mark.filterwarnings("error:::ketfit")
def test_script_prints_the_expected_lines(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(tmp_path / "output")])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(PROMISES[name], printed), printed


# What each notebook prints, with a figure that a broken head or run would miss.
NOTEBOOKS = {
    "film_reviews": (r"parameters, (5[5-9]|[6-9]\d)% of 2\d\d right", r"same label for"),
    "pennylane_layer": (
        r"3158 parameters",
        r"(5[5-9]|[67]\d)% of 2\d\d right",
        r"same label for (8\d|9\d|100)% of the sentences",
    ),
    "hardware": (
        r"54 sentences to learn from, 29 for the QPU",
        r"30 circuits with the canary, [\d,]+ CNOTs, 15,000 shots",
        r"jobs: \{'under way': 1\} and after submitting again: \{'under way': 1\}",
        r"same label as the exact head for (2[2-9]) of 29 sentences",
    ),
}


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    for promise in NOTEBOOKS[name]:
        assert re.search(promise, printed), printed
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
