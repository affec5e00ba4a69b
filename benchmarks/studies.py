"""Measure the overhead of a study: tasks without work through the runner, and the pace of a finished study."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import typer

from ketfit.study.executors import Arrays, LocalExecutor
from ketfit.study.runner import run_tasks
from ketfit.study.store import ResultLog, StudyRecord, read_results
from ketfit.study.task import Task

SHAPE = (9613, 768)  # SST-2 and all-mpnet-base-v2
PARTS = (435, 77, 9101)
ROOT = Path(__file__).resolve().parent.parent


def main(
    tasks: Annotated[int, typer.Option(help="Tasks of no work.")] = 5000,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    repeats: Annotated[int, typer.Option(help="Runs of each.")] = 3,
    study: Annotated[Path, typer.Option(help="A study that was run.")] = ROOT / "studies/results/paper/screening",
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print tasks a second with and without the runner around joblib, and how long the study took."""
    through, bare = [], []
    for _ in range(repeats):  # in turn, so that a slow minute of the machine is both's
        through.append(tasks / seconds_of_runner(tasks, workers))
        bare.append(tasks / seconds_of_joblib(tasks, workers))
    report = {
        "command": f"python benchmarks/studies.py --tasks {tasks} --workers {workers} --repeats {repeats}",
        "tasks_per_second": {"runner": round(max(through)), "joblib_alone": round(max(bare))},
        "share_of_joblib": round(statistics.median(a / b for a, b in zip(through, bare, strict=True)), 3),
        "study": pace(study),
    }
    print(json.dumps(report, indent=2))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


def no_work(config: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
    """A row as a real task has one, at once."""
    return {"result": {"test_accuracy": 0.5, "correct": "A" * 1518}, "timing": {"fit": 0.0}}


def material() -> Arrays:
    """Arrays of the sizes that a task is given."""
    return np.ones(SHAPE, np.float32), np.zeros(SHAPE[0], np.int64), *(np.arange(size) for size in PARTS)


def seconds_of_runner(count: int, workers: int) -> float:
    """Rows on disk, from the first task to the last."""
    work = [Task.from_config({"head": {}, "seed": number}, "head", "body", {}) for number in range(count)]
    arrays = material()
    with tempfile.TemporaryDirectory() as folder, ResultLog(Path(folder)) as rows:
        start = time.perf_counter()
        run_tasks(rows, LocalExecutor(workers), [(task, arrays) for task in work], progress=False, work=no_work)
        return time.perf_counter() - start


def seconds_of_joblib(count: int, workers: int) -> float:
    """The same calls by joblib alone, results dropped."""
    arrays = material()
    parallel = joblib.Parallel(workers, return_as="generator_unordered", max_nbytes="64K")
    start = time.perf_counter()
    for _ in parallel(joblib.delayed(no_work)({"seed": number}, *arrays) for number in range(count)):
        pass
    return time.perf_counter() - start


def pace(folder: Path) -> dict[str, Any]:
    """Tasks, seconds from the first row to the last, and the mean seconds of a task on its one thread."""
    record, rows = StudyRecord.read(folder), read_results(folder)
    finished = sorted(datetime.fromisoformat(row.run["finished"]) for row in rows.values())
    spent = [row.run["seconds"]["all_tries"] + row.run["seconds"]["test"] for row in rows.values() if row.result]
    return {
        "name": record.plan.name,
        "command": record.command,
        "tasks": len(rows),
        "seconds_from_first_to_last_row": (finished[-1] - finished[0]).total_seconds(),
        "mean_seconds_of_a_task": round(statistics.mean(spent), 2),
    }


if __name__ == "__main__":
    typer.run(main)
