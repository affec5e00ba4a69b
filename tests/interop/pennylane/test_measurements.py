from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch

from ketfit.interop.pennylane import measurements
from ketfit.interop.pennylane.measurements import exact_results
from ketfit.interop.pennylane.tape_circuit import TapeReader

HERMITIAN = np.array([[1, 2j], [-2j, 3]])
LARGE = np.diag(np.arange(16.0))
FROM_THE_STATE = [
    qml.expval(qml.Hermitian(HERMITIAN, "a") @ qml.Z("b")),
    qml.expval(qml.Hermitian(LARGE, ["a", "b", "c", "d"])),
    qml.expval(1j * qml.X("a") @ qml.Y("a")),
    qml.expval(qml.s_prod(np.array([1.0, 2.0]), qml.Z("a"))),
    qml.var(qml.Hermitian(HERMITIAN, "a") + qml.Z("b")),
    qml.probs(op=qml.X("c")),
    qml.purity(["a"]),
    qml.state(),
]
READ_BY_THE_SIMULATOR = [
    qml.expval(qml.Y("c")),
    qml.expval(qml.X("a") @ qml.X("a")),
    qml.expval(qml.X("a") - qml.X("a")),
    qml.expval(0.5 * qml.Hermitian(HERMITIAN, "b") + (2 + 0j) * qml.Z("a")),
    qml.expval(qml.Projector([0.6, 0.8], ["b"])),
    qml.var(qml.Projector([1, 1], ["b", "a"])),
    qml.var(0.5 * qml.Y("d")),
    qml.probs(wires=["d", "a"]),
    qml.probs(),
]
OPERATIONS = [qml.RX(0.4, "a"), qml.CNOT(["a", "b"]), qml.RY(1.1, "c"), qml.IsingXX(0.6, ["c", "d"]), qml.S("a")]


def results_of(chosen, operations=OPERATIONS):
    tape = qml.tape.QuantumScript(operations, chosen)
    return exact_results(TapeReader(torch.float64).read(tape), tape.measurements)


def expected_of(chosen, operations=OPERATIONS):
    return [qml.device("default.qubit").execute(qml.tape.QuantumScript(operations, [each])) for each in chosen]


@pytest.mark.parametrize("chosen", [FROM_THE_STATE, READ_BY_THE_SIMULATOR, FROM_THE_STATE + READ_BY_THE_SIMULATOR])
@pytest.mark.parametrize("batch", [None, 2])
def test_results_equal_default_qubit(chosen, batch):
    operations = OPERATIONS if batch is None else [*OPERATIONS, qml.RX(np.array([0.2, 0.9]), "d")]
    for ours, theirs in zip(results_of(chosen, operations), expected_of(chosen, operations), strict=True):
        np.testing.assert_allclose(ours.numpy(), np.squeeze(theirs) if batch is None else theirs, atol=1e-12)


def test_state_is_computed_only_where_it_is_needed(monkeypatch):
    monkeypatch.setattr(measurements, "statevector", None)
    results_of(READ_BY_THE_SIMULATOR)
    with pytest.raises(TypeError):
        results_of(FROM_THE_STATE[:1])


def test_variance_of_many_words_is_computed_from_the_state(monkeypatch):
    monkeypatch.setattr(measurements, "MAX_VARIANCE_TERMS", 1)
    chosen = [qml.var(qml.X("a") + qml.Z("b"))]
    np.testing.assert_allclose(results_of(chosen)[0], expected_of(chosen)[0], atol=1e-12)


def test_probabilities_of_many_wires_are_computed_from_the_state(monkeypatch):
    monkeypatch.setattr(measurements, "MAX_JOINT", 1)
    chosen = [qml.probs(wires=["d", "a"])]
    np.testing.assert_allclose(results_of(chosen)[0], expected_of(chosen)[0], atol=1e-12)
