"""Qiskit Aer with KetFit's noise models: an independent check of the simulator, and a substitute for a QPU."""

from __future__ import annotations

import math
from typing import Any

from ketfit.circuit.gate import GATES
from ketfit.errors import optional_imports
from ketfit.simulate.noise import NoiseConfig


def aer_simulator(noise: NoiseConfig | None = None, seed: int | None = None, max_qubits: int | None = None) -> Any:
    """Return a Qiskit `AerSimulator` that runs gates as they are and follows each with its noise.

    Args:
        noise: As in `ketfit.expectation`; None is a perfect device.
        seed: Seed of the shots; None draws a new one for every job.
        max_qubits: Largest circuit; None leaves it to Aer, which decides by the free memory.

    Raises:
        MissingExtraError: qiskit-aer is not installed.
    """
    with optional_imports("Qiskit Aer", "hardware"):
        from qiskit_aer import AerSimulator
    options: dict[str, Any] = {"seed_simulator": seed}
    if noise is not None:
        options["noise_model"] = aer_noise_model(noise)
    if max_qubits is not None:
        options["n_qubits"] = max_qubits
    return AerSimulator(**options)


def aer_noise_model(noise: NoiseConfig) -> Any:
    """Return the noise as a Qiskit Aer `NoiseModel` for the gates of `GATES` on one and two qubits.

    Gates that Aer does not have are decomposed, and each part has noise. Preparation errors follow ``reset``: a circuit
    must begin with a reset of every qubit to have them.

    Raises:
        MissingExtraError: qiskit-aer is not installed.
    """
    with optional_imports("Qiskit Aer's noise", "hardware"):
        from qiskit.quantum_info import Kraus, SuperOp
        from qiskit_aer import AerSimulator
        from qiskit_aer.noise import NoiseModel, QuantumError, ReadoutError, depolarizing_error

    widths = {name: gate.n_qubits for name, gate in GATES.items() if gate.n_qubits in (1, 2)}
    names = [name for name in AerSimulator().configuration().basis_gates if name in widths]
    model = NoiseModel(basis_gates=[*names, "reset"])
    one = SuperOp(depolarizing_error(noise.depolarizing_1q, 1)).compose(_qubit_channel(noise, noise.time_1q_us))
    each = _qubit_channel(noise, noise.time_2q_us)
    two = SuperOp(depolarizing_error(noise.depolarizing_2q, 2)).compose(each.tensor(each))
    for width, channel in ((1, one), (2, two)):
        model.add_all_qubit_quantum_error(QuantumError(Kraus(channel)), [n for n in names if widths[n] == width])
    model.add_all_qubit_quantum_error(QuantumError(Kraus(_flip("X", noise.preparation))), ["reset"])
    if noise.readout is not None:
        # Aer's rows are the true bits, ours the measured bits.
        model.add_all_qubit_readout_error(ReadoutError(list(zip(*noise.readout, strict=True))))
    return model


def _flip(pauli: str, probability: float) -> Any:
    from qiskit.quantum_info import SuperOp
    from qiskit_aer.noise import pauli_error

    return SuperOp(pauli_error([(pauli, probability), ("I", 1 - probability)]))


def _qubit_channel(noise: NoiseConfig, time: float | None) -> Any:
    from qiskit.quantum_info import Pauli, SuperOp
    from qiskit_aer.noise import thermal_relaxation_error

    flips = _flip("X", noise.bit_flip).compose(_flip("Z", noise.phase_flip))
    if time is None:
        return flips
    t1 = math.inf if noise.t1_us is None else noise.t1_us
    relaxation = SuperOp(thermal_relaxation_error(t1, 2 * t1 if noise.t2_us is None else noise.t2_us, time))
    if noise.pauli_twirl:
        paulis = [SuperOp(Pauli(name)) for name in "IXYZ"]
        relaxation = sum((p.compose(relaxation).compose(p) for p in paulis[1:]), start=relaxation) / 4
    return flips.compose(relaxation)
