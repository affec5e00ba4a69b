from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Angle, Circuit, Gate, PauliSum, cx, reuploading_circuit, ry
from ketfit.circuit.gate import GATES
from ketfit.errors import InputError
from ketfit.simulate import NoiseConfig, expectation, shots
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.measurement import MeasurementContext
from ketfit.simulate.noise import noisy_light_cone
from ketfit.simulate.shots import GRADIENTS, rotation_angles, rotations_as_inputs, step_cost
from tests.circuits import random_circuit
from tests.circuits_of_any_kind import random_general_circuit, without_wide_gates
from tests.simulate.dense_reference import random_tensors, values_and_gradients
from tests.simulate.statistical_assertions import assert_mean, assert_within_errors, repeated_gradients, seeded

CIRCUIT = random_circuit(3, 24, seed=5)
MILD = NoiseConfig(
    depolarizing_1q=0.005, depolarizing_2q=0.01, phase_flip=0.004, t1_us=300.0, time_2q_us=3.0, preparation=0.01
)
TWIRLED = MILD.updated(pauli_twirl=True, readout=((0.95, 0.12), (0.05, 0.88)))
KINDS = {"no noise": {}, "density matrix": {"noise": MILD}, "trajectories": {"noise": TWIRLED, "trajectories": 5}}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
QUBITS = pytest.mark.parametrize("qubits", [(1,), (2, 0, 1)], ids=["one", "three"])
INITIAL = pytest.mark.parametrize("has_initial", [False, True], ids=["from zero", "amplitudes"])


def fixed_start(circuit: Circuit, batch: int, has_initial: bool = True, seed: int = 0) -> list[Tensor | None]:
    """Return weights and inputs that require gradients, and amplitudes that do not."""
    weights, inputs, initial = random_tensors(circuit, batch, has_initial=has_initial, seed=seed)
    return [weights, inputs, None if initial is None else initial.detach()]


def shifted(tensors, qubits=(2, 0, 1), count=10, circuit=CIRCUIT, generator=None, **kind) -> Tensor:
    run = {"shots": count, "gradient": "parameter_shift", "generator": generator}
    return expectation(circuit, *tensors, qubits, **run, **kind)


def test_fixture_circuit_repeats_weights_and_inputs():
    uses = Counter(gate.angle for gate in CIRCUIT.light_cone((1,)).gates if gate.angle is not None)
    assert {angle.source for angle, count in uses.items() if count > 1} == {"weight", "input"}


# --- the gradient -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@EACH_KIND
@QUBITS
@INITIAL
def test_gradient_is_unbiased(has_initial, qubits, kind):
    tensors, generator = fixed_start(CIRCUIT, 2, has_initial), seeded()
    form = torch.linspace(-1, 2, 2 * len(qubits), dtype=torch.float64).view(2, -1)
    sampled = repeated_gradients(
        lambda: shifted(tensors, qubits, 50, generator=generator, **kind) * form, tensors[:2], 250
    )
    noise = {"noise": kind["noise"]} if kind else {}
    exact = repeated_gradients(lambda: expectation(CIRCUIT, *tensors, qubits, **noise) * form, tensors[:2], 1)[0]
    assert_mean(sampled, exact)
    assert (exact.abs() > 10 * sampled.std(0) / 250**0.5).sum() > len(exact) / 4, "too much noise to see an error"


@pytest.mark.parametrize("noise", [None, MILD, NoiseConfig(readout=TWIRLED.readout)], ids=["none", "all", "readout"])
@INITIAL
def test_gradient_many_shots_approaches_exact(has_initial, noise):
    tensors = fixed_start(CIRCUIT, 3, has_initial, seed=1)
    exact = values_and_gradients(expectation(CIRCUIT, *tensors, (2, 0, 1), noise=noise), tensors[:2])
    mine = values_and_gradients(shifted(tensors, count=10**11, generator=seeded(), noise=noise), tensors[:2])
    for one, other in zip(mine, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_gradient_includes_noise_of_gates_without_effect():
    gates = [ry(0, Angle("input", 0)), cx(0, 1), ry(1, Angle("weight", 0)), cx(1, 2), ry(2, Angle("weight", 1))]
    circuit, noise = Circuit.from_gates(3, gates), NoiseConfig(depolarizing_2q=0.2)
    tensors = fixed_start(circuit, 2)
    exact = values_and_gradients(expectation(circuit, *tensors, (1,), noise=noise), tensors[:2])
    mine = values_and_gradients(shifted(tensors, (1,), 10**11, circuit, seeded(), noise=noise), tensors[:2])
    for one, other in zip(mine, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_gradient_variance_is_that_of_two_circuits():
    circuit = Circuit.from_gates(1, [ry(0, Angle("input", 0))])
    inputs = torch.full((5000, 1), 0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        shifted((torch.zeros(0).double(), inputs, None), (0,), 6, circuit, seeded()).sum(), inputs
    )
    assert_mean(gradient, torch.tensor(-math.sin(0.7)))
    assert_mean((gradient + math.sin(0.7)).square(), torch.tensor(2 * math.cos(0.7) ** 2 / 4 / 6))


@EACH_KIND
def test_value_is_a_sample_of_the_unshifted_circuit(kind):
    tensors = fixed_start(CIRCUIT, 3)
    with torch.no_grad():
        sampled = expectation(CIRCUIT, *tensors, (0, 1), shots=10, generator=seeded(3), **kind)
    assert torch.equal(shifted(tensors, (0, 1), generator=seeded(3), **kind), sampled)


@EACH_KIND
def test_backward_passes_sample_anew_and_seed_repeats_both(kind):
    def twice() -> list[Tensor]:
        tensors = fixed_start(CIRCUIT, 2)
        total = shifted(tensors, generator=seeded(4), **kind).sum()
        return [torch.autograd.grad(total, tensors[:2], retain_graph=True) for _ in range(2)]

    (first, second), again = twice(), twice()
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    for one, other in zip((*first, *second), (*again[0], *again[1]), strict=True):
        assert torch.equal(one, other)


def test_gradients_only_for_tensors_that_require_grad():
    both = values_and_gradients(shifted(tensors := fixed_start(CIRCUIT, 2), generator=seeded()), tensors[:2])[1:]
    for position in range(2):
        tensors = [tensor.detach() for tensor in fixed_start(CIRCUIT, 2)]
        tensors[position].requires_grad_()
        alone = values_and_gradients(shifted(tensors, generator=seeded()), [tensors[position]])[1]
        assert torch.equal(alone, both[position])


def test_float32_matches_float64():
    runs = []
    for dtype in (torch.float32, torch.float64):
        tensors = random_tensors(CIRCUIT, 2, dtype, has_initial=False)
        runs.append(values_and_gradients(shifted(tensors, count=10**7, generator=seeded()), tensors[:2]))
    assert {tensor.dtype for tensor in runs[0]} == {torch.float32}
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=0.01)


def test_circuit_without_inputs_rotations_or_used_weights_works():
    weights = torch.tensor([0.3, 0.9], dtype=torch.float64, requires_grad=True)
    idle = Circuit(2, (ry(0, Angle("weight", 1)), cx(0, 1), ry(1, Angle("weight", 0))), 2, 0)
    for circuit, expected, slope in ((idle, math.cos(0.9), -math.sin(0.9)), (Circuit(1, (), 2, 0), 1, 0)):
        value = shifted((weights, None, None), (0,), 10**10, circuit, seeded())
        assert value.item() == pytest.approx(expected, abs=1e-3)
        (gradient,) = torch.autograd.grad(value.sum(), weights)
        np.testing.assert_allclose(gradient, [0, slope], rtol=0, atol=1e-3)


# --- other gates --------------------------------------------------------------------------------------------------

OBSERVABLES = (PauliSum([(1, "XY", (0, 1)), (0.5, "Z", (1,))]), PauliSum([(1, "X", (1,))]))
WITH_ANGLES = [name for name, gate in GATES.items() if gate.n_parameters]


def exactly_shifted(circuit: Circuit, weights: Tensor, inputs: Tensor) -> Tensor:
    """Return exact values with the gradient of the shift rule."""

    def exact(batch: CircuitBatch) -> Tensor:
        with torch.no_grad():
            return expectation(batch.circuit, *batch.tensors, observables=OBSERVABLES)

    return shots.parameter_shift(exact, CircuitBatch(circuit, weights, inputs))


@pytest.mark.parametrize("name", WITH_ANGLES)
def test_shift_rule_of_each_gate_is_exact(name):
    kind = GATES[name]
    angles = [2 * Angle("weight", k) - Angle("input", 0) / 3 + 0.4 for k in range(kind.n_parameters)]
    start = [Gate("u", q, [0.4 + q, 1.0, 2.0]) for q in range(2)]
    circuit = Circuit.from_gates(2, [*start, Gate(name, tuple(range(kind.n_qubits)), angles), Gate("h", 0)])
    tensors = random_tensors(circuit, 3)[:2]
    mine = values_and_gradients(exactly_shifted(circuit, *tensors), tensors)
    exact = values_and_gradients(expectation(circuit, *tensors, observables=OBSERVABLES), tensors)
    for one, other in zip(mine, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    shifts = 0 if name == "gphase" else 4 if name.startswith("cr") else 2
    assert step_cost(circuit, 3, 1, "parameter_shift").circuits == 3 * (1 + shifts * kind.n_parameters)


@pytest.mark.parametrize("together", [1, 30, 10**6])
def test_shift_rule_of_random_gates_is_exact(together, monkeypatch):
    monkeypatch.setattr(shots, "_MAX_ANGLES", together)
    circuit = random_general_circuit(3, 40, 2)
    tensors = random_tensors(circuit, 2)[:2]
    mine = values_and_gradients(exactly_shifted(circuit, *tensors), tensors)
    exact = values_and_gradients(expectation(circuit, *tensors, observables=OBSERVABLES), tensors)
    for one, other in zip(mine, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [None, MILD], ids=["none", "all"])
def test_gradient_of_many_shots_of_any_gates_approaches_exact(noise):
    circuit = without_wide_gates(random_general_circuit(3, 25, 3))
    tensors = random_tensors(circuit, 2)[:2]
    for measured in ({"qubits": (2, 0)}, {"observables": OBSERVABLES}):
        run = {"noise": noise, **measured}
        exact = values_and_gradients(expectation(circuit, *tensors, **run), tensors)
        shift = {"shots": 10**11, "gradient": "parameter_shift", "generator": seeded()}
        mine = values_and_gradients(expectation(circuit, *tensors, **run, **shift), tensors)
        for one, other in zip(mine, exact, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=3e-4)


# --- cost ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def circuits_run(monkeypatch) -> list[int]:
    """Record the number of circuits in each run."""
    rows, run = [], MeasurementContext.distribution

    def counting(self, batch):
        distribution = run(self, batch)
        rows.append(len(distribution))
        return distribution

    monkeypatch.setattr(MeasurementContext, "distribution", counting)
    return rows


@pytest.mark.parametrize("together", [0.1, 1, 3, 100])
@pytest.mark.parametrize("noise", [None, MILD], ids=["no noise", "noise"])
def test_step_cost_counts_executed_circuits(noise, together, monkeypatch, circuits_run):
    circuit = reuploading_circuit(3, 2, 1, 1, 1)
    tensors = fixed_start(circuit, 4)
    cone = circuit.light_cone((1,)) if noise is None else noisy_light_cone(circuit, (1,))
    rotations = cone.gate_counts()["ry"]
    assert rotations < circuit.gate_counts()["ry"]
    monkeypatch.setattr(shots, "_MAX_ANGLES", int(together * 2 * 4 * rotations))
    mine = values_and_gradients(shifted(tensors, (1,), 10**11, circuit, seeded(), noise=noise), tensors[:2])
    cost = step_cost(cone, 4, 10**11, "parameter_shift")
    assert (sum(circuits_run), sum(circuits_run) * 10**11) == (cost.circuits, cost.shots)
    assert cost.circuits == 4 * (1 + 2 * rotations)
    assert len(circuits_run) - 1 == math.ceil(rotations / max(together, 1))
    exact = values_and_gradients(expectation(circuit, *tensors, (1,), noise=noise), tensors[:2])
    for one, other in zip(mine, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("policy", [policy for policy in GRADIENTS if policy != "parameter_shift"])
def test_step_cost_other_policies_run_one_circuit_per_sample(policy, circuits_run):
    tensors = fixed_start(CIRCUIT, 4)
    if policy == "exact":
        tensors = [tensor.detach() for tensor in tensors]
    values = expectation(CIRCUIT, *tensors, (1, 0), shots=9, gradient=policy)
    if policy != "exact":
        values.sum().backward()
    cost = step_cost(CIRCUIT, 4, 9, policy)
    assert (sum(circuits_run), cost.circuits, cost.shots) == (4, 4, 36)


def test_rotations_as_inputs_gives_each_rotation_an_input():
    weights, inputs, initial = fixed_start(CIRCUIT, 3)
    circuit, columns = rotations_as_inputs(CIRCUIT)
    assert (circuit.n_weights, circuit.n_inputs) == (0, CIRCUIT.gate_counts()["ry"])
    angles = rotation_angles(columns, weights, inputs, 3)
    mine = expectation(circuit, weights.new_empty(0), angles, initial, (0, 1, 2))
    expected = expectation(CIRCUIT, weights, inputs, initial, (0, 1, 2))
    assert_within_errors(mine, expected, torch.zeros(()))


# --- errors -------------------------------------------------------------------------------------------------------


@EACH_KIND
def test_gradient_of_initial_amplitudes_raises_input_error(kind):
    tensors = random_tensors(CIRCUIT, 2)
    with pytest.raises(InputError, match="parameter_shift has no gradient of the initial amplitudes; detach them or"):
        shifted(tensors, **kind)
    tensors = [tensor.detach().requires_grad_(tensor is tensors[2]) for tensor in tensors]
    with pytest.raises(InputError, match="parameter_shift has no gradient of the initial amplitudes"):
        shifted(tensors, **kind)
    with torch.no_grad():
        assert shifted(tensors, **kind).shape == (2, 3)


# An exact distribution can be differentiated again: tests/simulate/test_transforms.py.
ONCE = [(policy, name) for policy in GRADIENTS for name, kind in KINDS.items() if kind or policy == "parameter_shift"]


@pytest.mark.parametrize(("policy", "name"), ONCE)
def test_second_derivative_raises_input_error(policy, name):
    kind = KINDS[name]
    tensors = fixed_start(CIRCUIT, 2)
    values = expectation(CIRCUIT, *tensors, (0, 1), shots=5, gradient=policy, **kind)
    for tensor in tensors[:2]:
        with pytest.raises(InputError, match="differentiable once; leave create_graph=True out"):
            torch.autograd.grad(values.sum(), tensor, create_graph=True, retain_graph=True)


def test_copies_of_amplitudes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "_MAX_ANGLES", 2**12)
    circuit = Circuit.from_gates(6, [ry(k % 6, Angle("weight", k)) for k in range(30)])
    copied = []

    def exact(batch: CircuitBatch) -> Tensor:
        copied.append(batch.initial.numel())
        with torch.no_grad():
            return expectation(batch.circuit, *batch.tensors)

    weights = torch.linspace(0, 1, 30, requires_grad=True)
    shots.parameter_shift(exact, CircuitBatch(circuit, weights, None, torch.eye(64)[:4])).sum().backward()
    assert max(copied) <= 2**12
