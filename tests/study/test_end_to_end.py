"""Test studies with bodies trained end to end, with the head itself or with a linear layer."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ketfit.errors import DataWarning
from ketfit.estimators import end_to_end
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.tuning import ContrastiveConfig
from ketfit.study import executors, runner
from ketfit.study.end_to_end import EndToEndRunner
from ketfit.study.executors import LocalExecutor, RayExecutor
from ketfit.study.runner import StudyProgress, run_study
from ketfit.study.spec import StudyPlan
from ketfit.study.store import StudyRecord, read_results
from tests.fake_ray import FakeRay, RayError

HEADS: dict[str, Any] = {
    "quantum": {"kind": "quantum", "settings": {"n_qubits": 4, "encoder_layers": 1, "connectivity": 1}},
    "MLP": {"kind": "mlp", "settings": {"hidden": 2}},
    "linear": {"kind": "logistic-regression"},
    "SVC": {"kind": "svc"},
}


@pytest.fixture
def plan(settings: dict[str, Any]) -> StudyPlan:
    (name,) = settings["bodies"]
    tune = {"method": "full", "epochs": 2, "learning_rate": 1e-3, "batch_size": 8, "precision": "float32"}
    changes = {"bodies": [{"name": name, "tune": tune}], "heads": HEADS, "factors": {}, "design": {}, "report": {}}
    return StudyPlan.from_mapping({**settings, **changes, "seeds": [0, 1]})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list that records the heads that bodies are trained with."""
    heads: list[Any] = []
    real = end_to_end.tune_end_to_end

    def record(body: Any, head: Any, *rest: Any, **settings: Any) -> Any:
        heads.append(head)
        return real(body, head, *rest, **settings)

    monkeypatch.setattr(end_to_end, "tune_end_to_end", record)
    return heads


@pytest.mark.slow
def test_end_to_end_study_trains_one_body_per_torch_head(plan: StudyPlan, tmp_path: Path, trained: list[Any]) -> None:
    assert run_study(plan, tmp_path, LocalExecutor(1), command="test") == StudyProgress(8, 0, 8, ran=8)
    kinds = [type(head) for head in trained]
    assert kinds == 2 * [QuantumHeadClassifier, MLPHead, MLPHead], "SVC and logistic regression share a body"
    assert [head.hidden for head in trained if isinstance(head, MLPHead)] == 2 * [2, 0]
    assert not list(tmp_path.glob("end-to-end*"))
    results = read_results(tmp_path)
    assert len({result.result["validation_loss"] for result in results.values() if result.result}) == 8
    for result in results.values():
        assert result.run["seconds"]["with_body"] > result.run["seconds"]["fit"]
        assert result.run["precision"] == ["float32"]
    assert all(task.body == f"{plan.bodies[0].name}, end to end" for task in StudyRecord.read(tmp_path).tasks)


def test_end_to_end_study_validation_loss_is_of_the_tuned_body(
    plan: StudyPlan, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Compare the validation loss of the result with that of the chosen try on the original body."""
    run_study(plan, tmp_path / "full", LocalExecutor(1), command="test")
    for task_result in read_results(tmp_path / "full").values():
        result = task_result.result
        assert result is not None
        before = result["tries"][result["chosen"]]["validation_loss"]
        kind = task_result.config["head"]["kind"]
        assert (result["validation_loss"] == before) == (kind in ("svc", "logistic-regression"))


@pytest.mark.slow
def test_end_to_end_study_after_interruption_runs_missing_tasks_only(
    plan: StudyPlan, tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = end_to_end.train
    calls = 0

    def stop(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(end_to_end, "train", stop)
        run_study(plan, tmp_path / "cut", LocalExecutor(1), command="test")
    assert len(read_results(tmp_path / "cut")) == 2
    assert run_study(plan, tmp_path / "cut", LocalExecutor(1), command="test").ran == 6
    run_study(plan, tmp_path / "whole", LocalExecutor(1), command="test")
    results = [
        {name: result.updated(run={}) for name, result in read_results(tmp_path / folder).items()}
        for folder in ("cut", "whole")
    ]
    assert results[0] == results[1]


def test_end_to_end_task_config_has_tuning_and_linear_head(plan: StudyPlan) -> None:
    from ketfit.study.expand import BodyMetadata, DataMetadata, expand

    data = DataMetadata(name="d", fingerprint="f", size=100, n_classes=2)
    bodies = {plan.bodies[0].label: BodyMetadata(fingerprint="b", dimension=16)}
    tasks = {task.head: task for task in expand(plan, data, bodies)}
    assert tasks["SVC"].config["body"]["trained_with"]["tries"] == list(plan.budget.learning_rates)
    assert "trained_with" not in tasks["quantum"].config["body"]
    assert tasks["MLP"].config["body"]["tune"]["method"] == "full"


def test_stages_are_a_list_in_the_task_and_one_stage_is_not(plan: StudyPlan) -> None:
    from ketfit.study.expand import BodyMetadata, DataMetadata, expand

    (stage,) = plan.bodies[0].stages
    data = DataMetadata(name="d", fingerprint="f", size=100, n_classes=2)

    def config(tune: Any) -> Any:
        body = plan.bodies[0].updated(tune=tune)
        changed = plan.updated(bodies=(body,))
        return expand(changed, data, {body.label: BodyMetadata(fingerprint="b", dimension=16)})[-1].config["body"]

    assert config([stage]) == config(stage)
    both = config([ContrastiveConfig(), stage])
    contrastive = ContrastiveConfig(batch_size=16)  # the default for so few sentences
    assert both["tune"] == [contrastive.identity(), config(stage)["tune"]]
    assert "trained_with" in both, "SVC is fitted on a body that was trained with a linear layer"


@pytest.mark.slow
def test_end_to_end_study_starts_from_contrastive_body_of_the_seed(
    plan: StudyPlan, tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    record = end_to_end.tune_end_to_end
    monkeypatch.setattr(
        end_to_end,
        "tune_end_to_end",
        lambda body, *rest, **more: (started.append(body), record(body, *rest, **more))[1],
    )
    contrastive = ContrastiveConfig(loss="cosine", pairs_per_sentence=2, learning_rate=1e-3, precision="float32")
    body = plan.bodies[0].updated(tune=[contrastive, *plan.bodies[0].stages])
    heads = {name: plan.heads[name] for name in ("MLP", "SVC")}
    plan = plan.updated(bodies=(body,), heads=heads)
    assert run_study(plan, tmp_path, LocalExecutor(1), command="test") == StudyProgress(4, 0, 4, ran=4)
    assert [each.tuning.stages for each in started] == 4 * [(contrastive,)]
    assert [each.tuning.seed for each in started] == [0, 0, 1, 1]
    assert len({each.fingerprint for each in started}) == 2, "one contrastive body per seed"
    assert {task.body for task in StudyRecord.read(tmp_path).tasks} == {f"{body.name}, tuned, then end to end"}
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(executors, "connected", lambda _: contextlib.nullcontext(ray))
    return ray


def comparable_results(folder: Path) -> dict[str, Any]:
    return {name: result.updated(run={}) for name, result in read_results(folder).items()}


@pytest.mark.slow
def test_end_to_end_study_on_ray_has_the_results_of_a_local_run(
    plan: StudyPlan, tmp_path: Path, trained: list[Any], fake: FakeRay
) -> None:
    run_study(plan, tmp_path / "local", LocalExecutor(1), command="test")
    kinds = sorted(type(head).__name__ for head in trained)
    trained.clear()
    assert run_study(plan, tmp_path / "ray", RayExecutor(), command="test") == StudyProgress(8, 0, 8, ran=8)
    assert comparable_results(tmp_path / "ray") == comparable_results(tmp_path / "local")
    assert sorted(type(head).__name__ for head in trained) == kinds, "SVC and logistic regression share a body"
    assert [options["max_retries"] for options in fake.options] == [0, 0]
    assert len(fake.sent) == 6
    assert not list((tmp_path / "ray").glob("*.safetensors"))


@pytest.mark.slow
def test_end_to_end_study_on_ray_lost_task_is_recorded_by_name(plan: StudyPlan, tmp_path: Path, fake: FakeRay) -> None:
    plan = plan.updated(heads={name: plan.heads[name] for name in ("MLP", "SVC")}, seeds=(0,))

    def fault(_: int, __: str, given: tuple[Any, ...]) -> None:
        if given[1]["tasks"][0].head == "MLP":
            raise RayError("killed for want of memory")

    fake.fault = fault
    assert run_study(plan, tmp_path, RayExecutor(), command="test") == StudyProgress(1, 1, 2, ran=2)
    (failed,) = [result for result in read_results(tmp_path).values() if result.error]
    assert failed.config["head"]["kind"] == "mlp"
    assert failed.error is not None
    assert failed.error["message"].startswith("lost 4 times, because its worker or node died: killed")


@pytest.mark.slow
def test_end_to_end_study_on_ray_sends_contrastive_body_of_the_seed(
    plan: StudyPlan, tmp_path: Path, fake: FakeRay
) -> None:
    contrastive = ContrastiveConfig(loss="cosine", pairs_per_sentence=2, learning_rate=1e-3, precision="float32")
    body = plan.bodies[0].updated(tune=[contrastive, *plan.bodies[0].stages])
    plan = plan.updated(bodies=(body,), heads={"MLP": plan.heads["MLP"]})
    assert run_study(plan, tmp_path, RayExecutor(), command="test") == StudyProgress(2, 0, 2, ran=2)
    sent = [given[4] for _, _, given in fake.sent]
    assert all(reference.files for reference in sent), "a tuned body travels with its files"
    assert len({reference.fingerprint for reference in sent}) == 2
    assert not list(tmp_path.glob("*.safetensors"))


def test_end_to_end_task_warnings_reach_the_driver(
    plan: StudyPlan, tmp_path: Path, fake: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(*_: Any) -> dict[str, Any]:
        warnings.warn("3 of 9 sentences are truncated", DataWarning, stacklevel=2)
        return {"error": {"type": "TrainingError", "message": "diverged"}}

    monkeypatch.setattr(EndToEndRunner, "run_task", truncate)
    plan = plan.updated(heads={"MLP": plan.heads["MLP"]}, seeds=(0,))
    with pytest.warns(DataWarning, match="3 of 9 sentences are truncated"):
        assert run_study(plan, tmp_path, RayExecutor(), command="test").failed == 1


def test_end_to_end_study_keeps_the_shared_body_of_one_seed(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[EndToEndRunner] = []

    def make(*arguments: Any) -> EndToEndRunner:
        made.append(EndToEndRunner(*arguments))
        return made[-1]

    monkeypatch.setattr(runner, "EndToEndRunner", make)
    heads = {name: plan.heads[name] for name in ("linear", "SVC")}
    assert run_study(plan.updated(heads=heads), tmp_path, LocalExecutor(1), command="test").done == 4
    assert [seed for seed, _ in made[0]._linear_bodies] == [1]


def test_end_to_end_study_records_any_error_and_goes_on(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **settings: Any) -> Any:
        raise torch.OutOfMemoryError("no memory on the GPU")

    monkeypatch.setattr(end_to_end, "tune_end_to_end", fails)
    heads = {"linear": plan.heads["linear"]}
    assert run_study(plan.updated(heads=heads), tmp_path, LocalExecutor(1), command="test") == StudyProgress(0, 2, 2, 2)
    errors = {str(result.error) for result in read_results(tmp_path).values()}
    assert errors == {"{'type': 'OutOfMemoryError', 'message': 'no memory on the GPU'}"}
