"""Test the enumeration of heads of a given size: counts equal those of the library, and the nearest are found."""

from __future__ import annotations

from dataclasses import replace

import best_model
import pytest
from best_model import CLASSES, DIMENSION, LITERAL, PARAMETERS, READINGS, enumerate_heads, planned

from ketfit import HeadConfig
from ketfit.model.head import QuantumHead
from ketfit.study.spec import StudyPlan


@pytest.fixture(scope="module")
def heads() -> list[best_model.Candidate]:
    return enumerate_heads()


def count(head: best_model.Candidate) -> int:
    return HeadConfig.paper(**head.settings).count_parameters(DIMENSION, CLASSES)["total"]


def test_enumerate_heads_counts_equal_those_of_head_config(heads: list[best_model.Candidate]) -> None:
    assert {head.reading for head in heads} == set(READINGS)
    assert {head.skip_connection for head in heads} == {False, True}
    best_model.check(heads)
    for head in heads:
        assert count(head) == head.parameters
        assert HeadConfig.paper(**head.settings).qpu_qubits == 14


def test_check_wrong_count_raises(heads: list[best_model.Candidate]) -> None:
    with pytest.raises(ValueError, match="has 886 parameters, not 887"):
        best_model.check([replace(planned(heads)[0], parameters=PARAMETERS + 1)])


def test_enumerate_heads_finds_every_head_of_the_papers_size(heads: list[best_model.Candidate]) -> None:
    """With two encoders of 7 qubits, 14 (C (M + 1 + R) + 3) + 4 = 886 only if C (M + 1 + R) = 60."""
    found = {
        (head.connectivity, head.encoder_layers, head.main_layers)
        for head in heads
        if (head.n_encoders, head.n_qubits, head.reading, head.untied) == (2, 7, LITERAL, 1)
        and not head.skip_connection
    }
    expected = {(c, m, r) for c in range(1, 6) for m in range(1, 9) for r in range(1, 9) if c * (m + 1 + r) == 60}
    assert found == expected and len(found) == 9


def test_enumerate_heads_nearest_equals_that_of_all_heads(heads: list[best_model.Candidate]) -> None:
    """Count every head of two encoders of 7 qubits with the library; none is nearer than those found."""
    found = {
        reading: next(h.parameters for h in heads if h.n_qubits == 7 and h.reading == reading and not h.skip_connection)
        for reading in READINGS
    }
    for reading, parameters in found.items():
        group = best_model._group("concat", 2, 7, reading, skip=False)
        nearest = min(abs(count(head) - PARAMETERS) for head in group if head.untied == 1)
        assert abs(parameters - PARAMETERS) <= nearest


def test_planned_one_head_for_each_connectivity_and_number_of_encoders(heads: list[best_model.Candidate]) -> None:
    chosen = planned(heads)
    kinds = [(head.merge, head.n_encoders, head.connectivity) for head in chosen]
    assert len(set(kinds)) == len(kinds)
    assert {("concat", 2), ("mean", 3), ("mean", 4)} == {kind[:2] for kind in kinds}
    built = QuantumHead(HeadConfig.paper(**chosen[0].settings), DIMENSION, CLASSES)
    assert sum(weights.numel() for weights in built.parameters() if weights.requires_grad) == PARAMETERS


def test_plan_in_repository_is_that_of_the_enumeration(heads: list[best_model.Candidate]) -> None:
    plan = StudyPlan.read(best_model.PLAN)
    assert plan == StudyPlan.from_mapping(best_model.plan(planned(heads)))
    assert best_model.TABLE.read_text(encoding="utf-8") == best_model.table(heads), "run python studies/best_model.py"
