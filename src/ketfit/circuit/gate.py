"""Gates as values, and the table of their names, matrices and Pauli rotations.

Names and conventions are those of OpenQASM 3's standard gates; ``u`` is U(theta, phi, lambda) with a real upper left
element, as in Qiskit and PennyLane, and ``rxx``, ``ryy``, ``rzz`` and ``iswap`` are as in both. The first qubit of a
gate is the most significant bit of the index of its matrix, and the control of a controlled gate.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, SupportsIndex

from ketfit.circuit.angle import Angle, AngleExpression, as_angle
from ketfit.errors import CircuitError
from ketfit.integers import as_integer, as_integers

Matrix = tuple[tuple[complex, ...], ...]
"""A square matrix, row by row."""

MAX_UNITARY_QUBITS = 3
"""Maximum number of qubits of a constant unitary."""

UNITARY_TOLERANCE = 1e-6
"""Largest deviation of a constant unitary's U U^dagger from the identity: matrices in single precision pass."""


@dataclass(frozen=True)
class GateType:
    """A row of the table of gates.

    Attributes:
        name: Name in OpenQASM 3.
        n_qubits: Number of qubits.
        n_parameters: Number of angles.
        matrix: Returns the matrix for the values of the angles, in radians.
        rotations: For a gate with angles the Pauli rotations exp(-i t/2 P) whose product it is, in the order they are
            applied: the word P, a letter for each qubit, and the factor of each angle in t. The word of a global phase
            consists of I or is empty.
        n_controls: How many of the first qubits are controls.
        symbol: What a drawing shows on the other qubits.
    """

    name: str
    n_qubits: int
    n_parameters: int
    matrix: Callable[..., Matrix]
    rotations: tuple[tuple[str, tuple[float, ...]], ...] = ()
    n_controls: int = 0
    symbol: str = ""

    @property
    def is_real(self) -> bool:
        """True if the matrix is real for all angles."""
        return _is_real(self._generic_matrix())

    def _generic_matrix(self) -> Matrix:
        # Entries that vanish, or are real, for these angles do so for all: none is a zero of a sine or cosine.
        return self.matrix(*(0.7 + 0.4 * index for index in range(self.n_parameters)))


def _is_real(matrix: Matrix) -> bool:
    return all(entry.imag == 0 for row in matrix for entry in row)


def _rows(*rows: Iterable[complex]) -> Matrix:
    return tuple(tuple(complex(entry) for entry in row) for row in rows)


def _diagonal(*entries: complex) -> Matrix:
    return _rows(
        *([entry if row == column else 0 for column in range(len(entries))] for row, entry in enumerate(entries))
    )


def _permutation(*images: int) -> Matrix:
    """Return the matrix that takes basis state k to `images[k]`."""
    return _rows(*([image == row for image in images] for row in range(len(images))))


def _controlled(matrix: Matrix) -> Matrix:
    size = len(matrix)
    zeros = (0j,) * size
    return (*(row + zeros for row in _diagonal(*[1] * size)), *(zeros + row for row in matrix))


def _phase(angle: float) -> complex:
    return cmath.exp(1j * angle)


def _rx(theta: float) -> Matrix:
    cos, sin = math.cos(theta / 2), math.sin(theta / 2)
    return _rows([cos, -1j * sin], [-1j * sin, cos])


def _ry(theta: float) -> Matrix:
    cos, sin = math.cos(theta / 2), math.sin(theta / 2)
    return _rows([cos, -sin], [sin, cos])


def _rz(theta: float) -> Matrix:
    return _diagonal(_phase(-theta / 2), _phase(theta / 2))


def _u(theta: float, phi: float, lam: float) -> Matrix:
    cos, sin = math.cos(theta / 2), math.sin(theta / 2)
    return _rows([cos, -_phase(lam) * sin], [_phase(phi) * sin, _phase(phi + lam) * cos])


def _rxx(theta: float) -> Matrix:
    cos, sin = math.cos(theta / 2), -1j * math.sin(theta / 2)
    return _rows([cos, 0, 0, sin], [0, cos, sin, 0], [0, sin, cos, 0], [sin, 0, 0, cos])


def _ryy(theta: float) -> Matrix:
    cos, sin = math.cos(theta / 2), 1j * math.sin(theta / 2)
    return _rows([cos, 0, 0, sin], [0, cos, -sin, 0], [0, -sin, cos, 0], [sin, 0, 0, cos])


def _rzz(theta: float) -> Matrix:
    plus, minus = _phase(theta / 2), _phase(-theta / 2)
    return _diagonal(minus, plus, plus, minus)


def _constant(name: str, matrix: Matrix, n_controls: int = 0, symbol: str = "") -> GateType:
    return GateType(name, len(matrix).bit_length() - 1, 0, lambda: matrix, (), n_controls, symbol)


_X, _Y, _Z = _permutation(1, 0), _rows([0, -1j], [1j, 0]), _diagonal(1, -1)
_H = _rows([math.sqrt(0.5), math.sqrt(0.5)], [math.sqrt(0.5), -math.sqrt(0.5)])
_SX = _rows([0.5 + 0.5j, 0.5 - 0.5j], [0.5 - 0.5j, 0.5 + 0.5j])
_T = complex(math.sqrt(0.5), math.sqrt(0.5))

GATES: dict[str, GateType] = {
    gate.name: gate
    for gate in (
        _constant("x", _X, symbol="X"),
        _constant("y", _Y, symbol="Y"),
        _constant("z", _Z, symbol="Z"),
        _constant("h", _H, symbol="H"),
        _constant("s", _diagonal(1, 1j), symbol="S"),
        _constant("sdg", _diagonal(1, -1j), symbol="S†"),
        _constant("t", _diagonal(1, _T), symbol="T"),
        _constant("tdg", _diagonal(1, _T.conjugate()), symbol="T†"),
        _constant("sx", _SX, symbol="√X"),
        GateType("rx", 1, 1, _rx, (("X", (1.0,)),), symbol="RX"),
        GateType("ry", 1, 1, _ry, (("Y", (1.0,)),), symbol="RY"),
        GateType("rz", 1, 1, _rz, (("Z", (1.0,)),), symbol="RZ"),
        GateType("p", 1, 1, lambda lam: _diagonal(1, _phase(lam)), (("Z", (1.0,)), ("I", (-1.0,))), symbol="P"),
        GateType(
            "u",
            1,
            3,
            _u,
            (("Z", (0.0, 0.0, 1.0)), ("Y", (1.0, 0.0, 0.0)), ("Z", (0.0, 1.0, 0.0)), ("I", (0.0, -1.0, -1.0))),
            symbol="U",
        ),
        _constant("cx", _controlled(_X), 1, "X"),
        _constant("cy", _controlled(_Y), 1, "Y"),
        _constant("cz", _controlled(_Z), 1, "Z"),
        _constant("ch", _controlled(_H), 1, "H"),
        _constant("swap", _permutation(0, 2, 1, 3), symbol="SWAP"),
        _constant("iswap", _rows([1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]), symbol="iSWAP"),
        GateType("crx", 2, 1, lambda t: _controlled(_rx(t)), (("IX", (0.5,)), ("ZX", (-0.5,))), 1, "RX"),
        GateType("cry", 2, 1, lambda t: _controlled(_ry(t)), (("IY", (0.5,)), ("ZY", (-0.5,))), 1, "RY"),
        GateType("crz", 2, 1, lambda t: _controlled(_rz(t)), (("IZ", (0.5,)), ("ZZ", (-0.5,))), 1, "RZ"),
        GateType(
            "cp",
            2,
            1,
            lambda lam: _diagonal(1, 1, 1, _phase(lam)),
            (("ZI", (0.5,)), ("IZ", (0.5,)), ("ZZ", (-0.5,)), ("II", (-0.5,))),
            1,
            "P",
        ),
        GateType("rxx", 2, 1, _rxx, (("XX", (1.0,)),), symbol="RXX"),
        GateType("ryy", 2, 1, _ryy, (("YY", (1.0,)),), symbol="RYY"),
        GateType("rzz", 2, 1, _rzz, (("ZZ", (1.0,)),), symbol="RZZ"),
        _constant("ccx", _permutation(0, 1, 2, 3, 4, 5, 7, 6), 2, "X"),
        GateType("gphase", 0, 1, lambda gamma: ((_phase(gamma),),), (("", (-2.0,)),), symbol="φ"),
    )
}
"""The gates by name. A constant unitary, which has no row, is named ``unitary``."""

_SELF_INVERSE = frozenset({"x", "y", "z", "h", "cx", "cy", "cz", "ch", "swap", "ccx"})
_ADJOINTS = {"s": "sdg", "sdg": "s", "t": "tdg", "tdg": "t"}


@dataclass(frozen=True, slots=True, init=False)
class Gate:
    """A gate of the table `GATES` on some qubits, or a constant unitary.

    `ry` and `cx` build the gates of the paper's circuits. A global phase, ``gphase``, has no qubits.

    Attributes:
        name: Name in `GATES`, or ``unitary``.
        qubits: Qubits in the order of the table: controls first. A single qubit may be given as an integer.
        parameters: The angles: weights, inputs, numbers of radians, and sums of those.
        matrix: Elements of a constant unitary on one to three qubits, row by row; any array is taken.

    Raises:
        CircuitError: an unknown name, a wrong number of qubits or angles, a qubit that is not an integer or named
            twice, or a matrix that is missing, superfluous, of another size or not unitary.

    >>> Gate("crz", (0, 1), [2 * Angle("weight", 0)]).qubits
    (0, 1)
    >>> Gate("unitary", 0, matrix=[[0, 1], [1, 0]]).is_real
    True
    """

    name: str
    qubits: tuple[int, ...]
    parameters: tuple[AngleExpression, ...] = ()
    matrix: Matrix | None = None

    def __init__(
        self,
        name: str,
        qubits: SupportsIndex | Iterable[int],
        parameters: Iterable[AngleExpression] = (),
        matrix: Iterable[Iterable[complex]] | None = None,
    ) -> None:
        kind = GATES.get(name) if isinstance(name, str) else None
        if kind is None and name != "unitary":
            raise CircuitError(f"unknown gate {name!r}; known are {', '.join(map(repr, GATES))} and 'unitary'")
        self._set("name", name)
        self._set("qubits", _checked_qubits(name, qubits))
        if isinstance(parameters, (str, bytes)) or not isinstance(parameters, Iterable):
            raise CircuitError(f"parameters={parameters!r} of gate {name!r}: pass a sequence of angles")
        self._set(
            "parameters", tuple(as_angle(value, f"angle {k} of gate {name!r}") for k, value in enumerate(parameters))
        )
        if kind is None:
            self._set("matrix", _checked_unitary(matrix, len(self.qubits)))
            n_qubits, n_parameters = len(self.qubits), 0
        else:
            n_qubits, n_parameters = kind.n_qubits, kind.n_parameters
            if matrix is not None:
                raise CircuitError(f"gate {name!r} has no matrix of its own; leave it out, or name the gate 'unitary'")
            self._set("matrix", None)
        for what, needed, given in (
            ("qubit", n_qubits, len(self.qubits)),
            ("angle", n_parameters, len(self.parameters)),
        ):
            if given != needed:
                raise CircuitError(f"gate {name!r} has {needed} {what}{'s' * (needed != 1)}, got {given}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_ry_or_cx(self) -> bool:
        """True for RY by one weight or input, and for a CNOT: the gates of the paper's circuits."""
        return self.name == "cx" or (self.name == "ry" and isinstance(self.parameters[0], Angle))

    @property
    def target(self) -> int:
        """The qubit that RY or a CNOT acts on; other gates have `qubits` alone, so this raises CircuitError."""
        self._check_ry_or_cx("target")
        return self.qubits[-1]

    @property
    def control(self) -> int | None:
        """The control of a CNOT, None for RY; other gates have `qubits` alone, so this raises CircuitError."""
        self._check_ry_or_cx("control")
        return self.qubits[0] if self.name == "cx" else None

    @property
    def angle(self) -> Angle | None:
        """The angle of RY, None for a CNOT; other gates have `parameters` alone, so this raises CircuitError."""
        self._check_ry_or_cx("angle")
        angle = self.parameters[0] if self.parameters else None
        assert angle is None or isinstance(angle, Angle)
        return angle

    # A reader that knows RY and CNOT alone would take any other gate for one of them, and compute wrong numbers.
    def _check_ry_or_cx(self, reader: str) -> None:
        if not self.is_ry_or_cx:
            raise CircuitError(
                f"gate {self.name!r} has no '{reader}': only RY by one weight or input, and CNOT, do; "
                "read its qubits and parameters"
            )

    @property
    def is_real(self) -> bool:
        """True if the matrix is real for all angles."""
        return _is_real(self.matrix) if self.matrix is not None else _type_is_real(self.name)

    @property
    def symbol(self) -> str:
        """Text that a drawing shows on the qubits that are not controls."""
        return "U" if self.matrix is not None else GATES[self.name].symbol

    @property
    def n_controls(self) -> int:
        """Number of the first qubits that are controls."""
        return 0 if self.matrix is not None else GATES[self.name].n_controls

    def matrix_at(self, *angles: float) -> Matrix:
        """Return the matrix for numbers of the angles, in radians; the first qubit is its most significant bit.

        >>> Gate("p", 0, [Angle("input", 0)]).matrix_at(0.0)
        (((1+0j), 0j), (0j, (1+0j)))
        """
        return self.matrix if self.matrix is not None else GATES[self.name].matrix(*angles)

    def inverse(self) -> Gate:
        """Return the gate whose matrix is the adjoint: by the negative angles, or a constant gate.

        >>> Gate("s", 0).inverse().name
        'sdg'
        >>> Gate("rx", 0, [0.5]).inverse().parameters
        (-0.5,)
        """
        if self.parameters:
            negative = tuple(-1 * parameter for parameter in self.parameters)
            return Gate(self.name, self.qubits, negative[:1] + negative[:0:-1])  # u takes the last two in turn
        if self.name in _SELF_INVERSE:
            return self
        if self.name in _ADJOINTS:
            return Gate(_ADJOINTS[self.name], self.qubits)
        rows = self.matrix_at()
        adjoint = tuple(tuple(entry.conjugate() for entry in column) for column in zip(*rows, strict=True))
        return Gate("unitary", self.qubits, matrix=adjoint)

    @property
    def diagonal_qubits(self) -> tuple[int, ...]:
        """The qubits on which the gate is diagonal, so that it commutes with Z there: controls, for instance."""
        kept = block_diagonal(self._generic_matrix())
        return tuple(qubit for qubit, is_diagonal in zip(self.qubits, kept, strict=True) if is_diagonal)

    @property
    def permutes_basis(self) -> bool:
        """True if the gate takes each basis state to one basis state, up to a phase."""
        return _is_monomial(self._generic_matrix())

    def _generic_matrix(self) -> Matrix:
        return self.matrix if self.matrix is not None else _generic_matrix(self.name)


def ry(qubit: int, angle: AngleExpression) -> Gate:
    """Return a rotation about Y by `angle` on `qubit`."""
    return Gate("ry", (_integer(qubit, "target"),), (angle,))


def cx(control: int, target: int) -> Gate:
    """Return a CNOT."""
    return Gate("cx", (_integer(control, "control"), _integer(target, "target")))


def _checked_qubits(name: str, qubits: Any) -> tuple[int, ...]:
    checked: tuple[int, ...]
    if type(qubits) is tuple and all(type(qubit) is int for qubit in qubits):
        checked = qubits
    elif getattr(qubits, "ndim", None) == 0 or not isinstance(qubits, Iterable) or isinstance(qubits, (str, bytes)):
        checked = (as_integer(qubits, "qubit", error=CircuitError),)
    else:
        checked = as_integers(qubits, "qubits", error=CircuitError)
    if len(set(checked)) < len(checked):
        twice = next(qubit for qubit in checked if checked.count(qubit) > 1)
        raise CircuitError(f"gate {name!r} needs different qubits, got {twice} twice")
    return checked


def _integer(value: int, name: str) -> int:
    return value if type(value) is int else as_integer(value, name, error=CircuitError)


@lru_cache
def _type_is_real(name: str) -> bool:
    return GATES[name].is_real


@lru_cache
def _generic_matrix(name: str) -> Matrix:
    return GATES[name]._generic_matrix()


@lru_cache(maxsize=1024)
def block_diagonal(matrix: Matrix) -> tuple[bool, ...]:
    """Return for each qubit of a matrix True if the matrix is diagonal on it."""
    size = range(len(matrix))
    mixed = 0  # bits in which some row and column of an element other than zero differ
    for row in size:
        for column in size:
            if matrix[row][column] != 0:
                mixed |= row ^ column
    n_qubits = len(matrix).bit_length() - 1
    return tuple(not mixed >> (n_qubits - 1 - position) & 1 for position in range(n_qubits))


@lru_cache(maxsize=1024)
def _is_monomial(matrix: Matrix) -> bool:
    return all(sum(entry != 0 for entry in row) == 1 for row in matrix)


def _checked_unitary(matrix: Any, n_qubits: int) -> Matrix:
    """Return any array as a matrix, if it is unitary on this number of qubits."""
    if not 1 <= n_qubits <= MAX_UNITARY_QUBITS:
        raise CircuitError(f"gate 'unitary' acts on one to {MAX_UNITARY_QUBITS} qubits, got {n_qubits}")
    if matrix is None:
        raise CircuitError("gate 'unitary' needs a matrix")
    result = square_matrix(matrix, n_qubits, "the matrix of gate 'unitary'")
    size = range(len(result))
    for row in size:
        for column in size:
            product = sum(a * b.conjugate() for a, b in zip(result[row], result[column], strict=True))
            if abs(product - (row == column)) > UNITARY_TOLERANCE:
                raise CircuitError(
                    f"the matrix of gate 'unitary' is not unitary: the product of its rows {row} and {column} is "
                    f"{product:.6g}, and should be {int(row == column)}"
                )
    return result


def square_matrix(matrix: Any, n_qubits: int, name: str) -> Matrix:
    """Return any array of finite numbers as a matrix on `n_qubits` qubits.

    Raises:
        CircuitError: it has another shape, or elements that are not finite numbers.
    """
    rows = matrix.tolist() if hasattr(matrix, "tolist") else matrix
    size = 2**n_qubits
    try:
        result = tuple(tuple(complex(entry) for entry in row) for row in rows)
    except (TypeError, ValueError, OverflowError):
        raise CircuitError(f"{name} must be {size} rows of {size} numbers") from None
    if len(result) != size or any(len(row) != size for row in result):
        shape = f"({len(result)}, {len(result[0]) if result else 0})"
        raise CircuitError(f"{name} has shape {shape}; on {n_qubits} qubits it is ({size}, {size})")
    if not all(cmath.isfinite(entry) for row in result for entry in row):
        raise CircuitError(f"{name} has an element that is not finite")
    return result
