"""The paper's circuit on more qubits than a statevector has room for: plan, contract, and what it took.

Each point is a process of its own: R main layers of connectivity C behind N = 1 loading with its one layer, <Z_0>,
random angles from a fixed seed. A point whose plan needs more than --memory or --operations is recorded as refused, not
run.

    python benchmarks/wide.py --output benchmarks/results/wide.json
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from ketfit import expectation
from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.simulate.tensor_network import network_expectation, plan_contraction

POINTS = (
    (20, 1, 1),
    (100, 1, 1),
    (400, 1, 1),
    (60, 2, 1),
    (60, 3, 1),
    (20, 4, 1),
    (46, 4, 2),
    (20, 1, 2),
    (40, 1, 2),
    (100, 4, 1),
    (20, 5, 1),
)
WIDEST_STATEVECTOR = 20

app = typer.Typer(add_completion=False)


@app.command()
def main(
    memory: Annotated[float, typer.Option(help="GiB that a contraction may take.")] = 6.0,
    operations: Annotated[float, typer.Option(help="Multiplications that a contraction may take.")] = 5e9,
    output: Annotated[Path | None, typer.Option(help="JSON file.")] = None,
) -> None:
    """Plan and contract every point and print what it took."""
    rows = []
    for point in POINTS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (*point, memory * 2**30, operations)))
        print(rows[-1], flush=True)
        report = {
            "command": f"python {shlex.join(sys.argv)}",
            "circuit": "reuploading_circuit(Q, n_reuploads=1, reupload_layers=1, main_layers=R, connectivity=C), <Z_0>",
            "memory_gib": memory,
            "operations": operations,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("cotengra", "numpy")},
            "rows": rows,
        }
        if output is not None:
            output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure(qubits: int, layers: int, connectivity: int, memory: float, operations: float) -> dict[str, Any]:
    """One point."""
    circuit = reuploading_circuit(qubits, 1, 1, layers, connectivity)
    rng = np.random.default_rng(0)
    weights, inputs = (rng.uniform(-np.pi, np.pi, count) for count in (circuit.n_weights, circuit.n_inputs))
    start = time.perf_counter()
    plan = plan_contraction(circuit)
    row: dict[str, Any] = {
        "qubits": qubits,
        "main_layers": layers,
        "connectivity": connectivity,
        "tensors": plan.tensors,
        "multiplications": plan.multiplications,
        "elements_moved": plan.elements_moved,
        "planned_mib": round(plan.bytes_needed / 2**20, 3),
        "statevector_gib": 2.0 ** (qubits - 27),
        "plan_seconds": round(time.perf_counter() - start, 2),
    }
    if plan.bytes_needed > memory or plan.multiplications > operations:
        return row | {"status": "refused"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    row["value"] = float(network_expectation(circuit, weights, inputs, memory=int(memory))[0])
    row["contract_seconds"] = round(time.perf_counter() - start, 2)
    row["resident_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    if qubits <= WIDEST_STATEVECTOR:
        exact = expectation(circuit, torch.tensor(weights), torch.tensor(inputs)[None])
        row["difference_to_statevector"] = abs(row["value"] - exact.item())
    return row | {"status": "ok"}


if __name__ == "__main__":
    app()
