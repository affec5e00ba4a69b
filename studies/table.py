"""Compare a quantum head with other heads in three treatments of one body; the heads are those of table.toml.

    python studies/table.py --data sst2.tsv

An interrupted run resumes with the existing bodies and rows. At the end it writes the report of each treatment into
studies/results/table/, and table.md beside them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, TuneConfig
from ketfit.study.executors import LocalExecutor
from ketfit.study.report import write_report
from ketfit.study.runner import run_study
from ketfit.study.spec import BodyPlan, DataPlan, StudyPlan
from ketfit.study.store import StudyRecord, read_results

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "table"


@dataclass(frozen=True)
class Treatment:
    """A treatment of the body: its tuning, the number of seeds, and its heads (all if none is named)."""

    title: str
    tune: TuneConfig | None
    seeds: int
    heads: tuple[str, ...] = ()


TREATMENTS = {
    "frozen": Treatment("Frozen body", None, 10),
    "contrastive": Treatment(
        "Contrastively tuned body", ContrastiveConfig(precision="bfloat16", group_by_length=True), 5
    ),
    "full": Treatment(
        "Body trained end to end with the head",
        EndToEndConfig(precision="bfloat16", group_by_length=True),
        3,
        ("logistic regression", "SVC", "paper, 10 qubits", "recommended"),
    ),
}


def main(arguments: Sequence[str]) -> None:
    """Run the missing tasks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="file with columns text and label; without it the table is written from rows")
    parser.add_argument("--body", default="all-mpnet-base-v2")
    parser.add_argument("--only", choices=TREATMENTS, action="append", help="treatment to run; may be repeated")
    options = parser.parse_args(arguments)
    for name in options.only or TREATMENTS:
        if options.data:
            command = f"python studies/table.py {shlex.join(arguments)}"
            run_study(
                plan_of(TREATMENTS[name], options.data, options.body),
                RESULTS / name,
                LocalExecutor(),
                command=command,
                progress=True,
            )
            write_report(RESULTS / name)
    (RESULTS / "table.md").write_text(table(RESULTS), encoding="utf-8")
    sys.stdout.write((RESULTS / "table.md").read_text(encoding="utf-8"))


def plan_of(treatment: Treatment, data: str, body: str) -> StudyPlan:
    """Return the plan of table.toml for a treatment. Tuned bodies embed in bfloat16, which halves the time."""
    plan = StudyPlan.read(HERE / "table.toml")
    heads = {name: head for name, head in plan.heads.items() if not treatment.heads or name in treatment.heads}
    bodies = (BodyPlan(name=body, tune=treatment.tune, dtype="bfloat16" if treatment.tune else "float32"),)
    seeds = tuple(range(treatment.seeds))
    return plan.updated(
        name=f"{plan.name} {treatment.title}", bodies=bodies, seeds=seeds, heads=heads, data=DataPlan(source=data)
    )


def table(results: Path) -> str:
    """Return Markdown with one table for each treatment that has rows."""
    parts = []
    for name, treatment in TREATMENTS.items():
        summary = results / name / "summary.json"
        if summary.exists():
            parts += [f"### {treatment.title}\n", *_lines(results / name, json.loads(summary.read_text())), ""]
    return "\n".join(parts)


def _lines(folder: Path, summary: dict[str, Any]) -> Iterable[str]:
    """Return the rows of one table: accuracies in percent and differences in points."""
    compared = {row["head"]: row for row in summary["comparisons"]}
    measured = _parameters_and_seconds(folder)
    seeds = max(len(cell["seeds"]) for cell in summary["cells"])
    yield f"{seeds} seeds; differences are to logistic regression on the same seeds, with the test over seeds and"
    yield "sentences and, in brackets, the paired t test over seeds alone.\n"
    yield "| head | parameters | mean | spread | best | 95 % interval | difference | p | fit |"
    yield "|---|---:|---:|---:|---:|---|---|---|---:|"
    for cell in summary["cells"]:
        mean, crossed = cell["accuracy"], cell["crossed"]
        parameters, seconds = measured[cell["head"]]
        columns = [cell["head"], f"{parameters:,}", f"{mean['mean']:.2%}", f"{100 * mean['spread']:.2f}"]
        columns += [f"{cell['best']:.2%}", f"{crossed['low']:.2%} to {crossed['high']:.2%}"]
        if (row := compared.get(cell["head"])) is None:
            columns += ["", ""]
        else:
            test, paired = row["crossed"], row["paired"]
            interval = f"[{100 * test['low']:+.2f}, {100 * test['high']:+.2f}]"
            columns += [f"{100 * test['difference']:+.2f} {interval}", f"{_p(test)} ({_p(paired)})"]
        yield "| " + " | ".join([*columns, f"{seconds:.1f} s"]) + " |"


def _p(test: dict[str, Any]) -> str:
    return "< 0.001" if test["p_value"] < 0.001 else f"{test['p_value']:.3f}"


def _parameters_and_seconds(folder: Path) -> dict[str, tuple[int, float]]:
    """Return the parameters and the median seconds of a fit of each head, including the body if it was trained."""
    rows, fits = read_results(folder), {}
    for task in StudyRecord.read(folder).tasks:
        row = rows.get(task.id)
        if row is not None and row.result is not None:
            seconds = row.run["seconds"]
            fits.setdefault(task.head, []).append((row.result["parameters"], seconds.get("with_body", seconds["fit"])))
    return {head: (values[0][0], float(np.median([second for _, second in values]))) for head, values in fits.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
