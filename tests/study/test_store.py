"""Test the files of a study: complete results, one writer at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import ConfigError, KetFitError, StorageError, StudyError
from ketfit.study.expand import BodyMetadata, DataMetadata, expand
from ketfit.study.spec import StudyPlan
from ketfit.study.store import ROWS, ResultLog, SplitRecord, StudyRecord, TaskResult, pending_tasks, read_results
from ketfit.study.task import Task


def result_of(number: int, failed: bool = False) -> TaskResult:
    error = {"type": "TrainingError", "message": "nan"} if failed else None
    result = None if failed else {"test_accuracy": number / 7}
    return TaskResult(task=f"{number:064d}", config={"seed": number}, result=result, error=error, run={"host": "here"})


def task_of(number: int) -> Task:
    return Task(f"{number:064d}", {"seed": number}, "head", "body", {}, number)


def test_read_results_returns_appended_results_in_order(tmp_path: Path) -> None:
    with ResultLog(tmp_path / "study") as log:
        for number in range(5):
            log.append(result_of(number))
        assert read_results(tmp_path / "study") == log.results, "a reader sees each result while the driver runs"
    assert list(read_results(tmp_path / "study").values()) == [result_of(number) for number in range(5)]


def test_read_results_returns_the_last_result_of_a_task(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        log.append(result_of(1, failed=True))
        log.append(result_of(1))
    assert read_results(tmp_path) == {result_of(1).task: result_of(1)}


@pytest.mark.slow
def test_result_log_incomplete_last_line_is_ignored_and_removed(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        log.append(result_of(0))
        log.append(result_of(1))
    content = (tmp_path / ROWS).read_bytes()
    first = content.index(b"\n") + 1
    for size in range(first, len(content)):
        (tmp_path / ROWS).write_bytes(content[:size])
        assert list(read_results(tmp_path)) == [result_of(0).task]
        with ResultLog(tmp_path) as log:
            log.append(result_of(1))
        assert (tmp_path / ROWS).read_bytes() == content


def test_result_log_damaged_line_is_named_and_file_unchanged(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        log.append(result_of(0))
    content = (tmp_path / ROWS).read_bytes()
    for line in (b"{}\n", b"nonsense\n", b"\xff\n", b"\n", b"[1]\n", b'{"task": 3}\n'):
        (tmp_path / ROWS).write_bytes(content + line + content)
        with pytest.raises(StudyError, match="line 2 is not a result"):
            ResultLog(tmp_path)
        assert (tmp_path / ROWS).read_bytes() == content + line + content


@given(st.binary(max_size=300))
def test_read_results_arbitrary_bytes_raise_study_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / ROWS).write_bytes(content + b"\n")
    with pytest.raises(StudyError, match="is not a result"):
        read_results(folder)


@pytest.mark.slow
def test_result_log_locked_by_another_process_raises_study_error(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ketfit.study.store import ResultLog; ResultLog(Path(sys.argv[1]))"
    )
    with ResultLog(tmp_path) as log:
        log.append(result_of(0))
        with pytest.raises(StudyError, match="another ketfit study run uses"):
            ResultLog(tmp_path)
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert other.returncode == 1
        assert "another ketfit study run uses" in other.stderr
        log.append(result_of(1))
    with ResultLog(tmp_path) as log:
        assert len(log.results) == 2


def test_result_log_full_disk_removes_the_partial_line(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with ResultLog(tmp_path) as log:
        log.append(result_of(0))
        size = (tmp_path / ROWS).stat().st_size
        with full_disk(size + 20), pytest.raises(StorageError, match="make room and run again"):
            log.append(result_of(1))
        assert (tmp_path / ROWS).stat().st_size == size
        log.append(result_of(1))
    assert len(read_results(tmp_path)) == 2


def test_result_log_impossible_folder_raises_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        ResultLog(tmp_path / "file" / "study")


def test_pending_tasks_returns_tasks_without_result() -> None:
    results = {result.task: result for result in (result_of(0), result_of(1, failed=True))}
    tasks = [task_of(number) for number in (0, 1, 2, 2, 1)]
    assert [task.seed for task in pending_tasks(tasks, results, retry_failed=False)] == [2]
    assert [task.seed for task in pending_tasks(tasks, results, retry_failed=True)] == [1, 2]


def record_of(plan: StudyPlan) -> StudyRecord:
    data = DataMetadata(name="reviews", fingerprint="d", size=10, n_classes=2)
    bodies = {plan.bodies[0].name: BodyMetadata(fingerprint="b", dimension=16)}
    tasks = expand(plan, data, bodies)
    draws = tuple(
        SplitRecord(per_label=20, validation_fraction=0.25, seed=seed, not_tested=(1, 4, 9)) for seed in plan.seeds
    )
    return StudyRecord.from_tasks(
        plan, tasks, command="ketfit", versions={"ketfit": "1"}, data=data, bodies=bodies, draws=draws
    )


def test_study_record_round_trip_is_equal(tmp_path: Path, plan: StudyPlan) -> None:
    record = record_of(plan)
    record.write(tmp_path)
    assert StudyRecord.read(tmp_path) == record


def test_study_record_read_empty_folder_raises_study_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds no study: it has no study\.json"):
        StudyRecord.read(tmp_path)


def test_study_record_read_damaged_file_raises_study_error(tmp_path: Path, plan: StudyPlan) -> None:
    record_of(plan).write(tmp_path)
    table = json.loads((tmp_path / "study.json").read_text())
    for key in table:
        for value in (None, 3, "x", [], {}, [3]):
            if (key == "tasks" and value in ([], {})) or (key in ("versions", "bodies") and value == {}):
                continue
            if key == "command" and value == "x":
                continue
            (tmp_path / "study.json").write_text(json.dumps({**table, key: value}))
            with pytest.raises(KetFitError, match=r"study\.json is damaged"):
                StudyRecord.read(tmp_path)
    del table["draws"]
    (tmp_path / "study.json").write_text(json.dumps(table))
    with pytest.raises(StudyError, match="is damaged"):
        StudyRecord.read(tmp_path)
    (tmp_path / "study.json").write_text("[")
    with pytest.raises(StudyError, match="is damaged"):
        StudyRecord.read(tmp_path)


def test_study_record_test_positions_are_all_not_held_back(plan: StudyPlan) -> None:
    record = record_of(plan)
    np.testing.assert_array_equal(record.test_positions(record.draws[0]), [0, 2, 3, 5, 6, 7, 8])
    nothing = record.draws[0].updated(not_tested=())
    np.testing.assert_array_equal(record.test_positions(nothing), np.arange(10))
    assert record.test_positions(nothing).dtype == np.int64


def test_split_record_from_split_has_all_but_test_positions(sentences: Path) -> None:
    dataset = load_dataset(str(sentences))
    dataset = replace(
        dataset, texts=(*dataset.texts, *dataset.texts[:30]), labels=(*dataset.labels, *dataset.labels[:30])
    )
    split = few_shot_split(dataset, 20, 0.25, 3)
    record = SplitRecord.from_split((20, 0.25, 3), split)
    assert record.key == (20, 0.25, 3) and split.excluded.size > 0
    assert record.not_tested == tuple(sorted(set(range(150)) - set(split.test.tolist())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"not_tested": [1, 10]}, "not_tested of seed 0 has 10; positions go from 0 to 9"),
        ({"not_tested": [-1, 3]}, "greater than or equal to 0"),
        ({"not_tested": [3, 1]}, "must be sorted, each position once"),
        ({"not_tested": [3, 3]}, "must be sorted, each position once"),
        ({"not_tested": [1.5]}, "valid integer"),
        ({"not_tested": [True]}, "valid integer"),
        ({"not_tested": "123"}, "valid tuple"),
        ({"not_tested": {}}, "valid tuple"),
        ({"not_tested": None}, "valid tuple"),
        ({"per_label": 0}, "greater than or equal to 1"),
        ({"per_label": 21}, "draws has no split of 20 sentences per label with seed 0"),
        ({"validation_fraction": 0.2}, "draws has no split of 20 sentences per label with seed 0"),
        ({"validation_fraction": "0.25"}, "valid number"),
        ({"seed": 1}, "draws holds a split twice"),
        ({"seed": 2}, "draws has no split of 20 sentences per label with seed 0"),
        ({"test": [1]}, "SplitRecord has no setting 'test'"),
    ],
)
def test_study_record_read_damaged_split_is_named_in_the_error(
    tmp_path: Path, plan: StudyPlan, change: dict[str, Any], message: str
) -> None:
    record_of(plan).write(tmp_path)
    table = json.loads((tmp_path / "study.json").read_text())
    table["draws"][0].update(change)
    (tmp_path / "study.json").write_text(json.dumps(table))
    with pytest.raises(StudyError, match=r"study\.json is damaged") as caught:
        StudyRecord.read(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("sizes", [{"per_label": 20, "test_fraction": 0.5}, {"per_label": None}])
def test_split_record_needs_one_size(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="seed 3 needs either per_label or test_fraction"):
        SplitRecord(validation_fraction=0.25, seed=3, not_tested=(0, 1), **sizes)
