"""One training step of a circuit that is not real: KetFit's native engine beside PennyLane, on the same numbers.

The circuit: inputs by RX on every qubit, PennyLane's StronglyEntanglingLayers with three layers, <Z_0>. A step is the
value of every sample of a batch and the gradients of their sum to weights and inputs. All simulators run in one process
and take turns; KetFit is timed before and after each of the others.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pennylane as qml
import torch
import typer
from peers.clock import measure

from ketfit import Circuit, expectation_and_gradients
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_program import PauliWord
from ketfit.simulate.pauli_scheduling import Group, group_rotations, light_cone, start_from_zero

CIRCUIT = "RX(input) on every qubit, StronglyEntanglingLayers with 3 layers, <Z_0>"
N_LAYERS = 3
TOLERANCE = 1e-4  # of the largest entry
MAX_STEPS = 10_000  # counted at a time

Array = npt.NDArray[np.float64]
Result = tuple[Array, Array, Array]
Step = Callable[[], Result]


def main(
    qubits: Annotated[list[int], typer.Option(help="Widths; repeat it for several.")] = [4, 8, 10, 12],  # noqa: B006
    batches: Annotated[list[int], typer.Option(help="Samples in a step.")] = [32],  # noqa: B006
    peers: Annotated[list[str] | None, typer.Option(help="Simulators; all by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Counted steps of a peer, and of KetFit beside it.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file, written after every row.")] = None,
) -> None:
    """Time every simulator, compare its numbers with KetFit's, and print how many times slower it is."""
    report: dict[str, Any] = {"circuit": CIRCUIT, "threads": torch.get_num_threads(), "pennylane": qml.version()}
    report |= {"tolerance": TOLERANCE, "operations": count_operations.__doc__, "rows": []}
    for width, batch, peer in product(qubits, batches, peers or PEERS):
        report["rows"].append(row := measure_row(width, batch, peer, seconds))
        print(json.dumps(row), flush=True)
        if output is not None:
            output.write_text(json.dumps(report, indent=2) + "\n")


def measure_row(width: int, batch: int, peer: str, seconds: float) -> dict[str, Any]:
    """Time KetFit, the peer, and KetFit again, and a matrix product between them."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(N_LAYERS, width, 3)).astype(np.float32).astype(np.float64)
    inputs = rng.normal(size=(batch, width)).astype(np.float32).astype(np.float64)
    ours = ketfit_step(weights, inputs)
    expected, first, before = measure(ours, MAX_STEPS, seconds / 2)
    found, peer_first, times = measure(PEERS[peer](weights, inputs), MAX_STEPS, seconds)
    _, _, after = measure(ours, MAX_STEPS, seconds / 2)
    own = [*before, *after]
    names = ("values", "grad_weights", "grad_inputs")
    differences = {
        name: float(np.abs(a - b.reshape(a.shape)).max() / np.abs(b).max())
        for name, a, b in zip(names, expected, found, strict=True)
    }
    operations = batch * count_operations(width)
    return {
        "peer": peer,
        "qubits": width,
        "batch": batch,
        "ketfit_ms": {"best": 1e3 * min(own), "median": 1e3 * statistics.median(own), "first": 1e3 * first},
        "peer_ms": {"best": 1e3 * min(times), "median": 1e3 * statistics.median(times), "first": 1e3 * peer_first},
        "ratio_of_bests": round(min(times) / min(own), 1),
        "ratio_of_medians": round(statistics.median(times) / statistics.median(own), 1),
        "relative_differences": differences,
        "agrees": max(differences.values()) < TOLERANCE,
        "operations": operations,
        "share_of_matrix_product_rate": round(operations / min(own) / matrix_product_rate(), 3),
    }


def circuit_of(width: int) -> Circuit:
    """Return the circuit, read from PennyLane's templates."""
    node = qml.QNode(lambda weights, inputs: apply_circuit(weights, inputs), qml.device("default.qubit", wires=width))
    return Circuit.from_pennylane(node, weights={"weights": (N_LAYERS, width, 3)}, inputs={"inputs": (width,)})


def count_operations(width: int) -> int:
    """Return the operations of a sample.

    They are 28 for a 2 x 2 matrix on a pair of amplitudes, which is applied to one state forward and
    to two backward, and 32 for the pair's overlaps; of a matrix that only prepares a qubit the overlaps alone count.
    """

    def count(group: Group) -> int:
        return 32 if group.product_bit is not None else 3 * 28 + 32

    lowered, frame = program_of(circuit_of(width)).lowered
    cone = light_cone(start_from_zero(lowered), [frame.image(PauliWord(0, 1 << (width - 1)))])
    return sum(count(group) for group in group_rotations(cone, from_zero=True)) << (width - 1)


def matrix_product_rate() -> float:
    """Return the operations per second of torch.mm in float32, on as many threads as KetFit has."""
    matrix = torch.rand(512, 512)
    _, _, times = measure(lambda: matrix @ matrix, 300, 2)
    return float(2 * len(matrix) ** 3 / min(times))


def ketfit_step(weights: Array, inputs: Array) -> Step:
    """Return a step of KetFit in float32."""
    circuit = circuit_of(inputs.shape[1])
    tensors = torch.tensor(weights.reshape(-1)).float(), torch.tensor(inputs).float()

    def step() -> Result:
        values, grad_weights, grad_inputs, _ = expectation_and_gradients(circuit, *tensors)
        assert grad_weights is not None and grad_inputs is not None
        return values.numpy()[:, 0], grad_weights.numpy(), grad_inputs.numpy()

    return step


def apply_circuit(weights: Any, inputs: Any) -> Any:
    """The circuit in PennyLane; `inputs` has a column for each sample, or none."""
    for qubit, angles in enumerate(inputs):
        qml.RX(angles, wires=qubit)
    qml.StronglyEntanglingLayers(weights, wires=range(len(inputs)))
    return qml.expval(qml.PauliZ(0))


def default_qubit_step(weights: Array, inputs: Array) -> Step:
    """default.qubit on torch: broadcasting over the samples, torch's reverse mode."""
    device = qml.device("default.qubit", wires=inputs.shape[1])
    node = qml.QNode(apply_circuit, device, interface="torch", diff_method="backprop")
    angles = torch.tensor(weights, requires_grad=True)
    samples = torch.tensor(inputs, requires_grad=True)

    def step() -> Result:
        values = node(angles, samples.T.unbind())
        grad_weights, grad_inputs = torch.autograd.grad(values.sum(), (angles, samples))
        return values.detach().numpy(), grad_weights.numpy(), grad_inputs.numpy()

    return step


def lightning_step(weights: Array, inputs: Array) -> Step:
    """lightning.qubit: a tape per sample, value and adjoint Jacobian from the device in one call."""
    batch, width = inputs.shape
    device = qml.device("lightning.qubit", wires=width, c_dtype=np.complex64)
    [template], _ = qml.transforms.decompose(
        qml.tape.make_qscript(apply_circuit)(weights, inputs[0]), gate_set={qml.RX, qml.RY, qml.RZ, qml.CNOT}
    )
    n_parameters = width + weights.size

    def step() -> Result:
        numbers = [[*sample, *weights.reshape(-1)] for sample in inputs]
        tapes = [template.bind_new_parameters(row, range(n_parameters)) for row in numbers]
        values, jacobians = device.execute_and_compute_derivatives(tapes)
        slopes = np.array(jacobians, dtype=np.float64).reshape(batch, n_parameters)
        return np.array(values).reshape(-1), slopes[:, width:].sum(axis=0), slopes[:, :width]

    return step


PEERS: dict[str, Callable[[Array, Array], Step]] = {
    "default.qubit": default_qubit_step,
    "lightning.qubit": lightning_step,
}

if __name__ == "__main__":
    typer.run(main)
