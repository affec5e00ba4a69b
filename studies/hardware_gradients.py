"""Why angles gain nothing on Forte: the slopes that SPSA measures beside the exact ones.

    python studies/hardware_gradients.py

The head and the draws of ``hardware_training.py`` that its settings were chosen on (seeds 0 to 2), under Forte's noise.
Of 20 steps at the starting point: the loss's exact derivative along SPSA's direction, and what two sides of 32
sentences with 500 shots say of it. Writes ``studies/results/hardware_gradients.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware_training import HEAD, SPSA

from ketfit import QuantumHeadClassifier, TrainConfig, expectation
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.rng import numpy_stream, torch_stream
from ketfit.simulate.noise import load_noise

BATCH, DRAWS = 32, 20


def main() -> None:
    dataset, body = load_dataset("rotten-tomatoes"), load_body("all-MiniLM-L6-v2")
    rows = [compare(dataset, body, seed) for seed in range(3)]
    report = {"command": " ".join(["python", *sys.argv]), "batch": BATCH, "draws": DRAWS, "rows": rows}
    Path("studies/results/hardware_gradients.json").write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


def compare(dataset: Any, body: Any, seed: int) -> dict[str, Any]:
    """Return signal and noise of the slopes of SPSA for one split of the data."""
    split = few_shot_split(dataset, 128, seed=seed)
    parts = [dataset.take(part) for part in (split.train, split.validation)]
    train, held = ((body.encode(part.texts), np.asarray(part.labels)) for part in parts)
    classifier = QuantumHeadClassifier(HEAD, TrainConfig(), seed=seed).fit(*train, validation=held)
    head = classifier.module_.double()
    codes = torch.as_tensor(np.searchsorted(classifier.classes_, train[1]))
    with torch.no_grad():
        inputs = head.angle_scale * head.encode(torch.as_tensor(train[0]).double())

    def loss(weights: torch.Tensor, rows: torch.Tensor, **shots: Any) -> torch.Tensor:
        values = expectation(head.circuit, weights, inputs[rows], noise=load_noise("ionq-forte"), **shots)
        return torch.nn.functional.cross_entropy(head.linear(values), codes[rows])

    (gradient,) = torch.autograd.grad(loss(head.weights, torch.arange(len(codes))), head.weights)
    exact, measured = [], []
    rng, generator = numpy_stream(seed, "batches"), torch_stream(seed, "shots")
    for _ in range(DRAWS):
        rows = torch.from_numpy(rng.permutation(len(codes))[:BATCH])
        direction = torch.from_numpy(rng.choice([-1.0, 1.0], size=len(gradient)))
        with torch.no_grad():
            sides = [
                float(loss(head.weights + sign * SPSA.perturbation * direction, rows, shots=500, generator=generator))
                for sign in (1, -1)
            ]
        exact.append(float(gradient @ direction))
        measured.append((sides[0] - sides[1]) / (2 * SPSA.perturbation))
    cosines = np.sign(measured) * exact / (float(gradient.norm()) * len(gradient) ** 0.5)
    return {
        "seed": seed,
        "angles": len(gradient),
        "gradient_norm": float(gradient.norm()),
        "exact_slope_rms": float(np.sqrt(np.mean(np.square(exact)))),
        "measured_slope_rms": float(np.sqrt(np.mean(np.square(measured)))),
        "estimate_norm_rms": float(np.sqrt(np.mean(np.square(measured)) * len(gradient))),
        "cosine_mean": float(cosines.mean()),
        "sign_right": float(np.mean(np.sign(exact) == np.sign(measured))),
    }


if __name__ == "__main__":
    main()
