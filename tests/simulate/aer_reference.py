"""Noise models for the tests, and reference results from Qiskit Aer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import DensityMatrix, Kraus, Operator, Pauli, Statevector, SuperOp
from qiskit_aer import AerSimulator
from qiskit_aer.library import SetDensityMatrix
from qiskit_aer.noise import NoiseModel, QuantumError, depolarizing_error, pauli_error, thermal_relaxation_error
from torch import Tensor

from ketfit.circuit import Circuit
from ketfit.circuit.export import to_qiskit
from ketfit.simulate import NoiseConfig
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_matrix import density_matrix_words

_TIMES = {"time_1q_us": 1.5, "time_2q_us": 6.0}
ALL = NoiseConfig(
    depolarizing_1q=0.02,
    depolarizing_2q=0.05,
    bit_flip=0.01,
    phase_flip=0.03,
    t1_us=80.0,
    t2_us=110.0,
    preparation=0.04,
    **_TIMES,
)
NOISES = {
    "depolarizing of rotations": NoiseConfig(depolarizing_1q=0.07),
    "depolarizing of CNOTs": NoiseConfig(depolarizing_2q=0.1),
    "bit flips": NoiseConfig(bit_flip=0.04),
    "phase flips": NoiseConfig(phase_flip=0.06),
    "damping": NoiseConfig(t1_us=50.0, **_TIMES),
    "dephasing": NoiseConfig(t2_us=40.0, **_TIMES),
    "relaxation": NoiseConfig(t1_us=50.0, t2_us=70.0, **_TIMES),
    "fast dephasing": NoiseConfig(t1_us=50.0, t2_us=20.0, **_TIMES),
    "a twirl": NoiseConfig(t1_us=30.0, t2_us=40.0, pauli_twirl=True, **_TIMES),
    "preparation": NoiseConfig(preparation=0.1),
    "all": ALL,
    "all, twirled": ALL.updated(pauli_twirl=True),
}
DIGITS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, -1]], [[0, -1j], [1j, 0]]])  # I, X, Z, Y


def example_parities(n_qubits: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Return each qubit, all qubits, no qubit, and a shuffled half."""
    half = np.random.default_rng(seed).permutation(n_qubits)[: 1 + n_qubits // 2].tolist()
    return [*((qubit,) for qubit in range(n_qubits)), tuple(range(n_qubits)), (), tuple(half)]


def density_matrix_expectation(batch: CircuitBatch, parities: Sequence[tuple[int, ...]], noise: NoiseConfig) -> Tensor:
    """Return <Z_j Z_k ...> of each parity; an empty one gives the trace."""
    return density_matrix_words(batch, [("Z" * len(parity), parity) for parity in parities], noise)


def density_matrix_from_coefficients(coefficients: np.ndarray) -> np.ndarray:
    """Return rho from tr(P rho) of every string P."""
    n_qubits = coefficients.size.bit_length() // 2
    result = coefficients.reshape([4] * n_qubits)
    for _ in range(n_qubits):  # the first digit turns into a row and a column behind the others
        result = np.tensordot(result, DIGITS / 2, axes=(0, 0))
    rows = list(range(0, 2 * n_qubits, 2))
    return result.transpose(rows + [1 + row for row in rows]).reshape(2**n_qubits, 2**n_qubits)


def aer_channels(noise: NoiseConfig) -> tuple[SuperOp, SuperOp]:
    """Return the channels after a rotation and after a CNOT."""
    one = SuperOp(depolarizing_error(noise.depolarizing_1q, 1)).compose(_on_each(noise, noise.time_1q_us))
    each = _on_each(noise, noise.time_2q_us)
    return one, SuperOp(depolarizing_error(noise.depolarizing_2q, 2)).compose(each.tensor(each))


def run_aer(
    circuit: Circuit,
    weights: np.ndarray,
    inputs: np.ndarray,
    initial: np.ndarray | None,
    noise: NoiseConfig,
    parities: Sequence[tuple[int, ...]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Return each parity's expectation and the density matrix of one sample, with qubit 0 the highest bit."""
    model, converted = NoiseModel(), QuantumCircuit(circuit.n_qubits)
    for name, channel in zip(("ry", "cx"), aer_channels(noise), strict=True):
        model.add_all_qubit_quantum_error(QuantumError(Kraus(channel)), [name])
    if initial is not None:
        start = DensityMatrix(Statevector(initial).reverse_qargs())
        converted.append(SetDensityMatrix(start), range(circuit.n_qubits))
    for qubit in range(circuit.n_qubits):
        converted.append(_flip("X", noise.preparation).to_instruction(), [qubit])
    converted.compose(to_qiskit(circuit, weights, inputs), inplace=True)
    for label, parity in enumerate(parities):
        converted.save_expectation_value(Pauli("Z" * len(parity)), list(parity), label=str(label))
    converted.save_density_matrix(label="matrix")
    simulator = AerSimulator(method="density_matrix", noise_model=model, max_parallel_threads=1)
    data = simulator.run(converted).result().data()
    matrix = DensityMatrix(np.asarray(data["matrix"])).reverse_qargs().data
    return np.array([data[str(label)] for label in range(len(parities))]), matrix


def run_aer_on_any_gates(
    circuit: Circuit, weights: np.ndarray, inputs: np.ndarray, initial: np.ndarray | None, noise: NoiseConfig
) -> np.ndarray:
    """Return the density matrix of one sample, with qubit 0 the highest bit, of gates on at most two qubits.

    Every gate is a unitary, and the channel of its number of qubits an instruction behind it.
    """
    converted = QuantumCircuit(circuit.n_qubits)
    start = np.eye(1, 2**circuit.n_qubits)[0] if initial is None else initial
    converted.append(SetDensityMatrix(DensityMatrix(Statevector(start).reverse_qargs())), range(circuit.n_qubits))
    for qubit in range(circuit.n_qubits):
        converted.append(Kraus(_flip("X", noise.preparation)).to_instruction(), [qubit])
    channels = [Kraus(channel).to_instruction() for channel in aer_channels(noise)]
    for instruction in to_qiskit(circuit, weights, inputs).data:
        if not instruction.qubits:  # a global phase
            continue
        converted.unitary(Operator(instruction.operation), instruction.qubits)
        converted.append(channels[len(instruction.qubits) - 1], instruction.qubits)
    converted.save_density_matrix()
    data = AerSimulator(method="density_matrix", max_parallel_threads=1).run(converted).result().data()
    return DensityMatrix(np.asarray(data["density_matrix"])).reverse_qargs().data


def _flip(pauli: str, probability: float) -> SuperOp:
    return SuperOp(pauli_error([(pauli, probability), ("I", 1 - probability)]))


def _on_each(noise: NoiseConfig, time: float | None) -> SuperOp:
    flips = _flip("X", noise.bit_flip).compose(_flip("Z", noise.phase_flip))
    if time is None:
        return flips
    t1 = math.inf if noise.t1_us is None else noise.t1_us
    relaxation = SuperOp(thermal_relaxation_error(t1, 2 * t1 if noise.t2_us is None else noise.t2_us, time))
    return flips.compose(twirl(relaxation) if noise.pauli_twirl else relaxation)


def twirl(channel: SuperOp) -> SuperOp:
    """Return the mean over the Paulis P of P, the channel, and P again."""
    paulis = [SuperOp(Pauli(name)) for name in "IXYZ"]
    return sum((pauli.compose(channel).compose(pauli) for pauli in paulis[1:]), start=channel) / 4
