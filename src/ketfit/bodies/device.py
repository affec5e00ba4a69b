"""The torch device of an unpickled object."""

from __future__ import annotations

import warnings

import torch


def available_device(name: str) -> str:
    """Return `name` if this machine has that torch device; else warn and return "cpu"."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"This was pickled on the device {name!r}, which cannot be used here ({reason}); it runs on the CPU.",
            stacklevel=3,
        )
        return "cpu"
    return name
