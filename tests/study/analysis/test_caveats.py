"""Test the caveats of a study: each kind where it applies, and none where it does not."""

from __future__ import annotations

import math
from itertools import cycle
from typing import Any

import pytest

from ketfit.study.analysis.caveats import find_caveats
from ketfit.study.analysis.cells import representative_groups
from ketfit.study.analysis.comparisons import compare_all
from ketfit.study.store import StudyRecord
from tests.study.results_in_memory import Results, accuracy_of, cells_of, failed_result, study_in_memory

PRECISE = {"data": {"source": "synthetic", "per_label": 50, "validation_fraction": 0.98}}
"""A split whose 98 validation sentences measure an accuracy better than a margin of 20 points."""


def caveats_of(record: StudyRecord, results: Results) -> dict[str, str]:
    """Return the text of each caveat by its kind."""
    groups, cells = cells_of(record, results)
    comparisons = compare_all(record, groups, representative_groups(record, groups))
    found = find_caveats(record, groups, cells, comparisons)
    assert len({caveat.kind for caveat in found}) == len(found)
    return {caveat.kind: caveat.text for caveat in found}


def replaced(results: Results, ids: set[str], **changes: Any) -> Results:
    """Return the results with changes of those with the given ids."""
    return {
        name: result.updated(result={**(result.result or {}), **changes}) if name in ids else result
        for name, result in results.items()
    }


def ids_of(record: StudyRecord, head: str, seeds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> set[str]:
    return {task.id for task in record.tasks if task.head == head and task.seed in seeds}


@pytest.fixture(scope="module")
def study() -> tuple[StudyRecord, Results]:
    return study_in_memory()


def test_find_caveats_complete_study_has_only_those_of_every_study() -> None:
    record, results = study_in_memory(report={"reference": "SVC", "margin": 0.2}, **PRECISE)
    assert caveats_of(record, results).keys() == {"best", "shared sentences"}


def test_find_caveats_unfinished_study_counts_missing_and_failed_runs(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    failed, missing = ids_of(record, "SVC", (1,)), ids_of(record, "quantum", (3, 4))
    changed = {
        name: failed_result(result) if name in failed else result
        for name, result in results.items()
        if name not in missing
    }
    found = caveats_of(record, changed)
    assert found["missing"].startswith("2 runs have no result yet")
    assert found["failed"].startswith("1 run failed, of SVC.")
    assert found["seeds"].startswith("Some results rest on 3 seeds: an interval from 2 degrees of freedom")
    assert "2 comparisons use fewer than the 5 seeds planned, down to 3" in found["pairs"]


def test_find_caveats_one_seed_has_no_spread() -> None:
    found = caveats_of(*study_in_memory(seeds=1))
    assert found["seeds"].startswith("There are results of a single seed")
    assert "best" not in found


def test_find_caveats_single_try_is_named_unless_it_is_a_factor() -> None:
    budget = {"learning_rates": [0.03], "regularization": [1.0]}
    assert "one try" in caveats_of(*study_in_memory(budget=budget))
    factors = {"train.learning_rate": [0.01, 0.1]}
    assert "one try" not in caveats_of(*study_in_memory(budget=budget, factors=factors, design={"kind": "scan"}))


@pytest.mark.parametrize(("chosen", "value"), [(0, "0.1"), (2, "10")])
def test_find_caveats_chosen_edge_of_grid_names_head(
    study: tuple[StudyRecord, Results], chosen: int, value: str
) -> None:
    record, results = study
    often = caveats_of(record, replaced(results, ids_of(record, "SVC", (0, 1, 2)), chosen=chosen))
    assert f"for SVC (3 of 5 runs, mostly {value}):" in often["edge"]
    assert "edge" not in caveats_of(record, replaced(results, ids_of(record, "SVC", (0, 1)), chosen=chosen))


def test_find_caveats_edges_are_those_of_the_values() -> None:
    budget = {"learning_rates": [0.03, 0.01, 0.1], "regularization": [1.0, 0.1, 10.0]}
    record, results = study_in_memory(budget=budget)
    runs = ids_of(record, "SVC", (0, 1, 2))
    assert "edge" not in caveats_of(record, replaced(replaced(results, set(results), chosen=0), runs, chosen=0))
    assert (
        "for SVC (3 of 5 runs, mostly 0.1):"
        in caveats_of(record, replaced(replaced(results, set(results), chosen=0), runs, chosen=1))["edge"]
    )


def test_find_caveats_counts_diverged_tries(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    good = {"value": 0.1, "validation_loss": 0.1, "validation_accuracy": 0.9, "best_epoch": 2}
    tries = [{"value": 0.01, "error": "the loss is not finite"}, good, good]
    changed = replaced(results, ids_of(record, "quantum", (0, 1)), tries=tries)
    assert "quantum (2 of 15 tries)" in caveats_of(record, changed)["diverged"]


def test_find_caveats_last_epoch_best_names_head() -> None:
    record, results = study_in_memory(train={"epochs": 3})
    assert "quantum, the last epoch was the best in 5 of 5 runs" in caveats_of(record, results)["short"]
    assert "short" not in caveats_of(*study_in_memory(train={"epochs": 4}))


def test_find_caveats_accuracy_near_chance_names_head() -> None:
    record, results = study_in_memory(lambda task: 0.53 if task.head == "SVC" else accuracy_of(task))
    assert caveats_of(record, results)["chance"].startswith("SVC on body-a reaches 53.2 %, near the 50.0 %")


def test_find_caveats_validation_error_is_that_of_a_binomial(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    accuracies = [result.result["validation_accuracy"] for result in results.values() if result.result]
    typical = sum(accuracies) / len(accuracies)
    error = 100 * math.sqrt(typical * (1 - typical) / 2)
    text = caveats_of(record, results)["validation"]
    assert text.startswith("2 validation sentences choose")
    assert f"is {error:.1f} points, more than the margin of 1 point." in text


def test_find_caveats_unequal_number_of_settings_names_head() -> None:
    factorial = {"factors": {"head.n_qubits": [4, 5, 6]}, "design": {"kind": "full"}}
    text = caveats_of(*study_in_memory(**factorial))["many settings"]
    assert "for quantum is the best on validation of 3 settings; other heads had as few as 1." in text


def test_find_caveats_identical_heads_are_named() -> None:
    heads = {"a": {"kind": "svc"}, "b": {"kind": "svc"}, "c": {"kind": "logistic-regression"}}
    text = caveats_of(*study_in_memory(heads=heads, report={"reference": "c"}))["twins"]
    assert text.startswith("A and b are the same settings")


def test_find_caveats_best_seed_is_compared_with_the_mean(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    scores = {
        head: [results[task.id].result["test_accuracy"] for task in record.tasks if task.head == head]  # type: ignore[index]
        for head in record.plan.heads
    }
    gap = max(100 * (max(values) - sum(values) / 5) for values in scores.values())
    assert f"of the 5 seeds lies up to {gap:.1f} points above the mean" in caveats_of(record, results)["best"]


def test_find_caveats_heads_that_are_identical_at_some_levels_say_so() -> None:
    heads = {
        "alike": {"kind": "quantum", "settings": {"n_qubits": 5}},
        "exactly": {"kind": "quantum", "settings": {"n_qubits": 5}, "exact_training": True},
    }
    factors = {"head.shots": ["none", 100]}
    found = caveats_of(*study_in_memory(heads=heads, factors=factors, design={"kind": "full"}, report={}))
    assert found["twins"].startswith("At some levels, alike and exactly are the same settings")


def test_find_caveats_large_draws_share_sentences() -> None:
    data = {"source": "synthetic", "per_label": 25, "validation_fraction": 0.2}
    assert "Each seed draws 25 % of the sentences" in caveats_of(*study_in_memory(data=data))["shared sentences"]
    assert "shared sentences" not in caveats_of(*study_in_memory(data=data, seeds=1))
    assert "shared sentences" not in caveats_of(*study_in_memory(data={**data, "per_label": 10}))


def test_find_caveats_mixed_precision_is_named(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    runs = {
        name: result.updated(run={**result.run, "precision": [precision, "float32"]})
        for (name, result), precision in zip(results.items(), cycle(["bfloat16", "float32"]))
    }
    assert caveats_of(record, runs)["precision"].startswith("Bodies were tuned in bfloat16 and float32, because")
    planned = {
        name: result.updated(run={**result.run, "precision": ["bfloat16", "float32"]})
        for name, result in results.items()
    }
    assert "precision" not in caveats_of(record, planned), "each stage has one precision"
    alike = {name: result.updated(run={**result.run, "precision": ["float32"]}) for name, result in results.items()}
    assert "precision" not in caveats_of(record, alike)


def test_find_caveats_confounded_main_effects_name_their_interactions() -> None:
    factors = {"head.connectivity": [1, 2], "head.skip_connection": [False, True], "head.main_layers": [1, 2]}
    design = {"kind": "fractional", "generators": "a b ab", "estimate": "main effects"}
    text = caveats_of(*study_in_memory(factors=factors, design=design))["confounded"]
    assert "that of connectivity with skip connection \N{MULTIPLICATION SIGN} main layers" in text
    full = {"kind": "full", "estimate": "main effects"}
    assert "confounded" not in caveats_of(*study_in_memory(factors=factors, design=full))


def test_find_caveats_plackett_burman_design_is_confounded_in_part() -> None:
    counts = ("connectivity", "main_layers", "encoder_layers", "n_reuploads", "n_encoders", "angle_scale")
    factors: dict[str, Any] = {f"head.{name}": [1, 2] for name in counts}
    factors |= {"head.skip_connection": [False, True], "head.reference_amplitude": [0.0, 1.0]}
    design = {"kind": "plackett-burman", "estimate": "main effects"}
    text = caveats_of(*study_in_memory(factors=factors, design=design))["confounded"]
    assert "that of connectivity with those of 21 pairs, wholly or in part" in text
