"""A step of Qiskit Machine Learning's EstimatorQNN on KetFit's estimator and on Qiskit's, with the same numbers.

The network: inputs by RY on every qubit, real_amplitudes with three repetitions, <Z> of each of the first two qubits.
Both of Qiskit's gradients take these gates as they are; those of zz_feature_map they translate to many more. A step is
`forward`, and `backward` to weights and inputs. Qiskit's gradients loop over the samples, so they are timed on the
first `--samples` of the batch, in the median of `--repeats` steps, and scaled to all of it; their `forward` has the
whole batch. KetFit is timed before and after each, on the whole batch.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from peers.clock import measure
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms.gradients import ReverseEstimatorGradient
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from ketfit.interop.qiskit import KetFitEstimator, KetFitEstimatorGradient

NETWORK = "RY(input) on every qubit, real_amplitudes(reps=3), <Z_0> and <Z_1>"
PACKAGES = ("qiskit", "qiskit-machine-learning", "qiskit-algorithms", "torch")
TOLERANCE = 1e-8
MAX_STEPS = 1000  # of KetFit, counted at a time

Array = npt.NDArray[np.float64]
Result = tuple[Array, Array, Array]

GRADIENTS: dict[str, Callable[[BaseEstimatorV2], Any]] = {
    "reverse": lambda estimator: ReverseEstimatorGradient(),
    "parameter shift": ParamShiftEstimatorGradient,
}


def main(
    qubits: Annotated[list[int], typer.Option(help="Widths; repeat it for several.")] = [4, 8, 10],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Samples in a step.")] = 32,
    samples: Annotated[int, typer.Option(help="Samples that Qiskit's gradients are timed on.")] = 2,
    repeats: Annotated[int, typer.Option(help="Counted steps of Qiskit.")] = 1,
    seconds: Annotated[float, typer.Option(help="Counted steps of KetFit, before and after Qiskit's.")] = 2,
    output: Annotated[Path | None, typer.Option(help="JSON file, written after every row.")] = None,
) -> None:
    """Time every gradient, compare its numbers with KetFit's, and print how many times slower it is."""
    report: dict[str, Any] = {"network": NETWORK, "batch": batch, "samples_of_gradients": samples, "repeats": repeats}
    report |= {"tolerance": TOLERANCE, "threads": torch.get_num_threads(), "load_average_before": os.getloadavg()[0]}
    report |= {"versions": {name: version(name) for name in PACKAGES}, "rows": []}
    for width in qubits:
        for name in GRADIENTS:
            report["rows"].append(row := measure_row(width, batch, name, samples, repeats, seconds))
            print(json.dumps(row), flush=True)
            if output is not None:
                output.write_text(json.dumps(report, indent=2) + "\n")


def measure_row(width: int, batch: int, name: str, samples: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Time KetFit, Qiskit, and KetFit again."""
    ours = network(width, KetFitEstimator(), KetFitEstimatorGradient())
    estimator = StatevectorEstimator()
    theirs = network(width, estimator, GRADIENTS[name](estimator))
    rng = np.random.default_rng(0)
    inputs, weights = rng.uniform(-1, 1, (batch, width)), rng.uniform(-3, 3, ours.num_weights)
    part = inputs[:samples]
    expected, first, before = measure(lambda: step(ours, inputs, weights), MAX_STEPS, seconds)
    theirs.backward(part[:1], weights)  # which prepares the circuits
    values, forward = median(lambda: theirs.forward(inputs, weights), repeats)
    gradients, backward = median(lambda: theirs.backward(part, weights), repeats)
    _, _, after = measure(lambda: step(ours, inputs, weights), MAX_STEPS, seconds)
    pairs = zip(expected, (values, *gradients), strict=True)
    differences = [float(np.abs(mine[: len(other)] - other).max()) for mine, other in pairs]
    own = 1e3 * statistics.median([*before, *after])
    total = 1e3 * (forward + backward * batch / samples)
    return {
        "gradient": name,
        "qubits": width,
        "weights": ours.num_weights,
        "ketfit_ms": {
            "median": round(own, 3),
            "best": round(1e3 * min(*before, *after), 3),
            "first": round(1e3 * first),
        },
        "qiskit_ms": {"step": round(total, 1), "forward": round(1e3 * forward, 1)},
        "ratio": round(total / own, 1),
        "largest_differences": dict(zip(("values", "grad_inputs", "grad_weights"), differences, strict=True)),
        "agrees": max(differences) < TOLERANCE,
    }


def network(width: int, estimator: BaseEstimatorV2, gradient: Any) -> EstimatorQNN:
    """The network of this benchmark."""
    features, ansatz = ParameterVector("x", width), real_amplitudes(width, reps=3)
    circuit = QuantumCircuit(width)
    for qubit, feature in enumerate(features):
        circuit.ry(feature, qubit)
    circuit.compose(ansatz, inplace=True)
    return EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=[SparsePauliOp.from_sparse_list([("Z", [qubit], 1)], width) for qubit in range(2)],
        input_params=features,
        weight_params=ansatz.parameters,
        gradient=gradient,
        input_gradients=True,
        default_precision=0.0,
    )


def step(qnn: EstimatorQNN, inputs: Array, weights: Array) -> Result:
    """Values (batch, 2), and their gradients to inputs and to weights."""
    values = qnn.forward(inputs, weights)
    to_inputs, to_weights = qnn.backward(inputs, weights)
    assert to_inputs is not None and to_weights is not None
    return values, to_inputs, to_weights


def median(run: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """The last result, and the median of the seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


if __name__ == "__main__":
    typer.run(main)
