"""Torch devices: those of this machine, and that of an unpickled object."""

from __future__ import annotations

import warnings

import torch

from ketfit.errors import ConfigError


def _device_fault(name: str) -> str:
    """Return why this machine cannot use a torch device; "" if it can."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def check_device(name: str) -> None:
    """Check that this machine has a torch device.

    Raises:
        ConfigError: It has not, or there is no such device.
    """
    if reason := _device_fault(name):
        raise ConfigError(f"device={name!r} cannot be used here ({reason}); use 'cpu', or another device of torch")


def available_device(name: str) -> str:
    """Return `name` if this machine has that torch device; else warn and return "cpu"."""
    if reason := _device_fault(name):
        warnings.warn(
            f"This was pickled on the device {name!r}, which cannot be used here ({reason}); it runs on the CPU.",
            stacklevel=3,
        )
        return "cpu"
    return name
