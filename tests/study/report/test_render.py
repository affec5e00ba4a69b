"""Test the page of a report: the plan as TOML, and the statements about design, heads and limits."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from ketfit.base_config import read_toml
from ketfit.study.analysis.analysis import analyse
from ketfit.study.report.render import make_page, to_toml
from ketfit.study.spec import StudyPlan
from tests.study.results_in_memory import study_in_memory
from tests.study.synthetic_studies import study_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def page_of(**changes: Any) -> str:
    """Return the text of a page, tags removed."""
    record, results = study_in_memory(**changes)
    page = re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", make_page(record, analyse(record, results), []), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize(
    ("design", "factors", "text"),
    [
        ({}, {}, "Design the heads as they are Budget"),
        ({"kind": "scan"}, {"head.n_qubits": [4, 6]}, "one factor at a time (head.n_qubits: 4, 6)"),
        (
            {"kind": "full", "estimate": "main effects"},
            {"head.n_qubits": [4, 6], "head.skip_connection": [False, True]},
            "full factorial, to estimate main effects (head.n_qubits: 4, 6; head.skip_connection: off, on)",
        ),
        (
            {"kind": "fractional", "generators": "a b ab"},
            {"head.n_qubits": [4, 6], "head.main_layers": [1, 2], "head.connectivity": [1, 2]},
            "fractional factorial, generators a b ab (",
        ),
        (
            {"kind": "latin-hypercube", "samples": 3, "seed": 7},
            {"head.angle_scale": {"low": 0.1, "high": 3.0, "log": True}},
            "Latin hypercube of 3 points, seed 7 (head.angle_scale: 0.1 to 3 in the logarithm)",
        ),
    ],
)
def test_make_page_describes_the_design(design: dict[str, Any], factors: dict[str, Any], text: str) -> None:
    assert text in page_of(design=design, factors=factors, seeds=2)


def test_make_page_describes_heads_and_budget() -> None:
    heads = {
        "circuit": {"kind": "quantum", "start": "recommended", "settings": {"main_layers": 3, "merge": "mean"}},
        "small": {"kind": "mlp", "match": "circuit"},
        "linear": {"kind": "logistic-regression"},
    }
    page = page_of(heads=heads, report={}, seeds=2)
    assert "circuit: quantum circuit, from the recommended setting, main_layers 3, merge mean" in page
    assert "small: MLP, with as many parameters as circuit" in page
    assert "3 tries a head and seed: learning rates 0.01, 0.03 and 0.1 for heads trained in epochs" in page
    assert "inverse regularisation 0.1, 1 and 10 for the others; chosen by validation loss" in page


def test_make_page_limits_name_power_and_shared_sentences() -> None:
    page = page_of()
    assert re.search(r"With 5 seeds and these sentences, a true difference must be [\d.]+ to [\d.]+ points", page)
    assert "Independent test sets." in page
    assert "Everything here is synthetic on body-a: other bodies, or a body that is tuned, may change the order" in page
    assert "Nothing here is evidence of a quantum advantage." in page


def test_make_page_describes_the_tuning_of_each_body() -> None:
    end_to_end = {"name": "body-a", "tune": [{"loss": "cosine"}, {"method": "end-to-end"}]}
    page = page_of(bodies=["body-a", {"name": "body-a", "tune": {"loss": "cosine"}}, end_to_end], seeds=2)
    assert "body-a, frozen, 16 dimensions" in page
    assert "body-a, tuned, tuned for each seed (contrastive), 16 dimensions" in page
    assert "body-a, tuned, then end to end, tuned for each seed and head (contrastive, then end-to-end)" in page
    assert "other bodies, or other settings of their tuning, may change the order" in page
    assert "on one thread (on all cores for a body trained with its head)" in page


def test_make_page_of_an_unfinished_study_names_the_seeds_with_results() -> None:
    record, results = study_in_memory(seeds=5)
    seeds = {task.id: task.seed for task in record.tasks}
    done = {name: result for name, result in results.items() if seeds[name] < 3}
    page = re.sub(r"<[^>]+>", " ", make_page(record, analyse(record, done), []))
    assert "over 5 seeds" not in page and "over the seeds that have a result" in page
    assert "With the seeds that have a result and these sentences" in page


def test_make_page_with_the_number_of_sentences_as_a_factor_names_all_sizes() -> None:
    page = page_of(factors={"data.per_label": [5, 20]}, design={"kind": "full"}, seeds=2)
    assert "5 and 20 of each label drawn for each seed: 8 to 32 to train, 2 to 8 to validate" in page
    assert "As few as 2 validation sentences choose among tries and epochs" in page


def test_make_page_limits_of_one_seed_claim_nothing_over_seeds() -> None:
    page = page_of(seeds=1)
    assert "Independent test sets." not in page and "Small differences." not in page


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": {"noisy": {"kind": "quantum", "settings": {"n_qubits": 5, "shots": 100}}}},
        {"factors": {"head.shots": [10, 100]}, "design": {"kind": "scan"}},
    ],
)
def test_make_page_limits_of_shots_and_noise_say_that_they_are_simulated(changes: dict[str, Any]) -> None:
    assert "Shots and noise were simulated as the plan says" in page_of(**{"report": {}, "seeds": 2, **changes})


def test_make_page_limits_of_classical_heads_do_not_mention_quantum_computers() -> None:
    assert "A quantum computer." not in page_of(heads={"SVC": {"kind": "svc"}}, report={}, seeds=2)


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        (3, "Each seed's effects are estimated apart and tested over the 3 seeds: for new seeds on the same sentences"),
        (1, "One seed only: tested against what the model leaves over, if anything"),
    ],
)
def test_make_page_effects_name_their_error(seeds: int, text: str) -> None:
    factors = {"head.connectivity": [1, 3], "head.encoder_layers": [1, 2]}
    page = page_of(factors=factors, design={"kind": "full", "estimate": "main effects"}, seeds=seeds)
    assert text in page and "1 → 3" in page
    assert "Of each head the setting with the best mean validation loss" in page


def test_to_toml_round_trips_plan(tmp_path: Path) -> None:
    settings = study_settings(
        name='a "quoted" name\\ \x7f ü',
        factors={"head.angle_scale": {"low": 1e-05, "high": 3.0, "log": True}, "head.merge": ["concat", "mean"]},
        design={"kind": "latin-hypercube", "samples": 4},
        train={"epochs": 7},
    )
    plan = StudyPlan.from_mapping({**settings, "data": {**settings["data"], "source": "synthetic"}})
    (tmp_path / "plan.toml").write_text(to_toml(plan.model_dump(mode="json")), encoding="utf-8")
    assert StudyPlan.from_mapping(read_toml(tmp_path / "plan.toml")) == plan


@pytest.mark.parametrize(
    "table",
    [
        {"a": [1, 2.5, True, "x"], "b": {"c": {"d": [{"e": 1}]}}},
        {"with space": {'quote"': {"ü": "\n\t\x7f"}}},
        {"empty": [], "text": ""},
    ],
)
def test_to_toml_is_read_back_by_tomllib(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


def test_to_toml_omits_none_and_empty_tables() -> None:
    assert to_toml({"a": None, "b": {}, "c": {"d": None, "e": 1}}) == "[c]\ne = 1"
