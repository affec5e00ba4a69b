"""Compare the recommended head with the one for a QPU: gates, error and accuracy under Forte's noise, price.

    python studies/qpu_head.py
    python studies/qpu_head.py --data sst2.tsv --body all-mpnet-base-v2

The recommended head takes the whole embedding, the one for a QPU (``HeadConfig.recommended(..., for_qpu=True)``) its
first 31 principal components. Each seed has its own 256 sentences per label (85 % to train, 15 % to choose the epoch
and one of two learning rates on), and is tested on a sample of the others: exactly, with the noise of IonQ Forte by
KetFit's density matrix, and with that noise and shots. The first sentences of the sample also run on Qiskit Aer with
the same noise, through the plan, submission and results of ``ketfit hardware``, whose prices are used. Every row is
written when it is complete, and an interrupted run resumes with the same options. Rows and a table go into
``studies/results/qpu_head/``.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run_options import check_options, check_test_sizes, options_of
from torch import Tensor

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig, expectation
from ketfit.bodies.body import load_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import Split, few_shot_split
from ketfit.errors import DataError, KetFitError
from ketfit.evaluation.compare import accuracy_interval
from ketfit.hardware.backends.aer import aer_simulator
from ketfit.hardware.backends.qiskit import QiskitBackend
from ketfit.hardware.pricing import estimate, load_device
from ketfit.hardware.runs.plan import plan_run, write_plan
from ketfit.hardware.runs.run import fetch_run, submit_run
from ketfit.model.head import QuantumHead
from ketfit.rng import numpy_stream
from ketfit.simulate.noise import NoiseConfig, load_noise
from ketfit.storage.append_log import AppendLog, read_json_lines
from ketfit.study.analysis.hypothesis_tests import CrossedTest, crossed_test, summarize_crossed
from ketfit.study.task import pack_bits, unpack_bits

RESULTS = Path(__file__).parent / "results" / "qpu_head"
DEVICE = "ionq-forte"
RATES = (0.01, 0.03)
SHOTS = (1000, 100)
AER_SHOTS = 1000
PRICED = (DEVICE, "ionq-aria")
HEADS = ("recommended", "for a QPU")
CONDITIONS = ("exact", "noise", *(f"noise, {shots:,} shots" for shots in SHOTS))


@dataclass(frozen=True, eq=False)
class Part:
    """Embeddings, shape (n, dimension), and labels, shape (n,)."""

    x: NDArray[np.float32]
    y: NDArray[Any]


def sample_test(split: Split, size: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of the test sentences of a seed, in random order."""
    return numpy_stream(seed, "split", 1).permutation(np.asarray(split.test))[:size]


def fit(config: HeadConfig, train: Part, validation: Part, seed: int) -> tuple[float, QuantumHeadClassifier]:
    """Return the learning rate with the lowest validation loss, and the head that it trained."""
    tries = {}
    for rate in RATES:
        classifier = QuantumHeadClassifier(config, TrainConfig(learning_rate=rate), seed)
        tries[rate] = classifier.fit(train.x, train.y, validation=(validation.x, validation.y))
    losses = {rate: made.history_[made.best_epoch_].validation_loss or math.inf for rate, made in tries.items()}
    best = min(losses, key=losses.__getitem__)
    return best, tries[best]


@torch.no_grad()
def measure(head: QuantumHead, encoded: Tensor, noise: NoiseConfig | None) -> Tensor:
    """Return <Z> of the measured qubit, shape (n, 1), from the encoders' output."""
    inputs = torch.split(head.angle_scale * encoded, 512)
    return torch.cat([expectation(head.circuit, head.weights, part, qubits=(0,), noise=noise) for part in inputs])


@torch.no_grad()
def simulate(classifier: QuantumHeadClassifier, test: Part, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return <Z> under each of `CONDITIONS`, and what the row tells of them.

    `spread` is the standard deviation of the exact <Z> over the sentences, `left` the slope of the noisy <Z> against
    it: what the noise leaves of a difference between two sentences.
    """
    head = classifier.module_.double()
    encoded = head.encode(torch.from_numpy(test.x).double())
    found = {"exact": measure(head, encoded, None), "noise": measure(head, encoded, load_noise(DEVICE))}
    up = ((1 + found["noise"]) / 2).clamp(0, 1).numpy()
    for shots in SHOTS:
        counts = numpy_stream(seed, "shots", shots).binomial(shots, up)
        found[f"noise, {shots:,} shots"] = torch.from_numpy(2 * counts / shots - 1)
    exact, noisy = (found[name][:, 0].numpy() for name in ("exact", "noise"))
    labels = {name: classifier.classes_[head.classify(z, encoded).argmax(dim=1)] for name, z in found.items()}
    return found, {
        "correct": {name: pack_bits(label == test.y) for name, label in labels.items()},
        "spread": float(exact.std()),
        "left": float(np.polyfit(exact, noisy, 1)[0]),
        "error": {name: _root_mean_square(z - found["exact"]) for name, z in found.items()},
    }


def run_on_aer(classifier: QuantumHeadClassifier, test: Part, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """Run sentences on Aer as ``ketfit hardware`` does, and return the errors, the gates and the prices.

    `deviation` is the root mean square of the difference to our own simulation of the same noise, in standard errors of
    the shots: about 1 if both simulate the same.
    """
    machine = aer_simulator(load_noise(DEVICE))
    machine.set_options(method="density_matrix", max_parallel_threads=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backend = QiskitBackend(folder, machine, name=f"aer:{DEVICE}", device=DEVICE, reset_first=True)
        prepared = plan_run(classifier, test.x, backend, name=f"aer:{DEVICE}", labels=test.y.tolist(), shots=AER_SHOTS)
        write_plan(folder, prepared)
        submit_run(folder, backend)
        report = fetch_run(folder, backend)
        gates = backend.count_gates(prepared.circuits[:1])
    z = torch.tensor([row["z"] for row in report["predictions"]], dtype=torch.float64)
    exact, noisy = (found[condition][: len(z)] for condition in ("exact", "noise"))
    spread = ((1 - noisy**2) / AER_SHOTS).sqrt()
    costs = {device: {str(shots): _cost(gates, shots, device) for shots in SHOTS} for device in PRICED}
    return {
        "gates": {"one-qubit": gates[0].one_qubit, "two-qubit": gates[0].two_qubit},
        "aer": {
            "sentences": len(z),
            "correct": round(report["accuracy"] * len(z)),
            "error": _root_mean_square(z - exact),
            "deviation": _root_mean_square((z - noisy) / spread),
        },
        "cost": costs,
    }


def _cost(gates: Any, shots: int, device: str) -> dict[str, Any]:
    cost = asdict(estimate(gates, shots, load_device(device)))
    return {name: cost[name] for name in ("price", "currency", "machine_s", "energy_j")}


def _root_mean_square(difference: Tensor) -> float:
    return float((difference**2).mean().sqrt())


def run(name: str, parts: tuple[Part, Part, Part], seed: int, aer_sentences: int) -> dict[str, Any]:
    """Return the row of one head and seed."""
    start = time.perf_counter()
    train, validation, test = parts
    config = HeadConfig.recommended(train.x.shape[1], for_qpu=name == "for a QPU")
    rate, classifier = fit(config, train, validation, seed)
    found, simulated = simulate(classifier, test, seed)
    first = Part(test.x[:aer_sentences], test.y[:aer_sentences])
    return {
        "head": name,
        "seed": seed,
        "qubits": config.n_qubits,
        "components": config.components,
        "parameters": classifier.n_parameters_,
        "learning_rate": rate,
        "test_size": len(test.y),
        **simulated,
        **run_on_aer(classifier, first, found),
        "seconds": round(time.perf_counter() - start, 1),
    }


def table(rows: list[dict[str, Any]], tests: Mapping[int, NDArray[np.int64]], command: str) -> str:
    """Return the comparison as a Markdown table: one column per head, and their difference."""
    found = {(row["head"], row["seed"]): row for row in rows}
    own = {name: [found[name, seed] for seed in tests] for name in HEADS}
    first = {name: own[name][0] for name in HEADS}
    sentences = first[HEADS[0]]["aer"]["sentences"]

    def line(title: str, *cells: str) -> str:
        return f"| {title} | {' | '.join(cells)} |"

    def right(name: str, condition: str) -> list[NDArray[np.bool_]]:
        return [unpack_bits(row["correct"][condition], row["test_size"]) for row in own[name]]

    def mean(name: str, *keys: str) -> float:
        values: list[Any] = [reduce(getitem, keys, row) for row in own[name]]
        return float(np.mean(values))

    def both(title: str, form: str, *keys: str) -> str:
        return line(title, *(form.format(mean(name, *keys)) for name in HEADS), "")

    whole, components = first[HEADS[0]]["qubits"], first[HEADS[1]]["components"]
    lines = [
        f"Made by `{command}`: {len(tests)} seeds, {first[HEADS[0]]['test_size']:,} test sentences each. Accuracies",
        "with 95 % intervals for new seeds and sentences; noise of IonQ Forte; costs for one sentence.\n",
        line(
            "",
            f"recommended, {whole} qubits",
            f"{components} components, {first[HEADS[1]]['qubits']} qubits",
            "difference",
        ),
        "|---|---:|---:|---:|",
        both("trained parameters", "{:,.0f}", "parameters"),
        both("one-qubit gates", "{:,.0f}", "gates", "one-qubit"),
        both("two-qubit gates", "{:,.0f}", "gates", "two-qubit"),
        both("spread of ⟨Z⟩ over the sentences", "{:.3f}", "spread"),
        both("share of it that the noise leaves", "{:.0%}", "left"),
        both("error of ⟨Z⟩ by noise (rms)", "{:.3f}", "error", "noise"),
        both("the same with 1,000 shots", "{:.3f}", "error", "noise, 1,000 shots"),
        both(f"the same on Aer, {sentences} sentences a seed", "{:.3f}", "aer", "error"),
        both("Aer against our simulator, in standard errors", "{:.2f}", "aer", "deviation"),
    ]
    positions = list(tests.values())
    for condition in CONDITIONS:
        cells = [_interval(summarize_crossed(right(name, condition), positions)) for name in HEADS]
        test = crossed_test(right(HEADS[1], condition), right(HEADS[0], condition), positions)
        lines.append(line(f"accuracy, {condition}", *cells, _difference(test)))
    aer = [_aer_accuracy([row["aer"] for row in own[name]]) for name in HEADS]
    lines.append(line(f"accuracy on Aer, {AER_SHOTS:,} shots, {len(tests) * sentences} sentences", *aer, ""))
    for device in PRICED:
        for shots in SHOTS:
            keys = ("cost", device, str(shots))
            lines.append(both(f"price on {device}, {shots:,} shots", "{:,.2f} USD", *keys, "price"))
    keys = ("cost", DEVICE, str(SHOTS[0]))
    lines.append(both(f"time on {DEVICE}, {SHOTS[0]:,} shots", "{:,.0f} s", *keys, "machine_s"))
    lines.append(both(f"energy of {DEVICE}, {SHOTS[0]:,} shots", "{:,.0f} J", *keys, "energy_j"))
    return "\n".join(lines) + "\n"


def _aer_accuracy(runs: list[dict[str, Any]]) -> str:
    correct, total = (sum(run[name] for run in runs) for name in ("correct", "sentences"))
    accuracy, (low, high) = accuracy_interval(correct, total)
    return f"{accuracy:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def _interval(summary: Any) -> str:
    return f"{summary.mean:.2%} [{100 * summary.low:.1f}, {100 * summary.high:.1f}]"


def _difference(test: CrossedTest) -> str:
    bounds = "" if test.low is None or test.high is None else f" [{100 * test.low:+.2f}, {100 * test.high:+.2f}]"
    return f"{100 * test.difference:+.2f}{bounds}"


def parts_of(split: Split, test: NDArray[np.int64], x: NDArray[np.float32], y: NDArray[Any]) -> tuple[Part, Part, Part]:
    """Return the training, validation and test part."""
    train, validation, held = (Part(x[rows], y[rows]) for rows in (split.train, split.validation, test))
    return train, validation, held


def load(options: argparse.Namespace) -> tuple[Dataset, NDArray[np.float32], NDArray[Any]]:
    """Return the data set, its embeddings and its labels."""
    dataset = load_dataset(options.data)
    if len(dataset.classes) != 2:
        raise DataError(f"{dataset.name} has {len(dataset.classes)} classes; this study is about two")
    return dataset, load_body(options.body).encode(dataset.texts, progress=True), np.asarray(dataset.labels)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="rotten-tomatoes", help="file with columns text and label")
    parser.add_argument("--body", default="all-MiniLM-L6-v2")
    parser.add_argument("--per-label", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=int, default=3000, help="test sentences of each seed")
    parser.add_argument("--aer", type=int, default=10, help="of these, sentences to run on Aer")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Run the missing heads and seeds, and write the table."""
    options = parse(arguments)
    path = RESULTS / f"{Path(options.data).stem}.jsonl"
    dataset, x, y = load(options)
    of_run = options_of(options, dataset, "body", "per_label", "test", "aer")
    splits = {seed: few_shot_split(dataset, options.per_label, seed=seed) for seed in range(options.seeds)}
    tests = {seed: sample_test(split, options.test, seed) for seed, split in splits.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with AppendLog(path, ".lock", KetFitError(f"another process writes {path}")) as file:
        rows = file.open(lambda: read_json_lines(path))
        check_options(path, rows, of_run, parse)
        sizes = {seed: len(test) for seed, test in tests.items()}
        check_test_sizes(path, sizes, ((row["seed"], row["test_size"]) for row in rows))
        done = {(row["head"], row["seed"]) for row in rows}
        for seed, split in splits.items():
            parts = parts_of(split, tests[seed], x, y)
            for name in HEADS:
                if (name, seed) not in done:
                    row = {"options": of_run, **run(name, parts, seed, options.aer)}
                    file.append(json.dumps(row).encode())
                    sys.stderr.write(f"seed {seed}, {name}: {row['seconds']} s\n")
    written = table(read_json_lines(path), tests, shlex.join(["python", "studies/qpu_head.py", *arguments]))
    path.with_suffix(".md").write_text(written, encoding="utf-8")
    sys.stdout.write(written)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
