"""Training steps in this checkout beside those of another one, alternating in new processes.

    python benchmarks/paired.py --base FOLDER

The circuits are the paper's, of RY and CNOT; the same with CZ in place of CNOT, which stays real; and strongly
entangling layers, which do not.

Both checkouts need a built kernel in their `src`, and the interpreter no editable installation of KetFit, which would
be imported in their place. A ratio is the best step here divided by the best step there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from peers.clock import measure

import ketfit
from ketfit import expectation, expectation_and_gradients
from ketfit.circuit import Circuit, Gate, reuploading_circuit
from ketfit.circuit.ansatz import ansatz_layers, data_reuploading

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((4, 32), (8, 32), (12, 32), (14, 32), (16, 4))
"""Qubits and samples."""


def paper(width: int) -> Circuit:
    return reuploading_circuit(width, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=min(2, width - 1))


def with_cz(width: int) -> Circuit:
    circuit = paper(width)
    gates = [Gate("cz", gate.qubits) if gate.name == "cx" else gate for gate in circuit.gates]
    return Circuit(width, tuple(gates), circuit.n_weights, circuit.n_inputs)


def entangling(width: int) -> Circuit:
    first, second = (ansatz_layers("strongly_entangling", width, layers, min(2, width - 1)) for layers in (2, 3))
    return data_reuploading(2, first, second)


CIRCUITS = {"RY and CNOT": paper, "RY and CZ": with_cz, "strongly entangling": entangling}

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    base: Annotated[Path | None, typer.Option(help="Root of the other checkout.")] = None,
    rounds: Annotated[int, typer.Option(help="Processes of each checkout.")] = 5,
    seconds: Annotated[float, typer.Option(help="Counted steps of each kind in a process.")] = 0.5,
) -> None:
    """Print the ratio of each kind of step."""
    if context.invoked_subcommand is not None:
        return
    if base is None:
        sys.exit("name the other checkout: --base FOLDER")
    best: dict[str, dict[str, float]] = defaultdict(dict)
    for turn in range(2 * rounds):
        name, root = (("base", base), ("here", ROOT))[(turn + turn // 2) % 2]  # each is first as often as the other
        for step, time in run_steps(root, seconds).items():
            best[step][name] = min(time, best[step].get(name, time))
    for step, times in best.items():
        print(json.dumps({"step": step, "ratio": round(times["here"] / times["base"], 3), **times}))


def run_steps(root: Path, seconds: float) -> dict[str, float]:
    """Run the steps of a checkout in a new process."""
    command = [sys.executable, __file__, "steps", "--root", str(root), "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{ROOT / 'benchmarks'}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    times: dict[str, float] = json.loads(done.stdout)
    return times


@app.command(hidden=True)
def steps(root: Annotated[Path, typer.Option()], seconds: Annotated[float, typer.Option()]) -> None:
    """Print the best milliseconds of each kind of step."""
    if not Path(ketfit.__file__).is_relative_to(root.resolve()):
        sys.exit(f"{ketfit.__file__} was imported instead of the checkout {root}; run another interpreter")
    times = {}
    for (width, batch), (name, circuit_of) in product(SIZES, CIRCUITS.items()):
        circuit = circuit_of(width)
        weights, inputs = torch.rand(circuit.n_weights), torch.rand(batch, circuit.n_inputs)
        leaves = weights.clone().requires_grad_(), inputs.clone().requires_grad_()
        ones = torch.ones(batch, 1)
        kinds: dict[str, Callable[[], object]] = {
            "values": lambda: expectation(circuit, weights, inputs),  # noqa: B023
            "values and gradients": lambda: expectation_and_gradients(circuit, weights, inputs),  # noqa: B023
            "autograd": lambda: torch.autograd.grad(expectation(circuit, *leaves), leaves, ones),  # noqa: B023
        }
        for kind, step in kinds.items():
            _, _, counted = measure(step, 100_000, seconds)
            times[f"{name}, {width} qubits, batch {batch}, {kind}"] = 1e3 * min(counted)
    print(json.dumps(times))


if __name__ == "__main__":
    app()
