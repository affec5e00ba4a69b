"""Measure the memory that this process can still allocate within the limits of machine, container and process."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

ALWAYS_AVAILABLE = 2**26
"""Bytes that are not worth a question: asking the system takes as long as a small circuit."""

PROC = Path("/proc/self")

# Files of a control group: limit, use, and the entry of memory.stat that the kernel gives back before it kills.
_GROUP_FILES = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_memory() -> int:
    """Return the number of bytes that this process can allocate without being refused or killed.

    The least of what is free on the machine, what is left to every control group that the process is in (version 1 and
    2, so also a container's or a batch system's limit), and what is left below the process's own limits of address
    space and data (``ulimit -v`` and ``-d``). On systems without control groups or such limits, the machine's free
    memory alone.
    """
    left = [psutil.virtual_memory().available, *_left_in_groups(), *_left_below_limits()]
    return max(0, int(min(left)))


def memory_shortage(need: float, available: Callable[[], int] = available_memory) -> int | None:
    """Return the available bytes if they are fewer than `need`, and None if they suffice.

    Args:
        need: Bytes that are about to be allocated; up to `ALWAYS_AVAILABLE` nothing is asked.
        available: Returns the available bytes; for the memory of another device.
    """
    if need <= ALWAYS_AVAILABLE or need <= (left := available()):
        return None
    return left


def _left_in_groups() -> Iterator[int]:
    """Yield the bytes left to each control group from this process's own up to the mounted root."""
    for kind, root, mount, group in _groups():
        limit_file, use_file, reclaimable = _GROUP_FILES[kind]
        # Inside a container, the path may be that of the host, which is not mounted here: then the root is what counts.
        inside = os.path.relpath(group, root)
        folder = mount if inside.startswith("..") else Path(os.path.normpath(mount / inside))
        for level in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):  # the root has no limit file, and "max" is no number
                limit = int((level / limit_file).read_text())
                cached = re.search(rf"^{reclaimable} (\d+)$", (level / "memory.stat").read_text(), re.MULTILINE)
                yield limit - int((level / use_file).read_text()) + (int(cached[1]) if cached else 0)
            if level == mount:
                break


def _groups() -> Iterator[tuple[str, str, Path, str]]:
    """Yield type of file system, its root, mount point, and this process's path of each hierarchy with memory."""
    try:
        mounts = (PROC / "mountinfo").read_text().splitlines()
        paths = [line.split(":", 2) for line in (PROC / "cgroup").read_text().splitlines()]
    except OSError:  # not Linux
        return
    own = {name: path for _, names, path in paths for name in names.split(",")}
    for line in mounts:
        fields, _, details = (part.split() for part in line.partition(" - "))
        kind, options = details[0], details[-1].split(",")
        name = {"cgroup2": "", "cgroup": "memory"}.get(kind)
        if name in own and (kind == "cgroup2" or "memory" in options):
            mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])  # as the kernel writes spaces
            yield kind, fields[3], Path(mount), own[name]


def _left_below_limits() -> Iterator[int]:
    """Yield the bytes left below the limits of address space and of data."""
    if resource is None:
        return
    for limit, used in ((resource.RLIMIT_AS, "vms"), (resource.RLIMIT_DATA, "data")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - getattr(psutil.Process().memory_info(), used, 0)
