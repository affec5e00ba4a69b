"""Connection to a Ray cluster, or to one that is started on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ketfit.errors import ClusterError, MissingExtraError

CONNECT_TIMEOUT_S = 10.0

START_TIMEOUT_S = 600.0
"""Seconds without any place in the cluster for the work after which it stops."""

MAX_RETRIES = 3
"""Largest number of times that work is run again because its worker or node died."""


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster and return the module ``ray``; leave an existing connection of this process open.

    Args:
        address: Address of the cluster, as ``ray.init`` takes it; None starts Ray on this machine for the context.

    Raises:
        ClusterError: The cluster cannot be reached or started.
        MissingExtraError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray", "'ketfit[ray]'") from error
    started = not ray.is_initialized()
    if started:
        try:
            _check_reachable(address)
            ray.init(address or "local", include_dashboard=False if address is None else None, log_to_driver=False)
        except Exception as error:  # a node that does not start in time is a plain Exception of Ray
            if address is None:
                raise ClusterError(
                    f"cannot start Ray on this machine: {error}; free memory and cores, and run again"
                ) from error
            raise ClusterError(
                f"cannot reach the Ray cluster {address}: {error}; start it, or leave --address out"
            ) from error
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise OSError if nothing listens at a cluster's HOST:PORT; Ray itself would retry for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error of Ray; the others are a traceback."""
    return str(error).partition("\n")[0]
