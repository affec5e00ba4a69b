"""One training step of the re-uploading circuit: KetFit's engine beside PennyLane, same circuit, same numbers, one run.

A step is <Z_0> of a batch of 32 and its gradients to weights and inputs; the circuit at Q qubits is
``reuploading_circuit(Q, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=2)``, 190 rotations at Q = 10.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pennylane as qml
import torch
import typer
from torch import Tensor

from ketfit import expectation
from ketfit.circuit import Circuit, reuploading_circuit
from ketfit.circuit.export import to_pennylane

BATCH = 32


def main(
    qubits: Annotated[list[int], typer.Option(help="Widths to measure.")] = [6, 8, 10],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Counted steps of each, after one that is not counted.")] = 7,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print the median time of a step for each engine, and the ratio."""
    rows = [measure(width, repeats) for width in qubits]
    report = {
        "command": "python benchmarks/training_step.py",
        "batch": BATCH,
        "torch": torch.__version__,
        "pennylane": qml.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "rows": rows,
    }
    print(json.dumps(report, indent=2))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")


def measure(width: int, repeats: int) -> dict[str, Any]:
    """One row: both engines in turn on the same numbers, and how far their gradients are apart."""
    circuit = reuploading_circuit(width, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=2)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(circuit.n_weights, generator=generator, requires_grad=True)
    inputs = torch.randn(BATCH, width, generator=generator, requires_grad=True)
    steps = {"torch engine": torch_step(circuit), "PennyLane default.qubit, backprop": pennylane_step(circuit)}
    gradients = {name: gradients_of(step, weights, inputs) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            gradients_of(step, weights, inputs)
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(times) for times in seconds.values())
    first, second = gradients.values()
    return {
        "qubits": width,
        "rotations": circuit.gate_counts()["ry"],
        "milliseconds": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        "pennylane_over_ketfit": round(theirs / ours, 2),
        "largest_gradient_difference": max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True)),
    }


def gradients_of(step: Callable[[Tensor, Tensor], Tensor], weights: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """One step."""
    return torch.autograd.grad(step(weights, inputs).sum(), (weights, inputs))


def torch_step(circuit: Circuit) -> Callable[[Tensor, Tensor], Tensor]:
    """The expectation by KetFit's torch engine."""
    return lambda weights, inputs: expectation(circuit, weights, inputs, engine="torch")


def pennylane_step(circuit: Circuit) -> Callable[[Tensor, Tensor], Tensor]:
    """The same expectation by PennyLane's fastest differentiable simulator for a batch."""
    device = qml.device("default.qubit", wires=circuit.n_qubits)
    node = qml.QNode(to_pennylane(circuit), device, interface="torch", diff_method="backprop")
    return lambda weights, inputs: node(weights, inputs)[0]


if __name__ == "__main__":
    typer.run(main)
