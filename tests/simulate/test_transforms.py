"""Function transforms, batched gradients, torch.compile and second derivatives, for both kinds of circuits."""

from __future__ import annotations

import pytest
import torch

from ketfit.circuit import Angle, Circuit, PauliSum, reuploading_circuit, ry
from ketfit.errors import ConfigError, InputError
from ketfit.simulate import NoiseConfig, expectation, expectation_and_gradients, sample_counts, variance
from tests.circuits_of_any_kind import random_general_circuit

CIRCUITS = {"ry_cx": reuploading_circuit(2, 1, 0, 1, 1), "general": random_general_circuit(2, 12, 3)}
OBSERVABLES = [PauliSum([(0.5, "XY", (0, 1)), (1, "Z", (1,))])]
# The first forward-mode derivative makes torch compile decompositions with its own deprecated compiler.
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
each_circuit = pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)
each_result = pytest.mark.parametrize("options", [{"qubits": (1, 0)}, {"observables": OBSERVABLES}], ids=["z", "pauli"])


def arguments(circuit: Circuit) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((circuit.n_weights,), (3, circuit.n_inputs))
    return tuple(4 * torch.rand(shape, generator=generator, dtype=torch.float64) - 2 for shape in shapes)


@each_circuit
@each_result
def test_jacobians_of_all_kinds_are_equal(circuit, options):
    weights, inputs = arguments(circuit)

    def values(weights):
        return expectation(circuit, weights, inputs, **options)

    wanted = torch.autograd.functional.jacobian(values, weights)
    found = [
        torch.func.jacrev(values)(weights),
        torch.autograd.functional.jacobian(values, weights, vectorize=True),  # is_grads_batched
    ]
    for each in found:
        torch.testing.assert_close(each, wanted, rtol=0, atol=1e-12)
    gradient = torch.func.grad(lambda weights: values(weights).sum())(weights)
    torch.testing.assert_close(gradient, wanted.sum(dim=(0, 1)), rtol=0, atol=1e-12)


@each_circuit
@forward_mode
def test_forward_mode_equals_jacobian(circuit):
    weights, inputs = arguments(circuit)

    def values(weights):
        return expectation(circuit, weights, inputs, qubits=(1, 0))

    wanted = torch.autograd.functional.jacobian(values, weights)
    _, tangent = torch.func.jvp(values, (weights,), (torch.ones_like(weights),))
    torch.testing.assert_close(tangent, wanted.sum(dim=2), rtol=0, atol=1e-12)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(weights, torch.ones_like(weights))
        tangent = torch.autograd.forward_ad.unpack_dual(values(dual)).tangent
    torch.testing.assert_close(tangent, wanted.sum(dim=2), rtol=0, atol=1e-12)


@each_circuit
@each_result
def test_vmap_over_samples_and_weights_equals_batch(circuit, options):
    weights, inputs = arguments(circuit)
    wanted = expectation(circuit, weights, inputs, **options)
    over_samples = torch.func.vmap(lambda row: expectation(circuit, weights, row[None], **options)[0])(inputs)
    torch.testing.assert_close(over_samples, wanted, rtol=0, atol=1e-12)
    rows = torch.stack([weights, -weights])
    over_weights = torch.func.vmap(lambda row: expectation(circuit, row, inputs, **options))(rows)
    torch.testing.assert_close(over_weights[0], wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(over_weights[1], expectation(circuit, -weights, inputs, **options), rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_second_derivatives_of_ry_cx_circuit_equal_finite_differences(engine):
    circuit = CIRCUITS["ry_cx"]
    weights, inputs = (each.requires_grad_() for each in arguments(circuit))
    assert torch.autograd.gradgradcheck(
        lambda *each: expectation(circuit, *each, qubits=(0, 1), engine=engine), (weights, inputs)
    )


def test_second_derivatives_of_general_circuit_equal_finite_differences():
    circuit = CIRCUITS["general"]
    weights, inputs = (each.requires_grad_() for each in arguments(circuit))
    for compute in (expectation, variance):
        assert torch.autograd.gradgradcheck(
            lambda *each, compute=compute: compute(circuit, *each, observables=OBSERVABLES), (weights, inputs)
        )


@each_circuit
@forward_mode
def test_hessian_equals_its_own_transpose_and_double_backward(circuit):
    weights, inputs = arguments(circuit)

    def loss(weights):
        return expectation(circuit, weights, inputs, qubits=(0, 1)).square().sum()

    found = torch.func.hessian(loss)(weights)
    torch.testing.assert_close(found, torch.autograd.functional.hessian(loss, weights), rtol=0, atol=1e-11)
    torch.testing.assert_close(found, found.t(), rtol=0, atol=1e-11)


@pytest.mark.slow
@each_circuit
def test_compiled_function_equals_eager(circuit):
    weights, inputs = arguments(circuit)

    def loss(weights, inputs):
        return expectation(circuit, weights, inputs.sin(), qubits=(0, 1)).square().sum() * 2

    torch.testing.assert_close(torch.compile(loss, backend="eager")(weights, inputs), loss(weights, inputs))


def test_transforms_of_results_without_derivatives_are_refused():
    circuit = CIRCUITS["ry_cx"]
    weights, inputs = arguments(circuit)
    for error, call in (
        (ConfigError, lambda w: expectation(circuit, w, inputs, shots=10)),
        (ConfigError, lambda w: expectation(circuit, w, inputs, noise=NoiseConfig(bit_flip=0.1))),
        (ConfigError, lambda w: sample_counts(circuit, w, inputs, shots=10)),
        (InputError, lambda w: expectation_and_gradients(circuit, w, inputs).values),
    ):
        with pytest.raises(error, match=r"torch\.func"):
            torch.func.vmap(call)(weights[None])
    with pytest.raises(InputError, match="weights holds a number that is not finite"):
        torch.func.vmap(lambda w: expectation(circuit, w, inputs))(weights[None] * float("nan"))


@pytest.mark.parametrize(
    "kind",
    [
        {"noise": NoiseConfig(depolarizing_1q=0.1)},
        {"noise": NoiseConfig(depolarizing_1q=0.1), "trajectories": 3, "observables": [PauliSum([(1.0, "X", (0,))])]},
        {"shots": 10, "gradient": "parameter_shift"},
    ],
    ids=lambda kind: "-".join(kind),
)
def test_batched_gradients_of_noisy_values_are_refused(kind) -> None:
    circuit = Circuit.from_gates(1, [ry(0, Angle("weight", 0))])
    with pytest.raises(InputError, match="differentiable once; .* differentiate one value at a time"):
        torch.autograd.functional.jacobian(lambda w: expectation(circuit, w, **kind), torch.ones(1), vectorize=True)
