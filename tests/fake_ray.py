"""A stand-in for the module ``ray``: tasks and actors in this process, which die and are lost as a test says."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class ObjectLostError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, eq=False)
class Stored:
    """A value in the object store."""

    content: bytes


@dataclass(eq=False)
class Reference:
    """A result; it is computed when it is asked for."""

    compute: Callable[[], Any]
    started: bool = True


@dataclass(eq=False)
class FakeRay:
    """The functions of ``ray`` that the executor calls.

    Attributes:
        cpus: CPUs of the cluster, all on one node.
        gpus: GPUs of that node.
        fault: Called with the number of the actor, 0 for a task, the method and its arguments; raises the error of Ray
            to deliver.
        sent: Actor, method and arguments of each call.
        options: The options of the tasks and actors.
    """

    cpus: int = 2
    gpus: int = 0
    fault: Callable[..., None] = lambda *_: None
    sent: list[tuple[int, str, tuple[Any, ...]]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    actors: int = 0
    in_flight: int = 0
    largest_in_flight: int = 0
    exceptions = SimpleNamespace(RayError=RayError, RayActorError=RayActorError, RayTaskError=RayTaskError)

    def put(self, value: Any) -> Stored:
        return Stored(pickle.dumps(value))

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus), "GPU": float(self.gpus)}

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": self.cluster_resources()},
            {"Alive": False, "Resources": {"CPU": 1000.0}},
        ]

    def remote(self, work: Any) -> Any:
        def with_options(**options: Any) -> Any:
            self.options.append(options)
            call = FakeActor if isinstance(work, type) else self._task
            return SimpleNamespace(remote=lambda *given: call(self, work, given))

        return SimpleNamespace(options=with_options)

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        """Return the latest reference of those that can start: results come in another order than they were asked."""
        able = [reference for reference in references if reference.started]
        return able[-1:], able[:-1]

    def get(self, reference: Stored | Reference) -> Any:
        return pickle.loads(reference.content) if isinstance(reference, Stored) else reference.compute()

    @staticmethod
    def _task(ray: FakeRay, work: Callable[..., Any], given: tuple[Any, ...]) -> Reference:
        values = tuple(ray.get(value) if isinstance(value, Stored) else value for value in given)
        ray.sent.append((0, work.__name__, values))

        def compute() -> Any:
            ray.fault(0, work.__name__, values)
            try:
                return work(*values)
            except Exception as error:
                raise RayTaskError(error) from error

        return Reference(compute, started=ray.cpus > 0)


class FakeActor:
    """An actor of `FakeRay`; those beyond the CPUs never start."""

    def __init__(self, ray: FakeRay, kind: type, given: tuple[Any, ...]) -> None:
        ray.actors += 1
        self.ray, self.number = ray, ray.actors
        self.object = kind(*given)
        self.dead = False

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *given: self._call(method, given))

    def _call(self, method: str, given: tuple[Any, ...]) -> Reference:
        ray = self.ray
        ray.sent.append((self.number, method, given))
        block = method != "load"
        ray.in_flight += block
        ray.largest_in_flight = max(ray.largest_in_flight, ray.in_flight)

        def compute() -> Any:
            ray.in_flight -= block
            if self.dead:
                raise RayActorError("the actor is dead")
            try:
                ray.fault(self.number, method, given)
            except RayActorError:
                self.dead = True
                raise
            try:
                return getattr(self.object, method)(*given)
            except Exception as error:
                raise RayTaskError(error) from error

        return Reference(compute, started=ray.cpus > 0)
