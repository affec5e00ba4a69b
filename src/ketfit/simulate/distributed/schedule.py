"""Schedules of distributed state vectors: which rotations run between two exchanges.

The 2**k ranks hold parts of the state. A circuit is first lowered to Pauli rotations, so that gates that permute
amplitudes, such as CNOT, need no exchange by themselves. A rotation flips some bits of an index. A rank can apply it to
its part alone if that changes no bit of the rank's number; where its word is diagonal on them, the rank knows the sign.
The bits of the number are parities of the index, which an exchange replaces by others. So not only qubits can be local,
but any sums of their bits: a segment runs rotations until their flips span more dimensions than a part has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ketfit.errors import CircuitError
from ketfit.simulate.distributed.exchange import Coordinates, Exchange, exchange_for, extend_basis, reduced_basis
from ketfit.simulate.pauli_program import PauliWord
from ketfit.simulate.pauli_scheduling import Group, shift_word


@dataclass(frozen=True, slots=True)
class Segment:
    """Groups of rotations that run without communication, and the exchange before them.

    Attributes:
        exchange: Exchange before the groups; None if there is none.
        groups: In an order that gives the same state; their words are those of the numbering behind the exchange.
    """

    exchange: Exchange | None
    groups: tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Segments in the order they run, for 2**n_global ranks.

    Attributes:
        n_local: Binary logarithm of the number of amplitudes of a rank.
        n_global: Binary logarithm of the number of ranks.
        from_zero: The state starts as |0...0>.
        rank_bits: Bits of the kernel's index that are those of the rank at the start, the lowest first.
        before: Groups that prepare those bits, on an index that consists of them alone.
        segments: At least one; the first has no exchange.
        words: Observed words in the last numbering, which flip local bits alone.
    """

    n_local: int
    n_global: int
    from_zero: bool
    rank_bits: tuple[int, ...]
    before: tuple[Group, ...]
    segments: tuple[Segment, ...]
    words: tuple[PauliWord, ...]

    @property
    def is_real(self) -> bool:
        """True if a real state stays real."""
        groups = [*self.before, *(group for segment in self.segments for group in segment.groups)]
        return all(rotation.is_real for group in groups for rotation in group.rotations)

    @property
    def exchanges(self) -> list[Exchange]:
        """All exchanges, in their order."""
        return [segment.exchange for segment in self.segments if segment.exchange is not None]

    @property
    def buffered_amplitudes(self) -> int:
        """Amplitudes that the buffers of an exchange hold: of a piece that is sent and one that is received."""
        return max((2 * len(each.pieces(2**self.n_local >> len(each.masks))[0]) for each in self.exchanges), default=0)

    @property
    def exchanged_amplitudes(self) -> int:
        """Amplitudes that each rank sends for one sample in one pass over the circuit."""
        return sum(2**self.n_local - (2**self.n_local >> len(exchange.masks)) for exchange in self.exchanges)


def make_schedule(
    groups: Sequence[Group], words: Sequence[PauliWord], n_qubits: int, n_global: int, *, from_zero: bool
) -> Schedule:
    """Return a schedule with few exchanges.

    Each segment takes all groups that commute with those left before them and flip local bits alone. Then an exchange
    makes local the flips of as many of the next groups as a part has dimensions for.

    Args:
        groups: Groups of the circuit, in their order.
        words: Words whose values are read from the final state.
        n_qubits: Number of qubits, more than `n_global`.
        n_global: Binary logarithm of the number of ranks.
        from_zero: The state starts as |0...0>, and groups may prepare bits of it.

    Raises:
        CircuitError: The words flip bits that span more dimensions than a part has.
    """
    n_local = n_qubits - n_global
    if len(reduced_basis(word.x for word in words)) > n_local:
        raise CircuitError(
            f"the observables have X or Y on too many qubits for parts of {n_local} qubits, one on each of the "
            f"{2**n_global} ranks; run it with fewer ranks, or measure them one by one"
        )
    rank_bits = _last_flipped(groups, n_qubits, n_global) if from_zero else tuple(range(n_local, n_qubits))
    before = tuple(_moved(group, rank_bits) for group in groups if group.product_bit in rank_bits)
    pending = [group for group in groups if group.product_bit is None or group.product_bit not in rank_bits]
    local_bits = [bit for bit in range(n_qubits) if bit not in rank_bits]
    coordinates = Coordinates([(*local_bits, *rank_bits).index(bit) for bit in range(n_qubits)])
    segments: list[Segment] = []
    exchange = None
    while True:
        if exchange:
            coordinates.apply(exchange)
        taken, pending = _split(pending, lambda group: not coordinates.flip(group.x) >> n_local)
        segments.append(Segment(exchange, tuple(_renumbered(group, coordinates, local_bits) for group in taken)))
        exchange = exchange_for(_next_flips(pending, words, coordinates, n_local), n_local, n_qubits)
        if exchange is None:
            observed = tuple(coordinates.word(word) for word in words)
            return Schedule(n_local, n_global, from_zero, rank_bits, before, tuple(segments), observed)


def on_rank(group: Group, rank: int, n_local: int, sample_bits: int) -> Group:
    """Return a group of a segment as one on a unit of a rank, whose lowest bits number samples."""
    product_bit = None if group.product_bit is None else group.product_bit + sample_bits
    return group.mapped(
        group.x << sample_bits, product_bit, lambda word: word_on_rank(word, rank, n_local, sample_bits)
    )


def word_on_rank(word: PauliWord, rank: int, n_local: int, sample_bits: int) -> PauliWord:
    """Return a word that flips local bits alone as one on a unit of a rank."""
    odd = (word.z >> n_local & rank).bit_count() & 1
    local = PauliWord(word.x, word.z & (1 << n_local) - 1, -word.sign if odd else word.sign)
    return shift_word(local, sample_bits)


def _last_flipped(groups: Sequence[Group], n_qubits: int, n_global: int) -> tuple[int, ...]:
    """Return the bits whose first flip, apart from their preparation, comes last."""
    first = dict.fromkeys(range(n_qubits), len(groups))
    for number, group in reversed(list(enumerate(groups))):
        if group.product_bit is None:
            first.update((bit, number) for bit in range(n_qubits) if group.x >> bit & 1)
    return tuple(sorted(sorted(first, key=lambda bit: (first[bit], bit))[n_qubits - n_global :]))


def _moved(group: Group, rank_bits: Sequence[int]) -> Group:
    """Return a group that prepares one bit as one on an index of the rank bits alone."""
    assert group.product_bit is not None
    place = rank_bits.index(group.product_bit)
    return group.mapped(
        1 << place, None, lambda word: PauliWord(bool(word.x) << place, bool(word.z) << place, word.sign)
    )


def _renumbered(group: Group, coordinates: Coordinates, local_bits: Sequence[int]) -> Group:
    place = None if group.product_bit is None else local_bits.index(group.product_bit)
    return group.mapped(coordinates.flip(group.x), place, coordinates.word)


def _split(pending: Sequence[Group], fits: Callable[[Group], bool]) -> tuple[list[Group], list[Group]]:
    """Return the groups that fit and commute with those that are left before them, and those that are left."""
    taken: list[Group] = []
    left: list[Group] = []
    for group in pending:
        if all(group.commutes(other) for other in left) and fits(group):
            taken.append(group)
        else:
            left.append(group)
    return taken, left


def _next_flips(
    pending: Sequence[Group], words: Sequence[PauliWord], coordinates: Coordinates, n_local: int
) -> list[int]:
    """Return a basis of the flips to be local next: of as many groups as possible, and of the words if that is all."""
    basis: list[int] = []

    def fits(group: Group) -> bool:
        extended = list(basis)
        if extend_basis(extended, coordinates.flip(group.x)) and len(extended) > n_local:
            return False
        basis[:] = extended
        return True

    _, left = _split(pending, fits)
    if not left:
        observed = reduced_basis((*basis, *(coordinates.flip(word.x) for word in words)))
        if len(observed) <= n_local:
            return observed
    return basis
