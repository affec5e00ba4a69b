"""Keep torch.compile out of what it cannot trace: the kernel takes the addresses of tensors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def compiler_disabled(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` as one that torch.compile calls as it is, between two graphs.

    ``torch.compiler.disable`` imports torch._dynamo, which takes a second; it is asked for only once a program has
    imported that itself, as torch.compile does.
    """
    disabled: Callable[P, T] | None = None

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*args, **kwargs)

    return called
