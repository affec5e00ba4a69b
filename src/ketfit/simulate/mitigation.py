"""What can be done about noise at evaluation: undo the readout error, extrapolate to no noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.circuit import Angle, Circuit, Gate, ry
from ketfit.errors import ConfigError
from ketfit.integers import as_integer, as_integers
from ketfit.simulate.compiler import compiler_disabled
from ketfit.simulate.expectation import MeasurementContext, check_noise
from ketfit.simulate.noise import Confusion, NoiseConfig
from ketfit.simulate.shots import check_shots, rotation_angles, rotations_as_inputs, sample
from ketfit.simulate.statevector import Engine, check_tensors

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
    mitigation: Sequence[Mitigation],
    noise: NoiseConfig,
    trajectories: int | None = None,
    shots: int | None = None,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
    folds: Sequence[int] = (1, 3, 5),
    degree: int = 2,
) -> Tensor:
    """<Z> of each of `qubits` with the bias of noise reduced, and its spread raised; without gradients.

    Every result is brought back between -1 and 1, so initial amplitudes have to be of norm 1.

    Args:
        mitigation: "readout": undo the confusion matrix of each qubit. "zero_noise": run the circuit with every gate G
            folded into G (G^-1 G)^k, which makes its noise 2k + 1 times as long, and extrapolate to zero (Giurgica-
            Tiron et al., arXiv 2005.10921). Both: the first on each run of the second.
        noise: As the other arguments in `ketfit.expectation`. Every run of "zero_noise" has `shots` shots of its own.
        folds: Odd and ascending: how many gates each gate becomes, run by run.
        degree: Of the polynomial that is fitted to the runs; one less than runs is Richardson's extrapolation.

    Returns:
        Shape (batch, len(qubits)).

    Raises:
        ConfigError: a mitigation that is unknown, a confusion matrix without an inverse, or folds that do not fit.
        CircuitError, InputError, InsufficientMemoryError: as in `ketfit.expectation`.
    """
    unknown = [mitigation] if isinstance(mitigation, str) else set(mitigation) - {"readout", "zero_noise"}
    if unknown:
        raise ConfigError(f"unknown mitigation {min(unknown)!r}; give a tuple of 'readout', 'zero_noise' or both")
    if noise is None:
        raise ConfigError("without noise there is nothing to mitigate; give noise, or call expectation")
    shots = check_shots(shots, None)
    trajectories = check_noise(noise, trajectories, engine)
    folds, degree = as_integers(folds, "folds"), as_integer(degree, "degree")
    batch = check_tensors(circuit, weights, inputs, initial)
    context = MeasurementContext(circuit.check_qubits(qubits), noise, trajectories, generator, engine)
    if "zero_noise" not in mitigation:
        folds, degree = (1,), 0
    coefficients = extrapolation(folds, degree)
    single, columns = rotations_as_inputs(circuit)
    angles = rotation_angles(columns, weights, inputs, batch)
    both_ways = torch.cat([angles, -angles], dim=1)
    total = weights.new_zeros(batch, len(context.measured))
    for fold, coefficient in zip(folds, coefficients, strict=True):
        run = (fold_gates(single, fold), weights.new_empty(0), both_ways, initial, batch)
        values = context.expectations(*run) if shots is None else sample(context.distribution(*run), shots, generator)
        if "readout" in mitigation:
            values = mitigate_readout(values, noise.readout)
        total += coefficient * values
    return total.clamp(-1, 1)


def mitigate_readout(values: Tensor, readout: Confusion | None) -> Tensor:
    """<Z> before a readout error on each qubit, at least -1 and at most 1.

    Raises:
        ConfigError: the confusion matrix has no inverse.
    """
    if readout is None:
        return values
    (zero_zero, zero_one), (one_zero, one_one) = readout
    of_zero, of_one = zero_zero - one_zero, zero_one - one_one
    if of_zero == of_one:
        raise ConfigError(f"readout={readout}: both states read alike, which cannot be undone; leave 'readout' out")
    return ((2 * values - of_zero - of_one) / (of_zero - of_one)).clamp(-1, 1)


def extrapolation(folds: Sequence[int], degree: int) -> list[float]:
    """What to multiply each run with: the value at zero of the least-squares polynomial through them."""
    folds, degree = as_integers(folds, "folds"), as_integer(degree, "degree")
    odd = all(fold > 0 and fold % 2 for fold in folds)
    if not odd or list(folds) != sorted(set(folds)) or not 0 <= degree < len(folds):
        raise ConfigError(
            f"folds={tuple(folds)}, degree={degree}: folds are odd, positive and ascending, and more than the degree"
        )
    powers = np.vander(np.array(folds, float), degree + 1, increasing=True)
    return [float(number) for number in np.linalg.pinv(powers)[0]]


def fold_gates(circuit: Circuit, fold: int) -> Circuit:
    """Every gate `fold` times, forth and back; the angles are inputs, and their opposites are inputs behind them."""
    fold = as_integer(fold, "fold", minimum=1)
    key = ("fold", fold)
    if key not in circuit.cache:
        gates: list[Gate] = []
        for gate in circuit.gates:
            if gate.angle is None:
                gates += [gate] * fold
            else:
                back = ry(gate.target, Angle("input", circuit.n_inputs + gate.angle.index))
                gates += [gate, *[back, gate] * (fold // 2)]
        circuit.cache[key] = Circuit(circuit.n_qubits, tuple(gates), 0, 2 * circuit.n_inputs)
    folded: Circuit = circuit.cache[key]
    return folded
