"""Groups and stages of Pauli rotations."""

from __future__ import annotations

import numpy as np
import pytest

from ketfit.simulate.pauli_program import AngleTerms, PauliProgram, PauliWord, Rotation, Unitary
from ketfit.simulate.pauli_scheduling import (
    MAX_PARITIES,
    Group,
    group_rotations,
    light_cone,
    partition_stages,
    start_from_zero,
    to_kernel_arrays,
)
from tests.simulate.pauli_reference import CONSTANT_GATES, random_program, rotation_matrix


def rotation(x: int, z: int, offset: float = 0.4) -> Rotation:
    """Return a rotation of a word."""
    return Rotation(PauliWord(x, z), AngleTerms(offset=offset))


def product_of(rotations: list[Rotation], n_qubits: int) -> np.ndarray:
    """Return the matrix of constant rotations."""
    matrix = np.eye(2**n_qubits, dtype=complex)
    for each in rotations:
        matrix = rotation_matrix(each.word, each.angle.offset, n_qubits) @ matrix
    return matrix


def test_group_rotations_on_each_qubit_is_one_group_that_prepares_it() -> None:
    rotations = [rotation(bit * flips, bit * signs) for bit in (4, 2, 1) for flips, signs in ((1, 0), (0, 1), (1, 1))]
    groups = group_rotations([rotations[k] for k in (0, 3, 6, 1, 4, 7, 2, 5, 8)], from_zero=True)
    assert [(group.x, group.masks, len(group.rotations)) for group in groups] == [(4, [4], 3), (2, [2], 3), (1, [1], 3)]
    assert [group.product_bit for group in groups] == [2, 1, 0]


def test_group_rotations_toffoli_is_one_group() -> None:
    program = PauliProgram(3, 0, 0, (Unitary((0, 1, 2), CONSTANT_GATES["ccx"]),))
    groups = group_rotations(program.lowered[0][:-1], from_zero=False)
    assert [(group.x, len(group.masks)) for group in groups] == [(1, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_group_rotations_random_program_has_the_same_product(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_qubits = 4
    lowered, _ = random_program(rng, n_qubits, 25).lowered
    rotations = [Rotation(each.word, AngleTerms(offset=float(rng.normal()))) for each in lowered]
    groups = group_rotations(rotations, from_zero=False)
    regrouped = [each for group in groups for each in group.rotations]
    np.testing.assert_allclose(product_of(regrouped, n_qubits), product_of(rotations, n_qubits), atol=1e-12)
    for group in groups:
        assert len(group.masks) <= MAX_PARITIES
        assert {each.word.x for each in group.rotations} <= {0, group.x}
        assert all(group.subset(each.word.z) is not None for each in group.rotations)
    for stages in (partition_stages(groups, n_qubits, 3, 1), partition_stages(groups, n_qubits, 4, 1)):
        staged = [each for stage in stages for group in stage.groups for each in group.rotations]
        np.testing.assert_allclose(product_of(staged, n_qubits), product_of(rotations, n_qubits), atol=1e-12)
        for stage in stages:
            lowest = [vector & -vector for vector in stage.basis]
            assert all(sum(bool(vector & bit) for vector in stage.basis) == 1 for bit in lowest)


def test_light_cone_drops_rotations_that_commute_with_all_behind_them() -> None:
    kept = light_cone([rotation(1, 0), rotation(2, 0), rotation(0, 1), rotation(3, 0)], [PauliWord(0, 1)])
    assert kept == [rotation(1, 0), rotation(0, 1), rotation(3, 0)]


def test_start_from_zero_drops_signs_of_bits_that_are_zero() -> None:
    found = start_from_zero([rotation(0, 4), rotation(1, 5), rotation(0, 3), rotation(2, 6)])
    assert found == [rotation(0, 0), rotation(1, 1), rotation(0, 1), rotation(2, 2)]


def test_partition_stages_too_few_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold a group"):
        partition_stages([Group(1, [], [rotation(1, 0)])], 8, 4, 4)


def test_to_kernel_arrays_gives_masks_parities_and_terms() -> None:
    angle = AngleTerms(((2, 0.5),), ((1, 3.0),), 0.1)
    group = Group(2, [3, 4], [Rotation(PauliWord(2, 7, -1), angle, 5), rotation(0, 4)])
    arrays = to_kernel_arrays(partition_stages([group], 3, 3, 1))
    assert arrays["groups"].tolist() == [[2, 3, 4, 2, 0, 2, -1]]
    assert arrays["rotations"].tolist() == [[1, 3, 0, 5], [0, 2, 1, 0]]
    assert arrays["term_offsets"].tolist() == [0, 2, 2]
    assert arrays["term_angles"].tolist() == [2, ~1]
    assert arrays["term_factors"].tolist() == [0.5, 3.0]
    assert arrays["basis"].tolist() == [[1, 2, 4]]
