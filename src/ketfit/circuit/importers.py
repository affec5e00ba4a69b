"""Import circuits from OpenQASM 3, Qiskit and PennyLane."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from numbers import Integral
from typing import TYPE_CHECKING, Any, NoReturn

from ketfit.circuit.angle import Angle, AngleExpression, AngleSum, as_angle, linear_combination
from ketfit.circuit.circuit import Circuit
from ketfit.circuit.gate import GATES, MAX_UNITARY_QUBITS, Gate
from ketfit.circuit.parameter_names import MAX_INDEX, ParameterNames
from ketfit.circuit.qasm import QasmProgram
from ketfit.errors import CircuitError, optional_imports
from ketfit.integers import as_integer, as_integers

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_MAX_DEPTH = 50  # of definitions within definitions

_PENNYLANE_NAMES = {
    **{name: name.lower() for name in ("S", "T", "SX", "RX", "RY", "RZ", "CY", "CZ", "CH", "SWAP", "ISWAP")},
    **{name: name.lower() for name in ("CRX", "CRY", "CRZ")},
    "PauliX": "x",
    "PauliY": "y",
    "PauliZ": "z",
    "Hadamard": "h",
    "Adjoint(S)": "sdg",
    "Adjoint(T)": "tdg",
    "PhaseShift": "p",
    "U3": "u",
    "CNOT": "cx",
    "ControlledPhaseShift": "cp",
    "IsingXX": "rxx",
    "IsingYY": "ryy",
    "IsingZZ": "rzz",
    "Toffoli": "ccx",
}

PENNYLANE_GATE_SET = frozenset({*_PENNYLANE_NAMES, "Rot", "GlobalPhase", "Identity", "Barrier", "QubitUnitary"})
"""PennyLane's names of the operations that `gates_of_pennylane` converts."""


def from_qasm3(text: str, weights: Iterable[str] | None = None, inputs: Iterable[str] | None = None) -> Circuit:
    """Return the circuit of an OpenQASM 3 program; no other package is needed.

    The program has qubits, declared inputs, gates of the standard library and gates that it defines itself. Angles are
    weights, inputs, numbers, and sums of them with factors. Barriers are ignored, and so are measurements at the end.
    The text need not be trusted: its size, and the time and memory that it takes, are bounded.

    Args:
        text: The program.
        weights: Names of the declared inputs that become weights, in order; None takes ``w_0``, ``w_1`` and so on.
        inputs: Names of those that become inputs, in order; None takes ``x_0``, ``x_1`` and so on.

    Raises:
        CircuitError: the program is invalid, has a part that a circuit cannot hold (measurement before the end, reset,
            classical control), or is too large. The error names the line.

    >>> program = 'OPENQASM 3.0; include "stdgates.inc"; input float w_0; qubit[2] q; rx(2*w_0) q[1]; cx q[1], q[0];'
    >>> from_qasm3(program).gate_counts()
    {'ry': 0, 'cx': 1, 'rx': 1}
    """
    names = ParameterNames.from_arguments(weights, inputs)
    n_qubits, gates = QasmProgram(text, names.angle).read()
    return names.circuit(n_qubits, gates)


def from_qiskit(
    circuit: QuantumCircuit, weights: Iterable[str] | None = None, inputs: Iterable[str] | None = None
) -> Circuit:
    """Return the circuit of a Qiskit circuit; Qiskit's qubit k is qubit k.

    Gates that KetFit does not have are replaced by their definitions, and operations without one, such as `Clifford`
    and `AnnotatedOperation`, by Qiskit's synthesis of them. Barriers are ignored, and so are measurements at the end.
    Mind the bit order: in KetFit, qubit 0 is the most significant bit of the basis index.

    Args:
        circuit: What to convert.
        weights: Names of the parameters that become weights, in order; None takes ``w[0]``, ``w_1`` and so on.
        inputs: Names of the parameters that become inputs, in order; None takes ``x[0]``, ``x_1`` and so on.

    Raises:
        CircuitError: an instruction cannot be held (measurement before the end, reset, classical control), a parameter
            is unknown, or an angle is not a sum of parameters times factors. The error names the position.
        MissingExtraError: Qiskit is not installed.
    """
    with optional_imports("Converting from Qiskit", "hardware"):
        from qiskit import QuantumCircuit

    if not isinstance(circuit, QuantumCircuit):
        raise CircuitError(f"circuit is of type {type(circuit).__name__}; pass a qiskit.QuantumCircuit")
    names = ParameterNames.from_arguments(weights, inputs)
    return names.circuit(circuit.num_qubits, qiskit_gates(circuit, names.angle))


def qiskit_gates(
    circuit: QuantumCircuit,
    angle: Callable[[str], AngleExpression],
    other_angle: Callable[[Any], AngleExpression] | None = None,
) -> list[Gate]:
    """Return the gates of a Qiskit circuit, as `from_qiskit` reads them.

    Args:
        circuit: What to convert.
        angle: Returns the weight or input of a parameter's name.
        other_angle: Returns the weight or input in the place of a `qiskit.circuit.ParameterExpression` that is not a
            sum of parameters times factors; None refuses those.

    Raises:
        CircuitError: an instruction or an angle cannot be held. The error names the position.
    """
    return list(_QiskitReader(angle, other_angle).read(circuit, range(circuit.num_qubits), ""))


def from_pennylane(
    source: Any,
    weights: Mapping[str, Sequence[int] | int] | None = None,
    inputs: Mapping[str, Sequence[int] | int] | None = None,
) -> Circuit:
    """Return the circuit of a PennyLane QNode, quantum function or tape.

    A function is called once, with symbols in the place of its arguments, so what it does must not depend on their
    values. Templates and gates that KetFit does not have are decomposed. Measurements at the end are ignored. Wires are
    numbered in the order of the device; without one, an integer wire k is qubit k, and other labels are numbered in the
    order of their use. Transforms of a QNode, such as `qml.map_wires`, are applied. The numbers of a tape stay numbers.

    Args:
        source: What to convert.
        weights: Shape of each argument of the function that holds weights, by name; they are numbered in this order.
        inputs: Shape of each argument that holds the inputs of one sample, by name.

    Raises:
        CircuitError: an operation cannot be held (measurement before the end, classical control), or an angle is not a
            sum of arguments times factors. The error names the position.
        MissingExtraError: PennyLane is not installed.
    """
    with optional_imports("Converting from PennyLane", "pennylane"):
        import autoray
        import pennylane as qml

    autoray.register_function("ketfit", "ones_like", lambda angle, **_: 1.0)  # in PennyLane's decompositions
    arguments, sizes = {}, {}
    for kind, shapes in (("weight", weights), ("input", inputs)):
        first = 0
        for name, shape in (shapes or {}).items():
            array = _symbols(kind, name, shape, first)
            arguments[name] = array
            first += array.size
        sizes[kind] = first
    wires: Sequence[Any] | None = None
    if isinstance(source, qml.tape.QuantumScript):
        if arguments:
            raise CircuitError("a tape has numbers in the place of arguments; pass the QNode or function to name them")
        tape = source
    elif isinstance(source, qml.QNode):
        tape, wires = _call(partial(_transformed_tape, source), arguments), source.device.wires
    elif callable(source):
        tape = _call(qml.tape.make_qscript(source), arguments)
    else:
        raise CircuitError(f"source is of type {type(source).__name__}; pass a QNode, a quantum function or a tape")
    labels = _wire_numbers(tape.wires, wires)
    gates = [
        gate
        for index, operation in enumerate(tape.operations)
        for each in _decomposed(index, operation)
        for gate in _read_pennylane(index, each, labels)
    ]
    return Circuit(len(labels), tuple(gates), sizes["weight"], sizes["input"])


class _QiskitReader:
    def __init__(
        self, angle: Callable[[str], AngleExpression], other_angle: Callable[[Any], AngleExpression] | None
    ) -> None:
        from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping

        self.angle, self.other_angle = angle, other_angle
        self.standard = {name: gate.base_class for name, gate in get_standard_gate_name_mapping().items()}

    def read(self, circuit: Any, qubits: Sequence[int], inside: str, depth: int = 0) -> Iterator[Gate]:
        """Yield the gates of a circuit or a definition on these qubits."""
        from qiskit.circuit import Barrier, Measure

        measured: dict[int, int] = {}
        for index, instruction in enumerate(circuit.data):
            operation = instruction.operation
            where = f"instruction {index} ({operation.name}){inside}"
            own = [qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits]
            if isinstance(operation, Barrier):
                continue
            for qubit in own:
                if qubit in measured:
                    raise CircuitError(f"{where} acts on qubit {qubit} after its measurement; measure at the end alone")
            if isinstance(operation, Measure):
                measured[own[0]] = index
                continue
            yield from self._gates(operation, own, where, depth)
        phase = self._angle(circuit.global_phase, f"the global phase{inside}")
        if phase != 0.0:
            yield Gate("gphase", (), (phase,))

    def _gates(self, operation: Any, qubits: list[int], where: str, depth: int) -> Iterator[Gate]:
        from qiskit.circuit.library import UnitaryGate

        name = "gphase" if operation.name == "global_phase" else operation.name
        if operation.name == "id" and operation.base_class is self.standard["id"]:
            return
        if isinstance(operation, UnitaryGate) and len(qubits) <= MAX_UNITARY_QUBITS:
            yield Gate("unitary", tuple(qubits[::-1]), matrix=operation.to_matrix())
            return
        if name in GATES and operation.base_class is self.standard.get(operation.name):
            angles = tuple(self._angle(parameter, where) for parameter in operation.params)
            yield Gate(name, tuple(qubits), angles)
            return
        if depth == _MAX_DEPTH:
            raise CircuitError(f"{where}: definitions are nested more than {_MAX_DEPTH} levels deep")
        definition = _definition(operation, where)
        yield from self.read(definition, qubits, f" in the definition of {operation.name}", depth + 1)

    def _angle(self, value: Any, where: str) -> AngleExpression:
        if not hasattr(value, "parameters"):
            return as_angle(value, f"an angle of {where}")
        factors, angles = [], []
        for parameter in sorted(value.parameters, key=lambda parameter: str(parameter.name)):
            try:
                slope = value.gradient(parameter)
            except RuntimeError:  # Qiskit has no derivative of the sign
                slope = value
            try:
                if getattr(slope, "parameters", ()):
                    if self.other_angle is not None:
                        return self.other_angle(value)
                    raise CircuitError(f"the angle {value} is not a sum of parameters times factors")
                angles.append(self.angle(parameter.name))
            except CircuitError as error:
                raise CircuitError(f"{where}: {error}") from None
            factors.append(_real(slope, where))
        offset = _real(value.bind(dict.fromkeys(value.parameters, 0.0)), where)
        return linear_combination((*factors, 1.0), (*angles, offset))


def _definition(operation: Any, where: str) -> QuantumCircuit:
    """Return the circuit that a Qiskit operation stands for.

    Raises:
        CircuitError: the operation has none, is controlled by classical bits, or uses them.
    """
    from qiskit.circuit import Gate as QiskitGate
    from qiskit.circuit import Instruction

    is_gate = isinstance(operation, QiskitGate) or not isinstance(operation, Instruction)
    is_classical = bool(getattr(operation, "blocks", ())) or getattr(operation, "_condition", None) is not None
    definition = getattr(operation, "definition", None)
    if is_classical or (definition is None and not is_gate):
        reason = "classical control" if is_classical else "an instruction"
        raise CircuitError(f"{where} is {reason} that a circuit of gates cannot hold; remove it")
    if operation.num_clbits:
        raise CircuitError(f"{where} has classical bits; a circuit of gates cannot hold them")
    return _synthesized_definition(operation, where) if definition is None else definition


def _synthesized_definition(operation: Any, where: str) -> QuantumCircuit:
    """Return a circuit of an operation that has no definition: Qiskit's synthesis, or else the operation's matrix."""
    from qiskit import QuantumCircuit

    if (synthesized := _synthesis(operation)) is not None:
        return synthesized
    circuit = QuantumCircuit(operation.num_qubits)
    try:
        circuit.unitary(operation.to_matrix(), circuit.qubits)
    except Exception as error:  # of any type, because operations may be defined outside Qiskit
        raise CircuitError(
            f"{where} has no definition, and Qiskit has neither a synthesis nor a matrix of it ({error}); append its "
            "circuit, or a UnitaryGate, in its place"
        ) from error
    return circuit


def _synthesis(operation: Any) -> QuantumCircuit | None:
    """Return Qiskit's synthesis of an operation, or None if it has none."""
    from qiskit import QuantumCircuit
    from qiskit.transpiler.passes import HighLevelSynthesis

    circuit = QuantumCircuit(operation.num_qubits)
    circuit.append(operation, circuit.qubits)
    try:
        synthesized: QuantumCircuit = HighLevelSynthesis(qubits_initially_zero=False)(circuit)
    except Exception:  # of any type, because operations may be defined outside Qiskit
        return None
    is_unchanged = [type(each.operation) for each in synthesized.data] == [type(operation)]
    return None if is_unchanged else synthesized


def _real(value: Any, where: str) -> float:
    number = complex(value)
    if number.imag != 0 or not math.isfinite(number.real):
        raise CircuitError(f"{where}: {value} in an angle is not a finite real number")
    return number.real


def _symbols(kind: Any, name: str, shape: Sequence[int] | int, first: int) -> Any:
    """Return an array of weights or inputs."""
    import numpy as np

    what = f"the shape of {name}"
    shape = shape if isinstance(shape, Iterable) else (as_integer(shape, what, error=CircuitError),)
    sizes = as_integers(shape, what, minimum=0, error=CircuitError)
    if math.prod(sizes) > MAX_INDEX:
        raise CircuitError(f"the shape of {name} is {sizes}: up to {MAX_INDEX} numbers are allowed")
    array = np.empty(sizes, object)
    for number, place in zip(count(first), np.ndindex(*sizes), strict=False):
        array[place] = Angle(kind, number)
    return array


def _transformed_tape(node: Any, **arguments: Any) -> Any:
    """Return the tape of a QNode after the transforms that its user applied."""
    import pennylane as qml

    tapes, _ = qml.workflow.construct_batch(node, level="user")(**arguments)
    if len(tapes) != 1:
        raise CircuitError(
            f"the transforms of the QNode split it into {len(tapes)} circuits; pass it without them, or a tape of each"
        )
    return tapes[0]


def _call(construct: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return construct(**arguments)
    except CircuitError:
        raise
    except (TypeError, ImportError) as error:  # an ImportError from autoray, which qml.math calls
        raise CircuitError(
            f"the function cannot be called with the arguments {', '.join(arguments) or '(none)'}: {error}; give the "
            "shape of each in weights= or inputs=, and use sums of them with factors as angles"
        ) from error


def _wire_numbers(used: Iterable[Any], device: Iterable[Any] | None) -> dict[Any, int]:
    """Return the qubit of each wire."""
    used = list(used)
    if device is not None and set(used) <= set(device):
        ordered = list(device)
    elif all(isinstance(label, Integral) for label in used):  # NumPy's integers, too
        if negative := [label for label in used if label < 0]:
            raise CircuitError(f"wire {negative[0]} is negative; number wires from 0, or name all with strings")
        ordered = list(range(int(max(used, default=0)) + 1))
    else:
        ordered = used
    return {label: number for number, label in enumerate(ordered)}


def _refuse(index: int, operation: Any) -> NoReturn:
    raise CircuitError(
        f"operation {index} ({operation.name}) is one that a circuit of gates cannot hold; remove it, and measure at "
        "the end alone"
    )


def _is_converted(operation: Any) -> bool:
    """Return True for an operation that `gates_of_pennylane` converts."""
    is_wide = operation.name == "QubitUnitary" and len(operation.wires) > MAX_UNITARY_QUBITS
    return operation.name in PENNYLANE_GATE_SET and not is_wide


def _decomposed(index: int, operation: Any) -> Sequence[Any]:
    """Return the operations that an operation is decomposed into: itself if it is converted, or cannot be."""
    import pennylane as qml

    if _is_converted(operation):
        return [operation]
    try:
        if not getattr(operation, "has_decomposition", False):
            return [_as_matrix(operation)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of operations without a decomposition, which are refused
            (tape,), _ = qml.transforms.decompose(
                qml.tape.QuantumScript([operation]),
                gate_set=PENNYLANE_GATE_SET - {"QubitUnitary"},
                stopping_condition=_is_converted,
            )
    except Exception as error:  # a decomposition that computes with symbols raises errors of any kind
        raise CircuitError(
            f"operation {index} ({operation.name}): PennyLane cannot decompose it, which often needs the values of its "
            "angles; write it with gates whose angles are sums of arguments times factors, or pass a tape with numbers "
            f"({type(error).__name__}: {error})"
        ) from error
    return [_as_matrix(each) for each in tape.operations]


def _as_matrix(operation: Any) -> Any:
    """Return a constant operation that PennyLane has only a matrix of as this matrix, and others as they are."""
    import pennylane as qml

    has_matrix = getattr(operation, "has_matrix", False) and 1 <= len(operation.wires) <= MAX_UNITARY_QUBITS
    if _is_converted(operation) or not has_matrix or any(map(_is_symbolic, operation.data)):
        return operation
    return qml.QubitUnitary(operation.matrix(), wires=operation.wires)


def _is_symbolic(value: Any) -> bool:
    """Return True for an angle that is no number, and for an array of those."""
    return isinstance(value, (Angle, AngleSum)) or str(getattr(value, "dtype", "")) == "object"


def _read_pennylane(index: int, operation: Any, labels: Mapping[Any, int]) -> Iterator[Gate]:
    """Yield the gates of an operation of a decomposed tape."""
    if not _is_converted(operation):
        _refuse(index, operation)
    qubits = tuple(labels[wire] for wire in operation.wires)
    yield from gates_of_pennylane(operation.name, qubits, operation.parameters, f"operation {index}")


def gates_of_pennylane(name: str, qubits: tuple[int, ...], parameters: Iterable[Any], where: str) -> Iterator[Gate]:
    """Yield the gates of an operation of `PENNYLANE_GATE_SET`.

    Args:
        name: PennyLane's name of the operation.
        qubits: Qubits in the order of its wires.
        parameters: Its parameters: angles of any kind that a gate takes, or the matrix of a ``QubitUnitary``.
        where: The position of the operation, for errors.

    Raises:
        CircuitError: a parameter is not an angle, or the matrix is not unitary.

    >>> " ".join(gate.name for gate in gates_of_pennylane("Rot", (0,), (0.1, 0.2, 0.3), "operation 0"))
    'rz ry rz'
    """
    if name in ("Identity", "Barrier"):
        return
    if name == "QubitUnitary":
        (matrix,) = parameters
        yield Gate("unitary", qubits, matrix=matrix)
        return
    # An element that a[..., 0] picks from an array of objects is an array of no dimensions.
    values = [value.item() if getattr(value, "shape", None) == () else value for value in parameters]
    angles = tuple(as_angle(value, f"an angle of {where} ({name})") for value in values)
    if name == "Rot":
        for axis, angle in zip(("rz", "ry", "rz"), angles, strict=True):
            yield Gate(axis, qubits, (angle,))
    elif name == "GlobalPhase":
        yield Gate("gphase", (), (linear_combination((-1.0,), angles),))  # PennyLane's is exp(-i phi)
    else:
        yield Gate(_PENNYLANE_NAMES[name], qubits, angles)
