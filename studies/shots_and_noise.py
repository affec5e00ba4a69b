"""Measure accuracy against shots and gate errors, for heads trained with and without them.

    python studies/shots_and_noise.py            # run what is missing, then draw
    python studies/shots_and_noise.py --draw     # the table and the figure from the existing rows

The bundled film reviews and body; five seeds, each with its own 256 sentences per label (85 % to train, 15 % to choose
the epoch on), its own initial angles and all other sentences to test on. The head is `HeadConfig.recommended`, without
any tuning. Every row is written when it is complete; an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ketfit import HeadConfig, NoiseConfig, QuantumHeadClassifier
from ketfit.bodies.body import load_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import KetFitError
from ketfit.evaluation.compare import evaluate_head
from ketfit.storage.append_log import AppendLog, read_json_lines

ROWS = Path(__file__).parent / "results" / "shots_and_noise.jsonl"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "shots_and_noise.svg"
SEEDS = range(5)
SHOTS = (16, 64, 256, 1024, 4096)
ERRORS = (0.0, 0.005, 0.01, 0.02, 0.05)
SHOTS_UNDER_NOISE = 1024
DRAWS = 5


def noise_of(error: float) -> NoiseConfig:
    """Return depolarizing noise of `error` after every two-qubit gate, and a tenth of it after every one-qubit gate."""
    return NoiseConfig(depolarizing_2q=error, depolarizing_1q=error / 10)


def tasks() -> Iterator[dict[str, Any]]:
    """Return the trainings, each with its shots and noise and those of its measurements."""
    shots = [{"axis": "shots", "level": level} for level in SHOTS]
    errors = [{"axis": "error", "level": level} for level in ERRORS]
    for seed in SEEDS:
        yield {"seed": seed, "trained": "exactly", "training": {}, "measured": [*shots, *errors]}
        for place in shots:
            yield {"seed": seed, "trained": "alike", "training": {"shots": place["level"]}, "measured": [place]}
        for place in errors:
            yield {"seed": seed, "trained": "alike", "training": measurement(place), "measured": [place]}


def measurement(place: dict[str, Any]) -> dict[str, Any]:
    """Return the measurement settings of a test."""
    if place["axis"] == "shots":
        return {"shots": place["level"]}
    return {"shots": SHOTS_UNDER_NOISE, "noise": noise_of(place["level"])}


def run() -> None:
    """Append the missing rows."""
    dataset = load_dataset("rotten-tomatoes")
    body = load_body("all-MiniLM-L6-v2")
    embeddings, labels = body.encode(dataset.texts, progress=True), np.asarray(dataset.labels)
    with AppendLog(ROWS, ".lock", KetFitError(f"another process writes {ROWS}")) as file:
        done = {key(row) for row in file.open(lambda: read_json_lines(ROWS))}
        for task in tasks():
            missing = [place for place in task["measured"] if key({**task, **place}) not in done]
            if missing:
                for row in measure(task, missing, dataset, embeddings, labels):
                    file.append(json.dumps(row).encode())
                    print(row, flush=True)  # noqa: T201


def measure(
    task: dict[str, Any],
    missing: list[dict[str, Any]],
    dataset: Dataset,
    embeddings: NDArray[np.float32],
    labels: NDArray[Any],
) -> Iterator[dict[str, Any]]:
    """Train the head of a task, and measure it with each of the settings that have no row yet."""
    split = few_shot_split(dataset, 256, seed=task["seed"])
    head = HeadConfig.recommended(embeddings.shape[1]).updated(**task["training"])
    start = time.perf_counter()
    validation = (embeddings[split.validation], labels[split.validation])
    classifier = QuantumHeadClassifier(head, seed=task["seed"])
    classifier.fit(embeddings[split.train], labels[split.train], validation=validation)
    seconds = time.perf_counter() - start
    for place in missing:
        measured = classifier.with_measurement(**measurement(place))
        result, _ = evaluate_head(measured, embeddings[split.test], labels[split.test], DRAWS)
        yield {
            "seed": task["seed"],
            "trained": task["trained"],
            **place,
            "accuracy": result.accuracy,
            "spread": result.spread,
            "epochs": len(classifier.history_),
            "fit_seconds": round(seconds, 1),
        }


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key that identifies a row."""
    return row["seed"], row["trained"], row["axis"], row["level"]


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % t interval."""
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def table(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return, by axis and level, both means with intervals and the paired difference over seeds, in points."""
    accuracy = {key(row): 100 * row["accuracy"] for row in rows}
    summary: dict[str, list[dict[str, Any]]] = {}
    for axis, levels in (("shots", SHOTS), ("error", ERRORS)):
        for level in levels:
            exact, alike = ([accuracy[seed, how, axis, level] for seed in SEEDS] for how in ("exactly", "alike"))
            difference = [b - a for a, b in zip(exact, alike, strict=True)]
            figures = {"trained exactly": exact, "trained alike": alike, "difference": difference}
            row = {name: [round(number, 2) for number in interval(values)] for name, values in figures.items()}
            summary.setdefault(axis, []).append({"level": level, **row})
    return summary


def draw(summary: dict[str, list[dict[str, Any]]]) -> None:
    """Plot the means with 95 % intervals over seeds in two panels."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ketfit"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    labels = {"shots": "shots", "error": f"two-qubit error, {SHOTS_UNDER_NOISE} shots"}
    for panel, (axis, rows) in zip(panels, summary.items(), strict=True):
        places = np.arange(len(rows))
        for offset, how in ((-0.06, "trained exactly"), (0.06, "trained alike")):
            means, widths = zip(*[row[how] for row in rows], strict=True)
            panel.errorbar(places + offset, means, widths, marker="o", capsize=3, label=how)
        panel.set_xticks(places, [f"{row['level']:.1%}" if axis == "error" else str(row["level"]) for row in rows])
        panel.set_xlabel(labels[axis])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend()
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Run the missing tasks, print the table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draw", action="store_true", help="only draw the rows that are there")
    if not parser.parse_args().draw:
        run()
    summary = table(read_json_lines(ROWS))
    ROWS.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    draw(summary)
    print(json.dumps(summary, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
