"""One call of the re-uploading circuit on an NVIDIA GPU: engine "torch", the native kernel with copies, lightning.gpu.

    python benchmarks/gpu.py

Times <Z_0> of every sample of a batch ("values"), and that with the gradients of their sum ("gradients"), for weights
and inputs that are on the GPU, and compares every number with the native kernel's. Takes less than five minutes: the
cheapest sizes come first, and those that the time or the memory does not reach are listed. Without a GPU it prints one
line and ends.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from peers.clock import measure
from peers.step import benchmark_circuit, prepare_lightning
from torch import Tensor

import ketfit
from ketfit import expectation, expectation_and_gradients
from ketfit.circuit import Circuit
from ketfit.simulate.native import ISA

QUBITS = (4, 6, 8, 10, 12, 14, 16, 18, 20)
BATCHES = (1, 8, 32, 128, 1024)
MAX_WORK = {"torch": 3e11, "native": 1e10, "lightning.gpu": 3e11}
"""Largest number of amplitudes times gates times samples of a call."""

LIGHTNING_BATCH = 32  # it has no batches: a call is a loop over the samples in Python
CELL_SECONDS, REPEATS = 0.6, 200
TOLERANCE = 1e-4  # of the largest entry
HERE = Path(__file__).resolve().parent

Kind = Literal["values", "gradients"]
Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Call:
    """A call to time.

    Attributes:
        circuit: The circuit.
        weights: Shape (n_weights,), on the device.
        inputs: Shape (batch, n_inputs), on the device.
        kind: Values alone, or values and gradients.
    """

    circuit: Circuit
    weights: Tensor
    inputs: Tensor
    kind: Kind

    @property
    def work(self) -> float:
        """Amplitudes times gates times samples."""
        return 2.0**self.circuit.n_qubits * len(self.circuit.gates) * len(self.inputs)

    @property
    def torch_bytes(self) -> float:
        """Bytes of the states that autograd stores in the torch engine: one for each gate."""
        return 4 * self.work if self.kind == "gradients" else 8 * 2.0**self.circuit.n_qubits * len(self.inputs)


def run_torch(call: Call) -> list[Tensor]:
    """The numbers from the torch engine, on the device."""
    return _run(call, call.weights, call.inputs, "torch")


def run_native(call: Call) -> list[Tensor]:
    """The numbers from the native kernel: arguments copied to the CPU, results copied to the device."""
    results = _run(call, call.weights.cpu(), call.inputs.cpu(), "native")
    return [result.to(call.weights.device) for result in results]


def _run(call: Call, weights: Tensor, inputs: Tensor, engine: Literal["torch", "native"]) -> list[Tensor]:
    if call.kind == "values":
        with torch.inference_mode():
            return [expectation(call.circuit, weights, inputs, engine=engine)]
    results = expectation_and_gradients(call.circuit, weights, inputs, engine=engine)
    return [result for result in results if result is not None]


def synchronized(device: str, step: Callable[[], Any]) -> Callable[[], Any]:
    """The step, until the device has done all of it."""

    def run() -> Any:
        result = step()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def prepare_lightning_gpu(call: Call) -> Callable[[], Arrays]:
    """A step of lightning.gpu; its values come with the gradients."""
    weights, inputs = (tensor.cpu().numpy() for tensor in (call.weights, call.inputs))
    return prepare_lightning(call.circuit, weights, inputs, name="lightning.gpu")


def has_lightning_gpu() -> bool:
    """Return True if lightning.gpu is installed."""
    return bool(find_spec("pennylane_lightning") and find_spec("pennylane_lightning.lightning_gpu"))


def why_skipped(name: str, call: Call, device: str) -> str | None:
    """The reason not to run a call, or None."""
    if call.work > MAX_WORK[name]:
        return "too slow"
    if name == "lightning.gpu" and len(call.inputs) > LIGHTNING_BATCH:
        return f"batches beyond {LIGHTNING_BATCH} are not run"
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 2**32
    if name == "torch" and 2 * call.torch_bytes > free:
        return f"needs about {2 * call.torch_bytes / 2**30:.0f} GiB"
    return None


def time_call(call: Call, device: str) -> list[dict[str, Any]]:
    """A row for each engine: the best and the median of the calls after the first, and the difference from native."""
    size = {"qubits": call.circuit.n_qubits, "batch": len(call.inputs), "kind": call.kind}
    prepare: dict[str, Callable[[], Callable[[], Any]]] = {
        "native": lambda: partial(run_native, call),
        "torch": lambda: partial(run_torch, call),
    }
    if call.kind == "gradients" and has_lightning_gpu():
        prepare["lightning.gpu"] = partial(prepare_lightning_gpu, call)
    rows: list[dict[str, Any]] = []
    reference: list[np.ndarray] | None = None
    for name, make in prepare.items():
        row: dict[str, Any] = {**size, "engine": name}
        rows.append(row)
        if reason := why_skipped(name, call, device):
            row["status"] = reason
            continue
        try:
            result, first, seconds = measure(synchronized(device, make()), REPEATS, CELL_SECONDS)
        except Exception as error:  # a full GPU, or a driver that does not fit: the other rows are still worth having
            row["status"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        row |= {"status": "ok", "first_ms": 1e3 * first, "best_ms": 1e3 * min(seconds)}
        row |= {"median_ms": 1e3 * statistics.median(seconds), "calls": len(seconds)}
        numbers = [np.asarray(part.cpu() if isinstance(part, Tensor) else part).reshape(-1) for part in result]
        if name == "native":
            reference = numbers
        elif reference is not None:
            row["relative_difference"] = difference = largest_difference(numbers, reference)
            if not difference <= TOLERANCE:
                row["status"] = "numbers differ"
    return rows


def largest_difference(numbers: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """The largest difference of an entry, in units of the largest entry of its array."""
    pairs = zip(numbers, reference, strict=True)
    return max(float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in pairs)


def make_call(qubits: int, batch: int, kind: Kind, device: str) -> Call:
    """A call with random angles of a fixed seed."""
    circuit = benchmark_circuit(qubits)
    generator = torch.Generator().manual_seed(qubits)
    weights = torch.rand(circuit.n_weights, generator=generator) * 2 * torch.pi
    inputs = torch.rand(batch, circuit.n_inputs, generator=generator) * torch.pi
    return Call(circuit, weights.to(device), inputs.to(device), kind)


def faster_engine(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each size that both engines ran: how many times faster torch is than the native kernel with copies."""
    best = {(row["qubits"], row["batch"], row["kind"], row.get("engine")): row.get("best_ms") for row in rows}
    return [
        {"qubits": qubits, "batch": batch, "kind": kind, "torch_speedup": native / torch_ms}
        for (qubits, batch, kind, engine), native in best.items()
        if engine == "native" and native and (torch_ms := best.get((qubits, batch, kind, "torch")))
    ]


def main(
    output: Annotated[Path, typer.Option(help="JSON file.")] = HERE / "results" / "gpu.json",
    seconds: Annotated[float, typer.Option(help="No size begins after this time.")] = 240,
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="cpu tries the program itself.")] = "cuda",
) -> None:
    """Time all sizes, and write the rows and the conditions into a JSON file."""
    if device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU that torch can use; nothing was measured")
        return
    start = time.perf_counter()
    kinds: tuple[Kind, ...] = ("values", "gradients")
    sizes = sorted(product(QUBITS, BATCHES, kinds), key=lambda size: (2 ** size[0] * size[0] * size[1], size[2]))
    rows: list[dict[str, Any]] = []
    for qubits, batch, kind in sizes:
        if time.perf_counter() - start > seconds:
            rows.append({"qubits": qubits, "batch": batch, "kind": kind, "status": "not reached in time"})
            continue
        new = time_call(make_call(qubits, batch, kind, device), device)
        rows += new
        for row in new:
            print(json.dumps(row), flush=True)
    report = {
        "command": "python benchmarks/gpu.py",
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "cuda": torch.version.cuda,
        "versions": {"ketfit": ketfit.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "lightning_gpu": has_lightning_gpu(),
        "kernel": ISA,
        "threads": torch.get_num_threads(),
        "circuit": "benchmark_circuit(Q) of peers/step.py, float32",
        "seconds": round(time.perf_counter() - start, 1),
        "rows": rows,
        "torch_against_native": faster_engine(rows),
    }
    output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    typer.run(main)
