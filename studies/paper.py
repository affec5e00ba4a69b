"""Run the studies of the paper's results: every plan in studies/paper, the bound, and the energy.

    python studies/paper.py --data sst2.tsv
    python studies/paper.py --data sst2.tsv --only qubits --only depth
    python studies/paper.py --data sst2.tsv --only encoders --frozen
    python studies/paper.py --quick

``studies/README.md`` says where the sentences come from. Each plan runs on the frozen and on the contrastively tuned
body. An interrupted run resumes with the existing rows. `--quick` runs every plan in small on bundled sentences, to see
that it runs; its numbers mean nothing. Afterwards ``python studies/paper_page.py`` makes the page from the rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from paper_claims import BOUND, ENERGY, PLANS, RESULTS_FOLDER, folder_of
from table import TREATMENTS, plan_of
from threadpoolctl import threadpool_limits

from ketfit import ContrastiveConfig, HeadConfig, QuantumHeadClassifier, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.circuit.circuit import Circuit
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.model.tuning import EmbeddingPrecision, TuneConfig
from ketfit.rng import numpy_stream
from ketfit.simulate.noise import load_noise
from ketfit.storage.atomic import write_file
from ketfit.study.executors import Executor, LocalExecutor, RayExecutor
from ketfit.study.expand import BodyMetadata, DataMetadata, expand
from ketfit.study.report import write_report
from ketfit.study.runner import run_study
from ketfit.study.spec import BodyPlan, BudgetPlan, DataPlan, LevelRange, StudyPlan
from ketfit.study.store import pending_tasks, read_results
from ketfit.study.task import Task

BODY, QUICK_BODY = "all-mpnet-base-v2", "all-MiniLM-L6-v2"

TUNING = ContrastiveConfig()
"""How the tuned body of all plans is tuned: the defaults of the library."""

QUICK_SEEDS, QUICK_PER_LABEL, QUICK_TESTS, QUICK_EPOCHS = 2, 20, 20, 1
"""Sizes of --quick: draws, sentences drawn and tested on of each label, and epochs."""

CALIBRATION_QUBITS = (12, 15)
CALIBRATION_SAMPLES = 128
EPOCHS_RUN = 0.8
"""Share of the epochs that early stopping leaves: 0.9 on the frozen body and 0.6 on the tuned one in table.py."""

FORWARD = 0.3
"""Seconds of predicting a sentence, in units of those of training on it for an epoch."""


def plans(data: str, quick: bool, frozen: bool = False) -> dict[str, StudyPlan]:
    """Return every plan by its name, with its bodies and data; with `frozen`, those of the frozen body alone."""
    body = QUICK_BODY if quick else BODY
    bodies = (BodyPlan(name=body), BodyPlan(name=body, tune=TUNING, dtype="bfloat16"))[: 1 if frozen else 2]
    found = {
        path.stem: StudyPlan.read(path).updated(bodies=bodies, data=DataPlan(source=data))
        for path in sorted(PLANS.glob("*.toml"))
    }
    if not frozen:
        found[BOUND] = plan_of(TREATMENTS["end-to-end"], DataPlan(source=data), body, None)
    return {name: in_small(plan) for name, plan in found.items()} if quick else found


def in_small(plan: StudyPlan) -> StudyPlan:
    """Return a plan with few levels, draws, tries, sentences and epochs; factorial fractions keep their levels."""
    factors = {name: levels if isinstance(levels, LevelRange) else levels[:2] for name, levels in plan.factors.items()}
    bodies = tuple(body.updated(tune=tuple(map(_tuning_in_small, body.stages)) or None) for body in plan.bodies)
    components = [
        *factors.get("head.components", ()),
        *(h.settings.get("components") or 0 for h in plan.heads.values()),
    ]
    trained = 2 * (1 - plan.data.validation_fraction)  # of each sentence drawn per label
    return plan.updated(
        bodies=bodies,
        seeds=tuple(range(QUICK_SEEDS)),
        data=plan.data.updated(per_label=max(QUICK_PER_LABEL, round((max(components) + 2) / trained))),
        train={**plan.train, "epochs": QUICK_EPOCHS},
        budget=BudgetPlan(learning_rates=plan.budget.learning_rates[:1], regularization=plan.budget.regularization[:1]),
        factors=factors,
    )


def _tuning_in_small(stage: TuneConfig) -> TuneConfig:
    return stage.updated(epochs=1, last_layers=1)


def sentences(dataset: Dataset, plan: StudyPlan, quick: bool) -> Dataset:
    """Return the sentences of a plan: all of them, or those that --quick needs."""
    if not quick:
        return dataset
    order, labels = numpy_stream(0, "choice").permutation(len(dataset)), np.array(dataset.labels)
    each = plan.data.per_label + QUICK_TESTS
    return dataset.take(np.concatenate([order[labels[order] == label][:each] for label in dataset.classes]))


def pending(plan: StudyPlan, folder: Path, dataset: Dataset) -> list[Task]:
    """Return the tasks of a plan that have no result yet."""
    data = DataMetadata(
        name=dataset.name, fingerprint=dataset.fingerprint, size=len(dataset), n_classes=len(dataset.classes)
    )
    bodies = {body.label: _metadata(body.name, body.dtype) for body in plan.bodies}
    return pending_tasks(expand(plan, data, bodies), read_results(folder), retry_failed=False)


@lru_cache
def _metadata(name: str, dtype: EmbeddingPrecision) -> BodyMetadata:
    body = load_body(name, dtype=dtype)
    return BodyMetadata(fingerprint=body.fingerprint, dimension=body.dimension)


@dataclass(frozen=True)
class StepModel:
    """Seconds of training on one sample for one epoch, per gate and amplitude of a head's circuits, on one thread.

    `seconds` is for circuits up to 12 qubits; beyond, where states leave the caches, each qubit takes `growth` times
    as long. `noisy` is the same for exact gate noise, per gate and entry of a density matrix. The samples share the
    density matrices of a circuit that loads its inputs once.
    """

    seconds: float
    growth: float
    noisy: float

    @classmethod
    def measure(cls) -> StepModel:
        """Return the model of this machine, from short fits of the paper's head on 12 and 15 qubits and under noise."""
        heads = [HeadConfig.paper(n_qubits=n_qubits) for n_qubits in CALIBRATION_QUBITS]
        small, large = (_seconds_per_epoch(head) / (CALIBRATION_SAMPLES * _size(head)) for head in heads)
        growth = (large / small) ** (1 / (CALIBRATION_QUBITS[1] - CALIBRATION_QUBITS[0]))
        noisy = HeadConfig.paper(noise=load_noise("ionq-forte"))
        return cls(small, max(1.0, growth), _seconds_per_epoch(noisy) / _matrix_size(noisy))

    def epoch(self, head: HeadConfig, samples: int) -> float:
        """Return the seconds of one epoch on so many samples."""
        encoder, qpu = _circuits(head)
        circuits = [encoder] * head.n_encoders
        noisy = 0.0
        if head.noise is None:
            circuits.append(qpu)
        else:
            noisy = self.noisy * _matrix_size(head) * (samples if head.n_reuploads > 1 else 1)
        exact: float = samples * sum(
            self.seconds
            * self.growth ** max(0, circuit.n_qubits - CALIBRATION_QUBITS[0])
            * len(circuit.gates)
            * 2**circuit.n_qubits
            for circuit in circuits
        )
        return noisy + exact

    def task(self, config: Mapping[str, Any], samples: int, tests: int) -> float:
        """Return the seconds of a task: all its tries, and the prediction of its test sentences."""
        if config["head"]["kind"] != "quantum":
            return 0.3
        settings = config["head"]["settings"]
        trained = HeadConfig.from_mapping(settings)
        tested = HeadConfig.from_mapping({**settings, **config["head"].get("test", {})})
        epochs: float = EPOCHS_RUN * config["train"]["epochs"] * len(config["tries"])
        return epochs * self.epoch(trained, samples) + FORWARD * self.epoch(tested, tests)


@lru_cache
def _circuits(head: HeadConfig) -> tuple[Circuit, Circuit]:
    """Return the circuit of an encoder and that of the QPU, which all draws of a plan share."""
    return head.encoder_circuit(), head.qpu_circuit()


def _size(head: HeadConfig) -> int:
    """Return the gates times the amplitudes of all circuits of a head."""
    encoder, qpu = _circuits(head)
    return sum(len(circuit.gates) * 2**circuit.n_qubits for circuit in [qpu, *[encoder] * head.n_encoders])


def _matrix_size(head: HeadConfig) -> int:
    """Return the gates times the entries of a density matrix of the circuit of a head that noise acts on."""
    _, circuit = _circuits(head)
    entries: int = 4**circuit.n_qubits
    return len(circuit.gates) * entries


def _seconds_per_epoch(head: HeadConfig) -> float:
    rng = numpy_stream(0, "init")
    X = rng.normal(size=(CALIBRATION_SAMPLES, 768)).astype(np.float32)
    y = np.arange(CALIBRATION_SAMPLES) % 2

    def fit(epochs: int) -> float:
        start = time.thread_time()
        QuantumHeadClassifier(head, TrainConfig(epochs=epochs, patience=None), seed=0).fit(
            X, y, validation=(X[:2], y[:2])
        )
        return time.thread_time() - start

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            fit(1)  # the first one loads what it needs
            first = fit(1)
            return (fit(3) - first) / 2
    finally:
        torch.set_num_threads(threads)


def estimate(
    chosen: Mapping[str, StudyPlan], datasets: Mapping[str, Dataset], results: Path, workers: int
) -> Iterator[str]:
    """Yield the lines of the estimate: hours of the missing tasks of each plan on so many processes.

    Bodies are not counted, neither their tuning nor the embedding, and so the bound is left out.
    """
    model, total = StepModel.measure(), 0.0
    yield f"{model.seconds:.2g} s a gate, amplitude and sample; {model.growth:.2f} times for each qubit beyond 12"
    for name, plan in chosen.items():
        if name != BOUND:
            tasks = pending(plan, folder_of(name, results), datasets[name])
            drawn = plan.data.per_label * len(datasets[name].classes)
            sizes = round(drawn * (1 - plan.data.validation_fraction)), len(datasets[name]) - drawn
            seconds = sum(model.task(task.config, *sizes) for task in tasks)
            total += seconds
            yield f"{name:20s} {len(tasks):5d} tasks {seconds / 3600 / workers:7.2f} h"
    yield f"{'all':20s} {total / 3600 / workers:19.2f} h on {workers} processes, without the work on bodies"


def run_energy(folder: Path) -> None:
    """Write ``energy.json``, what ``ketfit energy --json`` prints."""
    command = [sys.executable, "-m", "ketfit.cli", "energy", "--json"]
    report = subprocess.run(  # noqa: S603 - a fixed command
        command, check=True, capture_output=True, text=True
    ).stdout
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "energy.json", (json.dumps(json.loads(report)) + "\n").encode())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    names = [*sorted(path.stem for path in PLANS.glob("*.toml")), BOUND, ENERGY]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", help="file with columns text and label")
    parser.add_argument("--only", choices=names, action="append", help="result to run; may be repeated")
    parser.add_argument("--frozen", action="store_true", help="only on the frozen body; a later run adds the tuned one")
    parser.add_argument("--quick", action="store_true", help="run every plan in small, on bundled sentences")
    parser.add_argument("--output", type=Path, help="folder of the results, studies/results by default")
    parser.add_argument("--workers", type=int, help="number of processes; one per core by default")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--address", help="address of the Ray cluster")
    parser.add_argument("--estimate", action="store_true", help="only print the estimate")
    options = parser.parse_args(arguments)
    if not options.quick and options.data is None:
        parser.error("name the sentences: --data sst2.tsv, or try everything in small with --quick")
    if options.quick and options.output is None:
        parser.error("name a folder for the results of --quick: --output build/paper-quick")
    if options.engine == "ray" and options.workers is not None:
        parser.error("--workers is for the local engine; Ray uses the cluster's CPUs")
    if options.engine == "local" and options.address is not None:
        parser.error("--address is for --engine ray")
    if options.frozen and BOUND in (options.only or ()):
        parser.error("the bound is that of a body trained end to end: leave out --frozen")
    options.names = options.only or names
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the missing tasks of the results asked for, and write the report of each study."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results, source = options.output or RESULTS_FOLDER, options.data or "rotten-tomatoes"
    dataset = load_dataset(source)
    chosen = {
        name: plan for name, plan in plans(source, options.quick, options.frozen).items() if name in options.names
    }
    parts = {name: sentences(dataset, plan, options.quick) for name, plan in chosen.items()}
    for line in estimate(chosen, parts, results, options.workers or os.cpu_count() or 1):
        sys.stdout.write(f"{line}\n")
    if options.estimate:
        return
    if ENERGY in options.names:
        run_energy(folder_of(ENERGY, results))
    executor: Executor = RayExecutor(options.address) if options.engine == "ray" else LocalExecutor(options.workers)
    for name, plan in chosen.items():
        folder = folder_of(name, results)
        command = f"python studies/paper.py {shlex.join(arguments)}"
        progress = run_study(plan, folder, executor, command=command, progress=True, dataset=parts[name])
        write_report(folder)
        sys.stdout.write(f"{name}: {progress.done} of {progress.total} tasks done, {progress.failed} failed\n")


if __name__ == "__main__":
    main(sys.argv[1:])
