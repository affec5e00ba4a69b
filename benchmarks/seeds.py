"""The demo's heads over several seeds: each seed draws its own sentences and starts its own training."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.evaluation.compare import compare_heads, standard_heads


def main(
    data: Annotated[str, typer.Option(help="Data set.")] = "rotten-tomatoes",
    body: Annotated[str, typer.Option(help="Body.")] = "all-MiniLM-L6-v2",
    seeds: Annotated[int, typer.Option(help="How many.")] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print each head's mean accuracy on the test sentences and its spread over the seeds."""
    dataset = load_dataset(data)
    loaded = load_body(body)
    embeddings = loaded.encode(dataset.texts, progress=True)
    labels = np.asarray(dataset.labels)
    rows = []
    for seed in range(seeds):
        heads = standard_heads(loaded.dimension, len(dataset.classes), seed=seed)
        for row in compare_heads(heads, embeddings, labels, few_shot_split(dataset, seed=seed)):
            rows.append({"seed": seed, **asdict(row)})
            print(f"seed {seed}, {row.name}: {row.test_accuracy:.4f} in {row.fit_seconds:.1f} s", flush=True)
    summary = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        accuracies = [row["test_accuracy"] for row in rows if row["name"] == name]
        summary[name] = {"mean": statistics.mean(accuracies), "standard_deviation": statistics.stdev(accuracies)}
    report = {
        "command": f"python benchmarks/seeds.py --data {data} --body {body} --seeds {seeds}",
        "data": dataset.name,
        "body": loaded.name,
        "summary": summary,
        "rows": rows,
    }
    print(json.dumps(summary, indent=2))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
