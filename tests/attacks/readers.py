"""Readers of external files, each as a function of bytes, and valid contents to mutate."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ketfit.base_config import read_toml
from ketfit.data.dataset import load_dataset
from ketfit.data.tables import TableWriter, TextTable
from ketfit.model.config import FitConfig
from ketfit.study.spec import StudyPlan
from ketfit.study.store import RECORD, ROWS, StudyRecord, read_results

Reader = Callable[[Path, bytes], Any]


def _data(format: Any) -> Reader:
    def read(folder: Path, content: bytes) -> Any:
        return load_dataset(_written(folder, f"data.{format}", content))

    return read


def _table(format: Any) -> Reader:
    def copy(folder: Path, content: bytes) -> Any:
        """Read a table and write its rows with an added column."""
        table = TextTable.find(_written(folder, f"table.{format}", content), format)
        target = "csv" if format == "lines" else format
        return [
            TableWriter(target, table.name).encode_block(block, {"new": [1] * len(block)}) for block in table.blocks(7)
        ]

    return copy


def _toml(read_file: Callable[[Path], Any]) -> Reader:
    return lambda folder, content: read_file(_written(folder, "settings.toml", content))


def _written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _rows(folder: Path, content: bytes) -> Any:
    return read_results(_written(folder, ROWS, content).parent)


def _study(folder: Path, content: bytes) -> Any:
    return StudyRecord.read(_written(folder, RECORD, content).parent)


READERS: dict[str, Reader] = {
    "csv": _data("csv"),
    "tsv": _data("tsv"),
    "jsonl": _data("jsonl"),
    "parquet": _data("parquet"),
    **{f"{format} table": _table(format) for format in ("csv", "tsv", "jsonl", "parquet", "lines")},
    "toml": _toml(read_toml),
    "settings": _toml(FitConfig.from_toml),
    "plan": _toml(StudyPlan.read),
    "rows": _rows,
    "study": _study,
}

SETTINGS = b"""
body = "all-MiniLM-L6-v2"
seed = 3
[head]
n_qubits = 9
noise = {depolarizing_2q = 0.01, readout = [[0.99, 0.02], [0.01, 0.98]]}
mitigation = ["readout"]
shots = 100
[train]
epochs = 3
[tune]
method = "full"
last_layers = 2
"""
PLAN = b"""
name = "fuzzed"
bodies = ["all-MiniLM-L6-v2", {name = "someone/body", revision = "v1"}]
seeds = 2
[data]
per_label = 8
[heads.quantum]
kind = "quantum"
settings = {n_qubits = 9}
[heads.linear]
kind = "logistic-regression"
[design]
kind = "scan"
[factors]
"head.n_qubits" = [9, 10]
[report]
reference = "linear"
"""
ROW = {
    "task": "a",
    "config": {"x": 1},
    "result": {"y": [0.5, "1"]},
    "error": None,
    "run": {"seconds": 0.1},
}


def parquet_bytes(last: str | None = None) -> bytes:
    """Return a small Parquet file with the columns that are read and another one."""
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    table = {"text": ["good", "bad", last], "label": [1, 0, 1], "more": [[1.5], [], [2.5]]}
    parquet.write_table(pyarrow.table(table), sink)
    return sink.getvalue()


def starts(study: bytes) -> dict[str, bytes]:
    """Return a valid, or nearly valid, content for each reader; `study` is a ``study.json``."""
    tables = {
        "csv": b'text,label\n"a, ""b""",0\nc,1\n',
        "tsv": b'text\tlabel\na "b\t0\nc\t1\n',
        "jsonl": b'{"text": "a", "label": 0}\n{"label": 1, "text": "\\u00e9"}\n',
        "parquet": parquet_bytes(),
    }
    whole = {"lines": b"a\nb\r\n", "parquet": parquet_bytes("fair")}
    return {
        **tables,
        **{f"{format} table": content for format, content in {**tables, **whole}.items()},
        "toml": SETTINGS,
        "settings": SETTINGS,
        "plan": PLAN,
        "rows": json.dumps(ROW).encode() + b"\n" + json.dumps(ROW).encode() + b"\n",
        "study": study,
    }
