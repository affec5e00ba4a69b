"""Test runs of studies: equal results with any executor, missing tasks only, shared work once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.bodies.body import Body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import ConfigError, ConfigWarning, DataError, StudyError
from ketfit.study import runner
from ketfit.study.executors import Job, LocalExecutor, Work
from ketfit.study.report import write_report
from ketfit.study.runner import StudyProgress, run_study
from ketfit.study.spec import StudyPlan
from ketfit.study.store import StudyRecord, TaskResult, read_results


class InProcessExecutor:
    """Executor in this process, optionally in reverse order and with at most `max_tasks` tasks."""

    def __init__(self, reverse: bool = False, max_tasks: int | None = None) -> None:
        self.reverse, self.max_tasks, self.ran = reverse, max_tasks, 0

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, dict[str, Any]]]:
        indices = range(len(jobs))[:: -1 if self.reverse else 1]
        for index in indices[: self.max_tasks]:
            config, arrays = jobs[index]
            self.ran += 1
            yield index, work(config, *arrays)


def comparable_results(folder: Path) -> dict[str, TaskResult]:
    """Return the results by task without host and times."""
    return {name: result.updated(run={}) for name, result in sorted(read_results(folder).items())}


@pytest.mark.slow
def test_run_study_results_do_not_depend_on_the_executor(plan: StudyPlan, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("here", "reversed", "processes")]
    executors = (InProcessExecutor(), InProcessExecutor(reverse=True), LocalExecutor(2))
    for folder, executor in zip(folders, executors, strict=True):
        progress = run_study(plan, folder, executor, command="test")
        assert progress == StudyProgress(done=10, failed=0, total=10, ran=10)
    first, second, third = map(comparable_results, folders)
    assert len(first) == 10
    assert first == second == third


def test_run_study_again_runs_missing_tasks_only(plan: StudyPlan, tmp_path: Path) -> None:
    run_study(plan, tmp_path, executor := InProcessExecutor(), command="test")
    again = InProcessExecutor()
    assert run_study(plan, tmp_path, again, command="test").ran == 0
    wider = plan.with_overrides(n_seeds=3)
    assert run_study(wider, tmp_path, again, command="test") == StudyProgress(15, 0, 15, ran=5)
    assert (executor.ran, again.ran) == (10, 5)
    assert len(StudyRecord.read(tmp_path).tasks) == 15


def test_run_study_after_stops_continues_to_the_same_results(plan: StudyPlan, tmp_path: Path) -> None:
    for max_tasks in (3, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "count_results", lambda tasks, results, ran: StudyProgress(0, 0, 0, ran))
            run_study(plan, tmp_path / "parts", InProcessExecutor(max_tasks=max_tasks), command="test")
    run_study(plan, tmp_path / "parts", InProcessExecutor(), command="test")
    run_study(plan, tmp_path / "whole", InProcessExecutor(), command="test")
    assert comparable_results(tmp_path / "parts") == comparable_results(tmp_path / "whole")


def test_run_study_narrow_heads_warn_once_each(settings: dict[str, Any], tmp_path: Path, sentences: Path) -> None:
    labels = "abcdef"
    lines = sentences.read_text(encoding="utf-8").splitlines()[1:]
    data = tmp_path / "six.tsv"
    six = [line.rsplit("\t", 1)[0] + f"\t{labels[index % 6]}" for index, line in enumerate(lines)]
    data.write_text("\n".join(["text\tlabel", *six, ""]), encoding="utf-8")
    heads = {
        "wide": {"kind": "quantum", "settings": {"n_qubits": 5, "main_layers": 1, "n_measured": 5}},
        "one qubit": {
            "kind": "quantum",
            "settings": {"n_qubits": 5, "main_layers": 1, "n_measured": 1, "skip_connection": False},
        },
        "perceptron": {"kind": "mlp", "settings": {"hidden": 1}, "vary": False},
        "linear": {"kind": "logistic-regression"},
    }
    changed = {
        **settings,
        "seeds": 2,
        "heads": heads,
        "data": {**settings["data"], "source": str(data), "per_label": 8},
    }
    with pytest.warns(ConfigWarning) as caught:
        progress = run_study(StudyPlan.from_mapping(changed), tmp_path / "study", InProcessExecutor(), command="test")
    assert progress.failed == 0
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert "head 'one qubit' on " in messages[0]
    assert "6 classes apart by 1 number, where 3 or more are needed; set n_measured=5" in messages[0]
    assert "head 'perceptron' on " in messages[1]


def test_run_study_failed_tasks_run_again_only_with_retry_failed(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runner.run_tasks

    def broken(config: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
        return {"error": {"type": "TrainingError", "message": f"seed {config['seed']}"}}

    monkeypatch.setattr(runner, "run_tasks", partial(real, work=broken))
    assert run_study(plan, tmp_path, InProcessExecutor(), command="test") == StudyProgress(0, 10, 10, ran=10)
    results = read_results(tmp_path).values()
    assert {result.error["message"] for result in results if result.error} == {"seed 0", "seed 1"}
    monkeypatch.setattr(runner, "run_tasks", real)
    assert run_study(plan, tmp_path, InProcessExecutor(), command="test") == StudyProgress(0, 10, 10, ran=0)
    assert run_study(plan, tmp_path, InProcessExecutor(), command="test", retry_failed=True) == StudyProgress(
        10, 0, 10, ran=10
    )


def test_run_study_embeds_and_splits_once(plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, drawn = [], []
    encode = Body.encode

    def counted(body: Body, texts: Sequence[str], **options: Any) -> np.ndarray:
        embedded.append(len(texts))
        return encode(body, texts, **options)

    monkeypatch.setattr(Body, "encode", counted)
    monkeypatch.setattr(runner, "few_shot_split", lambda *key: drawn.append(key[1:]) or few_shot_split(*key))
    run_study(plan, tmp_path, InProcessExecutor(), command="test")
    assert embedded == [120]
    assert sorted(drawn) == [(20, 0.25, 0), (20, 0.25, 1)]
    run_study(plan, tmp_path, InProcessExecutor(), command="test")
    assert embedded == [120], "nothing is missing, so that nothing is embedded"


def test_run_study_tasks_get_the_split_of_their_seed(plan: StudyPlan, tmp_path: Path) -> None:
    dataset = load_dataset(plan.data.source)
    seen = {}

    class RecordingExecutor(InProcessExecutor):
        def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, dict[str, Any]]]:
            seen.update({config["seed"]: arrays for config, arrays in jobs})
            return super().run(work, jobs)

    run_study(plan, tmp_path, RecordingExecutor(), command="test")
    for seed, (embeddings, codes, train, validation, test) in seen.items():
        split = few_shot_split(dataset, 20, 0.25, seed)
        assert embeddings.shape == (120, 16)
        assert [dataset.classes[code] for code in codes] == list(dataset.labels)
        for actual, expected in ((train, split.train), (validation, split.validation), (test, split.test)):
            np.testing.assert_array_equal(actual, expected)


def test_run_study_record_has_the_splits_of_all_tasks(settings: dict[str, Any], tmp_path: Path) -> None:
    plan = StudyPlan.from_mapping({**settings, "factors": {"data.per_label": [10, 20]}, "design": {"kind": "scan"}})
    run_study(plan, tmp_path, InProcessExecutor(), command="test")
    record, dataset = StudyRecord.read(tmp_path), load_dataset(plan.data.source)
    assert [draw.key for draw in record.draws] == [(size, 0.25, seed) for size in (10, 20) for seed in (0, 1)]
    for draw in record.draws:
        np.testing.assert_array_equal(record.test_positions(draw), few_shot_split(dataset, *draw.key).test)
    draws, results = record.splits_by_task(), read_results(tmp_path)
    assert draws.keys() == results.keys()
    for name, result in results.items():
        assert draws[name].key == (result.config["data"]["per_label"], 0.25, result.config["seed"])
        assert result.result is not None and result.result["test_size"] == len(record.test_positions(draws[name]))


def test_run_study_invalid_plan_creates_no_folder(plan: StudyPlan, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    wide = plan.updated(factors={"head.n_qubits": (3, 5)})
    with pytest.raises(ConfigError, match="width 16 needs n_qubits=4"):
        run_study(wide, folder, InProcessExecutor(), command="test")
    many = plan.updated(data=plan.data.updated(per_label=100))
    with pytest.raises(DataError, match="lower per_label=100"):
        run_study(many, folder, InProcessExecutor(), command="test")
    every = plan.updated(data=plan.data.updated(per_label=60))
    with pytest.raises(DataError, match=r"data\.per_label=60 leaves fewer than 2 test sentences of reviews\.tsv"):
        run_study(every, folder, InProcessExecutor(), command="test")
    bare = plan.updated(data=plan.data.updated(per_label=2, validation_fraction=0.1))
    with pytest.raises(DataError, match=r"validation_fraction=0\.1 leaves no validation sentence of reviews\.tsv with"):
        run_study(bare, folder, InProcessExecutor(), command="test")
    assert not folder.exists()


def test_run_study_reads_data_with_the_options_of_the_plan(
    settings: dict[str, Any], sentences: Path, tmp_path: Path
) -> None:
    other = tmp_path / "reviews"
    other.write_bytes(sentences.read_text().replace("\t", ";").encode("utf-16"))
    read = {"source": str(other), "format": "csv", "encoding": "utf-16", "delimiter": ";"}
    plan = StudyPlan.from_mapping({**settings, "seeds": 1, "data": {**settings["data"], **read}})
    run_study(plan, tmp_path / "study", InProcessExecutor(), command="test")
    same = StudyPlan.from_mapping({**settings, "seeds": 1})
    run_study(same, tmp_path / "same", InProcessExecutor(), command="test")
    assert comparable_results(tmp_path / "study").keys() == comparable_results(tmp_path / "same").keys()


def test_run_study_in_a_locked_folder_raises_study_error(plan: StudyPlan, tmp_path: Path) -> None:
    class NestedExecutor(InProcessExecutor):
        def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, dict[str, Any]]]:
            with pytest.raises(StudyError, match="another ketfit study run"):
                run_study(plan, tmp_path, InProcessExecutor(), command="test")
            return super().run(work, jobs)

    assert run_study(plan, tmp_path, NestedExecutor(), command="test").done == 10


@pytest.mark.slow
def test_run_study_tunes_a_body_once_per_seed(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ketfit.bodies import contrastive

    tuned = []
    real = contrastive._TuningRun.train
    monkeypatch.setattr(contrastive._TuningRun, "train", lambda run, *rest: tuned.append(run.seed) or real(run, *rest))
    (name,) = settings["bodies"]
    bodies = [
        name,
        {
            "name": name,
            "tune": {"loss": "cosine", "pairs_per_sentence": 1, "learning_rate": 1e-3, "precision": "float32"},
        },
    ]
    heads = {"linear": {"kind": "logistic-regression"}}
    plan = StudyPlan.from_mapping({**settings, "bodies": bodies, "heads": heads, "factors": {}, "design": {}})
    assert run_study(plan, tmp_path / "first", InProcessExecutor(), command="test") == StudyProgress(4, 0, 4, ran=4)
    assert tuned == [0, 1]
    assert run_study(plan, tmp_path / "second", InProcessExecutor(), command="test").done == 4
    assert tuned == [0, 1], "a cached body is not tuned again"
    assert comparable_results(tmp_path / "first") == comparable_results(tmp_path / "second")
    assert not list((tmp_path / "first").glob("tuning*"))
    record = StudyRecord.read(tmp_path / "first")
    assert {task.body for task in record.tasks} == {name, f"{name}, tuned"}
    results = read_results(tmp_path / "first")
    losses = {
        (task.body, task.seed): result.result["validation_loss"]
        for task in record.tasks
        if (result := results[task.id]).result
    }
    precisions = {task.body: results[task.id].run.get("precision") for task in record.tasks}
    assert precisions == {name: None, f"{name}, tuned": ["float32"]}
    assert len(set(losses.values())) == 4


@pytest.mark.slow
def test_run_study_resumes_the_tuning_of_a_later_seed(
    settings: dict[str, Any], tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body of the first seed is in the cache, and its checkpoint is not that of the second one."""
    from ketfit.bodies import contrastive

    (name,) = settings["bodies"]
    tune = {"loss": "supervised", "epochs": 3, "learning_rate": 1e-3, "precision": "float32"}
    heads = {"linear": {"kind": "logistic-regression"}}
    bodies = [{"name": name, "tune": tune}]
    plan = StudyPlan.from_mapping({**settings, "bodies": bodies, "heads": heads, "factors": {}, "design": {}})
    real, loaded = contrastive._TuningRun.train, []

    def stops(run: Any, checkpoint: Path, progress: bool) -> None:
        if run.seed == 1:
            checkpoint.write_bytes(b"of seed 1")
            raise KeyboardInterrupt
        real(run, checkpoint, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(contrastive._TuningRun, "train", stops)
        run_study(plan, tmp_path, InProcessExecutor(), command="test")
    monkeypatch.setattr(contrastive._TuningRun, "load", lambda run, path: loaded.append((run.seed, path.read_bytes())))
    assert run_study(plan, tmp_path, InProcessExecutor(), command="test").done == 2
    assert loaded == [(1, b"of seed 1")]


def test_study_of_holdouts_tests_stratified_shares(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"heads": {"linear": {"kind": "logistic-regression"}, "svc": {"kind": "svc"}}, "factors": {}}
    settings |= {"design": {"kind": "heads"}}
    settings["data"] = {"source": settings["data"]["source"], "test_fraction": 0.25, "validation_fraction": 0.2}
    plan = StudyPlan.from_mapping(settings)
    progress = run_study(plan, tmp_path, LocalExecutor(1), command="here")
    assert (progress.done, progress.failed) == (4, 0)
    record, results = StudyRecord.read(tmp_path), read_results(tmp_path)
    for draw in record.draws:
        assert (draw.per_label, draw.test_fraction, len(draw.not_tested)) == (None, 0.25, 90)
        assert record.test_train_ratio(draw) == pytest.approx(30 / 72)
    for result in results.values():
        assert result.config["data"].keys() == {"fingerprint", "test_fraction", "validation_fraction"}
        assert (result.result or {})["test_size"] == 30
    summary = write_report(tmp_path)
    assert [summary["study"][name] for name in ("train_sizes", "validation_sizes", "test_sizes")] == [[72], [18], [30]]
    assert "hold-outs" in {caveat["kind"] for caveat in summary["caveats"]}
    assert "a stratified hold-out of all sentences for each seed: 72 to train" in (tmp_path / "report.html").read_text()


@pytest.fixture
def noisy_plan(settings: dict[str, Any]) -> StudyPlan:
    """Return a plan of heads that train exactly and alike, with shots and noise as factors."""
    quantum = {"kind": "quantum", "settings": settings["heads"]["quantum"]["settings"]}
    settings |= {
        "heads": {"alike": quantum, "exactly": {**quantum, "exact_training": True}},
        "noise": {"better": {"device": "ionq-forte", "scale": 0.1}},
        "factors": {"head.shots": ["none", 50], "head.noise": ["none", "better", "ionq-forte"]},
        "design": {"kind": "full"},
        "report": {"reference": "exactly"},
    }
    return StudyPlan.from_mapping(settings)


def test_run_study_trains_once_for_all_exactly_trained_tests(noisy_plan: StudyPlan, tmp_path: Path) -> None:
    sizes: list[int] = []

    class CountingExecutor(InProcessExecutor):
        def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, dict[str, Any]]]:
            sizes.extend(len(config.get("tasks", [config])) for config, _ in jobs)
            return super().run(work, jobs)

    # 5 measurements of the exact head beside the exact one, which both heads share, and 5 heads trained alike
    progress = run_study(noisy_plan, tmp_path / "a", CountingExecutor(), command="test")
    assert progress == StudyProgress(22, 0, 22, ran=22)
    assert sorted(sizes) == [1] * 10 + [6] * 2
    rows = comparable_results(tmp_path / "a")
    lines = (tmp_path / "a" / "rows.jsonl").read_text().splitlines()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines[:9]))
    assert run_study(noisy_plan, tmp_path / "b", InProcessExecutor(), command="test").ran == 13
    assert comparable_results(tmp_path / "b") == rows


def test_run_study_training_that_fails_is_the_error_of_all_its_tests(noisy_plan: StudyPlan, tmp_path: Path) -> None:
    plan = noisy_plan.updated(heads={"exactly": noisy_plan.heads["exactly"]}, train={"epochs": 1}, seeds=(0,))

    class FailingExecutor(InProcessExecutor):
        def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from ((index, {"error": {"type": "E", "message": "m"}}) for index in range(len(jobs)))

    assert run_study(plan, tmp_path, FailingExecutor(), command="test") == StudyProgress(0, 6, 6, ran=6)


def test_report_of_shots_and_noise_compares_level_by_level(noisy_plan: StudyPlan, tmp_path: Path) -> None:
    run_study(noisy_plan, tmp_path, InProcessExecutor(), command="test")
    summary = write_report(tmp_path)
    compared = [each for each in summary["comparisons"] if each["head"] == "alike"]
    assert len(compared) == 6 and all(each["levels"] == each["reference_levels"] for each in compared)
    assert [each["levels"]["head.noise"] for each in compared] == [None, "better", "ionq-forte"] * 2
    assert not summary["trends"]  # one level of shots is a number
    page = (tmp_path / "report.html").read_text()
    assert "trained exactly, its shots and noise on test sentences only" in page
    assert "Shots and noise were simulated as the plan says" in page
