"""Ray clusters of this machine: the driver's overhead in predictions, and studies whose nodes are killed.

`predict`: the driver is the process that checks and reads the input, sends blocks to the actors, and writes the output.
Its CPU time is that of all its threads from the call of `predict_folder` to its return, with the connection to Ray and
without imports. `driver_to_actors` is this time relative to the CPU time of the actors inside `predict_block`; its
inverse is the number of actors that one driver keeps busy. `overhead` is the same without the CPU time that a local
run, with one thread, takes outside `predict_block` for the same input, because it checks, reads and writes as well.
Wall times depend on the other work of the machine; CPU times hardly do. The outputs of both runs must be equal.

`study`: empty tasks through the runner of studies, on nodes that are killed one after the other with all their
processes. No task runs on the head node, which is not killed. Lost: tasks without a row. Doubled: rows beyond the first
of each task. Both are counted in the lines of the file.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"  # as in an actor

import numpy as np
import psutil
import ray
import typer
from predict import DIMENSION, StubBody, write_repeated
from pyarrow import parquet
from ray.cluster_utils import Cluster

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.evaluation.batch_predict import predict_folder
from ketfit.evaluation.block_executors import BlockExecutor, LocalBlockExecutor, Predicted, RayBlockExecutor
from ketfit.evaluation.block_predictor import BlockPredictor, BlockTask
from ketfit.study.executors import RayExecutor
from ketfit.study.runner import run_tasks
from ketfit.study.store import ROWS, ResultLog
from ketfit.study.task import Task
from studies import material, no_work

app = typer.Typer(pretty_exceptions_enable=False)


class TimedPredictor:
    """A predictor that returns wall and CPU seconds with the predictions, and the process that took them."""

    def __init__(self, predictor: BlockPredictor) -> None:
        self.predictor, self.body = predictor, predictor.body

    def predict_block(self, task: BlockTask) -> Any:
        start = time.perf_counter(), time.process_time()
        predicted = self.predictor.predict_block(task)
        end = time.perf_counter(), time.process_time()
        times = {"process": os.getpid(), "start": start, "end": end}
        return SimpleNamespace(content=predicted.content, warning=predicted.warning, **times)


class TimedExecutor:
    """An executor that keeps the times of the blocks, and of its own process at some marks."""

    def __init__(self, executor: BlockExecutor) -> None:
        self.executor = executor
        self.blocks: list[Any] = []
        self.marks: dict[str, tuple[float, float]] = {}

    def mark(self, name: str) -> None:
        self.marks[name] = time.perf_counter(), time.process_time()

    def run(self, predictor: BlockPredictor, tasks: Iterable[BlockTask]) -> Predicted:
        self.mark("input checked")
        for task, predicted in self.executor.run(TimedPredictor(predictor), tasks):  # type: ignore[arg-type]
            if not self.blocks:
                self.mark("first block")
            self.blocks.append(predicted)
            yield task, predicted
            self.mark("last block")

    def predict(self, classifier: TextClassifier, source: Path, target: Path, sentences: int) -> None:
        """Predict a folder, and check that no row is lost."""
        self.mark("start")
        scored = predict_folder(classifier, source, target, executor=self)
        self.mark("return")
        rows = sum(parquet.read_metadata(path).num_rows for path in target.glob("*.parquet"))
        assert rows == scored.rows == sentences

    def seconds(self, start: str, end: str) -> tuple[float, float]:
        """Wall and CPU seconds of this process between two marks."""
        (wall, cpu), (wall_end, cpu_end) = self.marks[start], self.marks[end]
        return wall_end - wall, cpu_end - cpu

    def in_blocks(self, clock: int) -> float:
        """Wall (0) or CPU (1) seconds inside `predict_block`, of all processes."""
        return float(sum(block.end[clock] - block.start[clock] for block in self.blocks))


def between_blocks(blocks: list[Any]) -> float:
    """CPU seconds of the actors from their first block to their last, outside `predict_block`."""
    seconds = 0.0
    for process in {block.process for block in blocks}:
        own = [block for block in blocks if block.process == process]
        whole = max(block.end[1] for block in own) - min(block.start[1] for block in own)
        seconds += whole - sum(block.end[1] - block.start[1] for block in own)
    return seconds


@app.command()
def predict(
    sentences: Annotated[int, typer.Option(help="Sentences.")] = 1_000_000,
    shards: Annotated[int, typer.Option(help="Parquet files.")] = 4,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print the overhead of the driver of `ketfit predict --engine ray`, with a stub for the body."""
    data = load_dataset("rotten-tomatoes")
    load = psutil.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        for number in range(shards):
            count = sentences // shards + (number < sentences % shards)
            write_repeated(source / f"{number}.parquet", data.texts, count)
        classifier = stub_classifier(data)
        local, cluster = TimedExecutor(LocalBlockExecutor()), TimedExecutor(RayBlockExecutor())
        cluster.predict(classifier, source, target, sentences)
        local.predict(classifier, source, Path(folder, "local"), sentences)
        for path in source.iterdir():
            assert (target / path.name).read_bytes() == Path(folder, "local", path.name).read_bytes()
    wall, driver = cluster.seconds("start", "return")
    busy, work = cluster.in_blocks(0), cluster.in_blocks(1)
    actors = len({block.process for block in cluster.blocks})
    steady, _ = cluster.seconds("first block", "last block")
    local_others = local.seconds("start", "return")[1] - local.in_blocks(1)
    report = {
        "command": f"python benchmarks/cluster.py predict --sentences {sentences} --shards {shards}",
        **machine(load),
        "body": "stub, a hashed bag of words of 384 numbers",
        "head": "HeadConfig.recommended(384)",
        "sentences": sentences,
        "shards": shards,
        "blocks": len(cluster.blocks),
        "actors": actors,
        "cpu_seconds": {
            "driver": round(driver, 2),
            "local_run_outside_predict_block": round(local_others, 2),
            "actors_in_predict_block": round(work, 2),
            "actors_between_blocks": round(between_blocks(cluster.blocks), 2),
        },
        "overhead": round((driver - local_others) / work, 4),
        "driver_to_actors": round(driver / work, 4),
        "wall_seconds": {
            "all": round(wall, 1),
            "from_first_block_to_last": round(steady, 1),
            "actor_in_predict_block": round(busy / actors, 1),
        },
        "driver_phases_wall_and_cpu_seconds": {
            f"{start} to {end}": [round(value, 2) for value in cluster.seconds(start, end)]
            for start, end in pairwise(cluster.marks)
        },
        "equal_to_local_run": True,
    }
    publish(report, output)


def stub_classifier(data: Dataset) -> TextClassifier:
    """A fitted classifier with a stub for the body."""
    body = StubBody()
    head = QuantumHeadClassifier(HeadConfig.recommended(DIMENSION), TrainConfig(epochs=5))
    head.fit(body.encode(list(data.texts[::16])), np.array(data.labels[::16]))
    return TextClassifier.from_parts(body, head)  # type: ignore[arg-type]


def no_work_on_node(config: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
    """A row of no work that names its node."""
    done = no_work(config, *arrays)
    done["result"]["node"] = ray.get_runtime_context().get_node_id()
    return done


@app.command()
def study(
    tasks: Annotated[int, typer.Option(help="Tasks of no work.")] = 10_000,
    nodes: Annotated[int, typer.Option(help="Nodes with one CPU each, beside the head node.")] = 6,
    kills: Annotated[int, typer.Option(help="Nodes to kill, at equal distances in rows.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print the lost and doubled rows of empty tasks on a cluster whose nodes are killed."""
    load = psutil.getloadavg()
    work = [Task.from_config({"head": {}, "seed": number}, "head", "body", {}) for number in range(tasks)]
    lost_tasks = CountingHandler()
    logging.getLogger("ketfit.study.executors").addHandler(lost_tasks)
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    killed_at: list[int] = []
    try:
        started = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
        with tempfile.TemporaryDirectory() as folder, ResultLog(Path(folder)) as log:

            def kill() -> None:
                for number, node in enumerate(started[:kills], start=1):
                    while len(log.results) < number * tasks // (kills + 1):
                        time.sleep(0.002)
                    kill_processes(node)
                    killed_at.append(len(log.results))
                    cluster.remove_node(node, allow_graceful=False)

            killer = threading.Thread(target=kill, daemon=True)
            killer.start()
            arrays = material()
            start = time.perf_counter()
            jobs = [(task, arrays) for task in work]
            run_tasks(log, RayExecutor(cluster.address), jobs, progress=False, work=no_work_on_node)
            seconds = time.perf_counter() - start
            killed_before_the_end = [rows for rows in killed_at if rows < tasks]
            killer.join()
            rows = [json.loads(line) for line in Path(folder, ROWS).read_text().splitlines()]
    finally:
        cluster.shutdown()
    counts = Counter(row["task"] for row in rows)
    report = {
        "command": f"python benchmarks/cluster.py study --tasks {tasks} --nodes {nodes} --kills {kills}",
        **machine(load),
        "tasks": tasks,
        "nodes_beside_the_head": nodes,
        "nodes_that_ran_tasks": len({row["result"]["node"] for row in rows if row["result"]}),
        "killed_nodes": len(killed_before_the_end),
        "rows_at_each_kill": killed_before_the_end,
        "tasks_run_again": lost_tasks.count,
        "rows": len(rows),
        "failed": sum(row["error"] is not None for row in rows),
        "lost": sum(not counts[task.id] for task in work),
        "doubled": len(rows) - len(counts),
        "seconds": round(seconds, 1),
    }
    publish(report, output)
    if report["lost"] or report["doubled"] or report["failed"] or report["killed_nodes"] < kills:
        raise typer.Exit(1)


def kill_processes(node: Any) -> None:
    """Kill the raylet of a node and its workers at the same time, as a power failure does."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [*raylet.children(recursive=True), raylet]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class CountingHandler(logging.Handler):
    """A handler of the executor's warnings that counts the lost tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "was lost and runs again" in record.getMessage()


def machine(load: tuple[float, float, float]) -> dict[str, Any]:
    """The processor and its load before the run."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ray": ray.__version__,
        "load_average_before": [round(value, 1) for value in load],
    }


def publish(report: dict[str, Any], output: Path | None) -> None:
    print(json.dumps(report, indent=2))
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    app()
