"""Where training angles does gain: a device whose rotations are off, each by an angle of its own that nobody knows.

    python studies/hardware_miscalibrated.py

Film reviews, a head of 9 qubits and one main layer, no noise but the offsets (a standard deviation of 0.3 rad) and 500
shots. The linear layer alone, then all rotations by parameter shift, 6 steps of 32 sentences, both with validation on
the device. Writes ``studies/results/hardware_miscalibrated.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware_training import HEAD, LINEAR, REPEATS, TESTED

from ketfit import QuantumHeadClassifier, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.hardware.backends.base import BoundCircuit
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.runs.postprocessing import MeasurementPlan, OutputLayer
from ketfit.hardware.training import HardwareTarget, HardwareTraining, train_on_hardware
from ketfit.rng import numpy_stream
from ketfit.simulate.shots import rotation_angles, rotations_as_inputs

ONE_LAYER = HEAD.updated(main_layers=1)
SHIFT = HardwareTraining(
    method="parameter_shift", steps=6, batch_size=32, shots=500, learning_rate=0.05, validate_every=2
)
OFFSET = 0.3


class Miscalibrated(Simulator):
    """The j-th rotation of every circuit is off by an angle that stays the same; canaries are spared."""

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Run them as this device would."""
        return super().submit([self._off(bound) for bound in circuits], shots, tag=tag)

    def _off(self, bound: BoundCircuit) -> BoundCircuit:
        if not bound.circuit.n_inputs:
            return bound
        circuit, columns = rotations_as_inputs(bound.circuit)
        weights, inputs = (torch.tensor([part]).double() for part in (bound.weights, bound.inputs))
        angles = rotation_angles(columns, weights[0], inputs, 1)[0].numpy()
        off = OFFSET * numpy_stream(self.seed, "noise").normal(size=len(angles))
        return replace(bound, circuit=circuit, weights=(), inputs=tuple((angles + off).tolist()))


def main() -> None:
    dataset, body = load_dataset("rotten-tomatoes"), load_body("all-MiniLM-L6-v2")
    rows = [run(dataset, body, seed) for seed in range(3, 6)]
    trainings = [config.model_dump(mode="json") for config in (LINEAR, SHIFT)]
    report = {"command": " ".join(["python", *sys.argv]), "offset": OFFSET, "trainings": trainings, "rows": rows}
    Path("studies/results/hardware_miscalibrated.json").write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


def run(dataset: Any, body: Any, seed: int) -> dict[str, Any]:
    """Train and measure one head on one split of the data and one device."""
    split = few_shot_split(dataset, 128, seed=seed)
    test = np.random.default_rng(seed).permutation(split.test)[:TESTED]
    parts = [dataset.take(part) for part in (split.train, split.validation, test)]
    train, held, tested = ((body.encode(part.texts), np.asarray(part.labels)) for part in parts)
    head = QuantumHeadClassifier(ONE_LAYER, TrainConfig(), seed=seed).fit(*train, validation=held)
    row: dict[str, Any] = {"seed": seed, "exact": head.score(*tested)}
    with tempfile.TemporaryDirectory() as name:
        judge = Miscalibrated(Path(name) / "judge", seed=seed, max_circuits=10_000)
        row["before"] = accuracy(head, *tested, judge)
        for config in (LINEAR, SHIFT):
            folder = Path(name) / config.method
            machine = Miscalibrated(folder / "jobs", seed=seed)
            samples = (held[0], held[1].tolist())
            target = HardwareTarget(machine, folder, seed)
            trained = train_on_hardware(head, (train[0], train[1].tolist()), target, config, validation=samples)
            head = trained.classifier
            found = {"kept_step": trained.best_step, "spent": asdict(trained.spent)}
            row[f"after_{config.method}"] = {"accuracy": accuracy(head, *tested, judge), **found}
            sys.stderr.write(f"seed {seed}: {json.dumps(row)}\n")
    return row


def accuracy(classifier: QuantumHeadClassifier, x: Any, labels: Any, judge: Simulator) -> list[float]:
    """Return the accuracy of each repeat on the device."""
    head = classifier.module_
    with torch.no_grad():
        z = head.encode(torch.as_tensor(x, dtype=head.weights.dtype)).double()
        measurement = MeasurementPlan(head.circuit, (0,))
        circuits = measurement.circuits(head.weights.double().tolist(), head.angle_scale.double() * z)
        last = OutputLayer(head.linear.weight.double(), head.linear.bias.double(), skip=False, temperature=1.0)
        found = []
        for _ in range(REPEATS):
            counts = judge.result(judge.submit(circuits, SHIFT.shots, tag="test"))
            codes = last.logits(measurement.expectations(measurement.distributions(counts)), z).argmax(dim=1).numpy()
            found.append(float((classifier.classes_[codes] == labels).mean()))
    return found


if __name__ == "__main__":
    main()
