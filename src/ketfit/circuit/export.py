"""Export circuits to OpenQASM 3, Qiskit and PennyLane."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ketfit.circuit.angle import Angle, AngleExpression, affine_form, substitute
from ketfit.circuit.circuit import Circuit, gate_angles
from ketfit.circuit.gate import Gate, Matrix
from ketfit.circuit.qasm import QASM_DEFINITIONS
from ketfit.errors import CircuitError, InputError, optional_imports
from ketfit.integers import as_integers

if TYPE_CHECKING:
    from pennylane.measurements import ExpectationMP
    from qiskit import QuantumCircuit


def angle_values(
    circuit: Circuit, weights: Iterable[float] | None = None, inputs: Iterable[float] | None = None
) -> dict[Angle, float]:
    """Return the value of each angle whose numbers are given.

    Args:
        circuit: The circuit whose angles are meant.
        weights: Numbers of shape (n_weights,) in radians, or None to leave the weights free.
        inputs: Numbers of shape (n_inputs,) in radians, one sample, or None to leave the inputs free.

    Raises:
        InputError: the numbers are of another shape or not finite.
    """
    values: dict[Angle, float] = {}
    if weights is not None:
        numbers = _numbers("weights", weights, circuit.n_weights)
        values |= {Angle("weight", index): number for index, number in enumerate(numbers)}
    if inputs is not None:
        numbers = _numbers("inputs", inputs, circuit.n_inputs)
        values |= {Angle("input", index): number for index, number in enumerate(numbers)}
    return values


def to_qasm3(
    circuit: Circuit,
    weights: Iterable[float] | None = None,
    inputs: Iterable[float] | None = None,
    measured: Iterable[int] = (),
) -> str:
    """Return the circuit as an OpenQASM 3 program; no other package is needed.

    Numbers are written so that reading them gives the same float64. Angles without a number become declared inputs,
    ``input float[64] w_3;`` for weight 3 and ``x_0`` for input 0, if a gate uses them. The gate ``u`` is written as the
    built-in ``U``, which readers take with or without a factor exp(i theta/2).

    Args:
        circuit: What to write.
        weights: Numbers of shape (n_weights,) in radians, or None to leave the weights free.
        inputs: Numbers of shape (n_inputs,) in radians, or None to leave the inputs free.
        measured: Qubits to measure at the end, the j-th into bit ``c[j]``.

    Raises:
        InputError: the numbers are of another shape or not finite.
        CircuitError: a measured qubit is out of range, not an integer, or named twice, or a gate is a constant unitary.
    """
    values = angle_values(circuit, weights, inputs)
    qubits = measured_qubits(circuit, measured)
    free = {angle for gate in circuit.gates for angle in gate_angles(gate)} - values.keys()
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";']
    used = {gate.name for gate in circuit.gates}
    lines.extend(definition for name, definition in QASM_DEFINITIONS.items() if name in used)
    declared = sorted(free, key=lambda angle: (angle.source == "input", angle.index))
    lines.extend(f"input float[64] {_qasm_name(angle)};" for angle in declared)
    lines.append(f"qubit[{circuit.n_qubits}] q;")
    if qubits:
        lines.append(f"bit[{len(qubits)}] c;")
    lines.extend(_qasm_gate(index, gate, values) for index, gate in enumerate(circuit.gates))
    lines.extend(f"c[{bit}] = measure q[{qubit}];" for bit, qubit in enumerate(qubits))
    return "\n".join(lines) + "\n"


def _qasm_gate(index: int, gate: Gate, values: Mapping[Angle, float]) -> str:
    if gate.matrix is not None:
        raise CircuitError(
            f"gate {index} is a constant unitary, which OpenQASM 3 cannot hold; export to Qiskit and transpile it"
        )
    angles = ", ".join(_qasm_angle(parameter, values) for parameter in gate.parameters)
    name = "U" if gate.name == "u" else gate.name
    operands = ", ".join(f"q[{qubit}]" for qubit in gate.qubits)
    return f"{name}{f'({angles})' if angles else ''}{' ' * bool(operands)}{operands};"


def _qasm_angle(expression: AngleExpression, values: Mapping[Angle, float]) -> str:
    terms, offset = affine_form(substitute(expression, values))
    parts = [_qasm_name(angle) if factor == 1 else f"{factor!r}*{_qasm_name(angle)}" for angle, factor in terms]
    if offset != 0 or not parts:
        parts.append(repr(offset))
    return " + ".join(parts)


def to_qiskit(
    circuit: Circuit,
    weights: Iterable[float] | None = None,
    inputs: Iterable[float] | None = None,
    measured: Iterable[int] = (),
) -> QuantumCircuit:
    """Return the circuit as a Qiskit circuit; qubit k is Qiskit's qubit k.

    Angles without a number become elements of the parameter vectors ``w`` and ``x``; those that no gate uses do not
    appear. A unitary in single precision becomes the closest one in double precision, which Qiskit requires. Mind the
    bit order: here qubit 0 is the most significant bit of the basis index, in Qiskit's statevectors and count keys it
    is the least significant. ``Statevector(...).reverse_qargs()`` has the order of this library.

    Args:
        circuit: What to convert.
        weights: Numbers of shape (n_weights,) in radians, or None to leave the weights free.
        inputs: Numbers of shape (n_inputs,) in radians, or None to leave the inputs free.
        measured: Qubits to measure at the end, the j-th into classical bit j.

    Raises:
        InputError: the numbers are of another shape or not finite.
        CircuitError: a measured qubit is out of range, not an integer, or named twice.
        MissingExtraError: Qiskit is not installed.
    """
    with optional_imports("Converting to Qiskit", "hardware"):
        from qiskit import QuantumCircuit
        from qiskit.circuit import ParameterVector
        from qiskit.circuit.library import GlobalPhaseGate

    values = angle_values(circuit, weights, inputs)
    qubits = measured_qubits(circuit, measured)
    free = {"weight": ParameterVector("w", circuit.n_weights), "input": ParameterVector("x", circuit.n_inputs)}
    converted = QuantumCircuit(circuit.n_qubits, len(qubits))
    for gate in circuit.gates:
        angles = [
            substitute(parameter, values, lambda angle: free[angle.source][angle.index])
            for parameter in gate.parameters
        ]
        if gate.matrix is not None:  # Qiskit's first qubit is the least significant bit
            converted.unitary(_double_precision(gate.matrix), gate.qubits[::-1])
        elif gate.name == "gphase":
            converted.append(GlobalPhaseGate(*angles), [])
        else:
            getattr(converted, gate.name)(*angles, *gate.qubits)
    converted.measure(qubits, range(len(qubits)))
    return converted


def _double_precision(unitary: Matrix) -> Any:
    """Return a unitary matrix, or the closest one in double precision if Qiskit takes it for not unitary."""
    import numpy as np
    import scipy.linalg
    from qiskit.quantum_info.operators.predicates import is_unitary_matrix

    matrix = np.array(unitary)
    return matrix if is_unitary_matrix(matrix) else scipy.linalg.polar(matrix)[0]


def to_pennylane(circuit: Circuit, measured: Iterable[int] = (0,)) -> Callable[..., list[ExpectationMP]]:
    """Return the circuit as a PennyLane quantum function ``f(weights=None, inputs=None, initial=None)``.

    Wrap it in a QNode on the wires 0..n_qubits - 1; it returns <Z> of each measured qubit as a list. PennyLane also
    takes qubit 0 as the most significant bit. Every argument may be a list or an array of any framework PennyLane
    knows, so it differentiates as usual: `weights` of shape (n_weights,); `inputs` of shape (n_inputs,) or
    (batch, n_inputs); `initial`, normalised amplitudes of shape (2**n_qubits,) or (batch, 2**n_qubits), None for
    the state with every qubit at 0.

    Args:
        circuit: What to convert.
        measured: The qubits to read out.

    Raises:
        CircuitError: a measured qubit is out of range, not an integer, or named twice.
        MissingExtraError: PennyLane is not installed.
        InputError: on a call, an array is missing or of another shape.
    """
    with optional_imports("Converting to PennyLane", "pennylane"):
        import pennylane as qml

    qubits = circuit.check_qubits(measured, "measured")
    dimension = 2**circuit.n_qubits

    def quantum_function(weights: Any = None, inputs: Any = None, initial: Any = None) -> list[ExpectationMP]:
        """Apply the gates of the circuit and return the measurements."""
        angles = {
            "weight": _array("weights", weights, circuit.n_weights, batched=False),
            "input": _array("inputs", inputs, circuit.n_inputs, batched=True),
        }
        if initial is not None:
            qml.StatePrep(_array("initial", initial, dimension, batched=True), wires=range(circuit.n_qubits))
        columns = {
            angle: angles[angle.source][..., angle.index] for gate in circuit.gates for angle in gate_angles(gate)
        }
        for gate in circuit.gates:
            _apply_to_pennylane(gate, columns)
        return [qml.expval(qml.PauliZ(qubit)) for qubit in qubits]

    return quantum_function


# Gates whose names in PennyLane differ; the adjoint of a gate has no name of its own there.
_PENNYLANE_NAMES = {
    "x": "PauliX",
    "y": "PauliY",
    "z": "PauliZ",
    "h": "Hadamard",
    "p": "PhaseShift",
    "u": "U3",
    "cx": "CNOT",
    "cp": "ControlledPhaseShift",
    "rxx": "IsingXX",
    "ryy": "IsingYY",
    "rzz": "IsingZZ",
    "ccx": "Toffoli",
}


def _apply_to_pennylane(gate: Gate, columns: Mapping[Angle, Any]) -> None:
    """Queue a gate, whose angles have the values `columns`, of any framework."""
    import pennylane as qml

    angles = []
    for parameter in gate.parameters:
        terms, offset = affine_form(parameter)
        value = sum((columns[angle] if factor == 1 else factor * columns[angle] for angle, factor in terms), start=0.0)
        angles.append(columns[parameter] if isinstance(parameter, Angle) else value + offset)
    if len(angles) > 1:  # U3 takes no mixture of numbers and tensors, nor of angles with and without a batch
        angles = [angle + 0.0 * sum(angles) for angle in angles]
    if gate.matrix is not None:
        import numpy as np

        qml.QubitUnitary(np.array(gate.matrix), wires=gate.qubits)
    elif gate.name == "gphase":
        qml.GlobalPhase(-angles[0])  # PennyLane's is exp(-i phi)
    elif gate.name in ("sdg", "tdg"):
        qml.adjoint(getattr(qml, gate.name[0].upper()))(wires=gate.qubits)
    else:
        getattr(qml, _PENNYLANE_NAMES.get(gate.name, gate.name.upper()))(*angles, wires=gate.qubits)


def _numbers(name: str, values: Iterable[float], size: int) -> list[float]:
    # An array's own tolist() needs neither numpy nor torch here, and a tensor that wants a gradient does not mind it.
    try:
        numbers = [float(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be one flat row of {size} numbers, got {reprlib.repr(values)}") from None
    if len(numbers) != size:
        raise InputError(f"{name} has {len(numbers)} numbers, the circuit has n_{name}={size}: give one for each")
    for index, number in enumerate(numbers):
        if not math.isfinite(number):
            raise InputError(f"{name}[{index}] is {number}: an angle must be a finite number of radians")
    return numbers


def _array(name: str, values: Any, size: int, *, batched: bool) -> Any:
    import pennylane as qml

    if values is None:
        if size:
            raise InputError(f"{name} is missing: give an array of shape ({size},)")
        return None
    values = qml.math.asarray(values)
    shape = tuple(qml.math.shape(values))
    if shape[-1:] != (size,) or len(shape) > 1 + batched:
        allowed = f"({size},) or (batch, {size})" if batched else f"({size},)"
        raise InputError(f"{name} has shape {shape}; it must be {allowed}")
    return values


def measured_qubits(circuit: Circuit, measured: Iterable[int]) -> tuple[int, ...]:
    """Return the checked qubits to measure; an empty list stays empty."""
    qubits = as_integers(measured, "measured", error=CircuitError)
    return circuit.check_qubits(qubits) if qubits else ()


def _qasm_name(angle: Angle) -> str:
    return f"{'w' if angle.source == 'weight' else 'x'}_{angle.index}"
