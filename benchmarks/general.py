"""One training step of a circuit that is not real: KetFit's native engine beside other simulators, on the same numbers.

The circuit: inputs by RX on every qubit, PennyLane's StronglyEntanglingLayers with three layers, <Z_0>. A step is the
value of every sample of a batch and the gradients of their sum to weights and inputs. All simulators run in one process
and take turns; KetFit is timed before and after each of the others. A simulator that is not installed is skipped.
"""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pennylane as qml
import torch
import typer
from peers.clock import measure
from peers.step import jax_step, torch_step

from ketfit import Circuit, expectation_and_gradients
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_program import PauliWord
from ketfit.simulate.pauli_scheduling import Group, group_rotations, light_cone, start_from_zero

CIRCUIT = "RX(input) on every qubit, StronglyEntanglingLayers with 3 layers, <Z_0>"
N_LAYERS = 3
TOLERANCE = 1e-4  # of the largest entry
MAX_STEPS = 10_000  # counted at a time
SIZES = ((2, 32), (4, 32), (8, 32), (10, 32), (12, 32), (14, 32), (4, 1), (4, 1024), (16, 4), (20, 1), (24, 1))
"""Qubits and samples that are measured unless options choose others."""

Array = npt.NDArray[np.floating[Any]]
Result = tuple[Array, Array, Array]
Step = Callable[[], Result]


@dataclass(frozen=True)
class Peer:
    """A simulator.

    Attributes:
        prepare: Takes the weights, shape (layers, qubits, 3), and the inputs, shape (batch, qubits), and gives a step.
        modules: What it imports.
        max_amplitudes: Largest number of amplitudes of a batch for which a step takes seconds and fits into memory.
        max_qubits: Largest number of qubits.
    """

    prepare: Callable[[Array, Array], Step]
    modules: tuple[str, ...]
    max_amplitudes: int = 2**19
    max_qubits: int = 24

    def reason_to_skip(self, width: int, batch: int) -> str | None:
        """Return why the simulator cannot run at a size, or None."""
        if width > self.max_qubits or batch << width > self.max_amplitudes:
            return "it takes minutes or too much memory at this size"
        try:
            for name in self.modules:
                importlib.import_module(name)
        except ImportError as error:
            return f"it is not installed: {error}"
        return None


def main(
    qubits: Annotated[list[int] | None, typer.Option(help="Widths; repeat it for several.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Samples in a step; repeat it for several.")] = None,
    peers: Annotated[list[str] | None, typer.Option(help="Simulators; all by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Counted steps of a peer, and of KetFit beside it.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file, written after every row.")] = None,
) -> None:
    """Time every simulator, compare its numbers with KetFit's, and print how many times slower it is."""
    report: dict[str, Any] = {"circuit": CIRCUIT, "threads": torch.get_num_threads(), "pennylane": qml.version()}
    report |= {"tolerance": TOLERANCE, "operations": count_operations.__doc__, "rows": []}
    sizes = product(qubits or [8], batch or [32]) if qubits or batch else SIZES
    for (width, size), peer in product(sizes, peers or PEERS):
        if (reason := PEERS[peer].reason_to_skip(width, size)) is not None:
            row = {"peer": peer, "qubits": width, "batch": size, "skipped": reason}
        else:
            row = measure_row(width, size, peer, seconds)
        report["rows"].append(row)
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
    found, peer_first, times = measure(PEERS[peer].prepare(weights, inputs), MAX_STEPS, seconds)
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


def gates(width: int) -> Iterator[tuple[str, int, int]]:
    """Yield the gates: a CNOT with its control and target, or a rotation with its qubit and angle.

    An angle is a number among the weights and then the inputs.
    """
    n_weights = 3 * N_LAYERS * width
    yield from (("rx", qubit, n_weights + qubit) for qubit in range(width))
    for layer in range(N_LAYERS):
        for qubit in range(width):
            first = 3 * (layer * width + qubit)
            yield from (("rz", qubit, first), ("ry", qubit, first + 1), ("rz", qubit, first + 2))
        step = layer % (width - 1) + 1
        yield from (("cx", qubit, (qubit + step) % width) for qubit in range(width))


def tensorcircuit_step(weights: Array, inputs: Array) -> Step:
    """TensorCircuit-NG on JAX: the unrolled circuit, vmap over the samples, reverse mode, all in one jit."""
    import jax.numpy as jnp
    import tensorcircuit as tc

    backend, width = tc.set_backend("jax"), inputs.shape[1]
    tc.set_dtype("complex64")

    def expectation(weights: Any, sample: Any) -> Any:
        angles, circuit = jnp.concatenate([weights, sample]), tc.Circuit(width)
        for name, qubit, number in gates(width):
            if name == "cx":
                circuit.cnot(qubit, number)
            else:
                getattr(circuit, name)(qubit, theta=angles[number])
        return backend.real(circuit.expectation_ps(z=[0]))

    return jax_step(backend.vmap(expectation, vectorized_argnums=1), weights.reshape(-1), inputs)


def scaluq_step(weights: Array, inputs: Array) -> Step:
    """scaluq in single precision: a loop over the samples, backpropagation from the state that gave the value.

    Its threads wait for each other longer than a narrow circuit takes on one thread.
    """
    from scaluq import scaluq_core

    batch, width = inputs.shape
    f32 = scaluq_core.default.f32
    space = scaluq_core.host_serial.f32 if width < 14 else f32
    circuit, observable = f32.Circuit(), space.Operator([f32.PauliOperator("Z 0")])
    rotations = {"rx": f32.gate.ParamRX, "ry": f32.gate.ParamRY, "rz": f32.gate.ParamRZ}
    for name, qubit, number in gates(width):
        if name == "cx":
            circuit.add_gate(f32.gate.CX(qubit, number))
        else:
            circuit.add_param_gate(rotations[name](qubit), str(number))
    names = [str(number) for number in range(weights.size + width)]
    state, image = space.StateVector(width), space.StateVector(width)

    def step() -> Result:
        values, slopes = np.empty(batch), np.empty((batch, len(names)))
        for row, sample in enumerate(inputs):
            angles = dict(zip(names, [*weights.reshape(-1).tolist(), *sample.tolist()], strict=True))
            state.set_zero_state()
            circuit.update_quantum_state(state, params=angles)
            values[row] = observable.get_expectation_value(state).real
            image.load(state)
            observable.apply_to_state(image)
            found = circuit.compute_expectation_gradient_backprop(state, image, angles)
            slopes[row] = [found[name] for name in names]
        return values, slopes[:, : weights.size].sum(axis=0), slopes[:, weights.size :]

    return step


def qandle_step(weights: Array, inputs: Array) -> Step:
    """Qandle: named gates, inputs as a batch, torch's reverse mode. Its gates are matrices on all qubits."""
    import qandle

    width = inputs.shape[1]
    angles = torch.tensor(weights.reshape(-1), dtype=torch.float32, requires_grad=True)
    samples = torch.tensor(inputs, dtype=torch.float32, requires_grad=True)
    rotations = {"rx": qandle.RX, "ry": qandle.RY, "rz": qandle.RZ}
    layers = [
        qandle.CNOT(qubit, number) if name == "cx" else rotations[name](qubit, name=f"angle{number}")
        for name, qubit, number in gates(width)
    ]
    circuit = qandle.Circuit(layers, num_qubits=width)
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(2 ** (width - 1))

    def expectation() -> Any:
        numbers = [*angles.unbind(), *samples.unbind(1)]
        state = circuit(**{f"angle{number}": each for number, each in enumerate(numbers)})
        return state.abs().square() @ signs

    return torch_step(expectation, [angles], samples)


def torchquantum_step(weights: Array, inputs: Array) -> Step:
    """torchquantum, the simulator of the paper's authors: batched states, torch's reverse mode."""
    import torchquantum as tq
    import torchquantum.functional as tqf

    batch, width = inputs.shape
    angles = torch.tensor(weights.reshape(-1), dtype=torch.float32, requires_grad=True)
    samples = torch.tensor(inputs, dtype=torch.float32, requires_grad=True)

    def expectation() -> Any:
        device = tq.QuantumDevice(n_wires=width, bsz=batch)
        numbers = [*angles.unbind(), *samples.unbind(1)]
        for name, qubit, number in gates(width):
            if name == "cx":
                tqf.cnot(device, wires=[qubit, number])
            else:
                getattr(tqf, name)(device, wires=qubit, params=numbers[number])
        return tq.measurement.expval_joint_analytical(device, "Z" + "I" * (width - 1))

    return torch_step(expectation, [angles], samples)


PEERS = {
    "default.qubit": Peer(default_qubit_step, ("pennylane",)),
    "lightning.qubit": Peer(lightning_step, ("pennylane_lightning",), 2**24),
    "tensorcircuit": Peer(tensorcircuit_step, ("jax", "tensorcircuit"), max_qubits=10),
    "scaluq": Peer(scaluq_step, ("scaluq",), 2**22),
    "qandle": Peer(qandle_step, ("qandle",), 2**13, max_qubits=8),
    "torchquantum": Peer(torchquantum_step, ("torchquantum",)),
}

if __name__ == "__main__":
    typer.run(main)
