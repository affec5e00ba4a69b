"""Scheduling of Pauli rotations for the native kernel: groups that act on pairs of amplitudes, and their stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ketfit.simulate.pauli_program import AngleTerms, PauliWord, Rotation

MAX_PARITIES = 2
"""Maximum number of parity masks of a group in the kernel."""


@dataclass(slots=True)
class Group:
    """Rotations in a row whose words flip the bits `x` of an index, or none.

    Attributes:
        x: Bits that the group flips, 0 if it is diagonal.
        masks: Independent parity masks, whose sums are the z of all words.
        rotations: In the order they are applied.
        product_bit: The bit that the group prepares from |0>, which no earlier group acts on.
    """

    x: int = 0
    masks: list[int] = field(default_factory=list)
    rotations: list[Rotation] = field(default_factory=list)
    product_bit: int | None = None

    @property
    def words(self) -> set[PauliWord]:
        """Return the different words."""
        return {rotation.word for rotation in self.rotations}

    @property
    def support(self) -> int:
        """Return the bits that the group acts on."""
        support = self.x
        for mask in self.masks:
            support |= mask
        return support

    def commutes(self, other: Group | Rotation) -> bool:
        """Return True if every word commutes with every word of the other."""
        theirs = [other.word] if isinstance(other, Rotation) else other.words
        return all(own.commutes(word) for own in self.words for word in theirs)

    def subset(self, z: int) -> int | None:
        """Return the parity masks whose sum is `z`, as bits; None if there are none."""
        sums = {0: 0}
        for k, mask in enumerate(self.masks):
            sums |= {total ^ mask: chosen | 1 << k for total, chosen in sums.items()}
        return sums.get(z)

    def can_hold(self, masks: Iterable[int]) -> bool:
        """Return True if there are parity masks enough for these too."""
        return len(self._extended(masks)) <= MAX_PARITIES

    def add(self, x: int, masks: Iterable[int], rotations: Sequence[Rotation], *, first: bool = False) -> None:
        """Add rotations behind the others, or before them."""
        self.x |= x
        self.masks = self._extended(masks)
        self.rotations = [*rotations, *self.rotations] if first else [*self.rotations, *rotations]

    def mapped(self, x: int, product_bit: int | None, image: Callable[[PauliWord], PauliWord]) -> Group:
        """Return the group with other words, which flip the bits `x` or none."""
        group = Group(x, product_bit=product_bit)
        for rotation in self.rotations:
            word = image(rotation.word)
            group.add(0, [word.z] if word.z else [], [replace(rotation, word=word)])
        return group

    def _extended(self, masks: Iterable[int]) -> list[int]:
        extended = Group(masks=list(self.masks))
        for mask in masks:
            if extended.subset(mask) is None:
                extended.masks.append(mask)
        return extended.masks


@dataclass(frozen=True, slots=True)
class Stage:
    """Groups that are applied to a chunk while it is in the cache; each vector of its basis has a lowest bit alone."""

    basis: tuple[int, ...]
    groups: tuple[Group, ...]


def shift_word(word: PauliWord, sample_bits: int) -> PauliWord:
    """Return the word on a unit, in which the lowest bits number samples."""
    return replace(word, x=word.x << sample_bits, z=word.z << sample_bits)


def light_cone(rotations: Iterable[Rotation], observed: Iterable[PauliWord]) -> list[Rotation]:
    """Return the rotations that the values of the observed words depend on, in their order."""
    kept: list[Rotation] = []
    words = dict.fromkeys(observed)
    for rotation in reversed(list(rotations)):
        if not all(rotation.word.commutes(word) for word in words):
            kept.append(rotation)
            words[rotation.word] = None
    return kept[::-1]


def start_from_zero(rotations: Iterable[Rotation]) -> list[Rotation]:
    """Return rotations that give |0...0> the same state, without signs of bits that are 0 there."""
    touched, kept = 0, []
    for rotation in rotations:
        word = rotation.word
        z = word.z & (touched | word.x)
        touched |= word.x
        kept.append(replace(rotation, word=replace(word, z=z)))
    return kept


def group_rotations(rotations: Iterable[Rotation], *, from_zero: bool) -> list[Group]:
    """Return groups whose product is that of the rotations; `from_zero` marks those that prepare a product state."""
    groups: list[Group] = []
    for rotation in rotations:
        if not _join(rotation, groups):
            word = rotation.word
            group = Group(word.x, [word.z] if word.z else [], [rotation])
            if from_zero and not any(group.support & other.support for other in groups):
                group.product_bit = _only_bit(group)
            groups.append(group)
    touched = 0
    for group in groups:
        if group.support & touched:  # by a rotation that joined an earlier group
            group.product_bit = None
        touched |= group.support
    return _merge_diagonal(groups)


def _only_bit(group: Group) -> int | None:
    """Return the bit that the group flips, if it acts on no other."""
    return group.x.bit_length() - 1 if group.x.bit_count() == 1 and group.support == group.x else None


def _join(rotation: Rotation, groups: Sequence[Group]) -> bool:
    """Add the rotation to the last group that it can reach and that can hold it; return False if there is none."""
    x, z = rotation.word.x, rotation.word.z
    for group in reversed(groups):
        commutes = group.commutes(rotation)
        if x and x == group.x:
            fits = group.can_hold([z])
        elif x and group.x:
            fits = False
        else:  # a group gets other bits or masks only if the rotation cannot pass it
            fits = not commutes and group.can_hold([z]) if x or group.subset(z) is None else True
        if group.product_bit is not None and (x | z) & ~group.x:
            fits = False  # the group would not prepare its bit any more
        if fits:
            group.add(x, [z], [rotation])
            return True
        if not commutes:
            return False
    return False


def _merge_diagonal(groups: list[Group]) -> list[Group]:
    """Return the groups with diagonal ones merged into earlier or later ones that have parity masks left."""
    merged: list[Group] = []
    for group in groups:
        if group.x or not _merge(group, reversed(merged), first=False):
            merged.append(group)
    result: list[Group] = []
    for group in reversed(merged):
        if group.x or not _merge(group, reversed(result), first=True):
            result.append(group)
    return result[::-1]


def _merge(group: Group, others: Iterable[Group], *, first: bool) -> bool:
    for other in others:
        if other.product_bit is None and other.can_hold(group.masks):
            other.add(0, group.masks, group.rotations, first=first)
            return True
        if not other.commutes(group):
            return False
    return False


def partition_stages(groups: Sequence[Group], bits: int, chunk_bits: int, low_bits: int) -> list[Stage]:
    """Return stages whose chunks have 2**chunk_bits amplitudes, the lowest `low_bits` bits among theirs.

    A stage takes, in order, every group that fits its basis and commutes with the groups deferred.
    """
    if chunk_bits < min(low_bits + 1, bits):
        raise ValueError(f"chunk_bits={chunk_bits} cannot hold a group beside the lowest {low_bits} bits")
    pending, stages = deque(groups), []
    while True:
        basis = [1 << bit for bit in range(min(low_bits, bits))]
        accepted: list[Group] = []
        deferred: list[Group] = []
        while pending:
            group = pending.popleft()
            rest = _reduce(group.x, basis)
            if (not rest or len(basis) < chunk_bits) and all(group.commutes(other) for other in deferred):
                if rest:
                    basis = _with_vector(basis, rest)
                accepted.append(group)
            else:
                deferred.append(group)
        pending.extend(deferred)
        for bit in range(bits):
            if len(basis) < chunk_bits and (rest := _reduce(1 << bit, basis)):
                basis = _with_vector(basis, rest)
        stages.append(Stage(tuple(sorted(basis, key=_lowest)), tuple(accepted)))
        if not pending:
            return stages


def _lowest(vector: int) -> int:
    return vector & -vector


def _reduce(vector: int, basis: Iterable[int]) -> int:
    """Return the vector without the lowest bits of the basis vectors."""
    for other in basis:
        if vector & _lowest(other):
            vector ^= other
    return vector


def _with_vector(basis: Sequence[int], vector: int) -> list[int]:
    """Return the basis with one more vector, which is reduced, such that each lowest bit is in one vector alone."""
    return [other ^ vector if other & _lowest(vector) else other for other in basis] + [vector]


def to_kernel_arrays(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the kernel's arrays of groups whose masks are those of a unit: see complex_plan.h."""
    groups: list[tuple[int, ...]] = []
    rotations: list[tuple[int, int, int, int]] = []
    angles: list[AngleTerms] = []
    ranges = []
    for stage in stages:
        ranges.append((len(groups), len(stage.groups)))
        for group in stage.groups:
            first_mask, second_mask = [*group.masks, 0, 0][:MAX_PARITIES]
            product_bit = -1 if group.product_bit is None else group.product_bit
            head = (group.x, first_mask, second_mask, len(group.masks), len(rotations), len(group.rotations))
            groups.append((*head, product_bit))
            for rotation in group.rotations:
                word = rotation.word
                power = 1 + (word.x & word.z).bit_count() + 1 - word.sign
                subset = group.subset(word.z)
                assert subset is not None
                rotations.append((int(word.x != 0), subset, power % 4, rotation.index))
                angles.append(rotation.angle)
    terms = [[*angle.weights, *((~index, factor) for index, factor in angle.inputs)] for angle in angles]
    flat = [term for row in terms for term in row]
    return {
        "groups": np.array(groups, np.int64).reshape(-1, 7),
        "rotations": np.array(rotations, np.int32).reshape(-1, 4),
        "offsets": np.array([angle.offset for angle in angles], np.float64),
        "term_offsets": np.cumsum([0, *(len(row) for row in terms)], dtype=np.int32),
        "term_angles": np.array([index for index, _ in flat], np.int32),
        "term_factors": np.array([factor for _, factor in flat], np.float64),
        "stages": np.array(ranges, np.int32).reshape(-1, 2),
        "basis": np.array([stage.basis for stage in stages], np.int64).reshape(len(stages), -1),
    }
