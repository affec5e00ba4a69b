"""One training step of the re-uploading circuit: KetFit's native engine beside other simulators, on the same numbers.

A step is <Z_0> of every sample of a batch and the gradients of their sum to weights and inputs. Every simulator runs in
a process of its own (peers/step.py, in the environment that peers/setup.sh makes), one process at a time; KetFit is
timed in a fresh process before and after each of them, and both sides by the same loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from peers.clock import measure
from peers.step import PEERS, Array, Result, Step, benchmark_circuit, read_numbers, write_numbers

import ketfit
from ketfit import expectation, expectation_and_gradients
from ketfit.circuit import Circuit
from ketfit.simulate import _kernel
from ketfit.simulate.native import ISA

CIRCUIT = "reuploading_circuit(Q, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=min(2, Q - 1))"
MAX_STEPS = 10_000  # counted in one process
TOLERANCE = 1e-4  # of the largest entry
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WITHOUT_OPENMP = ("default.qubit-jax", "tensorcircuit")  # JAX has threads of its own
WIDEST = {"default.qubit-jax": 8, "tensorcircuit": 12}  # compiling takes minutes there, and several times that beyond
MEMORY = 10 * 2**30  # bytes of data that a process may have: backprop keeps a state for every gate

Sizes = tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]
LEAN = ("lightning.qubit", "qulacs")  # these two hold a few states only
FAST = ("tensorcircuit", *LEAN)
SIZES: tuple[Sizes, ...] = (
    ((8, 10, 2, 4, 6), (32,), tuple(PEERS)),
    ((12, 14), (32,), tuple(PEERS)),
    ((16,), (32,), LEAN),
    ((20,), (4,), LEAN),
    ((24,), (1,), LEAN),
    ((2, 4), (1, 8, 128, 1024), FAST),
    ((6, 10), (1, 128), FAST),
)
"""Widths, batches and peers that are measured unless options choose others."""

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    qubits: Annotated[list[int] | None, typer.Option(help="Widths, in place of SIZES; repeat it for several.")] = None,
    batches: Annotated[list[int], typer.Option(help="Samples in a step, with --qubits.")] = [32],  # noqa: B006
    peers: Annotated[list[str] | None, typer.Option(help="Simulators; those of SIZES, or all, by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Counted steps of one process of a peer.")] = 5,
    timeout: Annotated[float, typer.Option(help="Seconds that a process may take, compiling included.")] = 900,
    python: Annotated[Path, typer.Option(help="The peers' interpreter.")] = ROOT / "build/peers-env/bin/python",
    output: Annotated[Path | None, typer.Option(help="JSON file, written after every row.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the rows that the file has.")] = False,
    realtime: Annotated[bool, typer.Option("--realtime", help="Counted steps at real-time priority (root).")] = False,
) -> None:
    """Time every simulator, compare its numbers with KetFit's, and print how many times slower it is."""
    if context.invoked_subcommand is not None:
        return
    chosen = {} if qubits is None else {"qubits": qubits, "batches": batches}
    options = {**chosen, "peers": peers, "seconds": seconds, "timeout": timeout}
    names, report = start_report("kernel", "peers", PEERS, options)
    if realtime:
        os.environ["KETFIT_BENCHMARK_REALTIME"] = "1"
        report["command"] += " --realtime"
    sizes: tuple[Sizes, ...] = SIZES if qubits is None else ((tuple(qubits), tuple(batches), tuple(PEERS)),)
    report |= {"tolerance": TOLERANCE, "gib_of_a_process": MEMORY / 2**30, "summary": [], "rows": []}
    if not python.exists():
        sys.exit("the peers' environment is missing: run benchmarks/peers/setup.sh, or name an interpreter by --python")
    if output is not None and resume:
        report["rows"] = earlier(output, report).get("rows", [])
    have = {(row["peer"], row["qubits"], row["batch"]) for row in report["rows"]}
    for widths, samples, here in sizes:
        for width, batch, name in product(widths, samples, here):
            if (name, width, batch) in have or name not in names or width > WIDEST.get(name, width):
                continue
            row = {**measure_row(name, width, batch, python, seconds, timeout), "realtime": realtime}
            report["rows"].append(row)
            report["summary"] = summarise(report["rows"])
            print(line_of(row), flush=True)
            if output is not None:
                write_json(output, report)
    print(json.dumps(summarise(report["rows"]), indent=2))


@app.command(hidden=True)
def ours(
    qubits: Annotated[int, typer.Option()],
    batch: Annotated[int, typer.Option()],
    seconds: Annotated[float, typer.Option()],
    numbers: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Time KetFit's native engine in this process: a line of JSON, and the numbers in a file."""
    circuit = benchmark_circuit(qubits)
    given = read_numbers(numbers, circuit, batch)
    result, first, times = measure(ketfit_step(circuit, *given), MAX_STEPS, seconds / 2)
    _, _, by_autograd = measure(autograd_step(circuit, *given), MAX_STEPS, seconds / 2)
    write_numbers(output, result, circuit, batch)
    milliseconds = {"direct": [1e3 * time for time in times], "autograd": [1e3 * time for time in by_autograd]}
    print(json.dumps({"first_step_seconds": first, "milliseconds": milliseconds}))


def ketfit_step(circuit: Circuit, weights: Array, inputs: Array, engine: Literal["native", "torch"] = "native") -> Step:
    """One step of KetFit in float32, by the function that gives values and gradients."""
    angles, samples = (torch.tensor(part, dtype=torch.float32) for part in (weights, inputs))

    def step() -> Result:
        values, grad_weights, grad_inputs, _ = expectation_and_gradients(circuit, angles, samples, engine=engine)
        assert grad_weights is not None and grad_inputs is not None
        return values.numpy()[:, 0], grad_weights.numpy(), grad_inputs.numpy()

    return step


def autograd_step(circuit: Circuit, weights: Array, inputs: Array) -> Step:
    """The same step through torch's autograd."""
    angles = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
    samples = torch.tensor(inputs, dtype=torch.float32, requires_grad=True)
    ones = torch.ones(len(inputs), 1)

    def step() -> Result:
        values = expectation(circuit, angles, samples, engine="native")
        grad_weights, grad_inputs = torch.autograd.grad(values, (angles, samples), ones)
        return values.detach().numpy()[:, 0], grad_weights.numpy(), grad_inputs.numpy()

    return step


def draw_numbers(circuit: Circuit, batch: int) -> tuple[Array, Array]:
    """Weights and inputs, float64 numbers that float32 holds exactly."""
    generator = np.random.default_rng(0)
    shapes = (circuit.n_weights,), (batch, circuit.n_inputs)
    weights, inputs = (generator.normal(size=shape).astype(np.float32).astype(np.float64) for shape in shapes)
    return weights, inputs


def measure_row(name: str, width: int, batch: int, python: Path, seconds: float, timeout: float) -> dict[str, Any]:
    """One peer at one size: KetFit, the peer in each of its settings, KetFit again."""
    circuit = benchmark_circuit(width)
    with TemporaryDirectory() as folder:
        numbers, expected, given = (Path(folder) / f"{kind}.npz" for kind in ("numbers", "ours", "theirs"))
        weights, inputs = draw_numbers(circuit, batch)
        np.savez(numbers, weights=weights, inputs=inputs)
        sizes = ["--qubits", str(width), "--batch", str(batch), "--numbers", str(numbers)]
        own = [sys.executable, str(HERE / "kernel.py"), "ours", *sizes, "--seconds", str(seconds / 2)]
        program = [str(python), str(HERE / "peers/step.py"), name, *sizes, "--seconds", str(seconds)]
        program += ["--repeats", str(MAX_STEPS), "--output", str(given)]
        before = run_ours([*own, "--output", str(expected)])
        runs = {}
        for setting, variables in settings(name).items():
            found = run(program, {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{HERE}", **variables}, timeout, MEMORY)
            runs[setting] = found if isinstance(found, str) else check_run(found, expected, given)
        after = run_ours([*own, "--output", str(expected)])
    peer = PEERS[name]
    head: dict[str, Any] = {"peer": name, "method": peer.method, "dtype": peer.dtype, "qubits": width, "batch": batch}
    head |= {"seconds": seconds, "timeout": timeout}
    head["rotations"] = circuit.gate_counts()["ry"]
    head["rotations_in_light_cone"] = circuit.light_cone((0,)).gate_counts()["ry"]
    return {**head, **assess(runs, before, after)}


def settings(name: str) -> dict[str, dict[str, str]]:
    """The variables of each of a peer's runs, by a label for the reader."""
    if name in WITHOUT_OPENMP:
        return {"default": {}}
    one = {"OMP_NUM_THREADS": "1"}
    if "OMP_NUM_THREADS" not in PEERS[name].environment:
        return {"OMP_NUM_THREADS=1": one, "OMP_NUM_THREADS unset": {}}
    cores = str(len(os.sched_getaffinity(0)))  # step.py would set it to 1 if it were unset
    return {"OMP_NUM_THREADS=1": one, f"OMP_NUM_THREADS={cores}": {"OMP_NUM_THREADS": cores}}


def run(
    command: list[str], variables: Mapping[str, str], timeout: float, memory: int = resource.RLIM_INFINITY
) -> dict[str, Any] | str:
    """What a program prints as a line of JSON, or why there is none; `memory` is the most bytes that it may have."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    try:
        done = subprocess.run(
            command,
            env={**inherited, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_DATA, (memory, memory)),
        )
    except subprocess.TimeoutExpired:
        return f"no result within {timeout:g} s"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    if done.returncode:
        last: str = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        return last.replace(str(ROOT), ".").replace(str(Path.home()), "~")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_ours(command: list[str]) -> dict[str, Any]:
    """KetFit in a process of its own, which must give a result."""
    found = run(command, {}, timeout=600)
    if isinstance(found, str):
        sys.exit(f"KetFit: {found}")
    return found


def check_run(found: dict[str, Any], expected: Path, given: Path) -> dict[str, Any]:
    """A peer's run without its single steps, and how far its numbers are from KetFit's."""
    times = found["milliseconds"]
    with np.load(expected) as wanted, np.load(given) as got:
        largest = {key: float(np.abs(got[key] - wanted[key]).max()) for key in wanted}
        scale = {key: float(np.abs(wanted[key]).max()) for key in wanted}
    relative = {key: largest[key] / scale[key] for key in largest}
    given.unlink()
    return {
        "version": found["version"],
        "ms": {"best": times["best"], "median": times["median"], "steps": len(times["steps"])},
        "threads": found["threads"],
        "first_step_seconds": found["first_step_seconds"],
        "largest_difference": largest,
        "largest_relative_difference": relative,
        "agrees": all(difference <= TOLERANCE for difference in relative.values()),
    }


def assess(runs: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The rest of a row: the better of the peer's runs against the best of KetFit's."""
    ketfit_ms, autograd_ms = (pool(before, after, way) for way in ("direct", "autograd"))
    row: dict[str, Any] = {"ketfit_ms": ketfit_ms, "ketfit_autograd_ms": autograd_ms}
    row["ketfit_first_step_seconds"] = round(before["first_step_seconds"], 4)
    done = {setting: found for setting, found in runs.items() if isinstance(found, dict)}
    agreeing = {setting: found for setting, found in done.items() if found["agrees"]} or done
    if not agreeing:
        return {"status": next(iter(runs.values())), **row, "runs": runs}
    setting = min(agreeing, key=lambda label: agreeing[label]["ms"]["best"])
    kept = agreeing[setting]
    peer_ms = kept["ms"]
    return {
        "status": "ok" if kept["agrees"] else "its numbers differ from KetFit's",
        "version": kept["version"],
        "setting": setting,
        "threads": kept["threads"],
        **row,
        "peer_ms": peer_ms,
        "first_step_seconds": kept["first_step_seconds"],
        "ratio_of_bests": round(peer_ms["best"] / ketfit_ms["best"], 3),
        "ratio_of_bests_to_autograd": round(peer_ms["best"] / autograd_ms["best"], 3),
        "ratio_of_medians": round(peer_ms["median"] / ketfit_ms["median"], 3),
        "largest_difference": kept["largest_difference"],
        "largest_relative_difference": kept["largest_relative_difference"],
        "runs": {label: found if isinstance(found, str) else found["ms"] for label, found in runs.items()},
    }


def pool(before: dict[str, Any], after: dict[str, Any], way: str) -> dict[str, Any]:
    """KetFit's steps of both runs."""
    parts = [run["milliseconds"][way] for run in (before, after)]
    pooled = [*parts[0], *parts[1]]
    return {
        "best": round(min(pooled), 4),
        "median": round(statistics.median(pooled), 4),
        "steps": len(pooled),
        "best_before_and_after": [round(min(part), 4) for part in parts],
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each size the peer with the fastest step, its ratio to KetFit in its own row, and who gave no result."""
    summary = []
    for width, batch in sorted({(row["qubits"], row["batch"]) for row in rows}):
        here = [row for row in rows if (row["qubits"], row["batch"]) == (width, batch)]
        entry: dict[str, Any] = {"qubits": width, "batch": batch}
        valid = [row for row in here if row["status"] == "ok"]
        if valid:
            fastest = min(valid, key=lambda row: row["peer_ms"]["best"])
            entry["fastest_peer"] = fastest["peer"]
            entry |= {key: fastest[key]["best"] for key in ("peer_ms", "ketfit_ms", "ketfit_autograd_ms")}
            ratios = ("ratio_of_bests", "ratio_of_bests_to_autograd", "ratio_of_medians")
            entry |= {key: fastest[key] for key in ratios}
            entry["smallest_ratio_of_bests"] = min(row["ratio_of_bests"] for row in valid)
        entry["without_result"] = {row["peer"]: row["status"] for row in here if row["status"] != "ok"}
        summary.append(entry)
    return summary


def line_of(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    start: str = f"{row['qubits']:2} qubits, batch {row['batch']}, {row['peer']}: "
    if "peer_ms" not in row:
        return f"{start}{row['status']}"
    times = f"{row['peer_ms']['best']} ms against {row['ketfit_ms']['best']} ms, {row['ratio_of_bests']} times"
    return f"{start}{times} ({row['setting']}; {row['status']})"


def start_report(
    program: str, part: str, known: Iterable[str], options: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The names that an option chooses, by default all that are known, and a report's head: command and machine."""
    everything = list(known)
    names: list[str] = options[part] or everything
    unknown = sorted(set(names) - set(everything))
    if unknown:
        sys.exit(f"unknown {part} {unknown}; known are {everything}")
    return names, {**describe(program, {**options, part: names}), "circuit": CIRCUIT}


def describe(program: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The command that makes a report, and what it ran on."""
    words = [f"--{name} {entry}" for name, value in options.items() for entry in entries(value)]
    library = Path(str(_kernel.__file__)).read_bytes()
    return {
        "command": " ".join(["python", f"benchmarks/{program}.py", *words]),
        "ketfit": ketfit.__version__,
        "kernel_sha256": hashlib.sha256(library).hexdigest()[:16],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "instruction_set": ISA,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }


def entries(value: Any) -> Iterator[str]:
    """The values of an option, one for each time that it is given."""
    for entry in value if isinstance(value, list) else [value]:
        yield f"{entry:g}" if isinstance(entry, float) else str(entry)


def earlier(path: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report that a file has, empty if there is none; it must come from these very versions."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    keys = ("ketfit", "kernel_sha256", "torch", "python", "instruction_set", "threads", "cpus")
    differing = [key for key in keys if found.get(key) != report[key]]
    if differing:
        sys.exit(f"{path} was made with another {', '.join(differing)}; name another file or remove it")
    return found


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Replace the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


if __name__ == "__main__":
    app()
