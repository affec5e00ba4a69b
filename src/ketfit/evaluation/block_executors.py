"""Executors of the blocks of a prediction: this process, or actors of a Ray cluster. The predictions are the same."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch

import ketfit
from ketfit.errors import ClusterError
from ketfit.evaluation.block_predictor import BlockPredictor, BlockTask, PredictedBlock
from ketfit.ray_cluster import MAX_RETRIES, START_TIMEOUT_S, connected, first_line

_log = logging.getLogger(__name__)

BLOCKS_PER_ACTOR = 2
"""Blocks in flight per actor: one is predicted while the next one is on its way."""

RESIZE_S = 5.0
"""Seconds between two looks at the size of the cluster."""

Predicted = Generator[tuple[BlockTask, PredictedBlock], None, None]


class BlockExecutor(Protocol):
    """Interface of an executor of blocks."""

    def run(self, predictor: BlockPredictor, tasks: Iterable[BlockTask]) -> Predicted:
        """Predict blocks, read a few at a time, and yield each with its predictions as it finishes, in any order."""


class LocalBlockExecutor:
    """Executor in this process, one block after the other."""

    def run(self, predictor: BlockPredictor, tasks: Iterable[BlockTask]) -> Predicted:
        """Predict all blocks; see `BlockExecutor`."""
        for task in tasks:
            yield task, predictor.predict_block(task)


class RayBlockExecutor:
    """Executor with actors of a Ray cluster that hold the model: one per CPU, or one per GPU if the body is on a GPU.

    The blocks of a dead actor or node are predicted by others, each block at most three times again. Actors are
    started for CPUs and GPUs that join the cluster later.

    Args:
        address: Address of the cluster, as ``ray.init`` takes it; None starts Ray on this machine for the run.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def run(self, predictor: BlockPredictor, tasks: Iterable[BlockTask]) -> Predicted:
        """Predict all blocks; see `BlockExecutor`.

        Raises:
            ClusterError: The cluster cannot be reached, has no free worker, or a block was lost too often.
            MissingExtraError: Ray is not installed.
        """
        source = iter(tasks)
        for first in source:  # without a block, no cluster is needed
            with connected(self.address) as ray:
                yield from _ActorPool(ray, predictor).run(chain([first], source))


class PredictionActor:
    """Actor that holds the model; `load` is called before the first block."""

    def __init__(self, stored: list[Any]) -> None:
        self.stored = stored  # in a list, because Ray would load it before the constructor and hide its errors
        self.predictor: BlockPredictor

    def load(self, version: str, device: str) -> None:
        """Load the model.

        Raises:
            ClusterError: This node has another version of KetFit, or lacks the device.
            BodyError: The body is not on this node.
        """
        import ray

        if ketfit.__version__ != version:
            raise ClusterError(
                f"{socket.gethostname()} has KetFit {ketfit.__version__}, and the driver has {version}; install the "
                "same version on every node"
            )
        torch.set_num_threads(1)
        self.predictor = ray.get(self.stored[0])
        found = self.predictor.body.transformer.device.type
        if found != device:
            raise ClusterError(
                f"the body is on the device {device!r} of the driver, and {socket.gethostname()} loaded it on "
                f"{found!r}; load the classifier with device='cpu' or 'cuda'"
            )

    def predict_block(self, task: BlockTask) -> PredictedBlock:
        """Return the predictions of a block."""
        return self.predictor.predict_block(task)


@dataclass(eq=False)
class _Worker:
    """An actor and the number of its blocks in flight."""

    actor: Any
    blocks: int = 0


class _ActorPool:
    """Actors of a cluster, and the blocks in flight.

    Ray's own restarts are off: a restarted actor may wait for a CPU for ever, and its blocks with it. Here a block is
    sent only to an actor that has loaded the model, and the blocks of a dead one go to the others.
    """

    def __init__(self, ray: Any, predictor: BlockPredictor) -> None:
        self.ray = ray
        self.device = predictor.body.transformer.device.type
        self.resource = "CPU" if self.device == "cpu" else "GPU"
        self.stored = ray.put(predictor)
        resources = {"num_cpus": 1, "num_gpus": 0 if self.device == "cpu" else 1}
        self.actor = ray.remote(PredictionActor).options(max_restarts=0, **resources)
        self.starting: dict[Any, _Worker] = {}
        self.ready: list[_Worker] = []
        self.pending: dict[Any, tuple[_Worker, BlockTask]] = {}
        self.lost: deque[BlockTask] = deque()
        self.losses: Counter[BlockTask] = Counter()
        self.failed_starts = 0
        self.next_resize = 0.0

    def run(self, tasks: Iterator[BlockTask]) -> Predicted:
        """Predict all blocks."""
        while True:
            self._resize()
            self._submit(tasks)
            if not self.pending and self.ready:
                return
            timeout = RESIZE_S if self.ready else START_TIMEOUT_S
            references = [*self.pending, *self.starting]
            done, _ = self.ray.wait(references, num_returns=1, timeout=timeout, fetch_local=False)
            if not done and not self.ready:
                raise ClusterError(
                    f"no actor could be started for {START_TIMEOUT_S:.0f} s, because no {self.resource} of the cluster "
                    "is free; add nodes or end other work, and run again: the finished parts are kept"
                )
            for reference in done:
                if reference in self.starting:
                    self._admit(reference)
                elif (predicted := self._collect(reference)) is not None:
                    yield predicted

    def _resize(self) -> None:
        """Start an actor for each CPU or GPU of the cluster that has none, at once if no actor is left."""
        if (self.ready or self.starting) and time.monotonic() < self.next_resize:
            return
        self.next_resize = time.monotonic() + RESIZE_S
        size = int(self.ray.cluster_resources().get(self.resource, 0))
        for _ in range(max(size, 1) - len(self.ready) - len(self.starting)):
            actor = self.actor.remote([self.stored])
            self.starting[actor.load.remote(ketfit.__version__, self.device)] = _Worker(actor)

    def _submit(self, tasks: Iterator[BlockTask]) -> None:
        """Send blocks to the actors until each has enough of them; lost ones first."""
        while self.ready:
            worker = min(self.ready, key=lambda worker: worker.blocks)
            task = None
            if worker.blocks < BLOCKS_PER_ACTOR:
                task = self.lost.popleft() if self.lost else next(tasks, None)
            if task is None:
                return
            worker.blocks += 1
            self.pending[worker.actor.predict_block.remote(task)] = worker, task

    def _admit(self, reference: Any) -> None:
        """Admit an actor that has loaded the model."""
        worker = self.starting.pop(reference)
        try:
            self._get(reference)
        except self.ray.exceptions.RayError as error:
            self.failed_starts += 1
            if self.failed_starts > MAX_RETRIES:
                message = " ".join(str(error).split())
                raise ClusterError(
                    f"actors died {self.failed_starts} times in a row while they started: {message}"
                ) from error
            _log.warning("an actor died while it started: %s", first_line(error))
            return
        self.failed_starts = 0
        self.ready.append(worker)

    def _collect(self, reference: Any) -> tuple[BlockTask, PredictedBlock] | None:
        """Return a finished block, or queue it again if it was lost."""
        worker, task = self.pending.pop(reference)
        worker.blocks -= 1
        try:
            return task, self._get(reference)
        except self.ray.exceptions.RayError as error:
            if isinstance(error, self.ray.exceptions.RayActorError) and worker in self.ready:
                self.ready.remove(worker)
            self.losses[task] += 1
            if self.losses[task] > MAX_RETRIES:
                raise ClusterError(
                    f"{task.name} were lost {self.losses[task]} times, because the worker or its node died: "
                    f"{first_line(error)}; free memory or add nodes, and run again: the finished parts are kept"
                ) from error
            _log.warning("%s were lost and are predicted again: %s", task.name, first_line(error))
            self.lost.append(task)
            return None

    def _get(self, reference: Any) -> Any:
        """Return a result; raise the error of an actor's method itself, and RayError if the result was lost."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
