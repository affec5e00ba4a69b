"""Circuits of any gates as Pauli rotations: Clifford gates that permute amplitudes become changes of later words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ketfit.circuit.decomposition import demultiplex
from ketfit.errors import CircuitError

ComplexArray = npt.NDArray[np.complex128]

_TOLERANCE = 1e-9
"""Largest difference of entries that are taken as equal: below it a matrix is a Clifford gate, or an angle zero."""


@dataclass(frozen=True, slots=True)
class PauliWord:
    """A product of Pauli matrices with a sign: sign * i**popcount(x & z) * X**x Z**z.

    Bits are those of an amplitude's index, in which qubit 0 is the most significant bit: the word takes the basis
    state b to (-1)**popcount(b & z) times the basis state b ^ x, up to the factor before.

    >>> PauliWord(0b11, 0b00).commutes(PauliWord(0b00, 0b11))
    True
    """

    x: int
    z: int
    sign: int = 1

    def commutes(self, other: PauliWord) -> bool:
        """Return True if the two commute, False if they anticommute."""
        return not ((self.x & other.z).bit_count() + (self.z & other.x).bit_count()) & 1


@dataclass(frozen=True, slots=True)
class AngleTerms:
    """The angle offset + sum of factor * weight + sum of factor * input, in radians; terms are (index, factor)."""

    weights: tuple[tuple[int, float], ...] = ()
    inputs: tuple[tuple[int, float], ...] = ()
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rotation exp(-i angle / 2 P) of a Pauli word P.

    Attributes:
        word: The word P.
        angle: Its angle.
        index: Place among the lowered rotations of a program, where it is one of those.
    """

    word: PauliWord
    angle: AngleTerms
    index: int = 0

    @property
    def is_real(self) -> bool:
        """True if its matrix is real: its word has an odd number of Ys."""
        return (self.word.x & self.word.z).bit_count() & 1 == 1


@dataclass(frozen=True, slots=True, eq=False)
class Unitary:
    """A constant unitary matrix on some qubits, the first of which is the most significant bit of its index."""

    qubits: tuple[int, ...]
    matrix: ComplexArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", np.ascontiguousarray(self.matrix, dtype=np.complex128))


@dataclass(frozen=True)
class PauliProgram:
    """Rotations and constant unitaries, and the numbers that they read.

    Attributes:
        n_qubits: Number of qubits.
        n_weights: Number of weights, which the samples of a batch share.
        n_inputs: Number of inputs of a sample.
        operations: In the order they are applied.
        cache: Plans of the kernel.

    Raises:
        CircuitError: A matrix is not unitary or does not fit its qubits, or a qubit, weight or input does not exist.

    >>> program = PauliProgram(1, 0, 0, (Unitary((0,), np.array([[0, 1], [1, 0]], dtype=complex)),))
    >>> program.lowered[1].image(PauliWord(0, 1))
    PauliWord(x=0, z=1, sign=-1)
    """

    n_qubits: int
    n_weights: int
    n_inputs: int
    operations: tuple[Rotation | Unitary, ...]
    cache: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for operation in self.operations:
            if isinstance(operation, Unitary):
                _check_unitary(operation, self.n_qubits)
            else:
                self._check_rotation(operation)

    def _check_rotation(self, rotation: Rotation) -> None:
        if (rotation.word.x | rotation.word.z) >> self.n_qubits:
            raise CircuitError(f"{rotation.word} acts on more than the {self.n_qubits} qubits of the program")
        for name, terms, count in (
            ("weight", rotation.angle.weights, self.n_weights),
            ("input", rotation.angle.inputs, self.n_inputs),
        ):
            for index, _ in terms:
                if not 0 <= index < count:
                    raise CircuitError(f"an angle reads {name} {index} of a program that has {count}")

    @cached_property
    def lowered(self) -> tuple[tuple[Rotation, ...], Frame]:
        """Rotations alone, those of the identity for global phases, and the frame that follows them."""
        frame = Frame(self.n_qubits)
        rotations = self.lower(self.operations, frame)
        return tuple(replace(rotation, index=index) for index, rotation in enumerate(rotations)), frame

    def lower(self, operations: Iterable[Rotation | Unitary], frame: Frame) -> list[Rotation]:
        """Return some operations as rotations alone, and put those that need none into the frame before them."""
        rotations: list[Rotation] = []
        for operation in operations:
            if isinstance(operation, Rotation):
                parts = [operation]
            elif frame.absorb(operation):
                continue
            else:
                parts = decompose_unitary(operation, self.n_qubits)
            rotations += [Rotation(frame.image(part.word), part.angle) for part in parts]
        return rotations


def _check_unitary(gate: Unitary, n_qubits: int) -> None:
    if not all(0 <= qubit < n_qubits for qubit in gate.qubits) or len(set(gate.qubits)) < len(gate.qubits):
        raise CircuitError(f"a matrix acts on qubits {gate.qubits}; name different ones from 0 to {n_qubits - 1}")
    size = 2 ** len(gate.qubits)
    if gate.matrix.shape != (size, size):
        raise CircuitError(
            f"a matrix of shape {gate.matrix.shape} is given for {len(gate.qubits)} qubits; "
            f"pass one of shape {(size, size)}"
        )
    error = np.abs(gate.matrix @ gate.matrix.conj().T - np.eye(size)).max()
    if not error < 1e-5:  # a matrix in single precision is unitary to 1e-6
        raise CircuitError(f"the matrix on qubits {gate.qubits} is not unitary: U U^dagger is {error:.2g} off")


class Frame:
    """A product F of Clifford gates that permute amplitudes up to phases, as the images of X and Z of each qubit.

    The kernel's state is F^dagger psi. An image is F^dagger P F: what P is for the kernel's state.
    """

    def __init__(self, n_qubits: int) -> None:
        self._n_qubits = n_qubits
        self._gates: list[Unitary] = []
        # Factors i**power X**x Z**z.
        self._x = [(1 << bit, 0, 0) for bit in range(n_qubits)]
        self._z = [(0, 1 << bit, 0) for bit in range(n_qubits)]

    def image(self, word: PauliWord) -> PauliWord:
        """Return F^dagger P F of a word P."""
        x, z, power = self._map((word.x, word.z, (word.x & word.z).bit_count() + 1 - word.sign))
        return PauliWord(x, z, 1 if (power - (x & z).bit_count()) % 4 == 0 else -1)

    def absorb(self, gate: Unitary) -> bool:
        """Multiply the frame by a gate from the left; return False, and do nothing, if the gate does not fit."""
        words = _conjugated_generators(gate.matrix.tobytes(), len(gate.qubits))
        if words is None:
            return False
        bits = [self._n_qubits - 1 - qubit for qubit in reversed(gate.qubits)]

        def spread(mask: int) -> int:
            return sum(1 << bit for k, bit in enumerate(bits) if mask >> k & 1)

        images = [self._map((spread(x), spread(z), power)) for x, z, power in words]
        for k, bit in enumerate(bits):
            self._x[bit], self._z[bit] = images[2 * k], images[2 * k + 1]
        self._gates.append(gate)
        return True

    def amplitude_map(self) -> AmplitudeMap:
        """Return the places in psi, and the phases there, of the amplitudes of the kernel's state."""
        bits = range(self._n_qubits)
        singles = np.array([0, *(1 << bit for bit in bits)])
        pairs = singles[1:, None] | singles[1:]
        places, phases = self._move(singles)
        _, pair_phases = self._move(pairs.ravel())
        phase = complex(phases[0])
        alone = phases[1:] / phase
        crossed = (pair_phases.reshape(pairs.shape) / phase / np.outer(alone, alone)).real < 0
        powers = np.rint(np.angle(alone) / (np.pi / 2)).astype(np.int64) % 4
        lower = [int(sum(1 << other for other in range(bit) if crossed[bit, other])) for bit in bits]
        rows = np.stack([places[1:] ^ places[0], np.array(lower, dtype=np.int64), powers], axis=1)
        return AmplitudeMap(int(places[0]), phase, np.ascontiguousarray(rows, dtype=np.int64))

    def _move(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ComplexArray]:
        """Return the place in psi, and the phase there, of some amplitudes of the kernel's state."""
        places = indices
        phases = np.ones(len(indices), dtype=np.complex128)
        for gate in self._gates:
            bits = [self._n_qubits - 1 - qubit for qubit in gate.qubits]
            local = np.zeros_like(places)
            for bit in bits:
                local = local << 1 | places >> bit & 1
            rows = np.abs(gate.matrix).argmax(axis=0)  # of the one entry in each column
            phases *= gate.matrix[rows, np.arange(len(rows))][local]
            moved = rows[local]
            for k, bit in enumerate(reversed(bits)):
                places = places & ~(1 << bit) | (moved >> k & 1) << bit
        return places, phases

    def _map(self, factor: tuple[int, int, int]) -> tuple[int, int, int]:
        x, z, power = 0, 0, factor[2]
        chosen = [self._x[bit] for bit in range(self._n_qubits) if factor[0] >> bit & 1]
        chosen += [self._z[bit] for bit in range(self._n_qubits) if factor[1] >> bit & 1]
        for next_x, next_z, next_power in chosen:
            power += next_power + 2 * (z & next_x).bit_count()
            x, z = x ^ next_x, z ^ next_z
        return x, z, power % 4


@dataclass(frozen=True, eq=False)
class AmplitudeMap:
    """Where the gates of a frame take amplitude i: to a place, times `phase` and a power of the imaginary unit.

    Attributes:
        offset: The place of amplitude 0.
        phase: The phase of amplitude 0.
        bits: A row for each bit of i, the lowest first. If the bit is set, the place changes by xor with the first
            number, and the power by the last, and by 2 more for each bit of the second that is set in i too.
    """

    offset: int
    phase: complex
    bits: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> AmplitudeMap:
        """Return a map for plans that compute no states."""
        return cls(0, 1, np.zeros((0, 3), dtype=np.int64))


def _pauli_matrix(x: int, z: int, n_qubits: int) -> ComplexArray:
    """Return i**popcount(x & z) X**x Z**z."""
    size = 2**n_qubits
    matrix = np.zeros((size, size), dtype=np.complex128)
    for b in range(size):
        matrix[b ^ x, b] = 1j ** ((x & z).bit_count() + 2 * (b & z).bit_count())
    return matrix


@lru_cache(maxsize=256)
def _conjugated_generators(matrix_bytes: bytes, n_qubits: int) -> tuple[tuple[int, int, int], ...] | None:
    """Return U^dagger P U for P = X, Z of each bit, lowest first, as (x, z, power); None if U does not fit a frame."""
    size = 2**n_qubits
    matrix = np.frombuffer(matrix_bytes, dtype=np.complex128).reshape(size, size)
    if ((np.abs(matrix) > _TOLERANCE).sum(axis=0) != 1).any():
        return None
    found = []
    for bit in range(n_qubits):
        for generator in ((1 << bit, 0), (0, 1 << bit)):
            conjugated = matrix.conj().T @ _pauli_matrix(*generator, n_qubits) @ matrix
            for x, z in product(range(size), repeat=2):
                overlap = np.vdot(_pauli_matrix(x, z, n_qubits), conjugated) / size
                if abs(abs(overlap) - 1) < _TOLERANCE:
                    found.append((x, z, ((x & z).bit_count() + (0 if overlap.real > 0 else 2)) % 4))
                    break
            else:
                return None
    return tuple(found)


def decompose_unitary(gate: Unitary, n_qubits: int) -> list[Rotation]:
    """Return constant rotations whose product is the gate, one of the identity for the global phase among them."""
    bits = [n_qubits - 1 - qubit for qubit in reversed(gate.qubits)]

    def spread(mask: int) -> int:
        return sum(1 << bit for k, bit in enumerate(bits) if mask >> k & 1)

    return [
        Rotation(PauliWord(spread(x), spread(z)), AngleTerms(offset=angle))
        for x, z, angle in _constant_rotations(gate.matrix.tobytes(), len(gate.qubits))
    ]


@lru_cache(maxsize=256)
def _constant_rotations(matrix_bytes: bytes, n_qubits: int) -> tuple[tuple[int, int, float], ...]:
    """Return (x, z, angle) of rotations whose product is the matrix, in the order they are applied."""
    size = 2**n_qubits
    matrix = np.frombuffer(matrix_bytes, dtype=np.complex128).reshape(size, size)
    found = _commuting_rotations(matrix, n_qubits)
    if found is None:
        found = _shannon_rotations(matrix, list(range(n_qubits)))
    column = np.eye(size, dtype=np.complex128)[0]
    for x, z, angle in found:
        column = np.cos(angle / 2) * column - 1j * np.sin(angle / 2) * (_pauli_matrix(x, z, n_qubits) @ column)
    phase = float(np.angle(np.vdot(column, matrix[:, 0])))
    return (*found, (0, 0, -2 * phase))


def _commuting_rotations(matrix: ComplexArray, n_qubits: int) -> list[tuple[int, int, float]] | None:
    """Return the rotations of the matrix's logarithm if its Pauli words commute, None if they do not.

    Gates with few eigenvalues, Toffoli's for instance, have such a logarithm.
    """
    triangle, vectors = scipy.linalg.schur(matrix, output="complex")
    phases = np.angle(np.diag(triangle))
    phases[phases < _TOLERANCE - np.pi] = np.pi  # not -pi and pi by rounding
    logarithm = vectors * phases @ vectors.conj().T
    found = []
    for x, z in product(range(2**n_qubits), repeat=2):
        coefficient = float(np.vdot(_pauli_matrix(x, z, n_qubits), logarithm).real) / len(matrix)
        if (x or z) and abs(coefficient) > _TOLERANCE:
            found.append((x, z, -2 * coefficient))
    words = [PauliWord(x, z) for x, z, _ in found]
    if n_qubits > 1 and not all(a.commutes(b) for a in words for b in words):
        return None
    return found if all(a.commutes(b) for a in words for b in words) else _euler_rotations(matrix, 0)


def _euler_rotations(matrix: ComplexArray, bit: int) -> list[tuple[int, int, float]]:
    """Return RZ, RY and RZ whose product is a 2 x 2 matrix up to a phase."""
    special = matrix / np.sqrt(np.linalg.det(matrix))
    theta = 2 * np.arctan2(abs(special[1, 0]), abs(special[0, 0]))
    total, difference = 2 * np.angle(special[1, 1]), 2 * np.angle(special[1, 0])
    angles = ((0, 1, (total - difference) / 2), (1, 1, theta), (0, 1, (total + difference) / 2))
    return [(x << bit, z << bit, float(angle)) for x, z, angle in angles if abs(angle) > _TOLERANCE]


def _shannon_rotations(matrix: ComplexArray, bits: Sequence[int]) -> list[tuple[int, int, float]]:
    """Return rotations by the quantum Shannon decomposition (Shende, Bullock and Markov, quant-ph/0406176)."""
    if len(bits) == 1:
        return _euler_rotations(matrix, bits[0])
    half = len(matrix) // 2
    left, thetas, right = scipy.linalg.cossin(matrix, p=half, q=half, separate=True)
    top, rest = bits[-1], bits[:-1]
    return [
        *_block_rotations(right[0], right[1], bits),
        *_multiplexed(2 * thetas, 1 << top, 1 << top, rest),
        *_block_rotations(left[0], left[1], bits),
    ]


def _block_rotations(zero: ComplexArray, one: ComplexArray, bits: Sequence[int]) -> list[tuple[int, int, float]]:
    """Return rotations for a block-diagonal matrix, with the blocks where the highest bit is 0 and 1."""
    after, phases, vectors = demultiplex(zero, one)
    top, rest = bits[-1], bits[:-1]
    return [
        *_shannon_rotations(after, rest),
        *_multiplexed(-2 * phases, 0, 1 << top, rest),
        *_shannon_rotations(vectors, rest),
    ]


def _multiplexed(
    angles: npt.NDArray[np.float64], x: int, z: int, bits: Sequence[int]
) -> Iterable[tuple[int, int, float]]:
    """Yield rotations of one word that together turn by one angle for each value of `bits`."""
    numbers = np.arange(len(angles))
    for subset in numbers:
        signs = np.array([(-1) ** (int(subset) & int(number)).bit_count() for number in numbers])
        angle = float(signs @ angles) / len(angles)
        mask = sum(1 << bit for k, bit in enumerate(bits) if int(subset) >> k & 1)
        if abs(angle) > _TOLERANCE:
            yield x, z | mask, angle
