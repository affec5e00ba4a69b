"""Run a study: a plan in TOML, one result per task, and a report. Needs the extra ``study``.

A stopped study resumes, and a finished one has nothing left to run. Start this script twice to see it.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from topics import sentences

from ketfit.study.executors import LocalExecutor
from ketfit.study.report import write_report
from ketfit.study.runner import run_study
from ketfit.study.spec import StudyPlan
from ketfit.study.store import read_results

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/example-study")
folder.mkdir(parents=True, exist_ok=True)

with (folder / "topics.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([("text", "label"), *zip(*sentences(), strict=True)])

plan = f"""
name = "Topics"
question = "Are two encoder layers better than one, or than a linear head, with eight sentences per topic?"
seeds = 3
train = {{ epochs = 20 }}

[data]
source = '{folder / "topics.csv"}'
per_label = 8
validation_fraction = 0.25

[heads.quantum]
kind = "quantum"
settings = {{ n_qubits = 9, n_measured = 4, reference_amplitude = 1.0, main_layers = 1 }}

[heads."logistic regression"]
kind = "logistic-regression"

[factors]
"head.encoder_layers" = [1, 2]

[design]
kind = "full"
estimate = "main effects"

[report]
reference = "logistic regression"
"""
(folder / "plan.toml").write_text(plan, encoding="utf-8")

done = run_study(StudyPlan.read(folder / "plan.toml"), folder / "rows", LocalExecutor(1), command="examples/study.py")
print(f"{done}\n")
for row in read_results(folder / "rows").values():
    assert row.result is not None, row.error
    print(f"seed {row.config['seed']}  {row.config['head']['kind']:<20} {sorted(row.result)}")
write_report(folder / "rows")
print(f"\nreport: {folder / 'rows' / 'report.html'}")
