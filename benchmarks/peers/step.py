"""One training step of the re-uploading circuit in one other simulator, timed.

Runs in the environment that setup.sh makes, with this repository's `src` on PYTHONPATH for the circuit and its
`benchmarks` for the clock:

    PYTHONPATH=src:benchmarks build/peers-env/bin/python benchmarks/peers/step.py qulacs --qubits 6 --batch 32 \
        --repeats 7 --seconds 60 --numbers in.npz --output out.npz

A step is <Z_0> of each sample of a batch, every sample starting from |0...0>, and the gradients of the sum of these to
the weights and to the inputs, all as numpy arrays. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from peers.clock import measure

from ketfit.circuit import Angle, Circuit, reuploading_circuit
from ketfit.circuit.export import to_pennylane

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.floating[Any]]
Result = tuple[Array, Array, Array]
Step = Callable[[], Result]


@dataclass(frozen=True)
class Peer:
    """One simulator.

    Attributes:
        package: The distribution whose version is reported.
        dtype: Of the amplitudes.
        method: What is run, for the reader of a table.
        prepare: Takes the circuit, the weights (n_weights,) and the inputs (batch, n_inputs), both float64 and in
            radians, and gives the step: values (batch,), gradient to the weights, gradient to the inputs.
        threads: How many threads it may use, asked after the steps.
        environment: Variables set before it is imported, unless the caller has set them.
    """

    package: str
    dtype: str
    method: str
    prepare: Callable[[Circuit, Array, Array], Step]
    threads: Callable[[], int]
    environment: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Run one peer, print its row and write its numbers."""
    arguments = parse_arguments()
    peer = PEERS[arguments.peer]
    for name, value in peer.environment.items():
        os.environ.setdefault(name, value)
    circuit = benchmark_circuit(arguments.qubits)
    weights, inputs = read_numbers(arguments.numbers, circuit, arguments.batch)
    with contextlib.redirect_stdout(sys.stderr):
        step = peer.prepare(circuit, weights, inputs)
        result, first, seconds = measure(step, arguments.repeats, arguments.seconds)
    milliseconds = [round(1e3 * second, 4) for second in seconds]
    median = round(statistics.median(milliseconds), 4)
    row = {
        "peer": arguments.peer,
        "version": version(peer.package),
        "method": peer.method,
        "dtype": peer.dtype,
        "qubits": arguments.qubits,
        "batch": arguments.batch,
        "first_step_seconds": round(first, 4),
        "milliseconds": {"steps": milliseconds, "best": min(milliseconds), "median": median},
        "threads": peer.threads(),
    }
    write_numbers(arguments.output, result, circuit, arguments.batch)
    print(json.dumps(row))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time one training step in one other simulator.")
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--qubits", type=int, required=True, help="width of the circuit")
    parser.add_argument("--batch", type=int, required=True, help="samples in a step")
    parser.add_argument("--repeats", type=int, default=7, help="counted steps at most, after one that is not counted")
    parser.add_argument("--seconds", type=float, default=60, help="no new counted step after this long")
    parser.add_argument("--numbers", type=Path, required=True, help="NPZ file with float64 `weights` and `inputs`")
    parser.add_argument("--output", type=Path, required=True, help="NPZ file to write")
    return parser.parse_args()


def benchmark_circuit(qubits: int) -> Circuit:
    """The circuit that every simulator of this benchmark runs."""
    return reuploading_circuit(qubits, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=min(2, qubits - 1))


def read_numbers(path: Path, circuit: Circuit, batch: int) -> tuple[Array, Array]:
    """Weights (n_weights,) and inputs (batch, n_inputs) in radians."""
    with np.load(path) as numbers:
        weights, inputs = (np.asarray(numbers[name], dtype=np.float64) for name in ("weights", "inputs"))
    expected = (circuit.n_weights,), (batch, circuit.n_inputs)
    if (weights.shape, inputs.shape) != expected:
        sys.exit(f"{path}: weights {weights.shape} and inputs {inputs.shape} must be {expected[0]} and {expected[1]}")
    return weights, inputs


def write_numbers(path: Path, result: Result, circuit: Circuit, batch: int) -> None:
    """Save a step's numbers, whose shapes must be right."""
    values, grad_weights, grad_inputs = result
    shapes = values.shape, grad_weights.shape, grad_inputs.shape
    if shapes != ((batch,), (circuit.n_weights,), (batch, circuit.n_inputs)):
        sys.exit(f"the step gave arrays of shapes {shapes}")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, values=values, grad_weights=grad_weights, grad_inputs=grad_inputs)


def prepare_tensorcircuit(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """TensorCircuit-NG on JAX: the unrolled circuit, vmap over the samples, reverse mode, all in one jit."""
    import tensorcircuit as tc

    backend = tc.set_backend("jax")
    tc.set_dtype("complex64")

    def expectation(weights: Any, inputs: Any) -> Any:
        angles = {"weight": weights, "input": inputs}
        converted = tc.Circuit(circuit.n_qubits)
        for gate in circuit.gates:
            if gate.angle is None:
                converted.cnot(gate.control, gate.target)
            else:
                converted.ry(gate.target, theta=angles[gate.angle.source][gate.angle.index])
        return backend.real(converted.expectation_ps(z=[0]))

    return jax_step(backend.vmap(expectation, vectorized_argnums=1), weights, inputs)


def prepare_default_qubit_jax(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """PennyLane's default.qubit on JAX: broadcasting over the samples, reverse mode, all in one jit."""
    import pennylane as qml

    device = qml.device("default.qubit", wires=circuit.n_qubits)
    node = qml.QNode(to_pennylane(circuit), device, interface="jax", diff_method="backprop")
    return jax_step(lambda weights, inputs: node(weights, inputs)[0], weights, inputs)


def prepare_default_qubit(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """PennyLane's default.qubit on torch: broadcasting over the samples, torch's reverse mode."""
    import pennylane as qml
    import torch

    device = qml.device("default.qubit", wires=circuit.n_qubits)
    node = qml.QNode(to_pennylane(circuit), device, interface="torch", diff_method="backprop")
    angles = torch.tensor(weights, requires_grad=True)
    samples = torch.tensor(inputs, requires_grad=True)
    return torch_step(lambda: node(angles, samples)[0], [angles], samples)


def prepare_lightning(circuit: Circuit, weights: Array, inputs: Array, name: str = "lightning.qubit") -> Step:
    """PennyLane's lightning devices: a tape per sample, value and adjoint Jacobian from the device in one call.

    Handing the tapes to the device skips the QNode's work in Python, which takes longer than the simulation.
    """
    import pennylane as qml

    device = qml.device(name, wires=circuit.n_qubits, c_dtype=np.complex64)
    template = qml.tape.make_qscript(to_pennylane(circuit))(weights, inputs[0])
    order = rotations(circuit)

    def step() -> Result:
        tapes = []
        for sample in inputs:
            angles = {"weight": weights, "input": sample}
            numbers = [angles[angle.source][angle.index] for angle in order]
            tapes.append(template.bind_new_parameters(numbers, range(len(order))))
        values, jacobians = device.execute_and_compute_derivatives(tapes)
        return np.array(values).reshape(-1), *sum_by_angle(circuit, np.array(jacobians, dtype=np.float64))

    return step


def prepare_qulacs(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """Qulacs: a loop over the samples, backprop_inner_product with 2 Z_0 |state>.

    That is what `backprop` computes, but reuses the state that the value needs. Qulacs' parametric RY turns the other
    way, so angles and slopes change sign.
    """
    import qulacs

    converted = qulacs.ParametricQuantumCircuit(circuit.n_qubits)
    for gate in circuit.gates:
        if gate.angle is None:
            converted.add_CNOT_gate(gate.control, gate.target)
        else:
            converted.add_parametric_RY_gate(gate.target, 0.0)
    observable = qulacs.Observable(circuit.n_qubits)
    observable.add_operator(1.0, "Z 0")
    z = qulacs.gate.Z(0)
    state = qulacs.QuantumState(circuit.n_qubits)
    order = list(enumerate(rotations(circuit)))
    shared = [(place, angle.index) for place, angle in order if angle.source == "weight"]
    own = [(place, angle.index) for place, angle in order if angle.source == "input"]

    def step() -> Result:
        values = np.empty(len(inputs))
        slopes = np.empty((len(inputs), len(order)))
        for place, index in shared:
            converted.set_parameter(place, -weights[index])
        for row, sample in enumerate(inputs):
            for place, index in own:
                converted.set_parameter(place, -sample[index])
            state.set_zero_state()
            converted.update_quantum_state(state)
            values[row] = observable.get_expectation_value(state)
            z.update_quantum_state(state)
            state.multiply_coef(2)
            slopes[row] = converted.backprop_inner_product(state)
        return values, *sum_by_angle(circuit, -slopes)

    return step


def prepare_deepquantum(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """DeepQuantum: inputs as encoded data, which it vmaps over the samples, torch's reverse mode."""
    import deepquantum as dq
    import torch

    converted = dq.QubitCircuit(circuit.n_qubits)
    trained: dict[int, Any] = {}
    columns: list[int] = []
    for gate in circuit.gates:
        if gate.angle is None:
            converted.cnot(gate.control, gate.target)
        elif gate.angle.source == "input":
            converted.ry(gate.target, encode=True)
            columns.append(gate.angle.index)
        elif gate.angle.index in trained:
            converted.add(trained[gate.angle.index], wires=gate.target)
        else:
            converted.ry(gate.target)
            trained[gate.angle.index] = converted.operators[-1]
    converted.observable(0)
    angles = [trained[index].theta for index in range(circuit.n_weights)]
    with torch.no_grad():
        for angle, number in zip(angles, weights, strict=True):
            angle.fill_(float(number))
    samples = torch.tensor(inputs, dtype=torch.float32, requires_grad=True)

    def expectation() -> Any:
        converted(data=samples[:, columns])
        return converted.expectation()[:, 0]

    return torch_step(expectation, angles, samples)


def prepare_pyqtorch(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """PyQTorch: the batch in the state's last dimension, torch's reverse mode.

    Its adjoint mode is slower here, and wrong for a CNOT whose control is the higher qubit (1.7.8). Running the circuit
    and the observable, as `pyqtorch.expectation` does, leaves out the log messages that it formats at every call.
    """
    import pyqtorch as pyq
    import torch

    def name(angle: Angle) -> str:
        return f"{angle.source}{angle.index}"

    operations = [
        pyq.CNOT(gate.control, gate.target) if gate.angle is None else pyq.RY(gate.target, name(gate.angle))
        for gate in circuit.gates
    ]
    converted = pyq.QuantumCircuit(circuit.n_qubits, operations).to(dtype=torch.complex64)
    observable = pyq.Observable(pyq.Z(0)).to(dtype=torch.complex64)
    angles = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
    samples = torch.tensor(inputs, dtype=torch.float32, requires_grad=True)

    def expectation() -> Any:
        values = {name(Angle("weight", index)): number for index, number in enumerate(angles.unbind())}
        values |= {name(Angle("input", index)): column for index, column in enumerate(samples.unbind(1))}
        return observable.expectation(converted.run(values=values), values)

    return torch_step(expectation, [angles], samples)


def jax_step(expectation: Callable[[Any, Any], Any], weights: Array, inputs: Array) -> Step:
    """The step of a batched JAX function of weights and inputs, in float32."""
    import jax

    def total(weights: Any, inputs: Any) -> tuple[Any, Any]:
        values = expectation(weights, inputs)
        return values.sum(), values

    differentiated = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    numbers = [jax.numpy.asarray(array, dtype=jax.numpy.float32) for array in (weights, inputs)]

    def step() -> Result:
        (_, values), gradients = jax.block_until_ready(differentiated(*numbers))
        return np.asarray(values), np.asarray(gradients[0]), np.asarray(gradients[1])

    return step


def torch_step(expectation: Callable[[], Tensor], weights: Sequence[Tensor], inputs: Tensor) -> Step:
    """The step of a batched torch function of these leaves; the weights may come in several tensors."""
    import torch

    def step() -> Result:
        values = expectation()
        *grad_weights, grad_inputs = torch.autograd.grad(values.sum(), [*weights, inputs])
        flat = torch.cat([gradient.reshape(-1) for gradient in grad_weights])
        return values.detach().numpy(), flat.numpy(), grad_inputs.numpy()

    return step


def rotations(circuit: Circuit) -> list[Angle]:
    """The angle of each rotation, in the order of the gates."""
    return [gate.angle for gate in circuit.gates if gate.angle is not None]


def sum_by_angle(circuit: Circuit, slopes: Array) -> tuple[Array, Array]:
    """The gradients to weights and inputs, from the slopes (batch, rotations) to each rotation's own angle."""
    grad_weights = np.zeros(circuit.n_weights)
    grad_inputs = np.zeros((len(slopes), circuit.n_inputs))
    totals = slopes.sum(axis=0)
    for place, angle in enumerate(rotations(circuit)):
        if angle.source == "weight":
            grad_weights[angle.index] += totals[place]
        else:
            grad_inputs[:, angle.index] += slopes[:, place]
    return grad_weights, grad_inputs


def torch_threads() -> int:
    """Threads inside one torch operation."""
    import torch

    return torch.get_num_threads()


def threads_by(variable: str) -> int:
    """The size of a thread pool: what the variable says, else the cores that this process may run on."""
    return int(os.environ.get(variable, len(os.sched_getaffinity(0))))


JAX_THREADS = partial(threads_by, "NPROC")
OPENMP_THREADS = partial(threads_by, "OMP_NUM_THREADS")

# States of a few qubits are too small to share: one OpenMP thread is as fast as two, and much faster on a busy machine.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

PEERS = {
    "deepquantum": Peer("deepquantum", "complex64", "vmap, torch autograd", prepare_deepquantum, torch_threads),
    "default.qubit": Peer("pennylane", "complex128", "broadcast, torch backprop", prepare_default_qubit, torch_threads),
    "default.qubit-jax": Peer(
        "pennylane", "complex64", "broadcast, JAX backprop, jit", prepare_default_qubit_jax, JAX_THREADS
    ),
    "lightning.qubit": Peer(
        "pennylane_lightning", "complex64", "loop, adjoint", prepare_lightning, OPENMP_THREADS, ONE_THREAD
    ),
    "pyqtorch": Peer("pyqtorch", "complex64", "batched, torch autograd", prepare_pyqtorch, torch_threads),
    "qulacs": Peer("qulacs", "complex128", "loop, backprop", prepare_qulacs, OPENMP_THREADS, ONE_THREAD),
    "tensorcircuit": Peer(
        "tensorcircuit-ng", "complex64", "JAX, vmap, value_and_grad, jit", prepare_tensorcircuit, JAX_THREADS
    ),
}


if __name__ == "__main__":
    main()
