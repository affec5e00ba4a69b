"""Noisy circuits in KetFit and in other simulators, in one run: exact density matrices and trajectories.

The circuit is that of kernel.py, one sample, depolarizing after every gate: 0.1 % after RY, 1 % after CNOT. Exact: the
density matrix's <Z_0>, every value compared. Sampled: 1,000 trajectories against 1,000 noisy shots of a statevector.
All in one process; both sides of a row by the same loop, KetFit before and after the other. qulacs comes on top of
what the tests need: pip install qulacs.

    python benchmarks/noise.py --output benchmarks/results/noise.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from kernel import earlier, start_report, write_json
from peers.step import benchmark_circuit

from ketfit import Circuit, NoiseConfig, expectation
from ketfit.circuit.export import to_qiskit
from ketfit.simulate.mitigation import mitigated_expectation

NOISE = NoiseConfig(depolarizing_1q=0.001, depolarizing_2q=0.01)
SAMPLES, SHOTS = 32, 1000
Numbers = tuple[Circuit, torch.Tensor, torch.Tensor]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    qubits: Annotated[list[int], typer.Option(help="Widths; repeat it for several.")] = [6, 8, 10],  # noqa: B006
    parts: Annotated[list[str] | None, typer.Option(help="Of the report; the file keeps the others.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file.")] = None,
) -> None:
    """Time every simulator and print how many times slower than KetFit it is."""
    known: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "exact": lambda: [row for width in qubits for row in exact_rows(width)],
        "trajectories": lambda: [trajectory_row(width) for width in qubits],
        "training": lambda: [training_row(width) for width in qubits],
        "mitigation": mitigation_rows,
    }
    names, report = start_report("noise", "parts", known, {"qubits": qubits, "parts": parts})
    report |= {
        "noise": NOISE.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("qiskit-aer", "pennylane", "qulacs")},
    }
    kept = {} if output is None else earlier(output, report)
    report |= {name: known[name]() if name in names else kept.get(name) for name in known}
    report["command"] = kept.get("command", report["command"])  # that of the first run, which made all parts
    print(json.dumps(report, indent=2))
    if output is not None:
        write_json(output, report)


def exact_rows(width: int) -> list[dict[str, Any]]:
    """KetFit's density matrix in both precisions against each peer."""
    numbers = some_numbers(width, 1)
    circuit, weights, inputs = numbers
    single = (weights.float(), inputs.float())
    rows = []
    for name, prepare in {"qiskit-aer": aer_density, "pennylane": pennylane_density, "qulacs": qulacs_density}.items():
        run = prepare(numbers)
        seconds = 1 if name == "qiskit-aer" or width < 8 else 0
        before = best(lambda: expectation(circuit, weights, inputs, noise=NOISE))
        before_single = best(lambda: expectation(circuit, *single, noise=NOISE))
        theirs = best(run, seconds)
        ours = min(before, best(lambda: expectation(circuit, weights, inputs, noise=NOISE)))
        ours_single = min(before_single, best(lambda: expectation(circuit, *single, noise=NOISE)))
        value = float(expectation(circuit, weights, inputs, noise=NOISE))
        rows.append(
            {
                "qubits": width,
                "peer": name,
                "peer_ms": milliseconds(theirs),
                "ketfit_ms": milliseconds(ours),
                "ketfit_float32_ms": milliseconds(ours_single),
                "ratio": round(theirs / ours, 1),
                "ratio_float32": round(theirs / ours_single, 1),
                "difference": abs(value - run()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def trajectory_row(width: int) -> dict[str, Any]:
    """1,000 trajectories against 1,000 noisy shots of Aer's statevector."""
    numbers = some_numbers(width, 1)
    circuit, weights, inputs = numbers[0], numbers[1].float(), numbers[2].float()
    run = aer_shots(numbers)

    def sample() -> float:
        return float(expectation(circuit, weights, inputs, noise=NOISE, trajectories=SHOTS))

    before, theirs = best(sample), best(run)
    ours = min(before, best(sample))
    exact = float(expectation(*numbers, noise=NOISE))
    row = {
        "qubits": width,
        "aer_shots_ms": milliseconds(theirs),
        "ketfit_ms": milliseconds(ours),
        "ratio": round(theirs / ours, 1),
        "exact": exact,
        "aer": run(),
        "ketfit": sample(),
    }
    print(row, flush=True)
    return row


def training_row(width: int) -> dict[str, Any]:
    """A training step of 32 samples with 32 trajectories each, against a noiseless one of as many states."""
    circuit, weights, inputs = some_numbers(width, SAMPLES)
    weights, inputs = weights.float().requires_grad_(), inputs.float()
    states = inputs.repeat_interleave(SAMPLES, 0)

    def step(inputs: torch.Tensor, **settings: Any) -> None:
        torch.autograd.grad(expectation(circuit, weights, inputs, **settings).sum(), weights)

    def noiseless() -> None:
        step(states)

    def noisy() -> None:
        step(inputs, noise=NOISE, trajectories=SAMPLES)

    quiet, loud = best(noiseless), best(noisy)
    quiet, loud = min(quiet, best(noiseless)), min(loud, best(noisy))
    few = best(lambda: step(inputs))
    row = {
        "qubits": width,
        "noiseless_32_samples_ms": milliseconds(few),
        "noiseless_1024_states_ms": milliseconds(quiet),
        "noisy_32_samples_32_trajectories_ms": milliseconds(loud),
        "cost_per_state": round(loud / quiet, 2),
    }
    print(row, flush=True)
    return row


def mitigation_rows(width: int = 6) -> list[dict[str, Any]]:
    """Mean distance to the noiseless <Z_0> of 32 samples, with and without each mitigation: of means, and of shots."""
    circuit, weights, inputs = some_numbers(width, SAMPLES)
    exact = expectation(circuit, weights, inputs)
    rows: list[dict[str, Any]] = []
    for error in (0.002, 0.005, 0.01, 0.02):
        noise = NOISE.updated(depolarizing_2q=error, depolarizing_1q=error / 10, readout=((0.98, 0.04), (0.02, 0.96)))
        for kinds in ((), ("readout",), ("zero_noise",), ("readout", "zero_noise")):
            row: dict[str, Any] = {"two_qubit_error": error, "mitigation": list(kinds)}
            for name, shots in (("bias", None), ("error_with_1000_shots", SHOTS)):
                generator = torch.Generator().manual_seed(0)
                values = mitigated_expectation(
                    circuit, weights, inputs, mitigation=kinds, noise=noise, shots=shots, generator=generator
                )
                row[name] = round(float((values - exact).abs().mean()), 4)
            rows.append(row)
    return rows


def some_numbers(width: int, batch: int) -> Numbers:
    """The circuit, its weights, and inputs for a batch, in double precision."""
    circuit = benchmark_circuit(width)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(circuit.n_weights, generator=generator, dtype=torch.float64)
    return circuit, weights, torch.randn(batch, circuit.n_inputs, generator=generator, dtype=torch.float64)


def best(run: Callable[[], Any], seconds: float = 1) -> float:
    """The shortest of the runs that fit into so many seconds; the first does not count if there is another."""
    run_once = time.perf_counter()
    run()
    times = [time.perf_counter() - run_once]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[1:] or times)


def milliseconds(seconds: float) -> float:
    """Rounded for a table."""
    return round(1e3 * seconds, 3)


def aer_noise() -> Any:
    """The same noise for Aer."""
    from qiskit_aer.noise import NoiseModel, depolarizing_error

    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(NOISE.depolarizing_1q, 1), ["ry"])
    model.add_all_qubit_quantum_error(depolarizing_error(NOISE.depolarizing_2q, 2), ["cx"])
    return model


def aer_density(numbers: Numbers) -> Callable[[], float]:
    """Aer's density-matrix method; qubit 0 of the circuit is 0 of Qiskit's too."""
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_aer import AerSimulator

    circuit, weights, inputs = numbers
    program = to_qiskit(circuit, weights.tolist(), inputs[0].tolist())
    program.save_expectation_value(SparsePauliOp.from_sparse_list([("Z", [0], 1.0)], circuit.n_qubits), program.qubits)
    simulator = AerSimulator(method="density_matrix", noise_model=aer_noise())
    return lambda: float(simulator.run(program, shots=1).result().data()["expectation_value"])


def aer_shots(numbers: Numbers) -> Callable[[], float]:
    """1,000 noisy shots of Aer's statevector method."""
    from qiskit import ClassicalRegister
    from qiskit_aer import AerSimulator

    circuit, weights, inputs = numbers
    program = to_qiskit(circuit, weights.tolist(), inputs[0].tolist())
    program.add_register(ClassicalRegister(1))
    program.measure(0, program.clbits[-1])
    simulator = AerSimulator(method="statevector", noise_model=aer_noise())

    def run() -> float:
        counts = simulator.run(program, shots=SHOTS).result().get_counts()
        ones: int = sum(count for bits, count in counts.items() if "1" in bits)
        return 1 - 2 * ones / SHOTS

    return run


def pennylane_density(numbers: Numbers) -> Callable[[], float]:
    """PennyLane's default.mixed; its two-qubit depolarizing is a sum over Paulis, given as Kraus operators."""
    import numpy as np
    import pennylane as qml

    circuit, weights, inputs = numbers
    paulis = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
    p = NOISE.depolarizing_2q
    kraus = [
        np.sqrt(p / 16 + (1 - p if first + second == 0 else 0)) * np.kron(paulis[first], paulis[second])
        for first in range(4)
        for second in range(4)
    ]
    device = qml.device("default.mixed", wires=circuit.n_qubits)

    def program() -> Any:
        for gate in circuit.gates:
            if gate.angle is None:
                qml.CNOT(wires=gate.qubits)
                qml.QubitChannel(kraus, wires=gate.qubits)
            else:
                source = weights if gate.angle.source == "weight" else inputs[0]
                qml.RY(float(source[gate.angle.index]), wires=gate.target)
                qml.DepolarizingChannel(0.75 * NOISE.depolarizing_1q, wires=gate.target)
        return qml.expval(qml.PauliZ(0))

    node = qml.QNode(program, device)
    return lambda: float(node())


def qulacs_density(numbers: Numbers) -> Callable[[], float]:
    """qulacs's density matrix with its own depolarizing gates."""
    from qulacs import DensityMatrix, Observable, QuantumCircuit
    from qulacs.gate import CNOT, RY, DepolarizingNoise, TwoQubitDepolarizingNoise

    circuit, weights, inputs = numbers
    program = QuantumCircuit(circuit.n_qubits)
    for gate in circuit.gates:
        if gate.angle is None:
            program.add_gate(CNOT(gate.control, gate.target))
            program.add_gate(TwoQubitDepolarizingNoise(gate.control, gate.target, 15 / 16 * NOISE.depolarizing_2q))
        else:
            source = weights if gate.angle.source == "weight" else inputs[0]
            program.add_gate(RY(gate.target, -float(source[gate.angle.index])))  # its sign of the angle
            program.add_gate(DepolarizingNoise(gate.target, 0.75 * NOISE.depolarizing_1q))
    observable = Observable(circuit.n_qubits)
    observable.add_operator(1.0, "Z 0")

    def run() -> float:
        state = DensityMatrix(circuit.n_qubits)
        program.update_quantum_state(state)
        return float(observable.get_expectation_value(state).real)

    return run


if __name__ == "__main__":
    app()
