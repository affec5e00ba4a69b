"""The machine behind the test server: it checks jobs and runs their circuits with Qiskit Aer."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import (
    HGate,
    RXGate,
    RXXGate,
    RYGate,
    RYYGate,
    RZGate,
    RZZGate,
    SdgGate,
    SGate,
    SwapGate,
    SXdgGate,
    SXGate,
    TdgGate,
    TGate,
    UnitaryGate,
    XGate,
    YGate,
    ZGate,
)
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error
from qiskit_ionq.ionq_gates import GPI2Gate, GPIGate, MSGate, ZZGate

BACKENDS = {"simulator": 29, "qpu.forte-1": 36, "qpu.aria-1": 25}
RATES = {"job_cost_minimum": 10.0, "cost_1q_gate": 0.0002, "cost_2q_gate": 0.001}
MITIGATED_MINIMUM = 80.0
# Errors per one-qubit gate, per two-qubit gate and per read-out.
NOISE = {"ideal": (0.0, 0.0, 0.0), "aria-1": (0.0005, 0.004, 0.0039), "forte-1": (0.0002, 0.0059, 0.0038)}

_FIXED: dict[str, type] = {
    "x": XGate,
    "not": XGate,
    "cnot": XGate,
    "y": YGate,
    "z": ZGate,
    "h": HGate,
    "s": SGate,
    "si": SdgGate,
    "t": TGate,
    "ti": TdgGate,
    "v": SXGate,
    "vi": SXdgGate,
    "swap": SwapGate,
}
_ROTATIONS: dict[str, type] = {"rx": RXGate, "ry": RYGate, "rz": RZGate, "xx": RXXGate, "yy": RYYGate, "zz": RZZGate}


class RequestRefused(Exception):
    """A request that the API rejects with status 400, or the given one."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check_payload(payload: Any, size: int) -> None:
    """Reject what the API rejects according to its published schema."""
    if size > 10 * 2**20:
        raise RequestRefused("the request body may not exceed 10MB", 413)
    if not isinstance(payload, dict):
        raise RequestRefused("the body must be an object")
    missing = {"type", "backend", "input"} - payload.keys()
    known = {"type", "backend", "input", "shots", "name", "metadata", "noise", "settings", "session_id", "dry_run"}
    if missing or payload.keys() - known:
        raise RequestRefused(f"missing {sorted(missing)}, unknown {sorted(payload.keys() - known)}")
    if payload["backend"] not in BACKENDS:
        raise RequestRefused(f"no such backend: {payload['backend']}")
    if not isinstance(payload.get("shots"), int) or not 1 <= payload["shots"] <= 1_000_000:
        raise RequestRefused("shots must be an integer from 1 to 1000000")
    metadata = payload.get("metadata") or {}
    if len(metadata) > 10 or any(not isinstance(value, str) or len(value) > 40_000 for value in metadata.values()):
        raise RequestRefused("metadata: at most 10 keys, each a string of at most 40000 characters")
    debiasing = (payload.get("settings") or {}).get("error_mitigation", {}).get("debiasing")
    if debiasing and payload["shots"] < 500:
        raise RequestRefused("debiasing needs at least 500 shots")
    if payload["backend"] == "simulator" and (payload.get("noise") or {}).get("model", "ideal") not in NOISE:
        raise RequestRefused("no such noise model")
    gates = [gate for circuit in circuits_of(payload) for gate in circuit]
    if len(circuits_of(payload)) > 5_000 or len(gates) > 150_000:
        raise RequestRefused("a job may contain at most 5000 circuits and 150000 gates")
    width = payload["input"]["qubits"]
    for gate in gates:
        _check_gate(gate, width, payload["input"]["gateset"])
    if width > BACKENDS[payload["backend"]]:
        raise RequestRefused(f"{payload['backend']} has {BACKENDS[payload['backend']]} qubits")


def circuits_of(payload: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the gate lists of a job of one circuit or of several."""
    content = payload["input"]
    if payload["type"] == "ionq.multi-circuit.v1":
        return [circuit["circuit"] for circuit in content["circuits"]]
    if payload["type"] == "ionq.circuit.v1":
        return [content["circuit"]]
    raise RequestRefused(f"no such type: {payload['type']}")


def count_gates(payload: dict[str, Any]) -> dict[str, int]:
    """Count the gates on one qubit and on two of all circuits of a job."""
    gates = [gate for circuit in circuits_of(payload) for gate in circuit]
    two = sum(len(_qubits(gate)) == 2 for gate in gates)
    return {"1q": len(gates) - two, "2q": two}


def price(gates: dict[str, int], shots: int, mitigated: bool) -> float:
    """Return the price per gate and shot, with a minimum."""
    used = shots * (gates["1q"] * RATES["cost_1q_gate"] + gates["2q"] * RATES["cost_2q_gate"])
    return max(MITIGATED_MINIMUM if mitigated else RATES["job_cost_minimum"], used)


def run(payload: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """Return the probability of each state of each circuit, exact or by shots; bit k of a state is qubit k."""
    simulated = payload["backend"] == "simulator"
    model = (payload.get("noise") or {}).get("model", "ideal") if simulated else payload["backend"][4:]
    width, native = payload["input"]["qubits"], payload["input"]["gateset"] == "native"
    circuits = [_build(circuit, width, native) for circuit in circuits_of(payload)]
    if model == "ideal":
        for circuit in circuits:
            circuit.save_probabilities()
        exact = AerSimulator(method="statevector", max_parallel_threads=1).run(circuits, shots=1).result()
        rows = [dict(enumerate(exact.data(k)["probabilities"])) for k in range(len(circuits))]
        return [{str(state): float(p) for state, p in row.items() if p > 1e-12} for row in rows]
    for circuit in circuits:
        circuit.measure_all()
    noisy = AerSimulator(noise_model=_noise_model(model), max_parallel_threads=1)
    result = noisy.run(circuits, shots=payload["shots"], seed_simulator=seed).result()
    counts = [result.get_counts(k) for k in range(len(circuits))]
    return [{str(int(bits, 2)): count / payload["shots"] for bits, count in row.items()} for row in counts]


def _qubits(gate: dict[str, Any]) -> list[int]:
    targets = [gate["target"]] if "target" in gate else gate.get("targets", [])
    controls = [gate["control"]] if "control" in gate else gate.get("controls", [])
    return [*controls, *targets]


def _check_gate(gate: dict[str, Any], width: int, gateset: str) -> None:
    known = {"gpi", "gpi2", "ms", "zz"} if gateset == "native" else _FIXED.keys() | _ROTATIONS.keys()
    if gate.get("gate") not in known:
        raise RequestRefused(f"{gate.get('gate')!r} is not a gate of the set {gateset!r}")
    qubits = _qubits(gate)
    if not qubits or len(set(qubits)) < len(qubits) or not all(0 <= qubit < width for qubit in qubits):
        raise RequestRefused(f"a gate on the qubits {qubits} of {width}")
    numbers = [gate[key] for key in ("rotation", "phase", "angle") if key in gate] + gate.get("phases", [])
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise RequestRefused(f"not a number: {numbers}")


def _build(gates: list[dict[str, Any]], width: int, native: bool) -> QuantumCircuit:
    circuit = QuantumCircuit(width)
    for gate in gates:
        name = gate["gate"]
        if native:
            kinds = {"gpi": GPIGate, "gpi2": GPI2Gate, "ms": MSGate, "zz": ZZGate}
            angles = [gate["phase"]] if "phase" in gate else [*gate.get("phases", []), gate.get("angle", 0.25)]
            matrix = kinds[name](*angles).to_matrix()
            circuit.append(UnitaryGate(matrix, label=f"native{len(_qubits(gate))}"), _qubits(gate))
            continue
        operation = _ROTATIONS[name](gate["rotation"]) if name in _ROTATIONS else _FIXED[name]()
        controls = len(_qubits(gate)) - operation.num_qubits
        circuit.append(operation.control(controls) if controls else operation, _qubits(gate))
    return circuit if native else transpile(circuit, basis_gates=["u", "rx", "ry", "rz", "cx"], optimization_level=0)


@cache
def _noise_model(name: str) -> NoiseModel:
    one, two, read = NOISE[name]
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(one, 1), ["u", "rx", "ry", "rz", "native1"])
    model.add_all_qubit_quantum_error(depolarizing_error(two, 2), ["cx", "native2"])
    model.add_all_qubit_readout_error(ReadoutError([[1 - read, read], [read, 1 - read]]))
    return model
