"""Compare quantum and classical heads in three treatments of a body; the heads are those of table.toml.

    python studies/table.py --data sst2.tsv
    python studies/table.py --data trec.tsv --per-label 64 --body all-MiniLM-L6-v2 --only frozen --only contrastive

Each data set and body has a folder of its own in studies/results/table/, with the rows and the report of each treatment
and table.md. An interrupted run resumes with the existing bodies and rows. overview.md, beside the folders, has the
mean accuracy of every head in all of them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    tune: TuneConfig | tuple[TuneConfig, ...] | None
    seeds: int
    heads: tuple[str, ...] = ()


MAIN_HEADS = ("logistic regression", "SVC", "MLP, matched", "paper, 10 qubits", "recommended", "recommended, 5 qubits")

# bfloat16 halves the time of tuning and embedding.
CONTRASTIVE = ContrastiveConfig(precision="bfloat16")
END_TO_END = EndToEndConfig(precision="bfloat16", group_by_length=True)
PAIRS = ContrastiveConfig(loss="cosine", precision="bfloat16", group_by_length=True)  # the default of version 1
TREATMENTS = {
    "frozen": Treatment("Frozen body", None, 10),
    "contrastive": Treatment("Contrastively tuned body", CONTRASTIVE, 5, MAIN_HEADS),
    "both": Treatment(
        "Contrastively tuned body, then trained end to end with the head", (CONTRASTIVE, END_TO_END), 5, MAIN_HEADS
    ),
    "cosine-pairs": Treatment("Body tuned on cosine pairs", PAIRS, 5),
    "end-to-end": Treatment(
        "Body trained end to end with the head",
        END_TO_END.updated(learning_rate=2e-5),
        3,
        ("logistic regression", "SVC", "paper, 10 qubits", "recommended"),
    ),
}
DEFAULT_TREATMENTS = ("frozen", "contrastive", "both")
"""Treatments that run by default."""


def main(arguments: Sequence[str]) -> None:
    """Run the missing tasks and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", help="file with columns text and label, or rotten-tomatoes; without it no task is run"
    )
    parser.add_argument("--body", default="all-mpnet-base-v2")
    parser.add_argument("--per-label", type=int, default=256, help="sentences drawn per label")
    parser.add_argument("--seeds", type=int, help="draws; by default 10 for a frozen body and 5 for a tuned one")
    parser.add_argument("--main-heads", action="store_true", help="run the heads of overview.md only")
    parser.add_argument("--only", choices=TREATMENTS, action="append", help="treatment to run; may be repeated")
    options = parser.parse_args(arguments)
    if options.data:
        place = RESULTS / f"{Path(options.data).stem}-{options.body}"
        data = DataPlan(source=options.data, per_label=options.per_label)
        command = f"python studies/table.py {shlex.join(arguments)}"
        for name in options.only or DEFAULT_TREATMENTS:
            treatment = TREATMENTS[name]
            if options.main_heads and not treatment.heads:
                treatment = replace(treatment, heads=MAIN_HEADS)
            plan = plan_of(treatment, data, options.body, options.seeds)
            run_study(plan, place / name, LocalExecutor(), command=command, progress=True)
            write_report(place / name)
    for place in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        (place / "table.md").write_text(table(place), encoding="utf-8")
    (RESULTS / "overview.md").write_text(overview(RESULTS), encoding="utf-8")
    sys.stdout.write((RESULTS / "overview.md").read_text(encoding="utf-8"))


def plan_of(treatment: Treatment, data: DataPlan, body: str, seeds: int | None) -> StudyPlan:
    """Return the plan of table.toml for a treatment."""
    plan = StudyPlan.read(HERE / "table.toml")
    heads = {name: head for name, head in plan.heads.items() if not treatment.heads or name in treatment.heads}
    bodies = (BodyPlan(name=body, tune=treatment.tune, dtype="bfloat16" if treatment.tune else "float32"),)
    return plan.updated(
        name=f"{plan.name} {treatment.title}",
        bodies=bodies,
        seeds=tuple(range(seeds or treatment.seeds)),
        heads=heads,
        data=data,
    )


def overview(results: Path) -> str:
    """Return a Markdown table of mean accuracies: a row for each place and treatment, a column for each head."""
    lines = [
        f"| data, body | treatment | seeds | {' | '.join(MAIN_HEADS)} |",
        "|---|---|---:|" + "---:|" * len(MAIN_HEADS),
    ]
    for place in sorted(path for path in results.iterdir() if path.is_dir()):
        for name, treatment in TREATMENTS.items():
            path = place / name / "summary.json"
            if path.exists():
                cells = {cell["head"]: cell for cell in json.loads(path.read_text())["cells"]}
                seeds = max(len(cell["seeds"]) for cell in cells.values())
                means = [f"{cells[head]['accuracy']['mean']:.2%}" if head in cells else "" for head in MAIN_HEADS]
                lines.append(f"| {place.name} | {treatment.title} | {seeds} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def table(results: Path) -> str:
    """Return Markdown with one table for each treatment that has rows of two seeds or more."""
    parts = []
    for name, treatment in TREATMENTS.items():
        path = results / name / "summary.json"
        summary = json.loads(path.read_text()) if path.exists() else {"cells": []}
        seeds = max((len(cell["seeds"]) for cell in summary["cells"]), default=0)
        if seeds > 1:
            parts += [f"### {treatment.title}\n", *_lines(results / name, summary, seeds), ""]
    return "\n".join(parts)


def _lines(folder: Path, summary: dict[str, Any], seeds: int) -> Iterable[str]:
    """Return the rows of one table: accuracies in percent and differences in points."""
    compared = {row["head"]: row for row in summary["comparisons"]}
    measured = _parameters_and_seconds(folder)
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
    rows = read_results(folder)
    fits: dict[str, list[tuple[int, float]]] = {}
    for task in StudyRecord.read(folder).tasks:
        row = rows.get(task.id)
        if row is not None and row.result is not None:
            seconds = row.run["seconds"]
            fits.setdefault(task.head, []).append((row.result["parameters"], seconds.get("with_body", seconds["fit"])))
    return {head: (values[0][0], float(np.median([second for _, second in values]))) for head, values in fits.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
