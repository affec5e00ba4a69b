"""Combinations of shots, noise and gradients in `expectation`, readout errors, and invalid options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Circuit
from ketfit.errors import ConfigError, InputError
from ketfit.simulate import NoiseConfig, expectation
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.measurement import MeasurementContext, apply_readout_error_to_distribution
from ketfit.simulate.readout_error import apply_readout_error
from ketfit.simulate.shots import GRADIENTS, expectations
from ketfit.simulate.trajectories import trajectory_expectation
from tests.circuits import random_circuit
from tests.simulate.aer_reference import ALL, NOISES
from tests.simulate.dense_reference import ENGINES, NAMES, random_tensors
from tests.simulate.statistical_assertions import assert_mean, repeated_tensors, seeded

CIRCUIT = random_circuit(3, 24, seed=5)
READOUT = ((0.95, 0.12), (0.05, 0.88))
TWIRLED = ALL.updated(pauli_twirl=True)
KINDS = {
    "no noise": {},
    "silent noise": {"noise": NoiseConfig()},
    "readout error": {"noise": NoiseConfig(readout=READOUT)},
    "density matrix": {"noise": ALL},
    "density matrix and readout error": {"noise": ALL.updated(readout=READOUT)},
    "trajectories": {"noise": TWIRLED, "trajectories": 4},
    "trajectories and readout error": {"noise": TWIRLED.updated(readout=READOUT), "trajectories": 4},
    "trajectories in torch": {"noise": TWIRLED, "trajectories": 4, "engine": "torch"},
    "torch": {"engine": "torch"},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
QUBITS = pytest.mark.parametrize("qubits", [(1,), (2, 0, 1)], ids=["one", "three"])


def is_mean_of_shots(values: Tensor, shots: int) -> bool:
    """Return True for means of this number of outcomes +1 and -1; the sum of an odd number is odd."""
    sums = values.detach() * shots
    return bool((sums - sums.round()).abs().max() < 1e-9 and (sums.round() % 2 == shots % 2).all())


# --- shots and gradients ------------------------------------------------------------------------------------------


@EACH_KIND
@QUBITS
@pytest.mark.parametrize("policy", [None, *GRADIENTS])
@pytest.mark.parametrize("tensor_index", range(3), ids=NAMES)
def test_expectation_with_gradient_and_shots_keeps_both(tensor_index, policy, qubits, kind):
    tensors = [tensor.detach() for tensor in random_tensors(CIRCUIT, 2)]

    def run() -> Tensor:
        return expectation(CIRCUIT, *tensors, qubits, shots=33, gradient=policy, generator=generator, **kind)

    generator = seeded()
    assert is_mean_of_shots(run(), 33)
    assert not torch.equal(run(), run())
    tensors[tensor_index].requires_grad_()
    with torch.no_grad():
        assert is_mean_of_shots(run(), 33)
        assert not torch.equal(run(), run())
    if policy == "parameter_shift" and tensor_index == 2:
        with pytest.raises(InputError, match="no gradient of the initial amplitudes"):
            run()
        return
    values = run()
    (gradient,) = torch.autograd.grad(values.sum(), tensors[tensor_index])
    assert gradient.any()
    # Only "exact" is without shots, and only here; what else varies are the trajectories.
    assert torch.equal(run(), run()) == (policy == "exact" and "trajectories" not in kind)
    assert is_mean_of_shots(values, 33) == (policy in ("straight_through", "parameter_shift"))
    if policy == "exact":
        generator = seeded(1)
        differentiated = run()
        exact = {**kind, "generator": seeded(1)}
        assert torch.equal(differentiated, expectation(CIRCUIT, *tensors, qubits, **exact))


@EACH_KIND
@QUBITS
def test_distribution_marginals_match_expectations(qubits, kind):
    batch = CircuitBatch(CIRCUIT, *(tensor.detach() for tensor in random_tensors(CIRCUIT, 3)))
    values = MeasurementContext(qubits, generator=seeded(), **kind).expectations(batch)
    distribution = MeasurementContext(qubits, generator=seeded(), **kind).distribution(batch)
    assert distribution.shape == (3, 2 ** len(qubits))
    assert distribution.min() >= -1e-12
    np.testing.assert_allclose(distribution.sum(1), 1, rtol=0, atol=1e-6)  # amplitudes are of float32
    np.testing.assert_allclose(expectations(distribution), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_expectation_with_trajectories_returns_seeded_mean(engine):
    tensors = [tensor.detach() for tensor in random_tensors(CIRCUIT, 3)]
    run = {"noise": TWIRLED.updated(readout=READOUT), "trajectories": 4, "engine": engine}
    mine = expectation(CIRCUIT, *tensors, (2, 1), generator=seeded(2), **run)
    batch = CircuitBatch(CIRCUIT, *tensors)
    mean = trajectory_expectation(batch, (2, 1), run["noise"], 4, generator=seeded(2), engine=engine).mean
    assert torch.equal(mine, apply_readout_error(mean, READOUT))


# --- readout errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [NoiseConfig(), ALL], ids=["silent", "all"])
def test_readout_error_applies_to_each_qubit(noise):
    tensors = random_tensors(CIRCUIT, 3)
    plain = expectation(CIRCUIT, *tensors, (2, 0, 1), noise=noise)
    misread = expectation(CIRCUIT, *tensors, (2, 0, 1), noise=noise.updated(readout=READOUT))
    true = torch.stack([1 + plain, 1 - plain]).detach() / 2
    read = np.einsum("rt,tbq->rbq", READOUT, true)
    np.testing.assert_allclose(misread.detach(), read[0] - read[1], rtol=0, atol=1e-14)
    repeated_gradients, plain_slopes = (torch.autograd.grad(values.sum(), tensors[:2]) for values in (misread, plain))
    for mine, other in zip(repeated_gradients, plain_slopes, strict=True):
        np.testing.assert_allclose(mine, other * (0.95 + 0.88 - 1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", [{}, {"noise": ALL}, {"noise": TWIRLED, "trajectories": 3}], ids=["none", "all", "tr"])
def test_readout_error_applies_to_each_bit_of_distribution(kind):
    tensors = [tensor.detach() for tensor in random_tensors(CIRCUIT, 3)]
    noise = kind.get("noise", NoiseConfig())
    plain, misread = (
        MeasurementContext((2, 0, 1), each, kind.get("trajectories"), seeded()).distribution(
            CircuitBatch(CIRCUIT, *tensors)
        )
        for each in (noise, noise.updated(readout=READOUT))
    )
    matrix = np.kron(np.kron(READOUT, READOUT), READOUT)
    np.testing.assert_allclose(misread, plain.numpy() @ matrix.T, rtol=0, atol=1e-14)
    assert torch.equal(apply_readout_error_to_distribution(plain, None), plain)


def test_readout_error_none_keeps_and_full_negates_values():
    values = torch.linspace(-1, 1, 5)
    assert torch.equal(apply_readout_error(values, None), values)
    assert torch.equal(apply_readout_error(values, ((1.0, 0.0), (0.0, 1.0))), values)
    assert torch.equal(apply_readout_error(values, ((0.0, 1.0), (1.0, 0.0))), -values)
    assert apply_readout_error(values, ((0.7, 0.7), (0.3, 0.3))).tolist() == pytest.approx([0.4] * 5)


@pytest.mark.parametrize("policy", [policy for policy in GRADIENTS if policy != "exact"])
def test_readout_error_applies_to_shots(policy):
    tensors = repeated_tensors(CIRCUIT, 5000)
    tensors[0].requires_grad_()
    noise = ALL.updated(readout=READOUT)
    one = [tensors[0], *(tensor[:1] for tensor in tensors[1:])]
    exact = expectation(CIRCUIT, *one, (2, 0), noise=noise)[0]
    repeats = expectation(CIRCUIT, *tensors, (2, 0), noise=noise, shots=9, gradient=policy, generator=seeded())
    assert_mean(repeats.detach(), exact.detach())


# --- errors -------------------------------------------------------------------------------------------------------

TENSORS = [tensor.detach() for tensor in random_tensors(CIRCUIT, 2)]
WHOLE = "it must be a whole number of at least 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 0}, f"^shots=0: {WHOLE}; None is the exact value$"),
        ({"shots": -1}, f"^shots=-1: {WHOLE}"),
        ({"shots": True}, f"^shots=True: {WHOLE}"),
        ({"shots": 1.5}, f"^shots=1.5: {WHOLE}"),
        ({"shots": 100.0}, f"^shots=100.0: {WHOLE}"),
        ({"shots": math.inf}, f"^shots=inf: {WHOLE}"),
        ({"shots": "100"}, f"^shots='100': {WHOLE}"),
        ({"shots": 5, "gradient": "adjoint"}, "^unknown gradient 'adjoint'; known are 'reparameterized', 'straight_th"),
        ({"gradient": "adjoint"}, "^unknown gradient 'adjoint'; known are"),
        ({"shots": 5, "gradient": ""}, "^unknown gradient ''; known are"),
        ({"gradient": "exact"}, "^gradient='exact' says how to differentiate shots; pass shots, or leave it out$"),
        ({"gradient": "parameter_shift", "noise": ALL}, "^gradient='parameter_shift' says how to differentiate shots"),
        ({"trajectories": 5}, "^trajectories=5 is given without noise; pass noise, or omit trajectories$"),
        ({"trajectories": 5, "shots": 5}, "^trajectories=5 is given without noise; pass noise"),
        ({"noise": TWIRLED, "trajectories": 0}, f"^trajectories=0: {WHOLE}$"),
        ({"noise": TWIRLED, "trajectories": -3}, f"^trajectories=-3: {WHOLE}$"),
        ({"noise": TWIRLED, "trajectories": True}, f"^trajectories=True: {WHOLE}$"),
        ({"noise": TWIRLED, "trajectories": 1.5}, f"^trajectories=1.5: {WHOLE}$"),
        ({"noise": TWIRLED, "trajectories": "9"}, f"^trajectories='9': {WHOLE}$"),
        ({"noise": NOISES["damping"], "trajectories": 5}, "not a mixture of Pauli errors.*pauli_twirl=True$"),
        ({"noise": {"bit_flip": 0.1}}, r"^noise is of type dict; pass a NoiseConfig, for instance load_noise\(...\)$"),
        ({"noise": "ionq-forte"}, "^noise is of type str; pass a NoiseConfig"),
        ({"noise": 0.1, "trajectories": 5}, "^noise is of type float; pass a NoiseConfig"),
        (
            {"noise": ALL, "engine": "distributed"},
            "^engine='distributed' simulates no noise of gates or preparation; use engine='auto' .* or leave the no",
        ),
        (
            {"noise": TWIRLED, "trajectories": 5, "shots": 5, "engine": "distributed"},
            "^engine='distributed' simulates no noise of gates or preparation",
        ),
        (
            {"noise": ALL, "engine": "numpy"},
            "^unknown engine 'numpy'; known are 'auto', 'native', 'torch', 'distri",
        ),
    ],
)
def test_expectation_invalid_options_raise_config_error(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        expectation(CIRCUIT, *TENSORS, **arguments)
    assert "\n" not in str(caught.value)


def test_torch_engine_with_noise_gives_values_of_the_kernel():
    plain = expectation(CIRCUIT, *TENSORS, engine="torch")
    assert torch.equal(expectation(CIRCUIT, *TENSORS, engine="torch", noise=NoiseConfig()), plain)
    misread = expectation(CIRCUIT, *TENSORS, engine="torch", noise=NoiseConfig(readout=READOUT))
    assert torch.equal(misread, apply_readout_error(plain, READOUT))
    assert expectation(CIRCUIT, *TENSORS, engine="torch", noise=TWIRLED, trajectories=2).shape == plain.shape
    noisy = (expectation(CIRCUIT, *TENSORS, (2, 0), noise=ALL, engine=engine) for engine in ("torch", "native"))
    torch.testing.assert_close(*noisy, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "kind",
    [{}, {"noise": ALL}, {"noise": TWIRLED, "trajectories": 2}, {"engine": "torch"}],
    ids=["none", "density matrix", "trajectories", "torch"],
)
@pytest.mark.parametrize("policy", [None, *GRADIENTS])
def test_shots_of_thirteen_qubits_raise_input_error(policy, kind):
    circuit, weights = Circuit(13, (), 1, 0), torch.zeros(1, requires_grad=policy not in (None, "exact"))
    run = {"qubits": range(13), "shots": 5, "gradient": policy, **kind}
    with pytest.raises(InputError, match="the joint distribution of 13 qubits has 8192 outcomes; measure at most 12"):
        expectation(circuit, weights, **run)


def test_thirteen_qubits_exact_and_twelve_from_shots_work():
    circuit, weights = Circuit(13, (), 1, 0), torch.zeros(1)
    assert expectation(circuit, weights, qubits=range(13)).tolist() == [[1] * 13]
    assert expectation(circuit, weights, qubits=range(1, 13), shots=7).tolist() == [[1] * 12]
