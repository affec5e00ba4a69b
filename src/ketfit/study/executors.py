"""Who runs the tasks: processes of this machine (joblib), or a cluster (Ray). The results are the same."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import joblib
import psutil
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray

from ketfit.errors import MissingExtraError, StudyError

_log = logging.getLogger(__name__)

Arrays = tuple[NDArray[Any], ...]
Job = tuple[dict[str, Any], Arrays]
Result = dict[str, Any]
Work = Callable[..., Result]

REACH_SECONDS = 10.0

MAX_DEATHS = 3
"""Times in a row that workers may die with no result between, before a study stops."""


class Executor(Protocol):
    """Runs ``work(config, *arrays)`` for each job and yields the job's place and the result, as they come."""

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run all jobs.

        Raises:
            StudyError: the workers cannot be had, or keep dying.
        """


class LocalExecutor:
    """Processes of this machine.

    A worker that is killed takes the tasks in flight with it. They are begun again, which is said on stderr: tasks cost
    nothing but time, and give the same result.

    Args:
        workers: How many; None is one for each core. One needs no process beside the driver.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or joblib.cpu_count()

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
        """Run all jobs; see `Executor`."""
        left, deaths = dict(enumerate(jobs)), 0
        while left:
            before = len(left)
            death = yield from self._until_a_death(work, left)
            if death is None:
                return
            deaths = deaths + 1 if len(left) == before else 1
            if deaths > MAX_DEATHS:
                raise StudyError(
                    f"workers died {deaths} times in a row, killed or out of memory; the rows so far are safe: "
                    "free memory or use fewer --workers, and run again"
                ) from death
            _log.warning("a worker died, killed or out of memory; going on with the %d tasks that are left", len(left))

    def _until_a_death(self, work: Work, left: dict[int, Job]) -> Generator[tuple[int, Result], None, Exception | None]:
        """Yield results and take their jobs off; the error if a worker died meanwhile."""
        try:
            for place, result in self._results(work, left):
                del left[place]
                yield place, result
        except TerminatedWorkerError as error:
            death: Exception = error
            return death
        return None

    def _results(self, work: Work, jobs: dict[int, Job]) -> Iterator[tuple[int, Result]]:
        # Arrays of more than 64 KB are put in shared memory once, not sent with every task.
        with joblib.parallel_config(
            "loky", inner_max_num_threads=1, initializer=_exit_with_parent, initargs=(os.getpid(),)
        ):
            parallel = joblib.Parallel(self.workers, return_as="generator_unordered", max_nbytes="64K")
            results = parallel(joblib.delayed(_numbered)(work, place, job) for place, job in list(jobs.items()))
            try:
                for place, result in results:  # noqa: UP028 - yield from would close them too early
                    yield place, result
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # joblib's, of jobs that nobody waits for any more
                    results.close()


def _exit_with_parent(driver: int) -> None:
    """End this worker when its driver is gone: nobody would take its results."""

    def watch() -> None:
        """Wait for the driver's end, from a thread that the work does not see."""
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(driver).wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _numbered(work: Work, place: int, job: Job) -> tuple[int, Result]:
    config, arrays = job
    return place, work(config, *arrays)


class RayExecutor:
    """A Ray cluster. Tasks that a dead worker or node had are begun again elsewhere by Ray, three times at most.

    Args:
        address: Of the cluster, as ``ray.init`` takes it; None starts Ray on this machine for the while.
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
                    place, (config, arrays) = entry
                    for array in arrays:
                        if id(array) not in stored:
                            stored[id(array)] = ray.put(array)
                    pending[remote.remote(config, *(stored[id(array)] for array in arrays))] = place
                if not pending:
                    return
                done, _ = ray.wait(list(pending), num_returns=1)
                for reference in done:
                    yield pending.pop(reference), _fetch(ray, reference)


def _fetch(ray: Any, reference: Any) -> Result:
    try:
        result: Result = ray.get(reference)
    except ray.exceptions.RayError as error:  # the task's own errors are results; this is Ray's word for a lost task
        return {"error": {"type": type(error).__name__, "message": str(error).partition("\n")[0]}}
    return result


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray", "'ketfit[ray]'") from error
    own = not ray.is_initialized()
    if own:
        try:
            _check_reachable(address)
            ray.init(address or "local", include_dashboard=False if address is None else None, log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise StudyError(
                f"cannot reach the Ray cluster {address}: {error}; start it, or leave --address out"
            ) from error
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise if nothing listens at a cluster's HOST:PORT; Ray itself would go on trying for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()


def make_executor(engine: str, workers: int | None, address: str | None) -> Executor:
    """The executor of that name.

    Raises:
        StudyError: the options do not belong together.
    """
    if engine == "ray":
        if workers is not None:
            raise StudyError("--workers is for the local engine; Ray uses the cluster's CPUs")
        return RayExecutor(address)
    if address is not None:
        raise StudyError("--address is for --engine ray")
    return LocalExecutor(workers)
