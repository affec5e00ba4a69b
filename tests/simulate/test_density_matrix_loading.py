"""Inputs that are loaded once: evolution of the observables, compared with evolution of each sample's state."""

from __future__ import annotations

import pytest
import torch

from ketfit.circuit import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import InputError
from ketfit.simulate import density_matrix as density
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.noise import NoiseConfig
from tests.simulate.aer_reference import ALL as NOISE
from tests.simulate.aer_reference import density_matrix_expectation

LONELY = Circuit.from_gates(1, [ry(0, Angle("input", 0)), ry(0, Angle("weight", 0))])
# Qubit 1 is not loaded; qubit 2 reads the input that qubit 0 reads.
UNEVEN = Circuit.from_gates(
    4,
    [
        ry(2, Angle("input", 0)),
        ry(0, Angle("input", 0)),
        ry(0, Angle("weight", 0)),
        ry(3, Angle("input", 1)),
        cx(0, 1),
        ry(1, Angle("weight", 1)),
        cx(3, 2),
        cx(1, 3),
        ry(3, Angle("weight", 0)),
    ],
)
CIRCUITS = {"lonely": LONELY, "uneven": UNEVEN} | {
    f"{width} qubits": reuploading_circuit(width, 1, 1, 1, min(2, width - 1)) for width in (2, 3, 5, 7)
}


def numbers(circuit, batch, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(circuit.n_weights, generator=generator, dtype=torch.float64).to(dtype)
    inputs = torch.randn(batch, circuit.n_inputs, generator=generator, dtype=torch.float64).to(dtype)
    return weights.requires_grad_(), inputs.requires_grad_()


def both_ways(monkeypatch, circuit, parities, weights, inputs, noise=NOISE):
    """Return values and gradients from one evolution for the batch, and from one for each sample."""
    results = []
    for loading in (density._loading, lambda circuit: None):
        with monkeypatch.context() as patch:
            patch.setattr(density, "_loading", loading)
            values = density_matrix_expectation(CircuitBatch(circuit, weights, inputs), parities, noise)
            slope = torch.linspace(-1, 1, values.numel(), dtype=values.dtype).view_as(values)
            results.append((values, *torch.autograd.grad(values, (weights, inputs), slope)))
    return results


@pytest.mark.parametrize("noise", [NOISE, NoiseConfig(), NoiseConfig(depolarizing_2q=1.0)], ids=["all", "none", "most"])
@pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)
def test_loaded_expectation_matches_evolution_of_each_sample(monkeypatch, circuit, noise):
    parities = [(), (0,), tuple(range(circuit.n_qubits))]
    pulled, pushed = both_ways(monkeypatch, circuit, parities, *numbers(circuit, 9), noise)
    for one, other in zip(pulled, pushed, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_loaded_expectation_float32_is_as_accurate(monkeypatch):
    circuit = CIRCUITS["5 qubits"]
    single = both_ways(monkeypatch, circuit, [(0,), (1, 2)], *numbers(circuit, 5, torch.float32))[0]
    double = both_ways(monkeypatch, circuit, [(0,), (1, 2)], *numbers(circuit, 5))[1]
    for one, other in zip(single, double, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=5e-6)


def test_loaded_expectation_evolves_observables_once(monkeypatch):
    pulled = []
    monkeypatch.setattr(density._Density, "apply", lambda *_: pytest.fail("a state was evolved"))
    apply = density._Observables.apply
    monkeypatch.setattr(density._Observables, "apply", lambda *values: pulled.append(1) or apply(*values))
    circuit = CIRCUITS["3 qubits"]
    density_matrix_expectation(CircuitBatch(circuit, *numbers(circuit, 50)), [(0,)], NOISE)
    assert pulled == [1]


def test_observables_above_memory_limit_use_sample_evolution(monkeypatch):
    circuit = CIRCUITS["3 qubits"]
    weights, inputs = numbers(circuit, 5)
    parities = [(0,), (1,), (2,)]
    expected = density_matrix_expectation(CircuitBatch(circuit, weights, inputs), parities, NOISE)
    monkeypatch.setattr(density, "_MAX_OBSERVABLE_BYTES", 3 * 8 * 4**3 - 1)
    monkeypatch.setattr(density._Observables, "apply", lambda *_: pytest.fail("observables were evolved"))
    torch.testing.assert_close(
        density_matrix_expectation(CircuitBatch(circuit, weights, inputs), parities, NOISE), expected
    )


@pytest.mark.parametrize("circuit", [reuploading_circuit(3, 2, 1, 1, 1), CIRCUITS["3 qubits"]], ids=["twice", "few"])
def test_unsuitable_or_cheaper_cases_use_sample_evolution(monkeypatch, circuit):
    monkeypatch.setattr(density._Observables, "apply", lambda *_: pytest.fail("observables were evolved"))
    batch = 20 if circuit.n_inputs == 3 and density._loading(circuit) is None else 1
    assert density_matrix_expectation(CircuitBatch(circuit, *numbers(circuit, batch)), [(0,)], NOISE).shape == (
        batch,
        1,
    )


def test_second_derivative_and_nonfinite_number_raise_input_error():
    circuit = CIRCUITS["3 qubits"]
    weights, inputs = numbers(circuit, 4)
    values = density_matrix_expectation(CircuitBatch(circuit, weights, inputs), [(0,)], NOISE)
    with pytest.raises(InputError, match="differentiable once"):
        torch.autograd.grad(values.sum(), weights, create_graph=True)
    with pytest.raises(InputError, match="inputs holds a number that is not finite"):
        density_matrix_expectation(CircuitBatch(circuit, weights, inputs * torch.inf), [(0,)], NOISE)
