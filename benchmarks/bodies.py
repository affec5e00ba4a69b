"""Sentences per second of a body in float32, bfloat16 and int8, beside sentence-transformers' own encode."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer

from ketfit.bodies.body import Body, load_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.estimators.classical import LogisticRegressionHead
from ketfit.evaluation.compare import accuracy_interval
from ketfit.model.tuning import EmbeddingPrecision


def timed(encode: Callable[[list[str]], np.ndarray], texts: list[str]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    encode(texts)
    return time.perf_counter() - start


def ways(bodies: dict[str, Body], batch_size: int) -> dict[str, Callable[[list[str]], np.ndarray]]:
    """Return the timed functions by name: each embeds sentences without a cache."""
    transformer = bodies["float32"].transformer
    made: dict[str, Callable[[list[str]], np.ndarray]] = {
        "sentence-transformers": lambda texts: transformer.encode(texts, show_progress_bar=False)
    }
    for dtype, body in bodies.items():
        made[dtype] = partial(body.encode, batch_size=batch_size, cache=False)
    return made


def processor() -> str:
    """The processor, and what it has for bfloat16 and int8."""
    path = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line) if path.exists() else {}
    facts = {name.strip(): value.strip() for name, value in lines.items()}
    units = [
        unit
        for unit in ("amx_bf16", "avx512_bf16", "avx2", "avx512_vnni", "avx_vnni")
        if unit in facts.get("flags", "").split()
    ]
    return f"{facts.get('model name', platform.processor())} ({', '.join(units) or 'none of the units looked for'})"


def main(
    data: Annotated[str, typer.Option(help="Data set.")] = "rotten-tomatoes",
    body: Annotated[str, typer.Option(help="Body.")] = "all-MiniLM-L6-v2",
    rounds: Annotated[int, typer.Option(help="How often each embeds everything; the fastest round counts.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Of KetFit; sentence-transformers keeps its own.")] = 64,
    timed_sentences: Annotated[int, typer.Option(help="So many sentences are timed.")] = 512,
    compared_sentences: Annotated[int | None, typer.Option(help="So many, in random order, for the accuracy.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of torch and of int8; as many as torch takes, if left out.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print rates, the largest difference to float32, and the accuracy of logistic regression on each."""
    load = os.getloadavg()[0]  # how busy the machine was with other things
    if threads is not None:
        torch.set_num_threads(threads)
    dataset = load_dataset(data)
    texts = list(dataset.texts)[:timed_sentences]
    bodies = {dtype: load_body(body, device="cpu", dtype=dtype) for dtype in get_args(EmbeddingPrecision)}
    encoders = ways(bodies, batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for number in range(-1, rounds):  # in turn, so that whatever else the machine does meets all; the first warms up
        for name, encode in encoders.items():
            took = timed(encode, texts if number >= 0 else texts[:64])
            if number >= 0:
                seconds[name].append(took)
                print(f"round {number}, {name}: {len(texts) / took:,.0f} sentences/s", flush=True)
    compared = dataset
    if compared_sentences is not None:
        compared = dataset.take(np.random.default_rng(0).permutation(len(dataset))[:compared_sentences])
    default = seconds["sentence-transformers"]
    command = f"python benchmarks/bodies.py --data {data} --body {body} --rounds {rounds} --batch-size {batch_size}"
    report = {
        "command": f"{command} --timed-sentences {timed_sentences}"
        + (f" --compared-sentences {compared_sentences}" if compared_sentences is not None else "")
        + (f" --threads {threads}" if threads is not None else ""),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
        "data": dataset.name,
        "body": body,
        "timed_sentences": len(texts),
        "rates": {
            name: {
                "sentences_per_second": len(texts) / min(all_),
                "ratio": min(default) / min(all_),
                "median_of_ratios": float(np.median(np.array(default) / np.array(all_))),
                "seconds": all_,
            }
            for name, all_ in seconds.items()
        },
        **embedded(bodies, compared),
    }
    print(json.dumps(report, indent=2))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")


def embedded(bodies: dict[str, Body], dataset: Dataset) -> dict[str, Any]:
    """Compare the embeddings of the sentences, and logistic regression on them."""
    labels, split = np.asarray(dataset.labels), few_shot_split(dataset)
    rows = {dtype: body.encode(dataset.texts, progress=True) for dtype, body in bodies.items()}
    accuracy = {}
    for dtype, row in rows.items():
        head = LogisticRegressionHead(max_iter=1000).fit(row[split.train], labels[split.train])
        correct = int((head.predict(row[split.test]) == labels[split.test]).sum())
        share, interval = accuracy_interval(correct, len(split.test))
        accuracy[dtype] = {"accuracy": share, "interval": interval}
    return {
        "sentences": len(dataset),
        "largest_difference": {dtype: float(abs(row - rows["float32"]).max()) for dtype, row in rows.items()},
        "smallest_similarity": {dtype: float((row * rows["float32"]).sum(axis=1).min()) for dtype, row in rows.items()},
        "mean_similarity": {dtype: float((row * rows["float32"]).sum(axis=1).mean()) for dtype, row in rows.items()},
        "logistic_regression": accuracy,
    }


if __name__ == "__main__":
    typer.run(main)
