"""Compare KetFit with the limits of the machine, and measure how its costs grow.

The circuit is that of kernel.py unless a section says otherwise; a step is <Z_0> of a batch and its gradients.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from kernel import autograd_step, draw_numbers, earlier, ketfit_step, run, start_report, write_json
from peers.clock import measure
from peers.step import benchmark_circuit
from watch import watched_kernel

from ketfit import HeadConfig, QuantumHead, QuantumHeadClassifier, TrainConfig, expectation
from ketfit.circuit import Circuit, reuploading_circuit

MAX_STEPS = 1000
FLOPS = 10  # per amplitude and rotation, both passes: 3 forwards, and 3 + 3 + 1 for state, adjoint and slope backwards
MATRIX = 1024
WIDTHS = (*range(6, 15), 16, 18, 20)
GIB = 2**30
HEAD = HeadConfig(n_encoders=1, n_qubits=10, encoder_layers=2, main_layers=4, n_reuploads=1, connectivity=2)
TRAIN = TrainConfig(epochs=60, batch_size=32, patience=None)
PREDICTED = 9101

Section = Callable[[float], dict[str, Any]]

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    sections: Annotated[list[str] | None, typer.Option(help="Parts to run; repeat it for several.")] = None,
    seconds: Annotated[float, typer.Option(help="Counted steps of one point.")] = 2,
    output: Annotated[Path | None, typer.Option(help="JSON file; other sections that it has stay.")] = None,
) -> None:
    """Measure the chosen sections, all by default, and print them."""
    if context.invoked_subcommand is not None:
        return
    names, report = start_report("limits", "sections", SECTIONS, {"sections": sections, "seconds": seconds})
    report["sections"] = {} if output is None else earlier(output, report).get("sections", {})
    for name in names:
        found = {"command": f"python benchmarks/limits.py --sections {name} --seconds {seconds:g}"}
        found |= SECTIONS[name](seconds)
        report["sections"][name] = found
        print(json.dumps({name: found}, indent=2), flush=True)
        if output is not None:
            write_json(output, report)


def roofline(seconds: float) -> dict[str, Any]:
    """Floating-point rate of a step as a share of a matrix product's, for all threads and for one."""
    everything = torch.get_num_threads()
    rows = []
    for threads in sorted({everything, 1}, reverse=True):
        with thread_count(threads):
            part = [roofline_row(width, seconds) for width in WIDTHS]
        product = max(row["mm_gflops"] for row in part)
        for row in part:
            row["share_of_best_mm"] = round(row["gflops"] / product, 4)
            row["autograd_share_of_best_mm"] = round(row["autograd_gflops"] / product, 4)
        rows += part
    return {"flops_per_amplitude_and_rotation": FLOPS, "mm": f"float32 {MATRIX} x {MATRIX}", "rows": rows}


def roofline_row(width: int, seconds: float) -> dict[str, Any]:
    """A burst of matrix products, then steps; and the share of their time that the kernel takes."""
    product = mm_gflops(min(seconds, 0.5))
    circuit, batch = benchmark_circuit(width), 4 if width >= 20 else 8 if width > 16 else 32
    numbers = draw_numbers(circuit, batch)
    by_autograd = time_steps(autograd_step(circuit, *numbers), seconds)
    circuit = benchmark_circuit(width)  # whose plan is not made yet
    with watched_kernel() as watch:
        step = ketfit_step(circuit, *numbers)
        step()
        watch.seconds, started = 0.0, time.perf_counter()
        times = time_steps(step, seconds)
        inside = watch.seconds / (time.perf_counter() - started)
    rotations, run_rotations = (part.gate_counts()["ry"] for part in (circuit, circuit.light_cone((0,))))
    work = FLOPS * rotations * batch * 2**width / 1e6
    gflops = work / times["best"]
    sizes = {"qubits": width, "batch": batch, "rotations": rotations, "rotations_in_light_cone": run_rotations}
    return {
        "threads": torch.get_num_threads(),
        **sizes,
        "ms": times,
        "gflops": round(gflops, 2),
        "kernel_share_of_time": round(inside, 4),
        "mm_gflops": round(product, 2),
        "share_of_burst": round(gflops / product, 4),
        "autograd_ms": by_autograd,
        "autograd_gflops": round(work / by_autograd["best"], 2),
    }


def mm_gflops(seconds: float) -> float:
    """The best of a burst of matrix products."""
    first, second = torch.randn(2, MATRIX, MATRIX, generator=torch.Generator().manual_seed(0))
    out = torch.empty(MATRIX, MATRIX)
    best = time_steps(lambda: torch.mm(first, second, out=out), seconds)["best"]
    return float(2 * MATRIX**3 / best / 1e6)


def scaling(seconds: float) -> dict[str, Any]:
    """Exponents of the time of a step, by least squares in logarithms."""
    deep = [reuploading_circuit(12, 2, 2, layers, 2) for layers in (1, 2, 3, 4, 6, 8, 12, 16)]
    gates = [(sum(circuit.gate_counts().values()), circuit, 32) for circuit in deep]
    widths = [(2**width, benchmark_circuit(width), 8) for width in range(10, 21)]
    ten = benchmark_circuit(10)
    batches = [(batch, ten, batch) for batch in (32, 64, 128, 256, 512, 1024)]
    return {
        "gates": {"qubits": 12, "batch": 32, **fit_exponent(gates, seconds)},
        "amplitudes": {"qubits": "10 to 20", "batch": 8, **fit_exponent(widths, seconds)},
        "batch": {"qubits": 10, **fit_exponent(batches, seconds)},
    }


def fit_exponent(points: list[tuple[int, Circuit, int]], seconds: float) -> dict[str, Any]:
    """The slope of log time over log size, for sizes with their circuit and batch."""
    sizes = [size for size, _, _ in points]
    times = [time_steps(ketfit_step(one, *draw_numbers(one, batch)), seconds)["best"] for _, one, batch in points]
    x, y = np.log(sizes), np.log(times)
    slope, start = np.polyfit(x, y, 1)
    return {
        "exponent": round(float(slope), 4),
        "largest_factor_off_the_line": round(float(np.exp(np.abs(y - slope * x - start).max())), 4),
        "best_ms": dict(zip(map(str, sizes), times, strict=True)),
    }


def fit(seconds: float) -> dict[str, Any]:
    """Training a head: wall time against time inside the kernel, and where the rest goes."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(512, 768)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    classifier = QuantumHeadClassifier(head=HEAD, train=TRAIN, seed=0, validation_fraction=0.15)
    classifier.fit(x, y)  # imports and threads start here
    runs: list[tuple[float, float, int]] = []
    while len(runs) < 3 or (sum(wall for wall, _, _ in runs) < 2 * seconds and len(runs) < 20):
        with watched_kernel() as watch:
            start = time.perf_counter()
            classifier.fit(x, y)
            runs.append((time.perf_counter() - start, watch.seconds, watch.calls))
    if not watch.calls:
        sys.exit("the kernel was not called through native.make_plan")
    wall, kernel, calls = min(runs)
    with watched_kernel(), cProfile.Profile() as profile:
        classifier.fit(x, y)
    median = statistics.median(run[0] for run in runs)
    return {
        "samples": classifier.train_size_,
        "epochs": TRAIN.epochs,
        "fits": len(runs),
        "wall_seconds": {"best": round(wall, 4), "median": round(median, 4)},
        "kernel_seconds_of_best": round(kernel, 4),
        "kernel_calls": calls,
        "wall_over_kernel": round(wall / kernel, 3),
        "wall_over_kernel_of_each_fit": [round(run[0] / run[1], 3) for run in runs],
        "profile": groups_of(pstats.Stats(profile)),
    }


def groups_of(stats: pstats.Stats) -> dict[str, Any]:
    """Own time by group, validation as a whole, and the top entries.

    Profiling makes Python look slower than it is; what torch does for an operator (`a[b]`, `a * b`) counts with the
    function that has the operator.
    """
    table: dict[tuple[str, int, str], Any] = stats.stats  # type: ignore[attr-defined]
    own: dict[str, float] = {}
    validation = 0.0
    for function, (_, _, mine, below, callers) in table.items():
        if function[2] == "evaluate" and "ketfit" in function[0]:
            validation = below
        if group_of(function) or not callers:
            shares = [(group_of(function), mine)]
        else:  # a built-in function counts with who called it
            shares = [(group_of(caller, called=True), part[2]) for caller, part in callers.items()]
        for group, spent in shares:
            own[group or "other"] = own.get(group or "other", 0.0) + spent
    total = sum(own.values())
    top = sorted(table.items(), key=lambda item: -item[1][2])[:15]
    return {
        "seconds": round(total, 4),
        "own_share": {name: round(spent / total, 4) for name, spent in sorted(own.items(), key=lambda item: -item[1])},
        "validation_share_kernel_included": round(validation / total, 4),
        "top": [
            {"function": "/".join([*Path(file).parts[-2:], name]), "calls": entry[1], "seconds": round(entry[2], 4)}
            for (file, _, name), entry in top
        ],
    }


def group_of(function: tuple[str, int, str], called: bool = False) -> str | None:
    """The group of a function, or of what it calls that has none; None if a built-in function does not say."""
    file, _, name = function
    marks = {
        "kernel": name == "kernel_call",
        "optimiser step": "/torch/optim/" in file or file.endswith("autograd/profiler.py") or "fused_adam" in name,
        "torch autograd engine": "run_backward" in name or "/torch/autograd/" in file or file.endswith("_tensor.py"),
        "Python of KetFit": "/ketfit/" in file and not called,
        "torch operations": "/torch/" in file or "/ketfit/" in file or "torch._" in name,
    }
    found = next((group for group, holds in marks.items() if holds), None)
    return found or (None if file == "~" else "other")


def memory(_: float) -> dict[str, Any]:
    """Peak resident memory of one sample on many qubits, each in a process of its own."""
    rows = []
    for width, gradients, limit in ((30, False, 4.5), (30, True, 8.5), (28, True, 2.5)):
        found = child("memory-child", "--qubits", str(width), *(["--gradients"] if gradients else []))
        rows.append({**found, "limit_gib": limit, "within_limit": found["peak_gib"] <= limit})
    return {"circuit": "reuploading_circuit(Q, 1, 1, 0, 1)", "rows": rows}


@app.command(hidden=True)
def memory_child(
    qubits: Annotated[int, typer.Option()], gradients: Annotated[bool, typer.Option("--gradients")] = False
) -> None:
    """One sample in this process; a line of JSON."""
    circuit = reuploading_circuit(qubits, 1, 1, 0, 1)
    weights, inputs = (torch.tensor(part, dtype=torch.float32) for part in draw_numbers(circuit, 1))
    before, inherited = psutil.Process().memory_info().rss, peak_bytes()
    start = time.perf_counter()
    if gradients:
        values = expectation(circuit, weights.requires_grad_(), inputs.requires_grad_())
        torch.autograd.grad(values, (weights, inputs), torch.ones(1, 1))
    else:
        with torch.no_grad():
            expectation(circuit, weights, inputs)
    spent = time.perf_counter() - start
    peak = peak_bytes()
    if peak == inherited:  # Linux counts the parent's peak, from before this program was loaded
        sys.exit("the peak is not this process's own")
    row = {"qubits": qubits, "gradients": gradients, "gates_run": len(circuit.light_cone((0,)).gates)}
    print(json.dumps({**row, "peak_gib": round((peak - before) / GIB, 3), "seconds": round(spent, 3)}))


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@torch.no_grad()
def predict(seconds: float) -> dict[str, Any]:
    """A head's logits of random embeddings in batches, and the benchmark's circuit on one batch of that size."""
    head = QuantumHead(HEAD, 768, 2)
    embeddings = torch.randn(PREDICTED, 768, generator=torch.Generator().manual_seed(0))
    circuit = benchmark_circuit(10)
    weights, inputs = (torch.tensor(part, dtype=torch.float32) for part in draw_numbers(circuit, PREDICTED))
    return {
        "samples": PREDICTED,
        "head_ms": time_steps(lambda: [head(rows) for rows in torch.split(embeddings, 512)], seconds),
        "circuit_ms": time_steps(lambda: expectation(circuit, weights, inputs), seconds),
    }


def start(_: float) -> dict[str, Any]:
    """From a fresh interpreter to the first gradient at 10 qubits, batch 32; torch's own import apart."""
    rows = []
    for _round in range(5):
        began = time.time()
        found = child("start-child", source=START)
        found["from_process_start"] = found.pop("ended") - began
        rows.append({name: round(value, 4) for name, value in found.items()})
    return {
        "qubits": 10,
        "batch": 32,
        "best_seconds": {name: min(row[name] for row in rows) for name in rows[0]},
        "median_seconds": {name: statistics.median(row[name] for row in rows) for name in rows[0]},
        "first_of_these": rows[0],
    }


START = """
import time
began = time.perf_counter()
import ketfit
import torch
torch_there = time.perf_counter()
from ketfit import expectation
from ketfit.circuit import reuploading_circuit
imported = time.perf_counter()
circuit = reuploading_circuit(10, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=2)
weights = torch.randn(circuit.n_weights, requires_grad=True)
inputs = torch.randn(32, circuit.n_inputs, requires_grad=True)
values = expectation(circuit, weights, inputs)
values.sum().backward()
done, ended = time.perf_counter(), time.time()
import json
print(json.dumps({"ended": ended, "from_import": done - began, "import_of_torch": torch_there - began,
    "import_of_ketfit": imported - torch_there, "first_gradient": done - imported}))
"""


def engines(seconds: float) -> dict[str, Any]:
    """The native engine against torch's operations, in turn."""
    rows = []
    for width in (4, 8, 10, 12):
        circuit = benchmark_circuit(width)
        numbers = draw_numbers(circuit, 32)
        slow, fast = (ketfit_step(circuit, *numbers, engine=engine) for engine in ("torch", "native"))
        rounds = [(time_steps(slow, seconds / 2), time_steps(fast, seconds / 2)) for _ in range(2)]
        torch_ms, native_ms = (min(part["best"] for part in side) for side in zip(*rounds, strict=True))
        row = {"qubits": width, "batch": 32, "native_ms": native_ms, "torch_ms": torch_ms}
        rows.append({**row, "ratio_of_bests": round(torch_ms / native_ms, 2)})
    return {"rows": rows}


def time_steps(step: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Best and median milliseconds of the steps after the first."""
    _, _, times = measure(step, MAX_STEPS, seconds)
    milliseconds = [1e3 * time for time in times]
    best, median = min(milliseconds), statistics.median(milliseconds)
    return {"best": round(best, 4), "median": round(median, 4), "steps": len(times)}


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """So many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def child(*words: str, source: str | None = None) -> dict[str, Any]:
    """Return the output of a new interpreter that runs a hidden command of this file, or a program."""
    program = [str(Path(__file__).resolve()), *words] if source is None else ["-c", source]
    found = run([sys.executable, *program], {}, timeout=900)
    if isinstance(found, str):
        sys.exit(f"{words[0]}: {found}")
    return found


SECTIONS: dict[str, Section] = {
    "roofline": roofline,
    "scaling": scaling,
    "fit": fit,
    "memory": memory,
    "predict": predict,
    "start": start,
    "engines": engines,
}


if __name__ == "__main__":
    app()
