"""Print the ansätze of the study ansatz.toml: parameters, native gates of the QPU's circuit on IonQ Forte, accuracy.

ketfit study run studies/ansatz.toml -o studies/results/ansatz --data sst2.tsv
ketfit study report studies/results/ansatz
python studies/ansatz.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ketfit import HeadConfig
from ketfit.circuit import Circuit
from ketfit.energy.qpu import native_gates

RESULTS = Path(__file__).parent / "results" / "ansatz"


def table(results: Path) -> str:
    """Return a Markdown table with a row for each head; intervals are for new seeds and new sentences."""
    summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    cells, comparisons = (
        {(each["body"], each["head"]): each for each in summary[name]} for name in ("cells", "comparisons")
    )
    frozen, tuned = dict.fromkeys(body for body, _ in cells)
    gates = {head: native_gates(circuit, "zz") for head, circuit in circuits(results).items()}
    lines = [
        "| head | parameters | two-qubit gates | pulses "
        "| frozen | minus logistic regression, frozen | tuned | minus logistic regression, tuned |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for body, head in cells:
        if body == frozen:
            found = [head, str(cells[body, head]["parameters"])]
            found += [str(gates[head].two_qubit), str(gates[head].one_qubit)] if head in gates else ["", ""]
            for each in (frozen, tuned):
                found += [f"{cells[each, head]['accuracy']['mean']:.2%}", _difference(comparisons.get((each, head)))]
            lines.append(f"| {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


def circuits(results: Path) -> dict[str, Circuit]:
    """Return the circuit of each quantum head that the measured qubits depend on."""
    heads = {task["id"]: task["head"] for task in json.loads((results / "study.json").read_text())["tasks"]}
    found = {}
    for line in (results / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["config"]["head"]["kind"] == "quantum":
            config = HeadConfig.from_mapping(row["config"]["head"]["settings"])
            found[heads[row["task"]]] = config.light_cone()
    return found


def _difference(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    low, mean, high = (100 * comparison["crossed"][name] for name in ("low", "difference", "high"))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    sys.stdout.write(table(RESULTS))
