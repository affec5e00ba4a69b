"""Run studies and report their results: ``ketfit study``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.options import AsJson, check_body, check_source
from ketfit.cli.output import echo_stderr, key_value_table, print_report

app = typer.Typer(help="Compare heads over seeds: run a plan, show its progress, write a report.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of the study.", metavar="DIR")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="Plan of the study, a TOML file.", metavar="FILE")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the study, new or to continue.", file_okay=False),
    ],
    data: Annotated[str | None, typer.Option(help="Data set instead of the plan's.")] = None,
    bodies: Annotated[list[str] | None, typer.Option("--body", help="Body instead of the plan's, repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds instead of the plan's.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes; one per core if left out.", min=1)] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster, such as auto or HOST:PORT.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed tasks again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the tasks of a plan that have no result yet. After an interruption the same command continues."""
    from ketfit.study.executors import LocalExecutor, RayExecutor
    from ketfit.study.runner import run_study
    from ketfit.study.spec import StudyPlan

    if engine == "ray" and workers is not None:
        raise typer.BadParameter("--workers is for the local engine; Ray uses the cluster's CPUs")
    if engine == "local" and address is not None:
        raise typer.BadParameter("--address is for --engine ray")
    if data is not None:
        check_source(data, "--data")
    for body in bodies or []:
        check_body(body)
    plan = StudyPlan.read(file).with_overrides(data, bodies, seeds)
    executor = RayExecutor(address) if engine == "ray" else LocalExecutor(workers)
    command = ["ketfit", "study", "run", str(file), "-o", str(output)]
    for option, values in (
        ("--data", [data] if data else []),
        ("--body", bodies or []),
        ("--seeds", [seeds] if seeds else []),
    ):
        command += [word for value in values for word in (option, str(value))]
    with exit_on_interrupt(f"results so far are in {output}; run the same command to continue"):
        progress = run_study(
            plan, output, executor, command=shlex.join(command), retry_failed=retry_failed, progress=True
        )
    report = {"study": plan.name, "folder": str(output), **asdict(progress)}
    print_report(report, as_json, key_value_table(report), f"next: ketfit study report {output}")
    if progress.failed:
        echo_stderr(
            f"{progress.failed} tasks failed; see ketfit study status {output}, and --retry-failed to run them again"
        )
        raise typer.Exit(1)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show the progress and the failures of a study, also while it runs."""
    from ketfit.study.runner import count_results
    from ketfit.study.store import StudyRecord, read_results

    record, results = StudyRecord.read(folder), read_results(folder)
    names = {task.id for task in record.tasks}
    failures: dict[str, int] = {}
    for name, result in results.items():
        if name in names and result.error is not None:
            message = f"{result.error['type']}: {result.error['message']}"
            failures[message] = failures.get(message, 0) + 1
    report = {"study": record.plan.name, **asdict(count_results(record.tasks, results)), "failures": failures}
    del report["ran"]
    print_report(report, as_json, key_value_table(report))


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Write report.html and summary.json into the folder of a study, from the results so far."""
    from ketfit.study.report import write_report

    summary = write_report(folder)
    shown = {"study": summary["study"]["name"], "report": str(folder / "report.html")}
    print_report(summary if as_json else shown, as_json, key_value_table(shown))
