from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Angle, Circuit, Gate, Hermitian, PauliSum, Projector, cx, ry
from ketfit.circuit.decomposition import decompose_three_qubit_gates
from ketfit.errors import CircuitError, ConfigError, InputError
from ketfit.simulate import NoiseConfig, expectation
from ketfit.simulate.mitigation import extrapolation, fold_gates, mitigate_readout, mitigated_expectation, value_range
from ketfit.simulate.readout_error import apply_readout_error
from ketfit.simulate.shots import rotation_angles, rotations_as_inputs
from tests.circuits import random_circuit
from tests.circuits_of_any_kind import random_general_circuit, without_wide_gates
from tests.simulate.aer_reference import ALL, run_aer_on_any_gates
from tests.simulate.dense_reference import BOTH_DTYPES, ENGINES, random_tensors
from tests.simulate.statistical_assertions import assert_mean, assert_within_errors, repeated_tensors, seeded

CIRCUIT = random_circuit(3, 24, seed=5)
GENERAL = random_general_circuit(3, 24, seed=5)
NARROW = without_wide_gates(GENERAL)
READOUT = ((0.95, 0.12), (0.05, 0.88))
WEAK = NoiseConfig(depolarizing_1q=0.002, depolarizing_2q=0.01)
EITHER = [(), ("readout",), ("zero_noise",), ("readout", "zero_noise")]
EACH_MITIGATION = pytest.mark.parametrize("mitigation", EITHER, ids="+".join)
INITIAL = pytest.mark.parametrize("has_initial", [False, True], ids=["from zero", "amplitudes"])


def mitigated(tensors, mitigation, noise=WEAK, qubits=(2, 0, 1), circuit=CIRCUIT, **others) -> Tensor:
    return mitigated_expectation(circuit, *tensors, qubits, mitigation=mitigation, noise=noise, **others)


# --- readout ------------------------------------------------------------------------------------------------------


@BOTH_DTYPES
def test_mitigate_readout_inverts_apply_readout_error(dtype):
    rng, values = np.random.default_rng(0), torch.linspace(-1, 1, 9, dtype=dtype)
    for zero, one in rng.random((50, 2)):
        if abs(zero - one) < 0.1:
            continue
        readout = ((zero, one), (1 - zero, 1 - one))
        back = mitigate_readout(apply_readout_error(values, readout), readout)
        assert back.dtype == dtype
        np.testing.assert_allclose(back, values, rtol=0, atol=1e-13 if dtype == torch.float64 else 1e-5)


def test_mitigate_readout_without_readout_returns_values():
    values = torch.linspace(-1, 1, 9)
    assert torch.equal(mitigate_readout(values, None), values)
    assert torch.equal(mitigate_readout(values, ((1.0, 0.0), (0.0, 1.0))), values)


@pytest.mark.parametrize("readout", [((0.5, 0.5), (0.5, 0.5)), ((0.7, 0.7), (0.3, 0.3)), ((1, 1), (0, 0))])
def test_mitigate_readout_singular_matrix_raises_config_error(readout):
    with pytest.raises(ConfigError, match="has no inverse: it is the same for both states; omit 'readout'"):
        mitigate_readout(torch.zeros(3), readout)
    with pytest.raises(ConfigError, match="has no inverse"):
        mitigated(random_tensors(CIRCUIT, 2), ("readout",), NoiseConfig(readout=readout))
    assert mitigated(random_tensors(CIRCUIT, 2), (), NoiseConfig(readout=readout)).shape == (2, 3)


def test_mitigate_readout_of_shots_is_clipped():
    circuit = Circuit.from_gates(1, [ry(0, Angle("input", 0))])
    inputs = torch.tensor([[0.1], [3.0]], dtype=torch.float64).repeat(300, 1)
    noise = NoiseConfig(readout=((0.8, 0.3), (0.2, 0.7)))
    run = {"shots": 5, "generator": seeded()}
    values = mitigated((torch.zeros(0).double(), inputs, None), ("readout",), noise, (0,), circuit, **run)
    assert (values.min(), values.max()) == (-1, 1)
    assert mitigate_readout(torch.tensor([-1.0, 1.0]), noise.readout).tolist() == [-1, 1]


@INITIAL
def test_readout_mitigation_keeps_gate_noise(has_initial):
    tensors = random_tensors(CIRCUIT, 2, has_initial=has_initial)
    expected = expectation(CIRCUIT, *tensors, (2, 0, 1), noise=ALL).detach()
    mine = mitigated(tensors, ("readout",), ALL.updated(readout=READOUT))
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-13)


# --- zero noise ---------------------------------------------------------------------------------------------------


def test_extrapolation_full_degree_gives_richardson_coefficients():
    np.testing.assert_allclose(extrapolation((1, 3, 5), 2), [15 / 8, -5 / 4, 3 / 8], rtol=0, atol=1e-13)
    np.testing.assert_allclose(extrapolation((1, 3), 1), [3 / 2, -1 / 2], rtol=0, atol=1e-14)
    assert extrapolation((1,), 0) == pytest.approx([1])


@pytest.mark.parametrize(("folds", "degree"), [((1, 3, 5), 0), ((1, 3, 5), 1), ((1, 3, 5, 9), 2), ((3, 7, 11), 2)])
def test_extrapolation_matches_polynomial_fit_at_zero(folds, degree):
    values = np.random.default_rng(0).normal(size=len(folds))
    expected = np.polynomial.Polynomial.fit(folds, values, degree)(0)
    assert np.dot(extrapolation(folds, degree), values) == pytest.approx(expected, abs=1e-10)


@INITIAL
@pytest.mark.parametrize("fold", [1, 3, 5])
def test_fold_gates_keeps_expectation_and_multiplies_gates(fold, has_initial):
    weights, inputs, initial = random_tensors(CIRCUIT, 2, has_initial=has_initial)
    circuit, columns = rotations_as_inputs(CIRCUIT)
    folded, angles = fold_gates(circuit, fold), rotation_angles(columns, weights, inputs, 2)
    assert folded.gate_counts() == {name: fold * count for name, count in CIRCUIT.gate_counts().items()}
    targets = [(gate.name, gate.qubits) for gate in CIRCUIT.gates for _ in range(fold)]
    assert [(gate.name, gate.qubits) for gate in folded.gates] == targets
    run = (folded, weights.new_empty(0), torch.cat([angles, -angles], 1), initial)
    values, expected = expectation(*run, (0, 1, 2)), expectation(CIRCUIT, weights, inputs, initial, (0, 1, 2))
    assert_within_errors(values, expected, torch.zeros(()))


@pytest.mark.parametrize("fold", [1, 3, 4])
def test_fold_gates_of_any_gates_keeps_expectation(fold):
    weights, inputs, _ = random_tensors(GENERAL, 2)
    circuit, originals = rotations_as_inputs(GENERAL)
    folded, angles = fold_gates(circuit, fold), rotation_angles(originals, weights, inputs, 2)
    assert len(folded.gates) == (1 + fold // 2 * 2) * len(circuit.gates)
    values = expectation(folded, weights.new_empty(0), torch.cat([angles, -angles], 1), qubits=(0, 1, 2))
    expected = expectation(GENERAL, weights, inputs, qubits=(0, 1, 2))
    np.testing.assert_allclose(values.detach(), expected.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("angle", "name"), [(Angle("weight", 0), "rx"), (2 * Angle("input", 0), "rx"), (Angle("weight", 0), "ry")]
)
def test_fold_gates_of_a_weight_or_a_sum_is_refused_by_name(angle, name):
    circuit = Circuit.from_gates(1, [Gate("h", 0), Gate(name, 0, [angle])])
    with pytest.raises(CircuitError, match=f"gate 1 is '{name}' by a weight or a sum: .* with rotations_as_inputs"):
        fold_gates(circuit, 3)


@EACH_MITIGATION
@pytest.mark.parametrize(
    "run", [{}, {"trajectories": 20_000}, {"shots": 10**11}], ids=["exact", "trajectories", "shots"]
)
def test_mitigation_of_any_gates_reduces_the_bias(run, mitigation):
    noise = WEAK.updated(readout=READOUT)
    tensors = [None if each is None else each.detach() for each in random_tensors(NARROW, 1, has_initial=False)]
    exact = expectation(NARROW, *tensors, (2, 0, 1))
    noisy = expectation(NARROW, *tensors, (2, 0, 1), noise=noise)
    mine = mitigated(tensors, mitigation, noise, circuit=NARROW, generator=seeded(), **run)
    if mitigation == ("readout", "zero_noise"):
        assert (mine - exact).abs().max() < max(0.03, (noisy - exact).abs().max() / 3)
    elif not mitigation:
        np.testing.assert_allclose(mine, noisy, rtol=0, atol=0.03)
    assert mine.shape == noisy.shape


@pytest.mark.parametrize(("folds", "degree"), [((1, 3, 5), 2), ((1, 3), 1), ((1, 5, 7), 1), ((3,), 0)])
def test_zero_noise_extrapolates_powers_of_noise(folds, degree):
    circuit = Circuit.from_gates(2, [ry(0, Angle("input", 0)), cx(0, 1)])
    inputs, noise = torch.tensor([[0.4], [2.0]]).double(), NoiseConfig(depolarizing_1q=0.03, depolarizing_2q=0.05)
    left = np.array([(0.97 * 0.95) ** fold for fold in folds])  # of <Z>, whichever qubit it is of
    expected = inputs.cos().numpy() * np.polynomial.Polynomial.fit(folds, left, degree)(0)
    run = ((torch.zeros(0).double(), inputs, None), ("zero_noise",), noise, (0, 1), circuit)
    mine = mitigated(*run, folds=folds, degree=degree)
    np.testing.assert_allclose(mine, np.hstack([expected, expected]), rtol=0, atol=1e-12)


@EACH_MITIGATION
@INITIAL
@pytest.mark.parametrize("engine", ENGINES)
def test_mitigated_expectation_without_noise_is_exact(engine, has_initial, mitigation):
    tensors = random_tensors(CIRCUIT, 3, has_initial=has_initial)
    expected = expectation(CIRCUIT, *tensors, (2, 0, 1)).detach()
    mine = mitigated(tensors, mitigation, NoiseConfig(), engine=engine)
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-12)
    assert not mine.requires_grad


@pytest.mark.parametrize("seed", range(5))
def test_zero_noise_reduces_bias(seed):
    circuit = random_circuit(3, 24, seed=seed)
    tensors = random_tensors(circuit, 3, seed=seed)
    exact, noisy = (expectation(circuit, *tensors, (0, 1, 2), noise=noise).detach() for noise in (None, WEAK))
    mine = mitigated(tensors, ("zero_noise",), WEAK, (0, 1, 2), circuit)
    assert (mine - exact).abs().max() < 0.1 * (noisy - exact).abs().max()


def test_zero_noise_with_trajectories_reduces_bias():
    tensors = repeated_tensors(CIRCUIT, 40)
    single = [tensors[0], *(tensor[:1] for tensor in tensors[1:])]
    exact, noisy = (expectation(CIRCUIT, *single, (0, 1, 2), noise=noise)[0] for noise in (None, WEAK))
    means = mitigated(tensors, ("zero_noise",), WEAK, (0, 1, 2), trajectories=500, generator=seeded())
    assert_mean(means, mitigated(single, ("zero_noise",), WEAK, (0, 1, 2))[0])
    assert (means.mean(0) - exact).abs().max() < 0.3 * (noisy - exact).abs().max()


def test_both_mitigations_correct_readout_of_each_run():
    tensors = random_tensors(CIRCUIT, 3)
    alone = mitigated(tensors, ("zero_noise",))
    for mitigation in itertools.permutations(("readout", "zero_noise")):
        together = mitigated(tensors, mitigation, WEAK.updated(readout=READOUT))
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)
    assert not torch.allclose(mitigated(tensors, ("zero_noise",), WEAK.updated(readout=READOUT)), alone, atol=1e-2)


# --- observables --------------------------------------------------------------------------------------------------

OBSERVABLES = [
    PauliSum([(0.7, "ZX", (2, 0)), (-0.4, "Y", (1,)), (0.2, "XZY", (0, 1, 2)), (0.3, "", ())]),
    Projector("10", (2, 1)),
    Hermitian([[0.2, 0.3 - 0.4j], [0.3 + 0.4j, -0.5]], (1,)),
]


def dense(observable, n_qubits: int) -> np.ndarray:
    """The matrix of an observable, from its definition."""
    letters = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
    if isinstance(observable, PauliSum):
        words = [(term.coefficient, dict(zip(term.qubits, term.word, strict=True))) for term in observable.terms]
        each = [(c, [letters[word[q]] if q in word else np.eye(2) for q in range(n_qubits)]) for c, word in words]
    elif isinstance(observable, Projector):
        ones = {qubit: np.diag([bit == "0", bit == "1"]) for bit, qubit in zip("10", (2, 1), strict=True)}
        each = [(1.0, [ones.get(q, np.eye(2)) for q in range(n_qubits)])]
    else:
        each = [(1.0, [np.array(observable.matrix) if q in observable.qubits else np.eye(2) for q in range(n_qubits)])]
    return sum(c * functools.reduce(np.kron, matrices) for c, matrices in each)


def folded_by_hand(gates, fold: int):
    """Each gate, its inverse from the matrix, and the gate again."""
    for gate in gates:
        matrix = np.array(gate.matrix_at(*gate.parameters))
        yield gate
        for _ in range(fold // 2):
            yield from (Gate("unitary", gate.qubits, matrix=matrix.conj().T), gate)


def test_zero_noise_of_observables_equals_aer_of_folded_circuits_and_a_polynomial_fit():
    gates = [Gate("h", 0), Gate("rx", 1, [0.7]), Gate("rzz", (0, 2), [1.1]), Gate("ccx", (0, 1, 2)), Gate("s", 1)]
    circuit = Circuit.from_gates(3, [*gates, Gate("u", 2, [0.4, 1.0, -0.3]), Gate("crx", (2, 0), [0.8])])
    parts = decompose_three_qubit_gates(circuit).gates
    folds, noise = (1, 3, 5), ALL.scaled(0.05)
    runs = []
    for fold in folds:
        folded = Circuit.from_gates(3, folded_by_hand(parts, fold))
        matrix = run_aer_on_any_gates(folded, np.zeros(0), np.zeros(0), None, noise)
        runs.append([np.trace(dense(each, 3) @ matrix).real for each in OBSERVABLES])
    expected = [np.polynomial.Polynomial.fit(folds, values, 2)(0) for values in np.array(runs).T]
    run = {"observables": OBSERVABLES, "mitigation": ("zero_noise",), "noise": noise}
    mine = mitigated_expectation(circuit, torch.zeros(0).double(), **run)
    np.testing.assert_allclose(mine, [expected], rtol=0, atol=1e-10)


@pytest.mark.parametrize("trajectories", [None, 5])
def test_readout_mitigation_of_observables_keeps_gate_noise(trajectories):
    weights, inputs, _ = (None if each is None else each.detach() for each in random_tensors(GENERAL, 2))
    noise = ALL.updated(pauli_twirl=True)
    run = {"observables": OBSERVABLES, "trajectories": trajectories}
    expected = expectation(GENERAL, weights, inputs, noise=noise, generator=seeded(), **run)
    mine = mitigated_expectation(
        GENERAL,
        weights,
        inputs,
        mitigation=("readout",),
        noise=noise.updated(readout=READOUT),
        generator=seeded(),
        **run,
    )
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-12)


@EACH_MITIGATION
def test_mitigated_shots_of_observables_are_unbiased(mitigation):
    tensors = [None if each is None else each.detach() for each in random_tensors(CIRCUIT, 1, has_initial=False)]
    run = {"mitigation": mitigation, "noise": WEAK.updated(readout=READOUT), "observables": OBSERVABLES}
    exact = mitigated_expectation(CIRCUIT, *tensors, **run)[0]
    many = [tensors[0], tensors[1].expand(1500, -1), None]
    repeats = mitigated_expectation(CIRCUIT, *many, shots=4000, generator=seeded(), **run)
    assert_mean(repeats, exact)


@EACH_MITIGATION
@pytest.mark.parametrize("shots", [None, 50])
def test_mitigation_of_z_as_observables_equals_that_of_qubits(shots, mitigation):
    tensors = random_tensors(CIRCUIT, 4, has_initial=False)
    noise = WEAK.updated(readout=READOUT)
    of_qubits = mitigated(tensors, mitigation, noise, (2, 0, 1), shots=shots, generator=seeded())
    observables = [PauliSum([(1, "Z", (qubit,))]) for qubit in (2, 0, 1)]
    run = {"mitigation": mitigation, "noise": noise, "shots": shots, "generator": seeded()}
    mine = mitigated_expectation(CIRCUIT, *tensors, observables=observables, **run)
    np.testing.assert_allclose(mine, of_qubits, rtol=0, atol=1e-12)


def test_mitigated_observables_are_clipped_to_their_range():
    tensors = random_tensors(CIRCUIT, 200)
    run = {"observables": OBSERVABLES, "shots": 2, "generator": seeded(), "noise": WEAK.updated(readout=READOUT)}
    values = mitigated_expectation(CIRCUIT, *tensors, mitigation=("readout", "zero_noise"), **run)
    for column, observable in zip(values.t(), OBSERVABLES, strict=True):
        low, high = value_range(observable)
        assert (column.min().item(), column.max().item()) == pytest.approx((low, high), abs=1e-15)
        eigenvalues = np.linalg.eigvalsh(dense(observable, 3))
        assert low - 1e-12 <= eigenvalues.min() <= eigenvalues.max() <= high + 1e-12
    assert not values.requires_grad


def test_mitigation_of_observables_refuses_what_does_not_fit():
    run = {"mitigation": ("readout",), "noise": NoiseConfig(readout=((0.5, 0.5), (0.5, 0.5)))}
    tensors = random_tensors(CIRCUIT, 2)
    with pytest.raises(ConfigError, match="has no inverse: it is the same for both states; omit 'readout'"):
        mitigated_expectation(CIRCUIT, *tensors, observables=OBSERVABLES, **run)
    with pytest.raises(ConfigError, match="pass either qubits or observables"):
        mitigated_expectation(CIRCUIT, *tensors, (1,), observables=OBSERVABLES, **run)
    with pytest.raises(CircuitError, match="observable 0 acts on qubit 3"):
        mitigated_expectation(CIRCUIT, *tensors, observables=[Projector("0", (3,))], **run)
    wide = Circuit.from_gates(13, [Gate("h", 12)])
    with pytest.raises(InputError, match="observable 0 is a projector on 13 qubits"):
        mitigated_expectation(wide, torch.zeros(0), observables=[Projector("0" * 13, range(13))], **run)


# --- shots, sources, shapes ---------------------------------------------------------------------------------------


@EACH_MITIGATION
def test_mitigated_shots_are_unbiased(mitigation):
    tensors = [tensor.detach() for tensor in random_tensors(CIRCUIT, 1)]
    noise = WEAK.updated(readout=READOUT)
    exact = mitigated(tensors, mitigation, noise)[0]
    assert exact.abs().max() < 0.9, "values that are cut off would have a bias"
    many = [tensors[0], *(tensor.expand(2000, -1) for tensor in tensors[1:])]
    repeats = mitigated(many, mitigation, noise, shots=400, generator=seeded())
    assert_mean(repeats, exact)
    assert (repeats.std(0) > 0).all()


def test_empty_mitigation_returns_expectation():
    tensors = [tensor.detach() for tensor in random_tensors(CIRCUIT, 2)]
    noise = ALL.updated(readout=READOUT)
    plain = expectation(CIRCUIT, *tensors, (2, 0, 1), noise=noise)
    np.testing.assert_allclose(mitigated(tensors, (), noise), plain, rtol=0, atol=1e-14)
    sampled = expectation(CIRCUIT, *tensors, (2, 0, 1), noise=noise, shots=9, generator=seeded())
    assert torch.equal(mitigated(tensors, (), noise, shots=9, generator=seeded()), sampled)


@EACH_MITIGATION
@pytest.mark.parametrize("trajectories", [None, 3])
def test_mitigated_expectation_is_clipped_and_detached(trajectories, mitigation):
    run = {"shots": 2, "trajectories": trajectories, "generator": seeded()}
    values = mitigated(random_tensors(CIRCUIT, 200), mitigation, WEAK.updated(readout=READOUT), **run)
    assert values.abs().max() == 1
    assert not values.requires_grad


def test_mitigated_expectation_same_seed_repeats_values():
    tensors = random_tensors(CIRCUIT, 2)
    run = {"shots": 20, "trajectories": 3}
    first, again, other = (
        mitigated(tensors, ("readout", "zero_noise"), generator=seeded(seed), **run) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@EACH_MITIGATION
@pytest.mark.parametrize("run", [{}, {"shots": 4}, {"trajectories": 3}, {"shots": 4, "trajectories": 3}], ids=str)
@pytest.mark.parametrize("qubits", [(1,), (2, 0, 1)], ids=["one", "three"])
def test_mitigated_expectation_empty_batch_returns_empty(qubits, run, mitigation):
    noise = WEAK.updated(readout=READOUT)
    assert mitigated(random_tensors(CIRCUIT, 0), mitigation, noise, qubits, **run).shape == (0, len(qubits))


def test_mitigated_expectation_without_inputs_and_float32_works():
    circuit = Circuit.from_gates(2, [ry(0, Angle("weight", 0)), cx(0, 1), ry(1, Angle("weight", 0))])
    runs = [
        mitigated(
            (torch.tensor([0.6], dtype=dtype), None, None), ("readout", "zero_noise"), qubits=(1,), circuit=circuit
        )
        for dtype in (torch.float32, torch.float64)
    ]
    assert [(values.dtype, values.shape) for values in runs] == [(torch.float32, (1, 1)), (torch.float64, (1, 1))]
    assert runs[0].item() == pytest.approx(runs[1].item(), abs=1e-5)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mitigation": ("measure_dense_state",)},
            "^unknown mitigation 'measure_dense_state'; give a tuple of 'readout', 'zero_noise' or both$",
        ),
        ({"mitigation": ("zero_noise", "zne")}, "^unknown mitigation 'zne'; give a tuple"),
        ({"mitigation": "readout"}, "^unknown mitigation 'readout'; give a tuple"),
        ({"noise": None}, "^mitigation needs noise"),
        ({"degree": 1.5}, r"^degree=1.5: it must be a whole number$"),
        ({"folds": ()}, r"^folds=\(\), degree=2: pass odd, positive, ascending folds, more of them than the degree$"),
        ({"folds": (1, 2, 3)}, r"^folds=\(1, 2, 3\), degree=2: pass odd"),
        ({"folds": (0, 1, 3)}, "pass odd, positive, ascending folds"),
        ({"folds": (-1, 1, 3)}, "pass odd, positive, ascending folds"),
        ({"folds": (1, 3, 3)}, "pass odd, positive, ascending folds"),
        ({"folds": (3, 1, 5)}, "pass odd, positive, ascending folds"),
        ({"folds": (1.0, 3.0, 5.0)}, r"^folds\[0\]=1.0: it must be a whole number$"),
        ({"folds": (1, 3)}, "more of them than the degree"),
        ({"degree": 3}, "more of them than the degree"),
        ({"degree": -1}, "more of them than the degree"),
        ({"shots": 0}, "^shots=0: it must be a whole number of at least 1"),
        ({"trajectories": 0}, "^trajectories=0: it must be a whole number of at least 1"),
        ({"noise": ALL, "trajectories": 3}, "not a mixture of Pauli errors.*pauli_twirl=True$"),
        ({"noise": "ionq-forte"}, "^noise is of type str; pass a NoiseConfig"),
    ],
)
def test_invalid_options_raise_config_error(arguments, message):
    arguments = {"mitigation": ("zero_noise",), "noise": WEAK, **arguments}
    with pytest.raises(ConfigError, match=message):
        mitigated_expectation(CIRCUIT, *random_tensors(CIRCUIT, 2), **arguments)


def test_invalid_tensors_and_qubits_raise_errors():
    weights, inputs, initial = random_tensors(CIRCUIT, 2)
    with pytest.raises(InputError, match="this circuit reads 2 inputs"):
        mitigated((weights, None, initial), ("zero_noise",))
    with pytest.raises(InputError, match="weights holds|inputs holds"):
        mitigated((weights * math.nan, inputs, initial), ("zero_noise",))
    with pytest.raises(CircuitError, match="qubit 3 cannot be measured"):
        mitigated((weights, inputs, initial), ("zero_noise",), qubits=(3,))


@pytest.mark.parametrize("gates", [(ry(0, Angle("weight", 0)),), ()], ids=["read", "not read"])
def test_nonfinite_weight_is_named(gates) -> None:
    circuit, noise = Circuit(1, gates, 1, 0), NoiseConfig(depolarizing_1q=0.1)
    with pytest.raises(InputError, match="weights holds a number that is not finite"):
        mitigated_expectation(circuit, torch.tensor([math.nan]), mitigation=("zero_noise",), noise=noise)
