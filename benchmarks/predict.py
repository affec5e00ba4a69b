"""Predicting files: sentences a second and peak memory by the number of sentences, in a process of its own each."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow as pa
import torch
import typer
from pyarrow import parquet
from sklearn.feature_extraction.text import HashingVectorizer

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.data.dataset import load_dataset
from ketfit.data.tables import TextTable
from ketfit.evaluation.batch_predict import predict_file

DIMENSION = 384
ROWS_AT_ONCE = 10_000
app = typer.Typer(pretty_exceptions_enable=False)


@dataclass(frozen=True)
class StubBody:
    """A hashed bag of words in the place of a sentence transformer, so that the rest of the way is what is timed."""

    name: str = "stub"
    revision: None = None
    fingerprint: str = "hashed bag of words"
    dimension: int = DIMENSION
    dtype: str = "float32"
    tuning: None = None
    transformer: Any = field(default_factory=lambda: SimpleNamespace(device=torch.device("cpu")))

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        """Embeddings of shape (len(texts), 384), none of them zero."""
        counted = HashingVectorizer(n_features=DIMENSION - 1, alternate_sign=True).transform(texts).toarray()
        return np.hstack([counted, np.ones((len(texts), 1))]).astype(np.float32)


@app.command()
def main(
    sizes: Annotated[list[int], typer.Option(help="Sentences; may be repeated.")] = [10_000, 100_000, 1_000_000],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print rows and memory for each size."""
    rows = []
    for size in sizes:
        done = subprocess.run(
            [sys.executable, __file__, "child", str(size)], check=True, stdout=subprocess.PIPE, text=True
        )
        rows.append(json.loads(done.stdout))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "command": "python benchmarks/predict.py main " + " ".join(f"--sizes {size}" for size in sizes),
        "data": "the bundled film reviews, repeated, in one Parquet file with an id",
        "body": "stub, a hashed bag of words of 384 numbers",
        "head": "HeadConfig.recommended(384)",
        "threads": torch.get_num_threads(),
        "load_average_before": [round(load, 1) for load in LOAD],
        "rows": rows,
        "peak_of_largest_to_smallest": round(rows[-1]["peak_mib"] / rows[0]["peak_mib"], 3),
    }
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")


@app.command()
def child(size: int) -> None:
    """One size, as a line of JSON."""
    data = load_dataset("rotten-tomatoes")
    body = StubBody()
    head = QuantumHeadClassifier(HeadConfig.recommended(DIMENSION), TrainConfig(epochs=5))
    head.fit(body.encode(list(data.texts[::16])), np.array(data.labels[::16]))
    classifier = TextClassifier.from_parts(body, head)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "big.parquet"), Path(folder, "out.parquet")
        write_repeated(source, data.texts, size)
        before = psutil.Process().memory_info().rss
        start = time.perf_counter()
        scored = predict_file(classifier, TextTable.find(source), target)
        seconds = time.perf_counter() - start
        assert parquet.read_metadata(target).num_rows == scored.rows == size
        report = {
            "sentences": size,
            "seconds": round(seconds, 2),
            "sentences_per_second": round(size / seconds),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "before_mib": round(before / 2**20, 1),
            "input_mib": round(source.stat().st_size / 2**20, 1),
            "output_mib": round(target.stat().st_size / 2**20, 1),
        }
    print(json.dumps(report))


def write_repeated(path: Path, texts: tuple[str, ...], size: int) -> None:
    """Sentences again and again up to `size`, row groups of 10,000."""
    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    again = cycle(texts)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, size, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, size - start)
            rows = {"id": list(range(start, start + count)), "text": list(islice(again, count))}
            writer.write_table(pa.table(rows, schema=schema))


LOAD = psutil.getloadavg()

if __name__ == "__main__":
    app()
