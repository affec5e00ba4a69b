"""Transforms that turn tapes into those that the device runs, and refuse the others before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import pennylane as qml
from pennylane.devices.preprocess import (
    decompose,
    device_resolve_dynamic_wires,
    no_sampling,
    validate_device_wires,
    validate_measurements,
)
from pennylane.exceptions import DeviceError
from pennylane.measurements import (
    ClassicalShadowMP,
    CountsMP,
    MeasurementProcess,
    SampleMeasurement,
    ShadowExpvalMP,
    StateMeasurement,
)
from pennylane.operation import StatePrepBase
from pennylane.ops import CompositeOp, Hermitian, SparseHamiltonian, SymbolicOp
from pennylane.tape import QuantumScript
from pennylane.transforms import broadcast_expand, defer_measurements
from pennylane.transforms.core import CompilePipeline, transform

from ketfit.circuit.importers import PENNYLANE_GATE_SET
from ketfit.interop.pennylane.operations import NO_OPERATION, TEMPLATES, is_gate, is_supported, is_template

NAME = "ketfit.qubit"

_EXCITATION_SIGNS = {"DoubleExcitationPlus": 1, "DoubleExcitationMinus": -1}

Tapes = tuple[tuple[QuantumScript, ...], Callable[[Any], Any]]

_typed_transform: Callable[[Callable[..., Tapes]], Any] = transform


def device_transforms(wires: Any, config: Any) -> CompilePipeline:
    """Return the transforms from a user's tape to tapes that the device runs.

    Args:
        wires: Wires of the device, or None.
        config: PennyLane's execution configuration, completed by the device.
    """
    differentiated = config.gradient_method in ("adjoint", "backprop")
    program = CompilePipeline()
    if config.interface == qml.math.Interface.JAX_JIT:
        program.add_transform(refuse_counts)
    program.add_transform(defer_measurements, allow_postselect=False)
    if differentiated:
        program.add_transform(no_sampling, name=f"the adjoint method of {NAME}")
        program.add_transform(refuse_trainable_matrices)
    program.add_transform(decompose_excitations)
    program.add_transform(
        decompose_or_split,
        stopping_condition=partial(is_supported, differentiated=differentiated),
        device_wires=wires,
        target_gates=PENNYLANE_GATE_SET | NO_OPERATION | set(TEMPLATES),
        name=NAME,
    )
    program.add_transform(device_resolve_dynamic_wires, wires=wires, allow_resets=False)
    program.add_transform(validate_device_wires, wires, name=NAME)
    program.add_transform(
        validate_measurements,
        analytic_measurements=is_exact_measurement,
        sample_measurements=is_sample_measurement,
        name=NAME,
    )
    program.add_transform(refuse_no_wires)
    program.add_transform(expand_unsupported_batches)
    return program


def is_exact_measurement(measurement: MeasurementProcess) -> bool:
    """Return True if the device computes a measurement without shots."""
    if not isinstance(measurement, StateMeasurement):
        return False
    is_mean = isinstance(measurement, qml.measurements.ExpectationMP)
    return measurement.obs is None or _is_measurable(measurement.obs, is_mean)


def is_sample_measurement(measurement: MeasurementProcess) -> bool:
    """Return True if the device computes a measurement from shots."""
    if not isinstance(measurement, (SampleMeasurement, ClassicalShadowMP, ShadowExpvalMP)):
        return False
    return measurement.obs is None or _is_measurable(measurement.obs, False)


def _is_measurable(observable: Any, is_exact_mean: bool) -> bool:
    if isinstance(observable, CompositeOp):
        return all(_is_measurable(each, is_exact_mean) for each in observable.operands)
    if isinstance(observable, SymbolicOp):
        return _is_measurable(observable.base, is_exact_mean)
    if is_exact_mean and isinstance(observable, (Hermitian, SparseHamiltonian)):
        return True
    return bool(observable.has_diagonalizing_gates)


def _only(results: Any) -> Any:
    return results[0]


@_typed_transform
def refuse_counts(tape: QuantumScript) -> Tapes:
    """Refuse counts, whose shape jax.jit cannot know."""
    if any(isinstance(each, CountsMP) for each in tape.measurements):
        raise NotImplementedError("the JAX-JIT interface does not support counts; use sample or probs")
    return (tape,), _only


@_typed_transform
def refuse_trainable_matrices(tape: QuantumScript) -> Tapes:
    """Refuse matrices with a gradient on more than one wire; those on one wire are decomposed into rotations."""
    for operation in tape.operations:
        is_trainable = any(qml.math.requires_grad(value) for value in operation.data)
        if operation.name == "QubitUnitary" and len(operation.wires) > 1 and is_trainable:
            raise DeviceError(
                f"{NAME} does not support the gradient of the matrix of {operation.name} on "
                f"{len(operation.wires)} wires; detach the matrix, or write the gate with angles"
            )
    return (tape,), _only


@_typed_transform
def decompose_or_split(tape: QuantumScript, **options: Any) -> Tapes:
    """Decompose the operations, one sample at a time where PennyLane cannot decompose a batch.

    Args:
        tape: The tape.
        options: Options of PennyLane's `decompose`.
    """
    try:
        tapes, join = decompose(tape, **options)
        return tapes, join
    except Exception:  # of any type, where a decomposition branches on the value of an angle
        if tape.batch_size is None:
            raise
    tapes, join = broadcast_expand(tape)
    return tuple(decompose(each, **options)[0][0] for each in tapes), join


@_typed_transform
def decompose_excitations(tape: QuantumScript) -> Tapes:
    """Decompose the double excitations with a phase, for which PennyLane has a matrix and no decomposition."""
    if not any(operation.name in _EXCITATION_SIGNS for operation in tape.operations):
        return (tape,), _only
    operations = []
    for operation in tape.operations:
        if operation.name not in _EXCITATION_SIGNS:
            operations.append(operation)
            continue
        wires, (angle,) = operation.wires, operation.data
        half = _EXCITATION_SIGNS[operation.name] * angle / 2
        # exp(i half) on all basis states, undone on the two that are rotated, 0011 and 1100.
        # The projector on these is the mean of the words of Z on an even number of wires, with the signs of 0011.
        operations += [qml.DoubleExcitation(angle, wires=wires), qml.GlobalPhase(-7 / 8 * half, wires=wires[0])]
        for pair in (*combinations(range(4), 2), range(4)):
            sign = (-1) ** sum(position >= 2 for position in pair)
            operations.append(qml.MultiRZ(sign / 4 * half, wires=[wires[position] for position in pair]))
    return (tape.copy(operations=operations),), _only


@_typed_transform
def refuse_no_wires(tape: QuantumScript) -> Tapes:
    """Refuse tapes without a wire."""
    if not tape.wires:
        raise DeviceError(f"{NAME} does not support circuits without wires; give the device wires, or use one")
    return (tape,), _only


@_typed_transform
def expand_unsupported_batches(tape: QuantumScript) -> Tapes:
    """Split a batch into tapes if a part of the tape has it that the simulator does not broadcast over."""
    broadcast = [
        operation
        for position, operation in enumerate(tape.operations)
        if operation.name not in NO_OPERATION
        and not is_gate(operation)
        and not is_template(operation)
        and not (position == 0 and isinstance(operation, StatePrepBase))
        and operation.batch_size is not None
    ]
    is_shadow = any(isinstance(each, (ClassicalShadowMP, ShadowExpvalMP)) for each in tape.measurements)
    if broadcast or is_shadow:
        tapes, join = broadcast_expand(tape)
        return tuple(tapes), join
    return (tape,), _only
