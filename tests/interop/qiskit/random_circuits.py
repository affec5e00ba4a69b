"""Random Qiskit circuits with free parameters, whose angles are expressions of all kinds."""

from __future__ import annotations

import random

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import get_standard_gate_name_mapping

GATES = {
    name: gate
    for name, gate in get_standard_gate_name_mapping().items()
    if name not in ("measure", "reset", "delay", "barrier", "global_phase")
}
PARAMETERS = [Parameter(name) for name in "abc"]


def random_qiskit_circuit(n_qubits: int, n_gates: int, seed: int, affine: bool = False) -> QuantumCircuit:
    """A circuit of random standard gates; its angles are numbers and expressions of three parameters, all used."""
    rng = random.Random(seed)
    a, b, c = PARAMETERS

    def angle():
        forms = [rng.uniform(-3, 3), rng.choice(PARAMETERS), 2 * a + 0.5, b - c / 3]
        return rng.choice(forms if affine else [*forms, a * b, (c * a).sin(), 1 / (2 + b * b), a.exp() * c])

    circuit = QuantumCircuit(n_qubits, global_phase=0.3)
    for parameter in PARAMETERS:
        circuit.ry(parameter, rng.randrange(n_qubits))
    names = sorted(name for name, gate in GATES.items() if gate.num_qubits <= n_qubits)
    for _ in range(n_gates):
        gate = GATES[rng.choice(names)]
        chosen = gate.base_class(*(angle() for _ in gate.params))
        circuit.append(chosen, rng.sample(range(n_qubits), gate.num_qubits))
    return circuit
