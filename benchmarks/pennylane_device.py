"""One training step of a PennyLane script, which differs in the device's name alone, on the same numbers.

The circuit: AngleEmbedding by RX, broadcast over a batch, StronglyEntanglingLayers with three layers, <Z_0>. A step
calls the QNode on torch tensors and differentiates the sum of the values by weights and inputs, with the method that
PennyLane finds best for the device: backprop for default.qubit, adjoint for lightning.qubit. All devices compute in
double precision, run in one process and take turns; ketfit.qubit is timed before and after each of the others.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import pennylane as qml
import torch
import typer
from peers.clock import measure

CIRCUIT = "AngleEmbedding by RX, StronglyEntanglingLayers with 3 layers, <Z_0>"
OURS = "ketfit.qubit"
PEERS = ("default.qubit", "lightning.qubit")
N_LAYERS = 3
TOLERANCE = 1e-6  # of the largest entry; lightning.qubit returns single precision to torch
MAX_STEPS = 10_000  # counted at a time

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def main(
    qubits: Annotated[list[int], typer.Option(help="Widths; repeat it for several.")] = [4, 8, 10, 12, 14],  # noqa: B006
    batches: Annotated[list[int], typer.Option(help="Samples in a step.")] = [32],  # noqa: B006
    peers: Annotated[list[str] | None, typer.Option(help="Devices of PennyLane; all by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Counted steps of a peer, and of ketfit.qubit beside it.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file, written after every row.")] = None,
) -> None:
    """Time every device, compare its numbers with those of ketfit.qubit, and print how many times slower it is."""
    report: dict[str, Any] = {"circuit": CIRCUIT, "threads": torch.get_num_threads(), "pennylane": qml.version()}
    report |= {"tolerance": TOLERANCE, "rows": []}
    for width, batch, peer in product(qubits, batches, peers or PEERS):
        report["rows"].append(row := measure_row(width, batch, peer, seconds))
        print(json.dumps(row), flush=True)
        if output is not None:
            output.write_text(json.dumps(report, indent=2) + "\n")


def measure_row(width: int, batch: int, peer: str, seconds: float) -> dict[str, Any]:
    """Time ketfit.qubit, the peer, and ketfit.qubit again."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(N_LAYERS, width, 3, generator=generator, dtype=torch.float64).requires_grad_()
    inputs = torch.randn(batch, width, generator=generator, dtype=torch.float64).requires_grad_()
    ours = make_step(OURS, weights, inputs)
    expected, first, before = measure(ours, MAX_STEPS, seconds / 2)
    found, peer_first, times = measure(make_step(peer, weights, inputs), MAX_STEPS, seconds)
    _, _, after = measure(ours, MAX_STEPS, seconds / 2)
    own = [*before, *after]
    names = ("values", "grad_weights", "grad_inputs")
    differences = {
        name: float((a - b).detach().abs().max() / b.detach().abs().max())
        for name, a, b in zip(names, expected, found, strict=True)
    }
    return {
        "peer": peer,
        "qubits": width,
        "batch": batch,
        "ketfit_ms": {"best": 1e3 * min(own), "median": 1e3 * statistics.median(own), "first": 1e3 * first},
        "peer_ms": {"best": 1e3 * min(times), "median": 1e3 * statistics.median(times), "first": 1e3 * peer_first},
        "ratio_of_bests": round(min(times) / min(own), 1),
        "ratio_of_medians": round(statistics.median(times) / statistics.median(own), 1),
        "pennylane_share": round(pennylane_share(weights, inputs, seconds / 4), 3),
        "relative_differences": differences,
        "agrees": max(differences.values()) < TOLERANCE,
    }


def make_step(name: str, weights: torch.Tensor, inputs: torch.Tensor) -> Callable[[], Result]:
    """Return the step of a user's script on the device of this name."""
    width = inputs.shape[1]
    node = qml.QNode(circuit, qml.device(name, wires=width))

    def step() -> Result:
        values = node(weights, inputs)
        return values, *torch.autograd.grad(values.sum(), (weights, inputs))

    return step


def circuit(weights: Any, inputs: Any) -> Any:
    wires = range(inputs.shape[1])
    qml.AngleEmbedding(inputs, wires=wires)
    qml.StronglyEntanglingLayers(weights, wires=wires)
    return qml.expval(qml.PauliZ(0))


def pennylane_share(weights: torch.Tensor, inputs: torch.Tensor, seconds: float) -> float:
    """Return the median share of a step's time that is neither in the device nor in the backward pass."""
    device = qml.device(OURS, wires=inputs.shape[1])
    node, execute = qml.QNode(circuit, device), device.execute
    inside = 0.0

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        begin = time.perf_counter()
        results = execute(*args, **kwargs)
        inside += time.perf_counter() - begin
        return results

    device.execute = timed

    def step() -> float:
        nonlocal inside
        inside, begin = 0.0, time.perf_counter()
        values = node(weights, inputs)
        middle = time.perf_counter()
        torch.autograd.grad(values.sum(), (weights, inputs))
        return (middle - begin - inside) / (time.perf_counter() - begin)

    shares: list[float] = []
    measure(lambda: shares.append(step()), MAX_STEPS, seconds)
    return statistics.median(shares[1:])


if __name__ == "__main__":
    typer.run(main)
