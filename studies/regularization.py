"""Compare ways to regularize the recommended quantum head on a frozen body, with logistic regression beside them.

    python studies/regularization.py --data reviews.tsv --score validation
    python studies/regularization.py --data sst2.tsv --first-draw 10

To choose a way, ``--score validation`` uses no test sentence: each draw is split once more, the ways are fitted on 85 %
of its training sentences and validated on the other 15 %, and scored on its validation sentences. Without it the ways
are fitted and validated by the paper's protocol and scored on the test sentences, once. Ways on folds use the training
and the validation sentences together. Every row is written when it is complete, and an interrupted run resumes with the
same options. Rows and tables go into ``studies/results/regularization/``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run_options import check_options, check_test_sizes, options_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import Split, few_shot_split
from ketfit.errors import KetFitError
from ketfit.storage.append_log import AppendLog, read_json_lines
from ketfit.study.analysis.formatting import interval, points
from ketfit.study.analysis.hypothesis_tests import crossed_test
from ketfit.study.task import pack_bits, unpack_bits

RESULTS = Path(__file__).parent / "results" / "regularization"
RATES, STRENGTHS = (0.01, 0.03, 0.1, 0.3), (1.0, 3.0, 10.0, 30.0)
N_FOLDS, N_STARTS = 5, 4

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
Classifier = Any  # anything with predict_proba


@dataclass(frozen=True, eq=False)
class Sentences:
    """Embeddings and class indices to fit and to validate on, the number of classes, and the seed."""

    train: Part
    validation: Part
    n_classes: int
    seed: int

    @property
    def all(self) -> Part:
        """Both parts together."""
        (x, y), (z, w) = self.train, self.validation
        return np.concatenate([x, z]), np.concatenate([y, w])

    def folds(self) -> Iterable[tuple[Part, Part]]:
        """Return the training and the validation part of each fold of all sentences."""
        x, y = self.all
        for rows, held_out in StratifiedKFold(N_FOLDS, shuffle=True, random_state=self.seed).split(x, y):
            yield (x[rows], y[rows]), (x[held_out], y[held_out])

    def quantum(self, seed: int, part: Part, validation: Part, **train: Any) -> Classifier:
        """Return the recommended head, fitted with the best epoch by validation loss."""
        head = HeadConfig.recommended(part[0].shape[1], self.n_classes)
        config = TrainConfig(**{"learning_rate": 0.03, **train})
        return QuantumHeadClassifier(head, config, seed).fit(*part, validation=validation)


def best(heads: Sequence[Classifier], validation: Part) -> Classifier:
    """Return the head with the lowest validation loss, the first of equals."""
    x, y = validation
    return min(heads, key=lambda head: log_loss(y, head.predict_proba(x), labels=head.classes_))


def regressions(part: Part, validation: Part) -> Classifier:
    """Return the logistic regression with the best strength by validation loss."""
    return best([LogisticRegression(C=strength, max_iter=1000).fit(*part) for strength in STRENGTHS], validation)


def tries(data: Sentences, **train: Any) -> list[Classifier]:
    """Return the recommended head with the best learning rate."""
    heads = [data.quantum(data.seed, data.train, data.validation, learning_rate=rate, **train) for rate in RATES]
    return [best(heads, data.validation)]


def refitted(data: Sentences) -> list[Classifier]:
    """Return the recommended head, fitted on all sentences for the number of epochs that is best on folds."""
    x, y = data.all
    head = HeadConfig.recommended(x.shape[1], data.n_classes)
    config = TrainConfig(learning_rate=0.03)
    return [QuantumHeadClassifier(head, config, data.seed, validation="cross", n_folds=N_FOLDS).fit(x, y)]


REGRESSION, QUANTUM = "logistic regression, best of 4 strengths", "recommended, best of 4 rates"
WAYS: dict[str, Callable[[Sentences], list[Classifier]]] = {
    REGRESSION: lambda data: [regressions(data.train, data.validation)],
    "logistic regression, mean of 5 folds": lambda data: [regressions(*fold) for fold in data.folds()],
    QUANTUM: tries,
    "recommended, best of 4 rates, weight decay 0.1": lambda data: tries(data, weight_decay=0.1),
    "recommended": lambda data: [data.quantum(data.seed, data.train, data.validation)],
    "recommended, weight decay 0.01": lambda data: [
        data.quantum(data.seed, data.train, data.validation, weight_decay=0.01)
    ],
    "recommended, mean of 4 starts": lambda data: [
        data.quantum(data.seed + 1000 * start, data.train, data.validation) for start in range(N_STARTS)
    ],
    "recommended, epochs by 5 folds": refitted,
    "recommended, mean of 5 folds": lambda data: [
        data.quantum(data.seed + 1000 * number, *fold) for number, fold in enumerate(data.folds())
    ],
}
"""Ways to fit by name; the probabilities of several heads are averaged."""


def run(name: str, split: Split, x: NDArray[np.float32], y: NDArray[np.int64], seed: int, score: str) -> dict[str, Any]:
    """Return the row of one way on one draw."""
    train, held_out, test = (np.fromiter(rows, np.int64) for rows in (split.train, split.validation, split.test))
    if score == "validation":
        test = held_out
        train, held_out = train_test_split(train, test_size=0.15, random_state=seed, stratify=y[train])
    data = Sentences((x[train], y[train]), (x[held_out], y[held_out]), int(y.max()) + 1, seed)
    start = time.perf_counter()
    heads = WAYS[name](data)
    seconds = time.perf_counter() - start
    probabilities = np.mean([head.predict_proba(x[test]) for head in heads], axis=0)
    correct = probabilities.argmax(axis=1) == y[test]
    return {
        "way": name,
        "draw": seed,
        "loss": float(log_loss(y[test], probabilities, labels=range(data.n_classes))),
        "accuracy": float(correct.mean()),
        "size": len(test),
        "correct": pack_bits(correct),
        "seconds": round(seconds, 1),
    }


def table(rows: Sequence[dict[str, Any]], splits: dict[int, Split], score: str, command: str) -> str:
    """Return a Markdown table of the ways, with differences from logistic regression and from the best of 4 rates."""
    found = {(row["way"], row["draw"]): row for row in rows if row["draw"] in splits}
    names = [name for name in WAYS if all((name, draw) in found for draw in splits)]
    scored = [scored_sentences(split, score) for split in splits.values()]

    def column(name: str, key: str) -> NDArray[Any]:
        return np.array([found[name, draw][key] for draw in splits])

    def difference(name: str, other: str) -> str:
        if name == other or other not in names:
            return ""
        first, second = (
            [unpack_bits(found[way, draw]["correct"], found[way, draw]["size"]) for draw in splits]
            for way in (name, other)
        )
        test = crossed_test(first, second, scored)
        return f"{points(test.difference, plus=True)} ({interval(test.low, test.high, plus=True)})"

    lines = [
        f"Made by `{command}`: {len(splits)} draws, scored on the {score} sentences; differences in accuracy",
        "in points.\n",
        "| way | loss | change of the loss | accuracy | to the best of 4 rates | to logistic regression |",
        "|---|---:|---|---:|---|---|",
    ]
    for name in names:
        change = column(name, "loss") - column(QUANTUM, "loss")
        shown = f"{change.mean():+.4f} ± {change.std(ddof=1) / len(change) ** 0.5:.4f}" if name != QUANTUM else ""
        figures = f"{column(name, 'loss').mean():.4f} | {shown} | {column(name, 'accuracy').mean():.2%}"
        lines.append(f"| {name} | {figures} | {difference(name, QUANTUM)} | {difference(name, REGRESSION)} |")
    return "\n".join(lines) + "\n"


def scored_sentences(split: Split, score: str) -> NDArray[np.int64]:
    """Return the positions of the sentences that the ways are scored on."""
    return np.asarray(split.test if score == "test" else split.validation)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file with columns text and label")
    parser.add_argument("--body", default="all-mpnet-base-v2")
    parser.add_argument("--per-label", type=int, default=256)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--score", choices=("validation", "test"), default="test")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Run the missing rows draw by draw, and write the table."""
    options = parse(arguments)
    dataset = load_dataset(options.data)
    of_run = options_of(options, dataset, "body", "per_label", "score")
    codes = {label: code for code, label in enumerate(dataset.classes)}
    y = np.array([codes[label] for label in dataset.labels])
    x = load_body(options.body).encode(dataset.texts, progress=True)
    draws = range(options.first_draw, options.first_draw + options.draws)
    splits = {draw: few_shot_split(dataset, options.per_label, seed=draw) for draw in draws}
    path = RESULTS / f"{Path(options.data).stem}-{options.body}-{options.score}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with AppendLog(path, ".lock", KetFitError(f"another process writes {path}")) as file:
        rows = file.open(lambda: read_json_lines(path))
        check_options(path, rows, of_run, parse)
        sizes = {draw: len(scored_sentences(split, options.score)) for draw, split in splits.items()}
        check_test_sizes(path, sizes, ((row["draw"], row["size"]) for row in rows))
        done = {(row["way"], row["draw"]) for row in rows}
        for draw, split in splits.items():
            for name in WAYS:
                if (name, draw) not in done:
                    row = {"options": of_run, **run(name, split, x, y, draw, options.score)}
                    file.append(json.dumps(row).encode())
                    sys.stderr.write(f"draw {draw}, {name}: {row['accuracy']:.2%}, {row['seconds']} s\n")
    written = table(
        read_json_lines(path), splits, options.score, f"python studies/regularization.py {shlex.join(arguments)}"
    )
    path.with_suffix(".md").write_text(written, encoding="utf-8")
    sys.stdout.write(written)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
