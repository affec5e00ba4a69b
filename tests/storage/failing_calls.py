"""A call of the operating system that fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The calls of the system that a save is made of, in one list, so that the k-th of them all can be made to fail.
STEPS = (
    "os.fsync",
    "os.open",
    "pathlib.Path.open",
    "pathlib.Path.rename",
    "pathlib.Path.replace",
    "pathlib.Path.mkdir",
)


def fail_at(patch: pytest.MonkeyPatch, step: int, fault: BaseException) -> list[str]:
    """Make the `step`-th call of any of `STEPS` raise `fault`; returns the names of the calls made, growing."""
    calls: list[str] = []

    def faulty(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) == step + 1:
                raise fault
            return plain(*args, **named)

        return call

    for name in STEPS:
        owner = Path if name.startswith("pathlib") else os
        attribute = name.rpartition(".")[2]
        patch.setattr(owner, attribute, faulty(name, getattr(owner, attribute)))
    return calls
