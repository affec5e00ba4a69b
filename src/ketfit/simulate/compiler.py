"""Keep torch.compile out of what it cannot trace: the kernel takes the addresses of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def compiler_disabled(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` as one that torch.compile calls as it is, between two graphs.

    The decorator of torch's own optimisers: ``torch.compiler.disable`` would import torch._dynamo, which takes a
    second, where the function is defined, and this one imports it with the first call.
    """
    disabled: Callable[P, T] = getattr(torch, "_disable_dynamo", torch.compiler.disable)(function)
    return disabled
