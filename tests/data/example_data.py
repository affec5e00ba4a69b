"""Small data sets and files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ketfit.data.dataset import Dataset
from ketfit.data.splits import Split

AWKWARD = (
    "plain",
    'she said "no", twice',
    "a, b; c",
    "naïve café 電影 🎬",
    "U+2028 \u2028 and U+0085 \x85 inside",
    " kept  spaces ",
    '"quoted whole"',
    "back\\slash \\n",
)


MULTILINE = ("two\nlines", "tab\there", 'three\r\n"quoted"\rlines')


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def toy(*counts: int) -> Dataset:
    """Return a data set with `counts[k]` different sentences of class k, interleaved."""
    rows = sorted((i, k) for k, count in enumerate(counts) for i in range(count))
    return Dataset("toy", tuple(f"sentence {i} of {k}" for i, k in rows), tuple(f"c{k}" for _, k in rows))


def parts(split: Split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test, split.excluded]


def write_csv(path: Path, texts: tuple[str, ...], labels: tuple[Any, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("label", "extra", "text"), *((y, "?", x) for x, y in zip(texts, labels, strict=True))]
        )


def write_tsv(path: Path, texts: tuple[str, ...], labels: tuple[Any, ...]) -> None:
    write(path, "".join(f"{y}\t?\t{x}\n" for x, y in [("text", "label"), *zip(texts, labels, strict=True)]))


def write_jsonl(path: Path, texts: tuple[str, ...], labels: tuple[Any, ...]) -> None:
    rows = zip(texts, labels, strict=True)
    write(path, "".join(json.dumps({"label": y, "extra": None, "text": x}, ensure_ascii=False) + "\n" for x, y in rows))


def write_parquet(path: Path, texts: tuple[str, ...], labels: tuple[Any, ...]) -> None:
    pq.write_table(pa.table({"label": list(labels), "extra": [None] * len(texts), "text": list(texts)}), path)


WRITERS = {"csv": write_csv, "tsv": write_tsv, "jsonl": write_jsonl, "parquet": write_parquet}
