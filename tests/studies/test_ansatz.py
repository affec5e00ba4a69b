"""Test the table of the study of ansätze: the documentation has the one that the committed rows give."""

from __future__ import annotations

import json

import ansatz
import pytest

from ketfit.circuit import Circuit
from ketfit.energy.qpu import native_gates

ROOT = ansatz.RESULTS.parents[2]


@pytest.fixture(scope="module")
def circuits() -> dict[str, Circuit]:
    return ansatz.circuits(ansatz.RESULTS)


def test_table_is_that_of_the_documentation() -> None:
    assert ansatz.table(ansatz.RESULTS) in (ROOT / "docs" / "how-to" / "choose-circuit.md").read_text(encoding="utf-8")


def test_table_has_means_of_the_rows() -> None:
    tasks = {task["id"]: task for task in json.loads((ansatz.RESULTS / "study.json").read_text())["tasks"]}
    rows = map(json.loads, (ansatz.RESULTS / "rows.jsonl").read_text().splitlines())
    found = [
        row["result"]["test_accuracy"]
        for row in rows
        if (tasks[row["task"]]["head"], tasks[row["task"]]["body"]) == ("ising, 5 qubits", "all-mpnet-base-v2")
    ]
    assert len(found) == 5
    assert f"| {sum(found) / 5:.2%} |" in ansatz.table(ansatz.RESULTS)


@pytest.mark.parametrize(("head", "two_qubit"), [("hardware efficient, 10 qubits", 1), ("ising, 10 qubits", 180)])
def test_circuits_are_those_that_the_measured_qubit_depends_on(
    circuits: dict[str, Circuit], head: str, two_qubit: int
) -> None:
    # One CNOT reaches qubit 0 of the line; RZZ and RXX act on all 45 pairs in each of two layers.
    assert native_gates(circuits[head], "zz").two_qubit == two_qubit
