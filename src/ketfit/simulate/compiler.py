"""Exclude functions from torch.compile that it cannot trace: the kernel takes the addresses of tensors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def compiler_disabled(function: Callable[P, T]) -> Callable[P, T]:
    """Return a version of `function` that torch.compile does not trace: it breaks the graph and calls the function.

    ``torch.compiler.disable`` imports torch._dynamo, which takes a second, so it is called only after torch.compile
    has imported that module.
    """
    disabled: Callable[P, T] | None = None

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*args, **kwargs)

    return wrapper
