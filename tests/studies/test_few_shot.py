"""Test the table of accuracy against labelled sentences against the rows of the study."""

from __future__ import annotations

import json
from collections import defaultdict

import few_shot
import numpy as np

KINDS = "logistic-regression", "quantum"


def test_table_has_the_means_of_the_rows() -> None:
    accuracies = defaultdict(list)
    for line in (few_shot.RESULTS / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        config = row["config"]
        key = config["data"]["per_label"], "tune" in config["body"], config["head"]["kind"]
        accuracies[key].append(row["result"]["test_accuracy"])
    summary = json.loads((few_shot.RESULTS / "summary.json").read_text())
    lines = few_shot.table(summary).splitlines()[2:]
    for line, level in zip(lines, (8, 16, 32, 64, 128, 256), strict=True):
        cells = [cell.split("(")[0].strip(" %") for cell in line.strip("|").split("|")]
        expected = [str(level)]
        for tuned in (False, True):
            linear, quantum = (100 * np.mean(accuracies[level, tuned, kind]) for kind in KINDS)
            expected += [f"{linear:.1f}", f"{quantum - linear:+.1f}"]
        assert cells == expected
