"""Final states of a circuit, and what is read from them: amplitudes, probabilities, samples and variances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.observable import Observable, check_observables
from ketfit.errors import ConfigError
from ketfit.integers import as_integer
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.complex_statevector import as_complex
from ketfit.simulate.evolution import is_transformed
from ketfit.simulate.shots import check_shots, sample_outcomes
from ketfit.simulate.statevector import final_state, observable_expectation, statevector_expectation


@compiler_disabled
def statevector(
    circuit: Circuit, weights: Tensor, inputs: Tensor | None = None, initial: Tensor | None = None
) -> Tensor:
    """Return the amplitudes after `circuit`, with its global phase, differentiable in all three tensors.

    Args:
        circuit: Circuit to run.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (batch, n_inputs); None only if the circuit reads none.
        initial: Amplitudes before the first gate, shape (batch, 2**n_qubits), real or complex; None is |0...0>.

    Returns:
        Complex amplitudes, shape (batch, 2**n_qubits), qubit 0 the most significant bit of the index.

    Raises:
        InputError: A tensor has the wrong shape, dtype or device, or a number that is not finite.
        InsufficientMemoryError: The states do not fit into the free memory.

    >>> from ketfit.circuit import Gate
    >>> statevector(Circuit.from_gates(1, [Gate("x", 0), Gate("s", 0)]), torch.zeros(0))
    tensor([[0.+0.j, 0.+1.j]])
    """
    return as_complex(final_state(CircuitBatch(circuit, weights, inputs, initial)))


@compiler_disabled
def probabilities(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
) -> Tensor:
    """Return the joint probability of each outcome of `qubits`, differentiable in all three tensors.

    Args:
        circuit: Circuit to run.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (batch, n_inputs); None only if the circuit reads none.
        initial: Amplitudes before the first gate, shape (batch, 2**n_qubits), real or complex; None is |0...0>.
        qubits: Qubits to measure, at most 12.

    Returns:
        Shape (batch, 2**len(qubits)); the first qubit is the highest bit of the index.

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        InputError: A tensor has the wrong shape, dtype or device, or a number that is not finite, or there are more
            than 12 qubits.
        InsufficientMemoryError: The states do not fit into the free memory.

    >>> from ketfit.circuit import Gate
    >>> bell = Circuit.from_gates(2, [Gate("h", 0), Gate("cx", (0, 1))])
    >>> probabilities(bell, torch.zeros(0), qubits=(0, 1)).round(decimals=4)
    tensor([[0.5000, 0.0000, 0.0000, 0.5000]])
    """
    batch = CircuitBatch(circuit, weights, inputs, initial)
    return statevector_expectation(batch, circuit.check_qubits(qubits), joint=True)


@compiler_disabled
@torch.no_grad()
def sample_counts(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
    *,
    shots: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return how often each joint outcome of `qubits` occurs in `shots` shots; without gradients.

    Arguments and errors are those of `probabilities`; `initial` needs norm 1.

    Args:
        circuit: Circuit to run.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (batch, n_inputs).
        initial: Amplitudes before the first gate, shape (batch, 2**n_qubits).
        qubits: Qubits to measure.
        shots: Number of shots of each sample.
        generator: Random generator; None is torch's default one.

    Returns:
        Integers, shape (batch, 2**len(qubits)), each row a multinomial sample of `shots` shots.

    Raises:
        ConfigError: `shots` is not a whole number of at least 1, or a transform of torch.func is active.

    >>> from ketfit.circuit import Gate
    >>> sample_counts(Circuit.from_gates(1, [Gate("x", 0)]), torch.zeros(0), shots=100)
    tensor([[  0, 100]])
    """
    shots = as_integer(shots, "shots", minimum=1)
    check_shots(shots, None)
    if is_transformed():
        raise ConfigError("the transforms of torch.func work for exact values; sample outside of them")
    distribution = probabilities(circuit, weights, inputs, initial, qubits)
    return sample_outcomes(distribution.double(), shots, generator).round().long()


@compiler_disabled
def variance(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    *,
    observables: Sequence[Observable],
) -> Tensor:
    """Return <O**2> - <O>**2 of each observable O after `circuit`, differentiable in all three tensors.

    Args:
        circuit: Circuit to run.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (batch, n_inputs); None only if the circuit reads none.
        initial: Amplitudes of norm 1 before the first gate, shape (batch, 2**n_qubits); None is |0...0>.
        observables: Observables (`PauliSum`, `Projector` or `Hermitian`).

    Returns:
        Shape (batch, len(observables)).

    Raises:
        CircuitError: An observable is invalid for this circuit.
        InputError: A tensor has the wrong shape, dtype or device, or a number that is not finite.
        InsufficientMemoryError: The states do not fit into the free memory.

    >>> from ketfit.circuit import Gate, PauliSum
    >>> plus = Circuit.from_gates(1, [Gate("h", 0)])
    >>> variance(plus, torch.zeros(0), observables=[PauliSum([(2, "Z", (0,))])]).round()
    tensor([[4.]])
    """
    chosen = check_observables(circuit, observables)
    squares = tuple(observable.squared() for observable in chosen)
    values = observable_expectation(CircuitBatch(circuit, weights, inputs, initial), (*chosen, *squares))
    return values[:, len(chosen) :] - values[:, : len(chosen)].square()
