"""Test the plans of the paper's results and their runner, in small."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import paper
import paper_page
import pytest
from paper_claims import BOTH, RESULTS

from ketfit import ContrastiveConfig, HeadConfig
from ketfit.model.tuning import EndToEndConfig
from ketfit.simulate.noise import load_noise
from ketfit.study.spec import StudyPlan
from ketfit.study.store import ROWS, read_results

PLANS = sorted(paper.PLANS.glob("*.toml"))


def test_plans_run_on_frozen_and_tuned_body_with_defaults() -> None:
    plans = paper.plans("sst2.tsv", quick=False)
    bound = plans.pop(paper.BOUND)
    for plan in plans.values():
        frozen, tuned = plan.bodies
        assert (frozen.name, frozen.stages, tuned.name) == (paper.BODY, (), paper.BODY)
        assert tuned.stages == (ContrastiveConfig(),)
        assert plan.data.source == "sst2.tsv" and plan.data.per_label == 256
    assert isinstance(bound.bodies[0].stages[0], EndToEndConfig)


def test_plans_of_frozen_body_are_the_others_without_tuned_one() -> None:
    both, frozen = (paper.plans("sst2.tsv", quick=False, frozen=alone) for alone in (False, True))
    assert frozen == {name: plan.updated(bodies=plan.bodies[:1]) for name, plan in both.items() if name != paper.BOUND}
    with pytest.raises(SystemExit):
        paper.parse(["--data", "sst2.tsv", "--frozen", "--only", paper.BOUND])


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plan_selects_on_validation_with_five_draws_and_equal_tries(path: Path) -> None:
    plan = StudyPlan.read(path)
    assert plan.budget.selection == "loss"
    assert len(plan.seeds) == (2 if path.stem == "encoders_whole" else 5)
    assert len(plan.budget.learning_rates) == len(plan.budget.regularization)
    own = {head.start for head in plan.heads.values() if head.kind == "quantum"}
    if path.stem not in (
        "screening",
        "qubits",
        "qubits_recommended",
        "qubits_components",
        "shots_qubits",
        "noise_qubits",
    ):
        assert own == {"paper", "recommended"}, "the paper's head, and the recommended one beside it"


def test_baselines_have_the_papers_sizes() -> None:
    heads = StudyPlan.read(paper.PLANS / "baselines.toml").heads.values()
    assert {"logistic-regression", "svc"} <= {head.kind for head in heads}
    hidden = {head.settings["hidden"] for head in heads if "hidden" in head.settings}
    assert hidden == {0, 48, 96, 144, 192}


def test_every_plan_is_a_result_and_every_result_has_a_plan() -> None:
    names = {path.stem for path in PLANS} | {paper.BOUND, paper.ENERGY}
    assert {result.name for result in RESULTS} == names
    for result in RESULTS:
        if result.name in {path.stem for path in PLANS}:
            heads = StudyPlan.read(paper.PLANS / f"{result.name}.toml").heads
            for claim in result.claims:
                parts = (claim.head,) if isinstance(claim.head, str) else claim.head
                assert all(any(part in head for head in heads) for part in parts), (result.name, claim.head)
    assert set(BOTH) <= set(StudyPlan.read(paper.PLANS / "depth.toml").heads)


def test_in_small_keeps_heads_and_fits_components() -> None:
    plan = StudyPlan.read(paper.PLANS / "qubits_components.toml")
    small = paper.in_small(plan)
    assert small.factors["head.components"] == (63, 127)
    assert small.data.per_label * 2 * 0.85 > 127 and small.seeds == (0, 1)
    assert small.heads == plan.heads and small.budget.learning_rates == (0.01,)
    screening = paper.in_small(StudyPlan.read(paper.PLANS / "screening.toml"))
    assert all(len(levels) == 2 for levels in screening.factors.values() if isinstance(levels, tuple))


def test_step_model_is_proportional_to_gates_amplitudes_samples_and_tries() -> None:
    model = paper.StepModel(seconds=1e-9, growth=1.5, noisy=1e-8)
    head = HeadConfig.paper()
    size = 1024 * (len(head.encoder_circuit().gates) + len(head.qpu_circuit().gates))
    assert model.epoch(head, 100) == pytest.approx(1e-7 * size)
    wide = HeadConfig.paper(n_qubits=14)
    size = 2**14 * (len(wide.encoder_circuit().gates) + len(wide.qpu_circuit().gates))
    assert model.epoch(wide, 100) == pytest.approx(1e-7 * size * 1.5**2)
    settings = head.identity()
    config = {"head": {"kind": "quantum", "settings": settings}, "train": {"epochs": 10}, "tries": [0.1, 0.2]}
    expected = 2 * 10 * paper.EPOCHS_RUN * model.epoch(head, 100) + paper.FORWARD * model.epoch(head, 50)
    assert model.task(config, 100, 50) == pytest.approx(expected)
    noise = {"noise": load_noise("ionq-forte").model_dump(mode="json")}
    encoder, qpu = (len(circuit.gates) for circuit in (head.encoder_circuit(), head.qpu_circuit()))
    noisy = 1e-7 * 1024 * encoder + 1e-8 * 4**10 * qpu
    assert model.epoch(head.updated(**noise), 100) == pytest.approx(noisy), "the samples share the density matrices"
    again = head.updated(n_reuploads=2, **noise)
    again_gates = len(again.qpu_circuit().gates)
    assert model.epoch(again, 100) == pytest.approx(1e-7 * 1024 * encoder + 1e-6 * 4**10 * again_gates)
    exact = {**config, "head": {**config["head"], "test": noise}}
    expected = 2 * 10 * paper.EPOCHS_RUN * model.epoch(head, 100) + paper.FORWARD * model.epoch(
        head.updated(**noise), 50
    )
    assert model.task(exact, 100, 50) == pytest.approx(expected)
    assert model.task({"head": {"kind": "svc", "settings": {}}}, 100, 50) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the sentences: --data sst2.tsv"),
        (["--quick"], "name a folder for the results of --quick"),
        (["--quick", "--output", "x", "--only", "everything"], "invalid choice: 'everything'"),
        (["--data", "x", "--workers", "2", "--engine", "ray"], "--workers is for the local engine"),
        (["--data", "x", "--address", "auto"], "--address is for --engine ray"),
    ],
)
def test_main_wrong_options_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        paper.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.first
@pytest.mark.slow
def test_main_quick_runs_every_result_repeats_rows_and_makes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--output", str(tmp_path), "--workers", "1"]
    paper.main(arguments)
    assert "without the work on bodies" in capsys.readouterr().out
    page = paper_page.write_page(tmp_path, tmp_path / "docs")
    assert page.missing == []
    assert all(row.finding for row in page.rows if row.claim.kind != "trend")
    rows = {path: path.read_bytes() for path in tmp_path.rglob(ROWS)}
    assert len(rows) == len(PLANS) + 1

    rng = np.random.default_rng()
    drawn = rng.choice([path.stem for path in PLANS if path.stem != "baselines"], 3, replace=False).tolist()
    folders = {name: tmp_path / "paper" / name for name in drawn}
    results = {name: numbers(folder) for name, folder in folders.items()}
    for folder in folders.values():
        lines = (folder / ROWS).read_bytes().splitlines(keepends=True)
        del lines[rng.integers(len(lines))]
        (folder / ROWS).write_bytes(b"".join(lines))
    paper.main([*arguments, *chain.from_iterable(("--only", name) for name in ("baselines", *drawn))])
    assert "baselines                0 tasks    0.00 h" in capsys.readouterr().out
    assert {name: numbers(folder) for name, folder in folders.items()} == results, "rows are equal bit for bit"
    others = [path for path in rows if path.parent not in folders.values()]
    assert {path: path.read_bytes() for path in others} == {path: rows[path] for path in others}


def numbers(folder: Path) -> dict[str, Any]:
    """Return the result of each task of a study; only its time and host may differ in another run."""
    return {name: (row.result, row.error) for name, row in read_results(folder).items()}
