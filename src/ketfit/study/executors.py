"""Executors of tasks: processes of this machine (joblib) or a cluster (Ray). The results are the same."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import joblib
import psutil
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray

from ketfit.errors import ClusterError, StudyError
from ketfit.ray_cluster import connected

_log = logging.getLogger(__name__)

Arrays = tuple[NDArray[Any], ...]
Job = tuple[dict[str, Any], Arrays]
Result = dict[str, Any]
Work = Callable[..., Result]

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
    """Executor with a Ray cluster. Ray runs the tasks of a dead worker or node again, at most three times.

    Args:
        address: Address of the cluster, as ``ray.init`` takes it; None starts Ray on this machine for the run.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run all jobs; see `Executor`."""
        with _connected(self.address) as ray:
            remote = ray.remote(work).options(num_cpus=1, max_retries=3)
            window = max(8, 4 * int(ray.cluster_resources().get("CPU", 1)))
            stored: dict[int, Any] = {}
            pending: dict[Any, int] = {}
            waiting = iter(enumerate(jobs))
            while True:
                while len(pending) < window and (entry := next(waiting, None)) is not None:
                    index, (config, arrays) = entry
                    for array in arrays:
                        if id(array) not in stored:
                            stored[id(array)] = ray.put(array)
                    pending[remote.remote(config, *(stored[id(array)] for array in arrays))] = index
                if not pending:
                    return
                done, _ = ray.wait(list(pending), num_returns=1)
                for reference in done:
                    yield pending.pop(reference), _result(ray, reference)


def _result(ray: Any, reference: Any) -> Result:
    try:
        result: Result = ray.get(reference)
    except ray.exceptions.RayError as error:  # errors of the task itself are results; this is a lost task
        return {"error": {"type": type(error).__name__, "message": str(error).partition("\n")[0]}}
    return result


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, see `connected`; raise StudyError if it cannot be reached."""
    with ExitStack() as stack:
        try:
            ray = stack.enter_context(connected(address))
        except ClusterError as error:
            raise StudyError(str(error)) from error
        yield ray
