"""File predictions killed at a random part and resumed: the output equals that of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.evaluation.batch_predict import parts_folder, predict_file
from tests.evaluation.test_batch_predict import TEXTS, write

pytestmark = pytest.mark.slow

KILLS = min(20, int(os.environ.get("KETFIT_KILLS", "1")))
ROWS = 40
PROGRAM = """
import sys
from pathlib import Path
from ketfit import TextClassifier
from ketfit.evaluation.batch_predict import predict_file
from ketfit.data.tables import TextTable
model, source, output = sys.argv[1:]
predict_file(TextClassifier.from_pretrained(model), TextTable.find(Path(source)), Path(output), block_rows=40)
"""


def test_predict_file_killed_then_resumed_gives_the_same_bytes(tiny_body_folder: Path, tmp_path: Path) -> None:
    body = load_body(tiny_body_folder, device="cpu")
    head = QuantumHeadClassifier(HeadConfig(n_qubits=5, main_layers=1), TrainConfig(epochs=2))
    labels = np.array(["good" if "good" in text else "bad" for text in TEXTS])
    TextClassifier.from_parts(body, head.fit(body.encode(TEXTS), labels)).save_pretrained(tmp_path / "model")
    classifier = TextClassifier.from_pretrained(tmp_path / "model")
    source, cut, whole = (tmp_path / f"{name}.parquet" for name in ("in", "cut", "whole"))
    table = write(source, TEXTS * 40)
    total = -(-len(TEXTS) * 40 // ROWS)
    for kill in range(1, KILLS + 1):
        enough = kill * total // (KILLS + 2)
        _kill_after(enough, tmp_path / "model", source, cut)
        made = len(list(parts_folder(cut).glob("*.part")))
        assert enough <= made < total
        assert not cut.exists()
    assert predict_file(classifier, table, cut, block_rows=ROWS).resumed == made * ROWS
    predict_file(classifier, table, whole, block_rows=ROWS)
    assert cut.read_bytes() == whole.read_bytes()
    assert parquet.read_metadata(cut).num_rows == len(TEXTS) * 40


def _kill_after(parts: int, model: Path, source: Path, output: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(model), str(source), str(output)])
    deadline = time.monotonic() + 120
    while len(list(parts_folder(output).glob("*.part"))) < parts and time.monotonic() < deadline:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
