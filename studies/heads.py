"""Compare settings of the quantum head, from the paper's head to the recommended one, on a frozen body.

    python studies/heads.py --data sst2.tsv
    python studies/heads.py --data trec.tsv --per-label 64

With two classes, the variants lead from the paper's head to the recommended one, and then change one setting of it at
a time; with more classes, they test what a head for several classes needs. Each variant has two tries on each split,
chosen by the loss on the validation sentences; test accuracy is measured once. Every row is written when it is
complete, and an interrupted run resumes with the same options. Rows and a table go into ``studies/results/heads/``.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run_options import check_options, check_test_sizes, options_of
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor, nn

from ketfit import HeadConfig, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import Split, few_shot_split
from ketfit.errors import KetFitError
from ketfit.model.head import QuantumHead, seeded_linear
from ketfit.rng import torch_stream
from ketfit.storage.append_log import AppendLog, read_json_lines
from ketfit.study.analysis.hypothesis_tests import CrossedTest, crossed_test, holm
from ketfit.study.task import pack_bits, unpack_bits
from ketfit.training.loop import Samples, train

RESULTS = Path(__file__).parent / "results" / "heads"
RATES, STRENGTHS = (0.01, 0.03), (3.0, 10.0)
REFERENCE = "recommended"

Settings = Mapping[str, Any]
Probabilities = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Variant:
    """A head, described by its differences from the recommended one.

    Attributes:
        head, train: Settings of `HeadConfig` and `TrainConfig`.
        literal: Start from the paper's head in place of the recommended one.
        linear_rate: Learning rate of the linear layer, in units of that of the angles.
        spread: Spread of the initial angles, in units of the usual one.
        members: Number of heads, trained separately from other angles, whose probabilities are averaged.
        per_class: A head with one measured qubit for each class.
        components: Number of principal components of the training sentences that the head takes as input.
        linear: No quantum head: logistic regression.
        bottleneck: No quantum head: two linear layers with so many numbers between them.
    """

    head: Settings = field(default_factory=dict)
    train: Settings = field(default_factory=dict)
    literal: bool = False
    linear_rate: float = 1.0
    spread: float = 1.0
    members: int = 1
    per_class: bool = False
    components: int | None = None
    linear: bool = False
    bottleneck: int | None = None


_REFERENCE, _SCALE = {"reference_amplitude": 1.0}, {"angle_scale": math.pi / 2}
_DEEP, _WIDE = {"encoder_layers": 8}, {"connectivity": 9}
_PLAIN = {"encoder_layers": 8, "skip_connection": False}  # for more classes, as recommended for two

TWO_CLASSES = {
    "paper": Variant(literal=True),
    "paper, reference amplitude": Variant(_REFERENCE, literal=True),
    "paper, reference amplitude, scale pi/2": Variant({**_REFERENCE, **_SCALE}, literal=True),
    "the same, 8 encoder layers": Variant({**_REFERENCE, **_SCALE, **_DEEP}, literal=True),
    "the same, connectivity 9": Variant({**_REFERENCE, **_SCALE, **_DEEP, **_WIDE}, literal=True),
    REFERENCE: Variant(),
    "no reference amplitude": Variant({"reference_amplitude": 0.0}),
    "reference amplitude 0.5": Variant({"reference_amplitude": 0.5}),
    "reference amplitude 2": Variant({"reference_amplitude": 2.0}),
    "angle scale pi/4": Variant({"angle_scale": math.pi / 4}),
    "angle scale pi": Variant({"angle_scale": math.pi}),
    "angle scale trained": Variant({"train_angle_scale": True}),
    "epochs chosen by accuracy": Variant(train={"selection": "accuracy"}),
    "all 150 epochs": Variant(train={"selection": "last"}),
    "initial angles of 0.01": Variant(spread=0.1),
    "initial angles of 1": Variant(spread=10.0),
    "linear layer 10 times as fast": Variant(linear_rate=10.0),
    "linear layer a tenth as fast": Variant(linear_rate=0.1),
    "weight decay 0.1": Variant(train={"weight_decay": 0.1}),
    "weight decay 1": Variant(train={"weight_decay": 1.0}),
    "cosine schedule": Variant(train={"schedule": "cosine"}),
    "4 encoder layers": Variant({"encoder_layers": 4}),
    "16 encoder layers": Variant({"encoder_layers": 16}),
    "connectivity 4": Variant({"connectivity": 4}),
    "4 main layers": Variant({"main_layers": 4}),
    "2 re-uploads": Variant({"n_reuploads": 2}),
    "2 encoders averaged": Variant({"n_encoders": 2, "merge": "mean"}),
    "2 slices averaged": Variant({"n_encoders": 2, "merge": "mean", "encoder_input": "slices"}),
    "4 slices of 8 qubits averaged": Variant(
        {"n_encoders": 4, "merge": "mean", "encoder_input": "slices", "n_qubits": 8, "connectivity": 7}
    ),
    "all qubits read": Variant({"n_measured": 10}),
    "skip connection": Variant({"skip_connection": True}),
    "2 members of 4 layers": Variant({"encoder_layers": 4}, members=2),
    "4 members of 2 layers": Variant({"encoder_layers": 2, "connectivity": 4, "main_layers": 0}, members=4),
    "4 members of 8 layers": Variant(members=4),
    "144 angles and weights": Variant({"encoder_layers": 2, "connectivity": 4, "main_layers": 0}),
    "224 angles and weights": Variant({"encoder_layers": 4, "connectivity": 4, "main_layers": 0}),
    "384 angles and weights": Variant({"encoder_layers": 3, "main_layers": 0}),
    "3 qubits on 7 components": Variant(components=7),
    "4 qubits on 15 components": Variant(components=15),
    "5 qubits on 31 components": Variant(components=31),
    "6 qubits on 63 components": Variant(components=63),
    "7 qubits on 127 components": Variant(components=127),
    "5 qubits on 31, reference amplitude 2": Variant({"reference_amplitude": 2.0}, components=31),
    "5 qubits on 31, skip connection": Variant({"skip_connection": True}, components=31),
    "5 qubits on 31, 4 members": Variant(components=31, members=4),
    "linear on 7 components": Variant(components=7, linear=True),
    "linear on 15 components": Variant(components=15, linear=True),
    "linear on 31 components": Variant(components=31, linear=True),
    "linear on 143 components": Variant(components=143, linear=True),
    "linear on 223 components": Variant(components=223, linear=True),
    "linear on 383 components": Variant(components=383, linear=True),
    "logistic regression": Variant(linear=True),
}
"""Variants for two classes: step by step, one change at a time, and heads of few parameters beside linear ones."""

_SKIP = {"skip_connection": True}
MANY_CLASSES = {
    "as for two classes": Variant(_PLAIN),
    "all qubits read": Variant({**_PLAIN, "n_measured": 10}),
    "skip connection": Variant({**_PLAIN, **_SKIP}),
    "400 epochs": Variant(_PLAIN, train={"epochs": 400}),
    "20 encoder layers": Variant({"skip_connection": False}),
    "6 encoders averaged": Variant({**_PLAIN, "n_encoders": 6, "merge": "mean"}),
    REFERENCE: Variant(),
    "skip connection, 6 encoders averaged": Variant({**_PLAIN, **_SKIP, "n_encoders": 6, "merge": "mean"}),
    "a head for each class": Variant(per_class=True),
    "6 qubits on 63 components": Variant(components=63),
    "7 qubits on 127 components": Variant(components=127),
    "5 numbers between two linear layers": Variant(bottleneck=5),
    "10 numbers between two linear layers": Variant(bottleneck=10),
    "linear on 63 components": Variant(components=63, linear=True),
    "linear on 127 components": Variant(components=127, linear=True),
    "logistic regression": Variant(linear=True),
}
"""Variants for more classes."""

PAIRS = (
    ("144 angles and weights", "linear on 143 components"),
    ("224 angles and weights", "linear on 223 components"),
    ("384 angles and weights", "linear on 383 components"),
    ("5 qubits on 31 components", "logistic regression"),
    ("5 qubits on 31 components", "linear on 31 components"),
    ("5 qubits on 31, 4 members", "logistic regression"),
    (REFERENCE, "logistic regression"),
    ("a head for each class", "logistic regression"),
    ("7 qubits on 127 components", "linear on 127 components"),
)
"""Pairs of variants to test against each other."""


class Rates(nn.Module):
    """A head whose linear layer has its own learning rate."""

    def __init__(self, head: QuantumHead, angles: float, linear: float) -> None:
        super().__init__()
        self.head, self.rates = head, (angles, linear)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits of the head."""
        logits: Tensor = self.head(embeddings)
        return logits

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the two groups of parameters, each with its learning rate."""
        linear = list(self.head.linear.parameters())
        others = [p for p in self.head.parameters() if p.requires_grad and all(p is not own for own in linear)]
        return [(others, self.rates[0]), (linear, self.rates[1])]


class OnePerClass(nn.Module):
    """A quantum head of two classes for each class; the logit of a class is the difference of its head's logits."""

    def __init__(self, heads: Iterable[QuantumHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logits, shape (batch, n_classes)."""
        return torch.stack([(logits := head(embeddings))[:, 1] - logits[:, 0] for head in self.heads], dim=1)


@dataclass(frozen=True, eq=False)
class Parts:
    """Embeddings and class indices of training, validation and test, and the number of classes."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    validation: tuple[NDArray[np.float32], NDArray[np.int64]]
    test: tuple[NDArray[np.float32], NDArray[np.int64]]
    n_classes: int

    @classmethod
    def of(cls, split: Split, embeddings: NDArray[np.float32], codes: NDArray[np.int64]) -> Parts:
        """Return the parts of a split."""
        train, validation, test = (
            (embeddings[rows], codes[rows]) for rows in map(list, (split.train, split.validation, split.test))
        )
        return cls(train, validation, test, n_classes=int(codes.max()) + 1)

    def projected(self, components: int) -> Parts:
        """Return the parts projected on the principal components of the training sentences."""
        axes = PCA(components, svd_solver="full").fit(self.train[0])
        train, validation, test = (
            (axes.transform(x).astype(np.float32), y) for x, y in (self.train, self.validation, self.test)
        )
        return Parts(train, validation, test, self.n_classes)


def build(variant: Variant, width: int, n_classes: int, rate: float, chance: torch.Generator) -> nn.Module:
    """Return the module of a variant before training."""
    if variant.bottleneck is not None:
        first = seeded_linear(width, variant.bottleneck, chance)
        return nn.Sequential(first, seeded_linear(variant.bottleneck, n_classes, chance))

    def head(classes: int) -> QuantumHead:
        start = HeadConfig.paper() if variant.literal else HeadConfig.recommended(width, classes)
        made = QuantumHead(start.updated(**variant.head), width, classes, chance)
        with torch.no_grad():
            for angles in (made.encoder.weights, made.weights):
                angles.mul_(variant.spread)
        return made

    if variant.per_class:
        return OnePerClass(head(2) for _ in range(n_classes))
    whole = head(n_classes)
    return whole if variant.linear_rate == 1 else Rates(whole, rate, rate * variant.linear_rate)


def fit_torch(variant: Variant, parts: Parts, rate: float, seed: int) -> tuple[Probabilities, dict[str, Any]]:
    """Train the members of a variant; return the function of their mean probabilities, and the metrics."""
    settings = dict(variant.train)
    last = settings.get("selection") == "last"
    held = None if last else _samples(parts.validation)
    if last:
        settings.pop("selection")
    config = TrainConfig(learning_rate=rate, **settings)
    modules, losses, epochs = [], [], []
    for member in range(variant.members):
        chance = torch_stream(seed, "init", member)
        module = build(variant, parts.train[0].shape[1], parts.n_classes, rate, chance)
        result = train(module, _samples(parts.train), held, config, seed=seed)
        modules.append(module)
        losses.append(result.history[result.best_epoch].train_loss)
        epochs.append(result.best_epoch)

    @torch.no_grad()
    def probabilities(x: NDArray[np.float32]) -> NDArray[np.float64]:
        said = [module(torch.from_numpy(x)).double().softmax(dim=1).numpy() for module in modules]
        return np.asarray(np.mean(said, axis=0))

    count = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
    return probabilities, {"parameters": count, "train_loss": float(np.mean(losses)), "epoch": float(np.mean(epochs))}


def fit_linear(parts: Parts, strength: float) -> tuple[Probabilities, dict[str, Any]]:
    """Fit logistic regression; return its function of probabilities and the metrics of its training."""
    regression = LogisticRegression(C=strength, max_iter=1000)
    regression.fit(*parts.train)
    loss = log_loss(parts.train[1], regression.predict_proba(parts.train[0]))
    count = regression.coef_.size + regression.intercept_.size
    return regression.predict_proba, {"parameters": int(count), "train_loss": float(loss), "epoch": None}


def run(name: str, variant: Variant, parts: Parts, seed: int) -> dict[str, Any]:
    """Return the row of one variant on one split: the try with the lowest validation loss."""
    start, tries = time.perf_counter(), []
    if variant.components is not None:
        parts = parts.projected(variant.components)
    for value in STRENGTHS if variant.linear else RATES:
        outputs, metrics = fit_linear(parts, value) if variant.linear else fit_torch(variant, parts, value, seed)
        x, y = parts.validation
        loss = log_loss(y, outputs(x), labels=range(parts.n_classes))
        tries.append(({"value": value, "validation_loss": float(loss), **metrics}, outputs))
    metrics, outputs = min(tries, key=lambda item: item[0]["validation_loss"])
    correct = outputs(parts.test[0]).argmax(axis=1) == parts.test[1]
    return {
        "variant": name,
        "seed": seed,
        **metrics,
        "tries": [{key: row[key] for key in ("value", "validation_loss")} for row, _ in tries],
        "test_accuracy": float(correct.mean()),
        "test_size": len(correct),
        "correct": pack_bits(correct),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _samples(part: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Samples:
    x, y = part
    return Samples(torch.from_numpy(x), torch.from_numpy(y), torch.ones(len(y)))


def table(rows: list[dict[str, Any]], variants: Iterable[str], splits: Mapping[int, Split], command: str) -> str:
    """Return Markdown tables of the variants against the reference, and of the pairs, with Holm's p values."""
    found = {(row["variant"], row["seed"]): row for row in rows}
    present = [name for name in variants if all((name, seed) in found for seed in splits)]

    def mean(name: str, key: str) -> float:
        return float(np.mean([found[name, seed][key] for seed in splits]))

    def right(name: str) -> list[NDArray[np.bool_]]:
        own = [found[name, seed] for seed in splits]
        return [unpack_bits(row["correct"], row["test_size"]) for row in own]

    def test(one: str, other: str) -> CrossedTest:
        return crossed_test(right(one), right(other), [np.asarray(splits[seed].test) for seed in splits])

    tests = {name: test(name, REFERENCE) for name in present if name != REFERENCE}
    adjusted = dict(zip(tests, holm([made.p_value for made in tests.values()]), strict=True))
    lines = [
        f"Made by `{command}`: {len(splits)} draws, two tries each.\n",
        "| variant | parameters | validation loss | training loss | test | difference | p (Holm) |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for name in present:
        figures = f"{mean(name, 'validation_loss'):.3f} | {mean(name, 'train_loss'):.3f}"
        row = f"| {name} | {mean(name, 'parameters'):,.0f} | {figures} | {mean(name, 'test_accuracy'):.2%} | "
        lines.append(row + (f"{_shown(tests[name])} | {adjusted[name]:.3f} |" if name in tests else " | |"))
    lines += ["", "| pair | difference | p |", "|---|---|---:|"]
    for one, other in PAIRS:
        if one in present and other in present:
            made = test(one, other)
            lines.append(f"| {one} - {other} | {_shown(made)} | {made.p_value:.3f} |")
    return "\n".join(lines) + "\n"


def _shown(test: CrossedTest) -> str:
    if test.low is None or test.high is None:
        return f"{100 * test.difference:+.2f}"
    return f"{100 * test.difference:+.2f} [{100 * test.low:+.2f}, {100 * test.high:+.2f}]"


def embed(dataset: Dataset, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the embeddings and the class indices of all sentences of a data set."""
    numbers = {label: code for code, label in enumerate(dataset.classes)}
    embeddings = load_body(name).encode(dataset.texts, progress=True)
    return embeddings, np.array([numbers[label] for label in dataset.labels])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file with columns text and label")
    parser.add_argument("--body", default="all-mpnet-base-v2")
    parser.add_argument("--per-label", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Run the missing tasks, seed by seed, and write the table."""
    options = parse(arguments)
    dataset = load_dataset(options.data)
    of_run = options_of(options, dataset, "body", "per_label")
    embeddings, codes = embed(dataset, options.body)
    variants = TWO_CLASSES if len(dataset.classes) == 2 else MANY_CLASSES
    path = RESULTS / f"{Path(options.data).stem}.jsonl"
    splits = {seed: few_shot_split(dataset, options.per_label, seed=seed) for seed in range(options.seeds)}
    with AppendLog(path, ".lock", KetFitError(f"another process writes {path}")) as file:
        rows = file.open(lambda: read_json_lines(path))
        check_options(path, rows, of_run, parse)
        sizes = {seed: len(split.test) for seed, split in splits.items()}
        check_test_sizes(path, sizes, ((row["seed"], row["test_size"]) for row in rows))
        done = {(row["variant"], row["seed"]) for row in rows}
        for seed, split in splits.items():
            parts = Parts.of(split, embeddings, codes)
            for name, variant in variants.items():
                if (name, seed) not in done:
                    row = {"options": of_run, **run(name, variant, parts, seed)}
                    file.append(json.dumps(row).encode())
                    sys.stderr.write(f"seed {seed}: {name}: {row['test_accuracy']:.4f}, {row['seconds']} s\n")
    written = table(read_json_lines(path), variants, splits, f"python studies/heads.py {shlex.join(arguments)}")
    path.with_suffix(".md").write_text(written, encoding="utf-8")
    sys.stdout.write(written)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
