"""The one way from a circuit to numbers: exact, under noise, from finite shots; always differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.density_matrix import density_matrix_expectation
from ketfit.simulate.native import check_joint
from ketfit.simulate.noise import Confusion, NoiseConfig, noisy_light_cone
from ketfit.simulate.shots import (
    Gradient,
    check_shots,
    parameter_shift,
    reparameterized,
    sample,
    straight_through,
)
from ketfit.simulate.statevector import (
    Engine,
    check_tensor,
    check_tensors,
    statevector_expectation,
    statevector_expectation_and_gradients,
)
from ketfit.simulate.trajectories import trajectory_expectation


@compiler_disabled
def expectation(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
    *,
    noise: NoiseConfig | None = None,
    trajectories: int | None = None,
    shots: int | None = None,
    gradient: Gradient | None = None,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
) -> Tensor:
    """<Z> of each of `qubits` after `circuit`, differentiable once in all three tensors.

    Args:
        circuit: What to run. Gates that cannot reach `qubits` are left out.
        weights: Angles in radians, shape (n_weights,), shared by the batch.
        inputs: Angles in radians, shape (batch, n_inputs); None only if the circuit reads none.
        initial: Amplitudes before the first gate, shape (batch, 2**n_qubits), qubit 0 the most significant bit of the
            index; None is |0...0>. They are taken as they are: a vector of norm r gives r**2 times the expectation,
            and with shots or readout error they have to be of norm 1.
        qubits: Which qubits to measure, in the order of the result's columns: integers of any kind, also as an array,
            a tensor or a Series with one axis.
        noise: Noise of gates, preparation and readout; exact, by the density matrix, unless `trajectories` is given.
        trajectories: How many Pauli trajectories each sample's mean is taken over: unbiased, for circuits too wide for
            a density matrix and for training at full speed. With shots, they estimate what the shots are drawn from.
        shots: How many shots each value comes from; None is the exact mean. Bits are drawn jointly for all of
            `qubits`, from an exact multinomial distribution wherever nothing is differentiated.
        gradient: How shots are differentiated. "reparameterized" (the default): the mean and Gaussian noise of the
            shots' covariance, with the gradient through both. "straight_through": an exact draw, with the gradient of
            the mean. "parameter_shift": an exact draw, and a gradient from shifted circuits with shots of their own,
            as hardware has it. "exact": no shots in what is differentiated, but in all else.
        generator: Source of shots and trajectories; None is torch's default one.
        engine: "native" for the compiled kernel, which computes on the CPU; "torch" for torch's own operations on any
            device; "auto" for the kernel on the CPU and torch elsewhere. The density matrix has the kernel alone.

    Returns:
        Shape (batch, len(qubits)), of the dtype and on the device of `weights`. The batch is 1 if neither `inputs`
        nor `initial` is given.

    Raises:
        CircuitError: a qubit is out of range, not an integer, or named twice.
        InputError: a tensor has the wrong shape, dtype or device, or holds a number that is not finite; or shots ask
            for the joint distribution of more than 12 qubits.
        ConfigError: a choice that is unknown, out of range, or does not fit the others.
        InsufficientMemoryError: the states do not fit into the memory that is free.
    """
    check_engine(engine)
    shots = check_shots(shots, gradient)
    trajectories = check_noise(noise, trajectories, engine)
    batch = check_tensors(circuit, weights, inputs, initial)
    measured = circuit.check_qubits(qubits)
    tensors = (weights, inputs, initial)
    if noise is None and shots is None:  # where a small circuit takes 20 microseconds, each of them counts
        return statevector_expectation(circuit, measured, *tensors, batch, engine=engine)
    context = MeasurementContext(measured, noise, trajectories, generator, engine)
    if shots is None:
        return context.expectations(circuit, *tensors, batch)
    differentiated = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    if differentiated and gradient == "exact":
        return context.expectations(circuit, *tensors, batch)
    if not differentiated:
        return sample(context.distribution(circuit, *tensors, batch), shots, generator)
    if gradient == "parameter_shift":
        cone = noisy_light_cone(circuit, measured) if context.has_gate_noise else circuit.light_cone(measured)
        return parameter_shift(context.distribution, cone, *tensors, batch, shots, generator, trajectories or 1)
    estimate = straight_through if gradient == "straight_through" else reparameterized
    return estimate(context.distribution(circuit, *tensors, batch), shots, generator)


class ExpectationAndGradients(NamedTuple):
    """<Z> of shape (batch, measured qubits), and the gradients of a weighted sum of it: each shaped like its tensor,
    or None if it was not asked for. No graph hangs on any of them."""

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
    cotangent: Tensor | None = None,
    wrt: Sequence[Literal["weights", "inputs", "initial"]] | None = None,
    engine: Engine = "auto",
) -> ExpectationAndGradients:
    """Exact <Z> of each of `qubits`, and the gradients of the sum of <Z> times `cotangent`, in one call.

    The numbers are those of `expectation` and `torch.autograd.grad`. This way is faster for small circuits, where
    autograd takes longer than the simulation, and holds two states for each thread instead of one for each sample.
    Whether a tensor has `requires_grad` plays no part.

    Args:
        circuit: As for `expectation`, and so are `weights`, `inputs`, `initial`, `qubits` and `engine`.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (batch, n_inputs).
        initial: Amplitudes, shape (batch, 2**n_qubits).
        qubits: Which qubits to measure.
        cotangent: The derivative of a loss with respect to each value, shape (batch, len(qubits)); None is 1 for all.
        wrt: Which tensors to give gradients for; None is every one that is given.
        engine: "native", "torch" or "auto".

    Raises:
        CircuitError: a qubit is out of range, not an integer, or named twice.
        InputError: a tensor has the wrong shape, dtype or device, holds a number that is not finite, or is named in
            `wrt` and not given.
        ConfigError: an unknown engine, or one that does not run on this device, or an unknown name in `wrt`.
        InsufficientMemoryError: the states do not fit into the memory that is free.
    """
    check_engine(engine)
    batch = check_tensors(circuit, weights, inputs, initial)
    measured = circuit.check_qubits(qubits)
    wanted = (True, inputs is not None, initial is not None)
    if wrt is not None:
        wanted = _check_wrt(wrt, wanted)
    if cotangent is None:
        cotangent = _ones(batch, len(measured), weights.dtype, weights.device)
    else:
        check_tensor("cotangent", cotangent, weights, len(measured), dimensions=2)
        if len(cotangent) != batch:
            raise InputError(f"cotangent has {len(cotangent)} rows and the batch is {batch}; it needs one for each")
    return ExpectationAndGradients(
        *statevector_expectation_and_gradients(  # type: ignore[arg-type]
            circuit, measured, weights, inputs, initial, batch, cotangent, wanted, engine
        )
    )


@lru_cache(maxsize=8)  # making them takes a tenth of a small circuit's time; nobody writes to them
@torch.inference_mode(False)
def _ones(batch: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(batch, columns, dtype=dtype, device=device)


def _check_wrt(wrt: Sequence[str], given: tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
    """Which of the three tensors are named."""
    there = dict(zip(("weights", "inputs", "initial"), given, strict=True))
    for name in wrt:
        if name not in there:
            raise ConfigError(f"wrt names {name!r}; known are 'weights', 'inputs' and 'initial'")
        if not there[name]:
            raise InputError(f"wrt names {name!r}, which is not given; pass it, or leave it out of wrt")
    return "weights" in wrt, "inputs" in wrt, "initial" in wrt


def check_engine(engine: Engine) -> None:
    """Refuse an engine that there is not.

    Raises:
        ConfigError: naming it.
    """
    if engine not in ("auto", "native", "torch"):
        raise ConfigError(f"unknown engine {engine!r}; known are 'auto', 'native' and 'torch'")


@dataclass(frozen=True)
class MeasurementContext:
    """What stands between a circuit and its readings: the engine, the noise and the measured qubits."""

    measured: tuple[int, ...]
    noise: NoiseConfig | None = None
    trajectories: int | None = None
    generator: torch.Generator | None = None
    engine: Engine = "auto"

    @property
    def has_gate_noise(self) -> bool:
        """Whether gates or preparation are noisy."""
        return self.noise is not None and not self.noise.is_gate_noiseless

    def expectations(
        self, circuit: Circuit, weights: Tensor, inputs: Tensor | None, initial: Tensor | None, batch: int
    ) -> Tensor:
        """<Z> of each measured qubit as it is read, shape (batch, measured)."""
        result = self._run(circuit, weights, inputs, initial, batch, joint=False)
        return result if self.noise is None else apply_readout_error(result, self.noise.readout)

    def distribution(
        self, circuit: Circuit, weights: Tensor, inputs: Tensor | None, initial: Tensor | None, batch: int
    ) -> Tensor:
        """The joint distribution of the readings, shape (batch, 2**measured), the first qubit the highest bit."""
        if len(self.measured) == 1:
            values = self.expectations(circuit, weights, inputs, initial, batch)
            return torch.cat([1 + values, 1 - values], dim=1) / 2
        result = self._run(circuit, weights, inputs, initial, batch, joint=True)
        return result if self.noise is None else apply_readout_error_to_distribution(result, self.noise.readout)

    def _run(
        self,
        circuit: Circuit,
        weights: Tensor,
        inputs: Tensor | None,
        initial: Tensor | None,
        batch: int,
        joint: bool,
    ) -> Tensor:
        tensors = (weights, inputs, initial)
        if self.noise is None or self.noise.is_gate_noiseless:
            return statevector_expectation(circuit, self.measured, *tensors, batch, joint=joint, engine=self.engine)
        if self.trajectories is None:
            return _measure_exactly(circuit, self.measured, *tensors, batch, self.noise, joint)
        return trajectory_expectation(
            circuit,
            self.measured,
            *tensors,
            batch,
            self.noise,
            self.trajectories,
            joint=joint,
            generator=self.generator,
            engine=self.engine,
        ).mean


def apply_readout_error(values: Tensor, readout: Confusion | None) -> Tensor:
    """<Z> after a readout error on each qubit."""
    if readout is None:
        return values
    (zero_zero, zero_one), (one_zero, one_one) = readout
    of_zero, of_one = zero_zero - one_zero, zero_one - one_one  # <Z> as read where it was 0 and where it was 1
    return (of_zero + of_one) / 2 + (of_zero - of_one) / 2 * values


def apply_readout_error_to_distribution(distribution: Tensor, readout: Confusion | None) -> Tensor:
    """A joint distribution after a readout error on each qubit."""
    if readout is None:
        return distribution
    return _on_each_bit(distribution.new_tensor(readout), distribution)


def _on_each_bit(matrix: Tensor, distribution: Tensor) -> Tensor:
    """A 2 x 2 matrix on each bit of an array of shape (batch, 2**bits)."""
    batch, readings = distribution.shape
    result = distribution
    for bit in range(readings.bit_length() - 1):
        result = matrix @ result.reshape(batch, 2**bit, 2, readings >> (bit + 1))
    return result.reshape(distribution.shape)


def _measure_exactly(
    circuit: Circuit,
    measured: tuple[int, ...],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    noise: NoiseConfig,
    joint: bool,
) -> Tensor:
    if not joint:
        singles = [(qubit,) for qubit in measured]
        return density_matrix_expectation(circuit, singles, weights, inputs, initial, batch, noise)
    check_joint(measured, joint)
    subsets = product((False, True), repeat=len(measured))
    parities = [tuple(qubit for qubit, chosen in zip(measured, subset, strict=True) if chosen) for subset in subsets]
    values = density_matrix_expectation(circuit, parities, weights, inputs, initial, batch, noise)
    # p(b) = 2**-m sum over subsets S of (-1)**(how many bits of b are 1 in S) <Z_S>
    return _on_each_bit(values.new_tensor([[1, 1], [1, -1]]) / 2, values)


def check_noise(noise: NoiseConfig | None, trajectories: int | None, engine: Engine) -> int | None:
    """Return the number of trajectories as a Python integer, or None.

    Raises:
        ConfigError: noise of another type, or trajectories or an engine that do not fit it.
    """
    if noise is not None and not isinstance(noise, NoiseConfig):
        raise ConfigError(f"noise is of type {type(noise).__name__}; pass a NoiseConfig, for instance load_noise(...)")
    if trajectories is None:
        if noise is not None and engine == "torch" and not noise.is_gate_noiseless:
            raise ConfigError("the torch engine has no density matrix; pass trajectories, or engine='auto'")
        return None
    if noise is None:
        raise ConfigError(f"trajectories={trajectories} sample noise; pass noise too, or leave trajectories out")
    trajectories = as_integer(trajectories, "trajectories", minimum=1)
    noise.check_pauli_channel()
    return trajectories
