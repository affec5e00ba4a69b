"""Error mitigation at evaluation: invert the readout error, and extrapolate to zero noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.angle import Angle, AngleExpression, angles_of
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.gate import Gate
from ketfit.circuit.observable import Hermitian, Observable, Projector
from ketfit.errors import CircuitError, ConfigError
from ketfit.integers import as_integer, as_integers
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.expectation import check_noise, check_observables_alone
from ketfit.simulate.measurement import MeasurementContext, ObservableContext
from ketfit.simulate.noise import Confusion, NoiseConfig
from ketfit.simulate.readout_error import check_invertible, observable_before_readout_error
from ketfit.simulate.shots import check_shots, rotation_angles, rotations_as_inputs
from ketfit.simulate.statevector import Engine

Mitigation = Literal["readout", "zero_noise"]


@compiler_disabled
@torch.no_grad()
def mitigated_expectation(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
    *,
    observables: Sequence[Observable] | None = None,
    mitigation: Sequence[Mitigation],
    noise: NoiseConfig,
    trajectories: int | None = None,
    shots: int | None = None,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
    folds: Sequence[int] = (1, 3, 5),
    degree: int = 2,
) -> Tensor:
    """Return <Z> of each of `qubits`, or the expectations of `observables`, with less bias and more variance.

    The shape is (batch, len(qubits)) or (batch, len(observables)); there are no gradients. The mitigation "readout"
    inverts the confusion matrix of each qubit. "zero_noise" runs the circuit with every gate G replaced by
    G (G^-1 G)^k, which multiplies its noise by 2k + 1, and extrapolates to zero (Giurgica-Tiron et al., arXiv
    2005.10921); every run has `shots` shots of its own. With both, every run is corrected for readout first. The odd,
    ascending `folds` are the factors 2k + 1 of the runs, and `degree` is that of the polynomial fitted to them; one
    less than the number of runs is Richardson's extrapolation. The other arguments are those of `ketfit.expectation`.
    Results are clipped to `value_range`, -1 to 1 for <Z>, so initial amplitudes need norm 1.

    Raises:
        ConfigError: The mitigation is unknown, a confusion matrix has no inverse, or the folds are invalid.
        CircuitError: As in `ketfit.expectation`, as are InputError and InsufficientMemoryError.
    """
    unknown = [mitigation] if isinstance(mitigation, str) else set(mitigation) - {"readout", "zero_noise"}
    if unknown:
        raise ConfigError(f"unknown mitigation {min(unknown)!r}; give a tuple of 'readout', 'zero_noise' or both")
    if noise is None:
        raise ConfigError("mitigation needs noise; pass noise, or call expectation")
    shots = check_shots(shots, None)
    trajectories = check_noise(noise, trajectories, engine)
    folds, degree = as_integers(folds, "folds"), as_integer(degree, "degree")
    batch = CircuitBatch(circuit, weights, inputs, initial)
    batch.check_finite()  # before the angles of weights become inputs
    inverted = noise.readout if "readout" in mitigation else None
    context: MeasurementContext | ObservableContext
    if observables is None:
        context = MeasurementContext(circuit.check_qubits(qubits), noise, trajectories, generator, engine)
        ranges = [(-1.0, 1.0)] * len(context.measured)
    else:
        chosen = check_observables_alone(circuit, observables, qubits)
        context = ObservableContext(chosen, MeasurementContext((), noise, trajectories, generator, engine))
        ranges = [value_range(each) for each in chosen]
        if inverted is not None:
            before = tuple(observable_before_readout_error(each, inverted) for each in chosen)
            context = replace(context, observables=before)
    low, high = weights.new_tensor(ranges).t()
    if "zero_noise" not in mitigation:
        folds, degree = (1,), 0
    coefficients = extrapolation(folds, degree)
    single, originals = rotations_as_inputs(noise.decomposed(circuit))
    angles = rotation_angles(originals, weights, inputs, batch.size)
    signed_angles = torch.cat([angles, -angles], dim=1)
    total = weights.new_zeros(batch.size, len(ranges))
    for fold, coefficient in zip(folds, coefficients, strict=True):
        run = CircuitBatch(fold_gates(single, fold), weights.new_empty(0), signed_angles, initial)
        values = context.expectations(run) if shots is None else context.sample(run, shots)
        if inverted is not None:
            values = mitigate_readout(values, inverted) if observables is None else values.clamp(low, high)
        total += coefficient * values
    return total.clamp(low, high)


def value_range(observable: Observable) -> tuple[float, float]:
    """Return the range of an observable's expectations: for a Pauli sum, that of its words taken by themselves.

    >>> from ketfit.circuit import PauliSum
    >>> value_range(PauliSum([(2.0, "", ()), (0.5, "Z", (0,)), (-1.0, "X", (0,))]))
    (0.5, 3.5)
    """
    if isinstance(observable, Projector):
        return 0.0, 1.0
    if isinstance(observable, Hermitian):
        eigenvalues = np.linalg.eigvalsh(np.array(observable.matrix))
        return float(eigenvalues[0]), float(eigenvalues[-1])
    constant = sum(term.coefficient for term in observable.terms if not term.word)
    radius = sum(abs(term.coefficient) for term in observable.terms if term.word)
    return constant - radius, constant + radius


def mitigate_readout(values: Tensor, readout: Confusion | None) -> Tensor:
    """Return <Z> before a readout error on each qubit, clipped to -1 and 1.

    Raises:
        ConfigError: The confusion matrix has no inverse.
    """
    if readout is None:
        return values
    check_invertible(readout)
    (zero_zero, zero_one), (one_zero, one_one) = readout
    z_of_zero, z_of_one = zero_zero - one_zero, zero_one - one_one
    return ((2 * values - z_of_zero - z_of_one) / (z_of_zero - z_of_one)).clamp(-1, 1)


def extrapolation(folds: Sequence[int], degree: int) -> list[float]:
    """Return the factor of each run in the value at zero of the least-squares polynomial through the runs.

    >>> [round(factor, 3) for factor in extrapolation((1, 3, 5), 2)]
    [1.875, -1.25, 0.375]
    """
    folds, degree = as_integers(folds, "folds"), as_integer(degree, "degree")
    odd = all(fold > 0 and fold % 2 for fold in folds)
    if not odd or list(folds) != sorted(set(folds)) or not 0 <= degree < len(folds):
        raise ConfigError(
            f"folds={tuple(folds)}, degree={degree}: pass odd, positive, ascending folds, more of them than the degree"
        )
    powers = np.vander(np.array(folds, float), degree + 1, increasing=True)
    return [float(number) for number in np.linalg.pinv(powers)[0]]


def fold_gates(circuit: Circuit, fold: int) -> Circuit:
    """Return a circuit with each gate G as G (G^-1 G)^k, `fold` = 2k + 1 gates.

    Every angle has to be a number or an input of its own, as `rotations_as_inputs` makes them; the negative angles are
    additional inputs after them.

    Raises:
        CircuitError: An angle is a weight or a sum.
        ConfigError: `fold` is not an integer of at least 1.
    """
    return _fold_gates(circuit, as_integer(fold, "fold", minimum=1))


@cached_on_circuit
def _fold_gates(circuit: Circuit, fold: int) -> Circuit:
    gates: list[Gate] = []
    for index, gate in enumerate(circuit.gates):
        for angle in gate.parameters:
            if not (isinstance(angle, float) or (isinstance(angle, Angle) and angle.source == "input")):
                raise CircuitError(
                    f"the folding of gates needs an input for each angle; gate {index} is {gate.name!r} by a weight or "
                    "a sum: convert the circuit with rotations_as_inputs"
                )
        inverse = gate.inverse()
        negative = tuple(_as_input(angle, circuit.n_inputs) for angle in inverse.parameters)
        inverse = Gate(inverse.name, inverse.qubits, negative, inverse.matrix)
        gates += [gate, *[inverse, gate] * (fold // 2)]
    return Circuit(circuit.n_qubits, tuple(gates), 0, 2 * circuit.n_inputs)


def _as_input(negative: AngleExpression, n_inputs: int) -> AngleExpression:
    """Return the additional input that holds the negative of an input."""
    angles = angles_of(negative)
    return Angle("input", n_inputs + angles[0].index) if angles else negative
