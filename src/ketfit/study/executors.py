"""Executors of tasks: processes of this machine (joblib) or a cluster (Ray). The results are the same."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import joblib
import psutil
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ketfit.errors import ClusterError, StudyError
from ketfit.ray_cluster import MAX_RETRIES, START_TIMEOUT_S, connected, first_line

_log = logging.getLogger(__name__)

Arrays = tuple[Any, ...]
"""Arrays and other values that several jobs share; equal ones are the same object."""

Job = tuple[dict[str, Any], Arrays]
Result = dict[str, Any]
Work = Callable[..., Result]

CHECK_S = 10.0
"""Seconds without a result after which the nodes of a cluster are looked at."""

MAX_DEATHS = 3
"""Largest number of consecutive worker deaths without a result before a study stops."""


class Executor(Protocol):
    """Interface of an executor of tasks."""

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run ``work(config, *arrays)`` for each job and yield pairs of job index and result as they finish.

        Raises:
            StudyError: The workers cannot be started, or keep dying.
        """


class LocalExecutor:
    """Executor with processes of this machine.

    The tasks in flight of a killed worker start again, with a warning; their results are the same.

    Args:
        workers: Number of processes; None is one per core. One worker is the driver process itself.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or joblib.cpu_count()

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run all jobs; see `Executor`."""
        remaining, deaths = dict(enumerate(jobs)), 0
        while remaining:
            before = len(remaining)
            try:
                for index, result in self._results(work, remaining):
                    del remaining[index]
                    yield index, result
            except TerminatedWorkerError as error:
                deaths = deaths + 1 if len(remaining) == before else 1
                if deaths > MAX_DEATHS:
                    raise StudyError(
                        f"workers died {deaths} times in a row, killed or out of memory; the results so far are saved: "
                        "free memory or use fewer --workers, and run again"
                    ) from error
                _log.warning("a worker died, killed or out of memory; %d tasks remain", len(remaining))

    def _results(self, work: Work, jobs: dict[int, Job]) -> Iterator[tuple[int, Result]]:
        # Arrays above 64 KB are put in shared memory once instead of being sent with every task.
        with joblib.parallel_config(
            "loky", inner_max_num_threads=1, initializer=_exit_with_parent, initargs=(os.getpid(),)
        ):
            parallel = joblib.Parallel(self.workers, return_as="generator_unordered", max_nbytes="64K")
            results = parallel(joblib.delayed(_with_index)(work, index, job) for index, job in list(jobs.items()))
            try:
                for index, result in results:  # noqa: UP028 - yield from would close them too early
                    yield index, result
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # joblib warns of abandoned jobs
                    results.close()


def _exit_with_parent(driver: int) -> None:
    """End this worker process when its driver process ends."""

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(driver).wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _with_index(work: Work, index: int, job: Job) -> tuple[int, Result]:
    config, arrays = job
    return index, work(config, *arrays)


class RayExecutor:
    """Executor with a Ray cluster. The tasks of a dead worker or node run again, each at most three times.

    Args:
        address: Address of the cluster, as ``ray.init`` takes it; None starts Ray on this machine for the run.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run all jobs, each on one CPU; see `Executor`."""
        with _connected(self.address) as ray:
            yield from _RemoteJobs(ray, work, _Resources(cpus=1, gpus=0)).run(jobs)

    def run_end_to_end(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run jobs that each train a body, with as many CPUs and threads as the driver has; see `Executor`.

        A node with fewer CPUs gives what it has, if none has more. If the cluster has GPUs, each job takes one, and the
        share of its node's CPUs at most.
        """
        with _connected(self.address) as ray:
            resources = _Resources.of_largest_node(ray)
            yield from _RemoteJobs(ray, partial(_run_with_threads, work, resources.cpus), resources).run(jobs)


def _run_with_threads(work: Work, threads: int, config: dict[str, Any], *arrays: Any) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return work(config, *arrays)
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Resources:
    """CPUs and GPUs of a job."""

    cpus: int
    gpus: int

    @classmethod
    def of_largest_node(cls, ray: Any) -> _Resources:
        """Return the resources of an end-to-end job."""
        nodes = _alive_nodes(ray)
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
        shares = [int(node.get("CPU", 0) // max(1, node.get("GPU", 0))) for node in nodes if node.get("GPU", 0) >= gpus]
        threads = torch.get_num_threads()
        cpus = max(1, min(threads, max(shares, default=threads)))
        if cpus < threads:
            _log.warning(
                "the driver has %d threads, and an end-to-end task gets the %d cores of a node; the last digits of "
                "results may differ from a run on this machine",
                threads,
                cpus,
            )
        return cls(cpus, gpus)

    def fit_on(self, ray: Any) -> bool:
        """Return True if a node that is alive has these resources."""
        return any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in _alive_nodes(ray))


def _alive_nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class _RemoteJobs:
    """Jobs in flight on a cluster.

    Ray's own retries are off: after a kill for want of memory it would retry for ever.
    """

    def __init__(self, ray: Any, work: Work, resources: _Resources) -> None:
        self.ray, self.resources = ray, resources
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
        self.remote = ray.remote(_call).options(max_retries=0, **options)
        self.work = ray.put(work)
        self.window = max(8, 4 * int(ray.cluster_resources().get("CPU", 1)))
        self.stored: dict[int, Any] = {}
        self.pending: dict[Any, int] = {}

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run all jobs; see `Executor`."""
        waiting, losses = deque(range(len(jobs))), Counter[int]()
        while waiting or self.pending:
            while waiting and len(self.pending) < self.window:
                index = waiting.popleft()
                self.pending[self._submit(*jobs[index])] = index
            for reference in self._wait():
                index = self.pending.pop(reference)
                try:
                    result = self.ray.get(reference)
                except self.ray.exceptions.RayTaskError as error:
                    result = {"error": {"type": type(error.cause).__name__, "message": str(error.cause)}}
                except self.ray.exceptions.RayError as error:
                    losses[index] += 1
                    if losses[index] <= MAX_RETRIES:
                        _log.warning("a task was lost and runs again: %s", first_line(error))
                        waiting.append(index)
                        continue
                    message = f"lost {losses[index]} times, because its worker or node died: {first_line(error)}"
                    result = {"error": {"type": type(error).__name__, "message": message}}
                yield index, result

    def _submit(self, config: dict[str, Any], arrays: Arrays) -> Any:
        for array in arrays:
            if id(array) not in self.stored:
                self.stored[id(array)] = self.ray.put(array)
        return self.remote.remote(self.work, config, *(self.stored[id(array)] for array in arrays))

    def _wait(self) -> list[Any]:
        """Return finished jobs; raise StudyError if no node could run one for a while."""
        since = time.monotonic()
        while True:
            done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=CHECK_S)
            if done:
                return list(done)
            if self.resources.fit_on(self.ray):
                since = time.monotonic()
            elif time.monotonic() - since > START_TIMEOUT_S:
                raise StudyError(
                    f"no node of the cluster has {self.resources.cpus} CPUs and {self.resources.gpus} GPUs, which a "
                    "task takes; the results so far are saved: add a node, and run again"
                )


def _call(work: Work, config: dict[str, Any], *arrays: Any) -> Result:
    return work(config, *arrays)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, see `connected`; raise StudyError if it cannot be reached."""
    with ExitStack() as stack:
        try:
            ray = stack.enter_context(connected(address))
        except ClusterError as error:
            raise StudyError(str(error)) from error
        yield ray
