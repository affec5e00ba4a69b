"""Exchanges of amplitudes between ranks, against the permutation of indices that they describe."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ketfit.simulate import _kernel
from ketfit.simulate.distributed.exchange import Coordinates, exchange_for, extend_basis, reduced_basis
from ketfit.simulate.native import ISA
from ketfit.simulate.pauli_program import PauliWord, _pauli_matrix

N_BITS = 6


def random_flips(seed: int, n_local: int) -> list[int]:
    choose = random.Random(seed)
    basis: list[int] = []
    while len(basis) < choose.randint(1, n_local):
        extend_basis(basis, choose.randrange(1, 2**N_BITS))
    return basis


@pytest.mark.parametrize("seed", range(12))
def test_reduced_basis_spans_the_vectors_with_a_leading_bit_for_each(seed: int) -> None:
    vectors = [random.Random(seed + 100 * k).randrange(2**N_BITS) for k in range(5)]
    basis = reduced_basis(vectors)
    spanned = {0}
    for vector in basis:
        spanned |= {vector ^ other for other in spanned}
        assert sum(other >> vector.bit_length() - 1 & 1 for other in basis) == 1
    assert len(spanned) == 2 ** len(basis)
    assert set(vectors) <= spanned


@pytest.mark.parametrize("n_local", [3, 4, 5])
@pytest.mark.parametrize("seed", range(12))
def test_exchange_makes_flips_local_and_is_its_own_inverse(seed: int, n_local: int) -> None:
    flips = random_flips(seed, n_local)
    exchange = exchange_for(flips, n_local, N_BITS)
    if exchange is None:
        assert all(flip >> n_local == 0 for flip in flips)
        return
    moved = [exchange.move(index) for index in range(2**N_BITS)]
    assert [moved[index] for index in moved] == list(range(2**N_BITS))
    coordinates = Coordinates(range(N_BITS))
    coordinates.apply(exchange)
    assert [coordinates.flip(1 << bit) for bit in range(N_BITS)] == [moved[1 << bit] for bit in range(N_BITS)]
    assert all(coordinates.flip(flip) >> n_local == 0 for flip in flips)
    assert exchange_for([coordinates.flip(flip) for flip in flips], n_local, N_BITS) is None


@pytest.mark.parametrize("is_real", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_ranks_that_swap_their_blocks_move_amplitudes_as_the_exchange_says(seed: int, is_real: bool) -> None:
    n_local, parts = 4, 1 if is_real else 2
    exchange = exchange_for([32 + 5, *random_flips(seed, n_local - 1)], n_local, N_BITS)
    assert exchange is not None
    numbers = np.arange(2**N_BITS * parts, dtype=np.float32).reshape(2 ** (N_BITS - n_local), -1)
    lanes = _kernel.lanes(ISA, 4)
    stored = numbers.reshape(len(numbers), -1, lanes, parts).transpose(0, 1, 3, 2).reshape(len(numbers), -1).copy()
    before, sent = stored.copy(), {}

    def block(parities: int) -> _kernel.UnitBlock:
        return _kernel.UnitBlock(
            instruction_set=ISA, itemsize=4, is_real=is_real, bits=n_local, masks=exchange.masks, parities=parities
        )

    for rank in range(len(stored)):
        for partner, parities in exchange.partners(rank):
            each = block(parities)
            sent[rank, partner] = np.empty(parts * each.size, np.float32)
            each.gather(before[rank].ctypes.data, 0, each.size, sent[rank, partner].ctypes.data, 1)
    for rank, partner in sent:
        each = block(dict(exchange.partners(rank))[partner])
        each.scatter(sent[partner, rank].ctypes.data, 0, each.size, stored[rank].ctypes.data, 1)
    found = stored.reshape(len(stored), -1, parts, lanes).transpose(0, 1, 3, 2).reshape(-1, parts)
    moved = [exchange.move(index) for index in range(2**N_BITS)]
    np.testing.assert_array_equal(found[moved], numbers.reshape(-1, parts))
    share = sum(each.size for (rank, _), each in sent.items() if rank == 0) / (parts * 2**n_local)
    assert share == 1 - 0.5 ** len(exchange.masks)


@pytest.mark.parametrize("seed", range(6))
def test_words_of_a_numbering_have_the_moved_matrix(seed: int) -> None:
    n_bits, choose = 4, random.Random(seed)
    exchange = exchange_for([8 + choose.randrange(8), choose.randrange(1, 16)], 3, n_bits)
    assert exchange is not None
    coordinates = Coordinates((2, 0, 3, 1))
    coordinates.apply(exchange)
    permutation = [exchange.move(sum(1 << place for bit, place in enumerate((2, 0, 3, 1)) if index >> bit & 1))
                   for index in range(2**n_bits)]  # fmt: skip
    for x in range(2**n_bits):
        for z in range(2**n_bits):
            word = coordinates.word(PauliWord(x, z, -1))
            before, after = _pauli_matrix(x, z, n_bits), word.sign * _pauli_matrix(word.x, word.z, n_bits)
            np.testing.assert_array_equal(after[np.ix_(permutation, permutation)], -before)
