"""Test the sentences of a report: each follows from the interval, the p-values and the margin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ketfit.study.analysis.analysis import analyse
from ketfit.study.analysis.hypothesis_tests import CrossedTest, equivalence_test
from ketfit.study.report.summary import conclusion, is_shown, summary_sentences, verdict
from ketfit.study.store import read_results
from ketfit.study.task import Task
from tests.study.results_in_memory import accuracy_of, comparison_of, study_in_memory
from tests.study.synthetic_studies import make_study, study_settings

STUDY = {"level": 0.95, "margin": 0.01, "design": {"kind": "heads"}}


@pytest.mark.parametrize(
    ("low", "high", "p", "sentence", "words"),
    [
        (-0.020, -0.004, 0.004, "q is 1.2 points below r (95 % interval 0.4 to 2.0, for new seeds and new", "lower"),
        (
            -0.020,
            -0.012,
            0.001,
            "The difference is larger than the margin of 1 point",
            "lower, by more than the margin",
        ),
        (0.012, 0.020, 0.001, "q is 1.60 points above r", "higher, by more than the margin"),
        (0.002, 0.006, 0.001, "There is a difference, but it is smaller than", "higher, within the margin"),
        (0.004, 0.020, 0.004, "whether it is larger than the margin of 1 point that the plan", "higher"),
        (0.004, 0.020, 0.2, "not once all comparisons of this study are", "no worse by more than the margin"),
        (-0.004, 0.004, 0.9, "Whatever there is lies within the margin of 1 point", "no difference beyond the margin"),
        (-0.003, 0.018, 0.3, "It is no worse by more than the margin", "no worse by more than the margin"),
        (-0.030, 0.010, 0.4, "It may be as large as 3.0 points, so whether it lies within the margin", "open"),
    ],
)
def test_verdict_and_conclusion_follow_interval(low: float, high: float, p: float, sentence: str, words: str) -> None:
    comparison = comparison_of(low, high, p)
    assert sentence in verdict(comparison, STUDY).replace("\N{NO-BREAK SPACE}", " ")
    assert conclusion(comparison, STUDY) == words
    assert is_shown(comparison, 0.05) == (p < 0.05)


def test_verdict_explains_interval_and_margin_once() -> None:
    comparison = comparison_of(-0.020, -0.004, 0.004)
    first, later = (verdict(comparison, STUDY, first) for first in (True, False))
    for words in (", for new seeds and new sentences", "that the plan calls irrelevant"):
        assert words in first and words not in later


def test_verdict_without_spread_has_no_interval() -> None:
    test = CrossedTest(0.05, 0.0, 4.0, 0.95, None, None, None, 0.0625, 5, 1000, 0.0, 0.0)
    comparison = replace(comparison_of(0.0, 0.1, 0.0625), crossed=test, equivalence=equivalence_test(test, 0.01))
    assert "not to be had, as all seeds differ alike" in verdict(comparison, STUDY)


def test_verdict_and_conclusion_of_one_seed_are_open() -> None:
    comparison = replace(comparison_of(0.0, 0.1, 0.5), crossed=None, equivalence=None, adjusted_p=None)
    assert "One seed says nothing" in verdict(comparison, STUDY)
    assert conclusion(comparison, STUDY) == "one seed: open"
    assert not is_shown(comparison, 0.05)


def test_verdict_of_a_chosen_setting_says_so() -> None:
    design = {**STUDY, "design": {"kind": "full"}}
    few = replace(comparison_of(0.0, 0.1, 0.5), levels={"head.n_qubits": 4}, setting="qubits 4")
    many = replace(few, levels={f"head.{name}": 1 for name in "abcde"})
    assert verdict(few, design).startswith("q (qubits 4, chosen on validation) is")
    assert verdict(many, design).startswith("q (its best setting on validation) is")


def test_summary_sentences_quantum_heads_come_first() -> None:
    heads = {
        "SVC": {"kind": "svc"},
        "reference": {"kind": "logistic-regression"},
        "circuit": {"kind": "quantum", "settings": {"n_qubits": 5}},
    }
    sentences = summary_sentences(analyse(*study_in_memory(heads=heads, report={"reference": "reference"})))
    assert sentences[0].startswith("Circuit is ") and "SVC" in sentences[-1]


def test_summary_sentences_without_results_have_no_answer() -> None:
    record, _ = study_in_memory()
    assert summary_sentences(analyse(record, {})) == ["There is no result yet, so there is nothing to answer."]


def test_summary_sentences_without_reference_name_the_range() -> None:
    sentences = summary_sentences(analyse(*study_in_memory(report={})))
    assert sentences[0].startswith("Mean accuracies go from 72.") and "% (quantum) to 88." in sentences[0]
    assert "names no reference" in sentences[1]


def test_summary_sentences_of_one_head_have_nothing_to_compare() -> None:
    record, results = study_in_memory()
    reference = {task.id for task in record.tasks if task.head == "logistic regression"}
    only = {name: result for name, result in results.items() if name in reference}
    assert "there is nothing to compare it with yet" in summary_sentences(analyse(record, only))[0]


def test_summary_sentences_of_several_bodies_name_each() -> None:
    sentences = summary_sentences(analyse(*study_in_memory(bodies=["one", "two"])))
    assert [sentence.split(",")[0] for sentence in sentences if sentence.startswith("On ")] == ["On one", "On two"]


def test_summary_sentences_of_a_scan_name_the_best_level() -> None:
    def accuracy(task: Task) -> float:
        return accuracy_of(task) + 0.02 * task.levels.get("head.n_qubits", 0)

    scan = {"factors": {"head.n_qubits": [4, 6, 8]}, "design": {"kind": "scan"}}
    sentence, trend = summary_sentences(analyse(*study_in_memory(accuracy, **scan)))[-2:]
    assert sentence.startswith("Over the qubits of quantum the mean goes from 80.")
    assert "% at 4 to 87.9 % at 8, +5.8 points from its own setting" in sentence
    assert "with no allowance for having been picked" in sentence
    assert trend.startswith("The accuracy of quantum rises with its qubits: +1.97 points per step of 1 (95")
    assert trend.endswith("after adjustment).")


def test_summary_sentences_of_trends_that_are_not_shown_say_so() -> None:
    names = ("encoder_layers", "n_reuploads", "reupload_layers", "main_layers")
    scan = {"factors": {f"head.{name}": [1, 2, 4] for name in names}, "design": {"kind": "scan"}}
    sentences = summary_sentences(analyse(*study_in_memory(**scan)))
    shown = "No trend of the accuracy of quantum over its encoder layers was shown: 0.00 points per doubling"
    assert any(sentence.startswith(shown) for sentence in sentences)
    assert sentences[-1] == "Of 1 other trend, 0 are shown."
    heads = {"quantum": {"kind": "quantum", "settings": {"n_qubits": 5}}}
    several = summary_sentences(analyse(*study_in_memory(**scan, heads=heads, bodies=["a", "b"], report={})))
    assert several[-1] == "Of 5 other trends, 0 are shown."


def test_summary_sentences_of_effects_name_those_that_are_shown() -> None:
    def accuracy(task: Task) -> float:
        return accuracy_of(task) + 0.05 * task.levels.get("head.connectivity", 0)

    factorial = {
        "factors": {"head.connectivity": [1, 3], "head.encoder_layers": [1, 2]},
        "design": {"kind": "full", "estimate": "main effects"},
    }
    shown = summary_sentences(analyse(*study_in_memory(accuracy, **factorial)))[-1]
    assert shown.startswith("For quantum, 1 effect stood out: connectivity (+10.")
    untested = summary_sentences(analyse(*study_in_memory(lambda task: 0.8, **factorial)))[-1]
    assert untested == "For quantum, the effects have no error to be tested by."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odds", "statement"),
    [
        (4.0, "The difference is larger than the margin of 1 point"),
        (2.3, "no difference was shown"),
        (0.5, "The difference is larger than the margin of 1 point"),
    ],
)
def test_summary_sentences_follow_the_test(tmp_path: Path, odds: float, statement: str) -> None:
    skill = {"quantum": odds, "logistic regression": 2.3, "SVC": 2.3}
    analysis = analyse(
        make_study(tmp_path, study_settings(), lambda task: skill[task.head], sentences=1500), read_results(tmp_path)
    )
    found = analysis.comparisons[0]
    assert found.crossed is not None and found.crossed.low is not None and found.crossed.high is not None
    answer = summary_sentences(analysis)[0]
    assert statement in answer
    assert f"{100 * abs(found.difference):.1f}" in answer or f"{100 * abs(found.difference):.2f}" in answer
    assert ("above" in answer) == (found.difference > 0)
