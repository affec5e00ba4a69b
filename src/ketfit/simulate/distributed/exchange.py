"""Exchanges of amplitudes between ranks: what a rank sends, and the indices that amplitudes have behind it.

An index of the whole state has the number of a rank as its highest bits, and the index on that rank as the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ketfit.simulate.pauli_program import PauliWord

CHUNK = 2**20
"""Largest number of amplitudes that are exchanged at a time."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Parities of an index that become bits of the number of the rank; those bits become bits of the local index.

    It is its own inverse.

    Attributes:
        n_local: Binary logarithm of the number of amplitudes of a rank.
        directions: Changes of the number of a rank: it exchanges with those that differ from it by a sum of some.
        selectors: For each direction, the bit of the number that it alone changes.
        masks: Parity masks over the local index, whose highest bits are in no other mask.
        rank_masks: Parity masks over the number of a rank. Behind the exchange, each selected bit is the sum of both
            parities from before.
    """

    n_local: int
    directions: tuple[int, ...]
    selectors: tuple[int, ...]
    masks: tuple[int, ...]
    rank_masks: tuple[int, ...]

    def partners(self, rank: int) -> Iterator[tuple[int, int]]:
        """Yield the other ranks that a rank exchanges with, and the parities of the indices that it sends, as bits.

        What it receives is put to the same indices.
        """
        for chosen in range(1, 2 ** len(self.masks)):
            partner = rank
            for place, direction in enumerate(self.directions):
                if chosen >> place & 1:
                    partner ^= direction
            parities = 0
            for place, (selector, mask) in enumerate(zip(self.selectors, self.rank_masks, strict=True)):
                parities |= (bool(partner & selector) ^ _parity(rank & mask)) << place
            yield partner, parities

    @staticmethod
    def pieces(size: int) -> list[range]:
        """Return the ranges of a block of amplitudes that are sent one by one, the largest first."""
        return [range(begin, min(begin + CHUNK, size)) for begin in range(0, size, CHUNK)]

    def move(self, index: int) -> int:
        """Return the index behind the exchange of the amplitude at an index of the whole state."""
        rank, local = index >> self.n_local, index & (1 << self.n_local) - 1
        after = rank
        for direction, selector, mask, rank_mask in self._rows():
            if bool(rank & selector) ^ _parity(local & mask) ^ _parity(rank & rank_mask):
                after ^= direction
        for _, selector, mask, rank_mask in self._rows():
            if _parity(local & mask) ^ bool(rank & selector) ^ _parity(after & rank_mask):
                index ^= _highest(mask)
        return index & (1 << self.n_local) - 1 | after << self.n_local

    def _rows(self) -> Iterator[tuple[int, int, int, int]]:
        return zip(self.directions, self.selectors, self.masks, self.rank_masks, strict=True)


def exchange_for(flips: Iterable[int], n_local: int, n_bits: int) -> Exchange | None:
    """Return an exchange behind which no sum of some bit flips changes the rank; None if that is so already.

    The flips have to span at most `n_local` dimensions.
    """
    basis = reduced_basis(flips)
    directions = reduced_basis(flip >> n_local for flip in basis)
    if not directions:
        return None
    # A mask that meets every vector of the basis in an even number of bits: one for each bit that leads none of them.
    leading = {_highest(vector) for vector in basis}
    kept = [1 << bit for bit in range(n_bits) if 1 << bit not in leading]
    even = [bit | sum(_highest(vector) for vector in basis if vector & bit) for bit in kept]
    local = (1 << n_local) - 1
    # The local bits lead, so that each mask has a highest local bit of its own.
    ordered = reduced_basis((mask & local) << n_bits | mask >> n_local for mask in even)
    chosen = sorted(ordered, reverse=True)[: len(directions)]
    return Exchange(
        n_local,
        tuple(directions),
        tuple(_highest(direction) for direction in directions),
        tuple(mask >> n_bits for mask in chosen),
        tuple(mask & (1 << n_bits) - 1 for mask in chosen),
    )


class Coordinates:
    """A numbering of amplitudes: the index of each is a linear function, over bits, of that in the kernel's state."""

    def __init__(self, places: Sequence[int]) -> None:
        """Start with the bit at `places[b]` as the new place of bit b."""
        self._x = [1 << place for place in places]
        self._z = list(self._x)

    def flip(self, x: int) -> int:
        """Return the bits of an index that are flipped when those of the kernel's index are."""
        return _sum(self._x, x)

    def word(self, word: PauliWord) -> PauliWord:
        """Return a word of the kernel's state as one of the numbering."""
        x, z = _sum(self._x, word.x), _sum(self._z, word.z)
        # The number of Ys may differ by a multiple of two, which the sign makes up for.
        odd = ((word.x & word.z).bit_count() - (x & z).bit_count()) % 4 == 2
        return PauliWord(x, z, -word.sign if odd else word.sign)

    def apply(self, exchange: Exchange) -> None:
        """Number the amplitudes as behind an exchange."""
        images = [exchange.move(1 << bit) for bit in range(len(self._x))]
        transposed = [
            sum(1 << row for row, image in enumerate(images) if image >> bit & 1) for bit in range(len(self._x))
        ]
        self._x = [_sum(images, x) for x in self._x]
        self._z = [_sum(transposed, z) for z in self._z]  # the exchange is its own inverse


def reduced_basis(vectors: Iterable[int]) -> list[int]:
    """Return a basis of the span of some vectors of bits; the highest bit of each is in no other.

    >>> reduced_basis([0b110, 0b011, 0b101])
    [5, 3]
    """
    basis: list[int] = []
    for vector in vectors:
        extend_basis(basis, vector)
    return basis


def extend_basis(basis: list[int], vector: int) -> bool:
    """Add a vector to a reduced basis, unless it is in the span; return True if it was added."""
    for other in basis:
        if vector & _highest(other):
            vector ^= other
    if not vector:
        return False
    for place, other in enumerate(basis):
        if other & _highest(vector):
            basis[place] = other ^ vector
    basis.append(vector)
    return True


def _sum(columns: Sequence[int], chosen: int) -> int:
    total = 0
    while chosen:
        total ^= columns[chosen.bit_length() - 1]
        chosen ^= _highest(chosen)
    return total


def _highest(mask: int) -> int:
    return 1 << mask.bit_length() - 1


def _parity(mask: int) -> bool:
    return mask.bit_count() & 1 == 1
