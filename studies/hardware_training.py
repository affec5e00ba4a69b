"""A head trained without noise goes on training through the hardware seam, under IonQ Forte's noise.

    python studies/hardware_training.py --backend aer:ionq-forte --first 3

Film reviews, a bundled body, 9 qubits, SPSA on the QPU's angles and the linear layer. Accuracy is measured before and
after on sentences that no training saw, under the same noise and shots, each sentence anew in every repeat. Writes
``studies/results/hardware_training.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig
from ketfit.hardware.cost import estimate, load_device
from ketfit.hardware.named import load_backend
from ketfit.hardware.training import HardwareTraining, train_on_hardware
from ketfit.learn.body import load_body
from ketfit.learn.compare import measure_head
from ketfit.learn.data import few_shot_split, load_dataset
from ketfit.simulate.noise import load_noise

HEAD = HeadConfig(
    n_qubits=9, encoder_layers=4, connectivity=2, main_layers=4, reference_amplitude=1.0, angle_scale=math.pi / 2
)
TRAINING = HardwareTraining(method="spsa", steps=40, batch_size=32, shots=500, learning_rate=0.1, perturbation=0.1)
TESTED, REPEATS = 1000, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="simulator:ionq-forte")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed; settings were chosen after 0 to 2 were seen")
    parser.add_argument("--output", type=Path, default=Path("studies/results/hardware_training.json"))
    options = parser.parse_args()
    dataset = load_dataset("rotten-tomatoes")
    body = load_body("all-MiniLM-L6-v2")
    rows = [run(dataset, body, options.backend, seed) for seed in range(options.first, options.first + options.seeds)]
    report = {
        "command": " ".join(["python", *sys.argv]),
        "head": HEAD.model_dump(mode="json", exclude_defaults=True),
        "training": TRAINING.model_dump(mode="json"),
        "noise": "ionq-forte",
        "test_sentences": TESTED,
        "repeats": REPEATS,
        "rows": rows,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


def run(dataset: Any, body: Any, backend: str, seed: int) -> dict[str, Any]:
    """One draw of the data: train without noise, measure, train on under noise, measure."""
    split = few_shot_split(dataset, 128, seed=seed)
    test = np.random.default_rng(seed).permutation(split.test)[:TESTED]
    x, labels = {}, {}
    for name, part in (("train", split.train), ("validation", split.validation), ("test", test)):
        chosen = dataset.take(part)
        x[name], labels[name] = body.encode(chosen.texts, progress=True), np.asarray(chosen.labels)
    held = (x["validation"], labels["validation"])
    head = QuantumHeadClassifier(HEAD, TrainConfig(), seed=seed).fit(x["train"], labels["train"], validation=held)

    def accuracy(classifier: QuantumHeadClassifier, **device: Any) -> float:
        measured = classifier.with_measurement(**device)
        return measure_head(measured, x["test"], labels["test"], REPEATS if device else 1)[0].accuracy

    device = {"shots": TRAINING.shots, "noise": load_noise("ionq-forte")}
    with tempfile.TemporaryDirectory() as folder:
        machine = load_backend(backend, Path(folder), seed=seed)
        trained = train_on_hardware(
            head, x["train"], labels["train"].tolist(), machine, Path(folder), TRAINING, seed=seed
        )
    losses = [step.loss for step in trained.steps]
    return {
        "seed": seed,
        "backend": backend,
        "exact_before": accuracy(head),
        "noisy_before": accuracy(head, **device),
        "noisy_after": accuracy(trained.classifier, **device),
        "loss_first_5": float(np.mean(losses[:5])),
        "loss_last_5": float(np.mean(losses[-5:])),
        "spent": asdict(trained.spent),
        "at_aria_prices": price(trained.spent.circuits),
    }


def price(circuits: int) -> dict[str, Any]:
    """What as many circuits of this head cost by IonQ Aria's gate-shot prices."""
    from ketfit.hardware.backend import GateCounts

    counts = HEAD.qpu_circuit().light_cone((0,)).gate_counts()
    cost = estimate([GateCounts(counts["ry"], counts["cx"])] * circuits, TRAINING.shots, load_device("ionq-aria"))
    return {"price": cost.price, "currency": cost.currency, "machine_hours": (cost.machine_s or 0) / 3600}


if __name__ == "__main__":
    main()
