from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.gradients import BaseEstimatorGradient, ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from ketfit.errors import ConfigError
from ketfit.interop.qiskit import KetFitEstimator, KetFitEstimatorGradient, QiskitCircuitError
from tests.interop.qiskit.random_circuits import PARAMETERS, random_qiskit_circuit
from tests.interop.qiskit.test_estimator import measured

STEP = 1e-5


def finite_differences(circuit: QuantumCircuit, observable: SparsePauliOp, values: np.ndarray) -> np.ndarray:
    shifts = STEP * np.eye(len(values))
    pub = (circuit, observable, np.concatenate([values + shifts, values - shifts]))
    plus, minus = KetFitEstimator().run([pub]).result()[0].data.evs.reshape(2, -1)
    return (plus - minus) / (2 * STEP)


def random_observable(n_qubits: int, rng: np.random.Generator) -> SparsePauliOp:
    return SparsePauliOp(["".join(rng.choice(list("IXYZ"), n_qubits)) for _ in range(3)], rng.normal(size=3))


@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_random_circuits_equal_finite_differences(seed):
    rng, n_qubits = np.random.default_rng(seed), 1 + seed % 4
    circuit, observable = random_qiskit_circuit(n_qubits, 12, seed), random_observable(n_qubits, rng)
    values = rng.normal(size=len(PARAMETERS))
    (gradient,) = KetFitEstimatorGradient().run(circuit, observable, [values]).result().gradients
    np.testing.assert_allclose(gradient, finite_differences(circuit, observable, values), atol=1e-7)


def test_gradients_equal_those_of_the_parameter_shift():
    circuit = zz_feature_map(3).compose(real_amplitudes(3, reps=1))
    rng = np.random.default_rng(0)
    arguments = (
        [circuit] * 4,
        [random_observable(3, rng) for _ in range(4)],
        rng.normal(size=(4, circuit.num_parameters)),
        [None, circuit.parameters[4:], [circuit.parameters[5], circuit.parameters[0]], None],
    )
    found = KetFitEstimatorGradient().run(*arguments).result()
    expected = ParamShiftEstimatorGradient(StatevectorEstimator()).run(*arguments).result()
    assert len(found.gradients) == 4
    for one, other in zip(found.gradients, expected.gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    assert [list(each["parameters"]) for each in found.metadata] == [
        list(each["parameters"]) for each in expected.metadata
    ]


def test_circuits_of_several_kinds_keep_their_places():
    rng = np.random.default_rng(1)
    circuits = [random_qiskit_circuit(2, 8, seed) for seed in range(2)]
    chosen = [circuits[0], circuits[1], circuits[0]]
    observables = [random_observable(2, rng) for _ in range(3)]
    values = rng.normal(size=(3, len(PARAMETERS)))
    found = KetFitEstimatorGradient().run(chosen, observables, values).result().gradients
    for gradient, *arguments in zip(found, chosen, observables, values, strict=True):
        np.testing.assert_allclose(gradient, finite_differences(*arguments), atol=1e-7)


def network(estimator: object, gradient: BaseEstimatorGradient, **options: bool) -> EstimatorQNN:
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.rx(x[0] * x[1], 0)
    circuit.ry(x[1], 1)
    circuit.rzz(w[0], 0, 1)
    circuit.rx(w[1], 0)
    circuit.ry(w[2], 1)
    return EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=[SparsePauliOp("ZI"), SparsePauliOp(["XY", "IZ"], [0.5, 2])],
        input_params=x,
        weight_params=w,
        gradient=gradient,
        default_precision=0.0,
        **options,
    )


@pytest.mark.parametrize("input_gradients", [True, False])
def test_neural_network_has_the_values_and_gradients_of_qiskit(input_gradients):
    qiskit = StatevectorEstimator()
    ours = network(KetFitEstimator(), KetFitEstimatorGradient(), input_gradients=input_gradients)
    reference = network(qiskit, ParamShiftEstimatorGradient(qiskit), input_gradients=input_gradients)
    rng = np.random.default_rng(2)
    samples, weights = rng.normal(size=(5, 2)), rng.normal(size=3)
    np.testing.assert_allclose(ours.forward(samples, weights), reference.forward(samples, weights), atol=1e-10)
    for one, other in zip(ours.backward(samples, weights), reference.backward(samples, weights), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.slow
def test_torch_connector_trains():
    torch.manual_seed(0)
    model = TorchConnector(network(KetFitEstimator(), KetFitEstimatorGradient(), input_gradients=True))
    samples, targets = torch.rand(6, 2), torch.zeros(6, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(samples) - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


# --- refused -----------------------------------------------------------------------------------------------------


def test_option_is_refused():
    circuit = random_qiskit_circuit(1, 2, 0)
    with pytest.raises(ConfigError, match="KetFitEstimatorGradient is exact and has no option 'precision'"):
        KetFitEstimatorGradient().run(circuit, SparsePauliOp("Z"), [[1.0, 2.0, 3.0]], precision=0.1)


def test_circuit_that_cannot_be_simulated_is_refused_before_anything_runs():
    circuit = measured()
    circuit.rx(PARAMETERS[0], 0)
    with pytest.raises(QiskitCircuitError, match=r"KetFitEstimatorGradient cannot run .* \(measure\) is a measurement"):
        KetFitEstimatorGradient().run([circuit], [SparsePauliOp("Z")], [[1.0]])


@pytest.mark.parametrize(
    ("circuits", "observables", "values", "message"),
    [
        (2, 1, 2, "number of circuits"),
        (1, 1, 2, "number of circuits"),
        (1, 2, 1, "number of circuits"),
    ],
)
def test_arguments_that_do_not_fit_have_qiskits_errors(circuits, observables, values, message):
    circuit = random_qiskit_circuit(1, 2, 0)
    with pytest.raises(ValueError, match=message):
        KetFitEstimatorGradient().run(
            [circuit] * circuits, [SparsePauliOp("Z")] * observables, [[1.0, 2.0, 3.0]] * values
        )
