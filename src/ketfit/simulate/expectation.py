"""Differentiable expectations of a circuit: exact, under noise and from finite shots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.observable import Observable, check_observables
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer
from ketfit.simulate.circuit_batch import CircuitBatch, check_tensor
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.evolution import is_transformed
from ketfit.simulate.measurement import MeasurementContext, ObservableContext
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.shots import Gradient, check_shots, parameter_shift
from ketfit.simulate.statevector import (
    Engine,
    observable_expectation,
    observable_expectation_and_gradients,
    statevector_expectation,
    statevector_expectation_and_gradients,
)


@compiler_disabled
def expectation(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
    *,
    observables: Sequence[Observable] | None = None,
    noise: NoiseConfig | None = None,
    trajectories: int | None = None,
    shots: int | None = None,
    gradient: Gradient | None = None,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
) -> Tensor:
    """Return <Z> of each of `qubits`, or the expectations of `observables`, after `circuit`.

    The result is differentiable in all three tensors. Derivatives of higher order (`create_graph`), batched gradients
    and the transforms of `torch.func` work for exact values; they run on a slower path that stores a state for each
    gate.

    Args:
        circuit: Circuit to run, without the gates that cannot affect the result.
        weights: Angles in radians, shape (n_weights,), shared by the batch.
        inputs: Angles in radians, shape (batch, n_inputs); None only if the circuit reads none.
        initial: Amplitudes before the first gate, shape (batch, 2**n_qubits), qubit 0 the most significant bit of the
            index; real, or complex of the precision of `weights`; None is |0...0>. They are not normalized: a vector
            of norm r gives r**2 times the expectation. Shots and readout errors need norm 1.
        qubits: Qubits to measure, in the order of the result's columns: integers of any kind, also as an array, a
            tensor or a Series with one axis.
        observables: Observables (`PauliSum`, `Projector` or `Hermitian`) in the place of `qubits`. Shots and readout
            errors measure them as sums of Pauli words, in groups of words that agree in the Pauli matrix on every qubit
            that they share. The changes of basis are part of the measurement and have no gate noise.
        noise: Noise of gates, preparation and readout; exact, by the density matrix, unless `trajectories` is given.
            Gates have the noise of their number of qubits, one or two; gates on three are decomposed into such gates.
        trajectories: Number of Pauli trajectories that each sample's mean is taken over: unbiased, for circuits too
            wide for a density matrix and for fast training. With shots, they estimate the distribution of the shots.
        shots: Number of shots; None is the exact mean. Bits are sampled jointly for all of `qubits`, or for each group
            of words of `observables`, from an exact multinomial distribution unless a gradient is computed.
        gradient: How shots are differentiated. "reparameterized" (the default): the mean and Gaussian noise of the
            shots' covariance, with the gradient through both. "straight_through": an exact sample, with the gradient
            of the mean. "parameter_shift": an exact sample, and a gradient from shifted circuits with shots of their
            own, as on hardware. "exact": exact values where a gradient is computed, shots elsewhere.
        generator: Random generator of shots and trajectories; None is torch's default one.
        engine: "native" for the compiled kernel, which computes on the CPU; "torch" for torch's operations on any
            device; "auto" for the kernel on the CPU and torch elsewhere; "distributed" for one exact state over the
            processes of torch.distributed, which all call this with the same tensors. The density matrices of circuits
            with gates other than RY, by one weight or input, and CNOT are computed in torch.

    Returns:
        Shape (batch, len(qubits)) or (batch, len(observables)), with the dtype and device of `weights`. The batch is 1
        if neither `inputs` nor `initial` is given.

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        InputError: A tensor has the wrong shape, dtype or device, or a number that is not finite; or shots need the
            joint distribution of more than 12 qubits, or the density matrix has more than 15.
        ConfigError: An option is unknown, out of range, or does not fit the others.
        InsufficientMemoryError: The states do not fit into the free memory.

    >>> from ketfit.circuit import Angle, Circuit, ry
    >>> circuit = Circuit(1, (ry(0, Angle("weight", 0)),), n_weights=1, n_inputs=0)
    >>> expectation(circuit, torch.tensor([torch.pi / 3])).round(decimals=4)
    tensor([[0.5000]])
    """
    check_engine(engine)
    shots = check_shots(shots, gradient)
    trajectories = check_noise(noise, trajectories, engine)
    batch = CircuitBatch(circuit, weights, inputs, initial)
    chosen = None if observables is None else check_observables_alone(circuit, observables, qubits)
    measured = circuit.check_qubits(qubits) if chosen is None else ()
    if noise is None and shots is None:  # where a small circuit takes 20 microseconds, each of them counts
        if chosen is not None:
            return observable_expectation(batch, chosen, engine)
        return statevector_expectation(batch, measured, engine=engine)
    if is_transformed():
        raise ConfigError("the transforms of torch.func work for exact values; leave noise and shots out")
    measurement = MeasurementContext(measured, noise, trajectories, generator, engine)
    context = measurement if chosen is None else ObservableContext(chosen, measurement)
    if shots is None or (batch.is_differentiated and gradient == "exact"):
        return context.expectations(batch)
    if batch.is_differentiated and gradient == "parameter_shift":
        cone = batch.with_circuit(context.light_cone(circuit))
        return parameter_shift(partial(context.sample, shots=shots), cone, trajectories or 1)
    return context.estimate(batch, shots, (gradient or "reparameterized") if batch.is_differentiated else None)


class ExpectationAndGradients(NamedTuple):
    """Values, shape (batch, qubits or observables), and gradients shaped like their tensors; all detached.

    The gradient of a tensor that is not in `wrt` is None.
    """

    values: Tensor
    weights: Tensor | None
    inputs: Tensor | None
    initial: Tensor | None


@compiler_disabled
def expectation_and_gradients(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
    *,
    observables: Sequence[Observable] | None = None,
    cotangent: Tensor | None = None,
    wrt: Sequence[Literal["weights", "inputs", "initial"]] | None = None,
    engine: Engine = "auto",
) -> ExpectationAndGradients:
    """Return the exact <Z> of each of `qubits`, and the gradients of the sum of <Z> times `cotangent`, in one call.

    With `observables`, their expectations take the place of <Z>. The numbers are those of `expectation` and
    `torch.autograd.grad`. This function is faster for small circuits, where autograd takes longer than the simulation,
    and stores two states for each thread instead of one for each sample. It ignores `requires_grad` of the tensors.

    Args:
        circuit: Circuit to run, as in `expectation`.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (batch, n_inputs).
        initial: Amplitudes, shape (batch, 2**n_qubits).
        qubits: Qubits to measure.
        observables: Observables in the place of `qubits`, as in `expectation`.
        cotangent: Derivative of a loss with respect to each value, shape (batch, len(qubits)) or
            (batch, len(observables)); None is 1 for all.
        wrt: Names of the tensors to differentiate; None is every tensor that is given.
        engine: "native", "torch" or "auto", as in `expectation`.

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        InputError: A tensor has the wrong shape, dtype or device, or a number that is not finite, or `wrt` names a
            tensor that is not given.
        ConfigError: The engine is unknown or does not run on this device, or `wrt` has an unknown name.
        InsufficientMemoryError: The states do not fit into the free memory.

    >>> from ketfit.circuit import Angle, Circuit, ry
    >>> circuit = Circuit(1, (ry(0, Angle("weight", 0)),), n_weights=1, n_inputs=0)
    >>> expectation_and_gradients(circuit, torch.tensor([torch.pi / 2])).weights.round()
    tensor([-1.])
    """
    check_engine(engine)
    batch = CircuitBatch(circuit, weights, inputs, initial)
    if is_transformed():
        raise InputError("expectation_and_gradients cannot be transformed by torch.func; transform expectation instead")
    measured = circuit.check_qubits(qubits) if observables is None else ()
    chosen = () if observables is None else check_observables_alone(circuit, observables, qubits)
    n_columns = len(measured) or len(chosen)
    needs_grad = (True, inputs is not None, initial is not None)
    if wrt is not None:
        needs_grad = _check_wrt(wrt, needs_grad)
    if cotangent is None:
        cotangent = _ones(batch.size, n_columns, weights.dtype, weights.device)
    else:
        check_tensor("cotangent", cotangent, weights, n_columns, dimensions=2)
        if len(cotangent) != batch.size:
            raise InputError(
                f"cotangent has {len(cotangent)} rows for a batch of {batch.size}; pass one row for each sample"
            )
    if observables is not None:
        results = observable_expectation_and_gradients(batch, chosen, cotangent, needs_grad, engine)
    else:
        results = statevector_expectation_and_gradients(batch, measured, cotangent, needs_grad, engine)
    return ExpectationAndGradients(*results)  # type: ignore[arg-type]


@lru_cache(maxsize=8)  # allocation takes a tenth of a small circuit's time; the tensors are never written to
@torch.inference_mode(False)
def _ones(batch: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(batch, columns, dtype=dtype, device=device)


def _check_wrt(wrt: Sequence[str], given: tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
    """Return for each of the three tensors if `wrt` names it."""
    is_given = dict(zip(("weights", "inputs", "initial"), given, strict=True))
    for name in wrt:
        if name not in is_given:
            raise ConfigError(f"wrt names {name!r}; known are 'weights', 'inputs' and 'initial'")
        if not is_given[name]:
            raise InputError(f"wrt names {name!r}, which is not given; pass it, or remove it from wrt")
    return "weights" in wrt, "inputs" in wrt, "initial" in wrt


def check_observables_alone(
    circuit: Circuit, observables: Sequence[Observable], qubits: Sequence[int]
) -> tuple[Observable, ...]:
    """Return observables that fit a circuit as a tuple.

    Raises:
        ConfigError: Qubits other than the default are given, too.
        CircuitError: As in `ketfit.circuit.observable.check_observables`.
    """
    if type(qubits) is not tuple or qubits != (0,):
        raise ConfigError("pass either qubits or observables; a PauliSum has the Z of any qubit")
    return check_observables(circuit, observables)


def check_engine(engine: Engine) -> None:
    """Raise ConfigError if the engine is unknown."""
    if engine not in (known := get_args(Engine)):
        raise ConfigError(f"unknown engine {engine!r}; known are {', '.join(map(repr, known))}")


def check_noise(noise: NoiseConfig | None, trajectories: int | None, engine: Engine) -> int | None:
    """Return the number of trajectories as a Python integer, or None.

    Raises:
        ConfigError: The noise has another type, or the trajectories or the engine do not fit it.
    """
    if noise is not None and not isinstance(noise, NoiseConfig):
        raise ConfigError(f"noise is of type {type(noise).__name__}; pass a NoiseConfig, for instance load_noise(...)")
    if noise is not None:
        noise.check_engine(engine)
    if trajectories is None:
        return None
    if noise is None:
        raise ConfigError(f"trajectories={trajectories} is given without noise; pass noise, or omit trajectories")
    trajectories = as_integer(trajectories, "trajectories", minimum=1)
    noise.check_pauli_channel()
    return trajectories
