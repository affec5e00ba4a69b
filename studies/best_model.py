"""Enumerate the heads with the size of the paper's best one, and write the plan that trains the likely ones.

    python studies/best_model.py

The paper reports 14 qubits, several encoders and 886 parameters, and neither depth nor connectivity. Writes
``studies/paper/best_model.toml``, and ``candidates.md`` into ``studies/results/paper/best_model/``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ketfit import HeadConfig
from ketfit.circuit.ansatz import count_ring_weights
from ketfit.storage.atomic import write_file
from ketfit.study.report.render import to_toml

HERE = Path(__file__).parent
PLAN = HERE / "paper" / "best_model.toml"
TABLE = HERE / "results" / "paper" / "best_model" / "candidates.md"

QUBITS, PARAMETERS, DIMENSION, CLASSES = 14, 886, 768, 2
LAYERS, CONNECTIVITIES, REUPLOADS = range(1, 9), range(1, 6), range(1, 5)
"""The ranges of the scans: M and R, C, N."""

LITERAL = "column of RY"
READINGS = (LITERAL, "no column of RY", "one layer more")
"""Readings of L layers of the ansatz in the paper's Figures 2 and 3: Q(CL + 1), QCL and Q(C(L + 1) + 1) angles."""

MAX_AVERAGED = 4
"""Encoders of 14 qubits whose outputs are averaged."""


@dataclass(frozen=True)
class Candidate:
    """One head: its settings in the paper's symbols, and its number of trained parameters."""

    merge: str
    n_encoders: int
    n_qubits: int
    connectivity: int
    encoder_layers: int
    main_layers: int
    untied: int
    reading: str
    skip_connection: bool
    parameters: int

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `HeadConfig` that differ from the paper's defaults.

        Encoders of 7 qubits hold the first 128 principal components, because 768 numbers need 10 qubits.
        """
        more = int(self.reading == READINGS[2])
        settings: dict[str, Any] = {
            "n_qubits": self.n_qubits,
            "n_encoders": self.n_encoders,
            "connectivity": self.connectivity,
            "encoder_layers": self.encoder_layers + more,
            "main_layers": self.main_layers + more,
        }
        if 2**self.n_qubits < DIMENSION:
            settings["components"] = 2**self.n_qubits
        changes = {
            "merge": (self.merge, "concat"),
            "reupload_layers": (1 + more, 1),
            "rotation_wall": (self.reading != READINGS[1], True),
            "skip_connection": (self.skip_connection, False),
            "n_reuploads": (self.untied, 1),
            "tie_reuploads": (self.untied == 1, True),
        }
        return settings | {name: value for name, (value, default) in changes.items() if value != default}

    @property
    def name(self) -> str:
        """Name of the head in the plan."""
        how = "side by side" if self.merge == "concat" else "averaged"
        depth = f"C{self.connectivity} M{self.encoder_layers} R{self.main_layers}"
        return f"{self.n_encoders} of {self.n_qubits} qubits {how}, {depth}"


def enumerate_heads(parameters: int = PARAMETERS, qubits: int = QUBITS) -> list[Candidate]:
    """Return the heads with several encoders, a QPU circuit of so many qubits and the nearest number of parameters.

    One or more heads of each merge, number of encoders, reading and skip connection: all that are equally near.
    """
    found: list[Candidate] = []
    for (merge, encoders, width), reading, skip in product(_shapes(qubits), READINGS, (False, True)):
        group = list(_group(merge, encoders, width, reading, skip))
        nearest = min(abs(each.parameters - parameters) for each in group)
        found += [each for each in group if abs(each.parameters - parameters) == nearest]
    return found


def _shapes(qubits: int) -> list[tuple[str, int, int]]:
    """Return merge, number of encoders and qubits of each encoder."""
    divisors = [number for number in range(2, qubits // 2 + 1) if qubits % number == 0]
    averaged = [("mean", number, qubits) for number in range(2, MAX_AVERAGED + 1)]
    return [("concat", number, qubits // number) for number in divisors] + averaged


def _group(merge: str, encoders: int, width: int, reading: str, skip: bool) -> Iterator[Candidate]:
    column, more = reading != READINGS[1], int(reading == READINGS[2])
    qpu = width * encoders if merge == "concat" else width
    linear = (1 + (qpu if skip else 0) + 1) * CLASSES
    for connectivity, m, r, n in product(CONNECTIVITIES, LAYERS, LAYERS, REUPLOADS):
        if connectivity < width:
            encoder = count_ring_weights(width, m + more, connectivity, column)
            reupload = count_ring_weights(qpu, 1 + more, connectivity, column)
            main = count_ring_weights(qpu, r + more, connectivity, column)
            total = encoders * encoder + n * reupload + main + linear
            yield Candidate(merge, encoders, width, connectivity, m, r, n, reading, skip, total)


def planned(heads: Sequence[Candidate]) -> list[Candidate]:
    """Return the heads to train: exactly of the paper's size, read literally, shared weights, no skip connection.

    Of those with equal encoders and connectivity, the one whose two depths are most alike, and of equal ones the one
    with the shallower encoder. Encoders of 2 qubits hold four numbers and are left out.
    """
    literal = [
        each
        for each in heads
        if each.parameters == PARAMETERS and each.reading == LITERAL and not each.skip_connection and each.untied == 1
    ]
    best: dict[tuple[str, int, int], Candidate] = {}
    for each in sorted(literal, key=lambda each: (abs(each.encoder_layers - each.main_layers), each.encoder_layers)):
        if each.n_qubits > 2:
            best.setdefault((each.merge, each.n_encoders, each.connectivity), each)
    return sorted(best.values(), key=lambda each: (each.merge, each.n_encoders, each.connectivity))


def plan(heads: Sequence[Candidate]) -> dict[str, Any]:
    """Return the plan that trains these heads, those on slices of the embedding, and the ones to compare with."""
    entries: dict[str, Any] = {}
    for each in heads:
        entries[each.name] = {"kind": "quantum", "settings": each.settings}
        if each.merge == "concat":
            sliced = {**each.settings, "components": 2 * each.settings["components"], "encoder_input": "slices"}
            entries[f"{each.name}, on slices"] = {"kind": "quantum", "settings": sliced}
    entries["the paper's head"] = {"kind": "quantum"}
    entries["recommended"] = {"kind": "quantum", "start": "recommended"}
    entries["logistic regression"] = {"kind": "logistic-regression"}
    return {
        "name": "Best model",
        "question": "Does a head of 14 qubits, several encoders and 886 parameters reach the paper's 92.70 %?",
        "seeds": 5,
        "budget": {"learning_rates": [0.03], "regularization": [1.0]},
        "heads": entries,
        "report": {"reference": "logistic regression"},
    }


def table(heads: Sequence[Candidate]) -> str:
    """Return Markdown: for each kind of head the nearest number of parameters, and how many settings have it."""
    lines = [
        "| encoders | reading of a layer | skip connection | parameters | settings | C: M, R |",
        "|---|---|---|---:|---:|---|",
    ]
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for each in heads:
        how = "side by side" if each.merge == "concat" else "averaged"
        kind = f"{each.n_encoders} of {each.n_qubits} qubits, {how}", each.reading, each.skip_connection
        groups.setdefault((*kind, each.parameters), []).append(each)
    for (encoders, reading, skip, parameters), group in groups.items():
        shared = [
            f"{each.connectivity}: {each.encoder_layers}, {each.main_layers}" for each in group if each.untied == 1
        ]
        shown = "; ".join(shared[:6]) + (f"; and {len(shared) - 6} more" if len(shared) > 6 else "")
        lines.append(f"| {encoders} | {reading} | {'yes' if skip else 'no'} | {parameters} | {len(group)} | {shown} |")
    return "\n".join(lines) + "\n"


def check(heads: Sequence[Candidate]) -> None:
    """Raise ValueError if a head's number of parameters differs from that of `HeadConfig`."""
    for each in heads:
        counted = HeadConfig.paper(**each.settings).count_parameters(DIMENSION, CLASSES)["total"]
        if counted != each.parameters:
            raise ValueError(f"{each.name} has {counted} parameters, not {each.parameters}; mend _group")


def main() -> None:
    """Write the plan and the table, and print the table."""
    heads = enumerate_heads()
    check(heads)
    note = "# Written by `python studies/best_model.py`: the heads of the paper's size, and those to compare with.\n"
    write_file(PLAN, (note + to_toml(plan(planned(heads))) + "\n").encode())
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    write_file(TABLE, table(heads).encode())
    sys.stdout.write(table(heads))


if __name__ == "__main__":
    main()
