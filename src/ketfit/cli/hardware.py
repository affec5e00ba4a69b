"""``ketfit hardware``: run a trained head on a QPU, and say before what it costs."""

from __future__ import annotations

import math
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ketfit.cli.options import (
    AsJson,
    Data,
    DataFormat,
    DataSplit,
    Delimiter,
    Encoding,
    LabelColumn,
    Model,
    MovedBody,
    TextColumn,
    check_body,
)
from ketfit.cli.output import echo_stderr, key_value_table, literal_text, print_report
from ketfit.errors import ConfigError

app = typer.Typer(help="Run a trained head on a QPU: plan, submit, status, fetch.", no_args_is_help=True)


def _folder(value: str | Path) -> Path:
    # Path("") is the current folder, which an empty name does not mean.
    if not str(value):
        raise typer.BadParameter("the name of the folder is empty")
    return Path(value)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _mitigations(names: list[str]) -> list[str]:
    if unknown := set(names) - {"readout", "zero_noise"}:
        raise typer.BadParameter(f"unknown mitigation {min(unknown)!r}; known are readout and zero_noise")
    return names


Run = Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN", parser=_folder)]
CustomBackend = Annotated[str | None, typer.Option("--backend", help="A backend of your own, module:function, again.")]
Name = Annotated[
    str,
    typer.Option(
        help="simulator, aer, ionq:MACHINE, ibm:MACHINE or module:function; :ionq-forte is a simulator's noise."
    ),
]
Options = Annotated[list[str], typer.Option("--option", help="Of the backend, name=value; may be repeated.")]


@app.command()
def plan(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", parser=_folder)],
    backend: Name = "simulator",
    options: Options = [],  # noqa: B006
    shots: Annotated[int, typer.Option(help="Of each circuit.", min=1)] = 1000,
    mitigate: Annotated[
        list[str], typer.Option(help="readout or zero_noise, ours; may be repeated.", callback=_mitigations)
    ] = [],  # noqa: B006
    first: Annotated[int | None, typer.Option(help="Only the first so many sentences.", min=1)] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Refuse what costs more, now and later.", min=0, callback=_finite)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Prices: a known device, a TOML file, or provider, to ask.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of a simulator's shots.", min=0)] = 0,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    split: DataSplit = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    data_format: DataFormat = None,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """What a run takes: circuits, gates, shots, jobs, time, money. The encoders are computed here; nothing is sent."""
    from ketfit.data.dataset import load_dataset
    from ketfit.estimators.text import TextClassifier
    from ketfit.hardware.backends.registry import load_backend
    from ketfit.hardware.runs.plan import plan_run, write_plan
    from ketfit.hardware.runs.postprocessing import check_mitigation

    check_body(body)
    columns = {"text_column": text_column, "label_column": label_column}
    dataset = load_dataset(data, **columns, split=split, format=data_format, encoding=encoding, delimiter=delimiter)
    dataset = dataset if first is None else dataset.take(range(min(first, len(dataset))))
    given = _options(options)
    # Before the slow part: the backend may be missing.
    machine = load_backend(backend, output, given, seed=seed, allow_import=True)
    prices = _device(device, machine)
    echo_stderr(f"{len(dataset):,} sentences of {dataset.name}; loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    dataset = classifier.match_labels(dataset)
    embeddings = classifier.body_.encode(dataset.texts, progress=True)
    planned = plan_run(
        classifier.classifier_,
        embeddings,
        machine,
        name=backend,
        options=given,
        labels=dataset.labels,
        shots=shots,
        mitigation=check_mitigation(mitigate),
        device=prices,
        max_cost=max_cost,
        seed=seed,
        metadata={"model": model, "data": dataset.name},
    )
    made = write_plan(output, planned)
    report = {
        "run": str(output),
        "backend": backend,
        "options": made.described["options"],
        "sentences": made.sentences,
        "distinct_circuits": made.distinct,
        "jobs": made.batches,
        "cost": {**asdict(made.cost), "max_cost": max_cost},
    }
    here = backend.partition(":")[0] in ("simulator", "aer") and made.cost.price
    free = f"; {backend} computes here and costs nothing: the price is the device's" if here else ""
    print_report(
        report, as_json, key_value_table(report), f"nothing was sent{free}; next: ketfit hardware submit {output}"
    )


def _device(name: str | None, machine: Any) -> Any:
    """Prices and times by name, or from the provider; None is what the backend itself names."""
    from ketfit.hardware.backends.registry import fetch_prices
    from ketfit.hardware.pricing import load_device

    if name is None:
        return None
    return fetch_prices(machine) if name == "provider" else load_device(name)


@app.command()
def submit(
    run: Run,
    backend: CustomBackend = None,
    again: Annotated[bool, typer.Option("--again", help="Buy again what failed, was cancelled or read wrong.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit what is missing, once. What is under way or has a result is never sent again."""
    from ketfit.hardware.runs.run import submit_run

    echo_stderr(f"submitting what is missing of {run}; a simulator computes it meanwhile")
    progress = submit_run(run, _own(backend, run), again=again)
    report = {"run": str(run), **asdict(progress)}
    print_report(report, as_json, key_value_table(report), f"next: ketfit hardware fetch {run}")


@app.command()
def status(run: Run, as_json: AsJson = False) -> None:
    """How far a run is, from its ledger; nobody is asked."""
    from ketfit.hardware.runs.run import run_status

    report = {"run": str(run), **asdict(run_status(run))}
    print_report(report, as_json, key_value_table(report))


@app.command()
def fetch(
    run: Run,
    backend: CustomBackend = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for what is under way.", min=0, callback=_finite)] = 0,
    as_json: AsJson = False,
) -> None:
    """Fetch results; when all are there, predictions and accuracy, also in RUN/predictions.json."""
    from ketfit.hardware.runs.run import PREDICTIONS, fetch_run

    echo_stderr(f"asking for the results of {run}" + (f", for up to {wait:g} s" if wait else ""))
    report = fetch_run(run, _own(backend, run), wait_s=wait)
    shown = {name: value for name, value in report.items() if name != "predictions"}
    print_report(report, as_json, key_value_table(shown), f"predictions: {run / PREDICTIONS}")


@app.command()
def cancel(run: Run, backend: CustomBackend = None, as_json: AsJson = False) -> None:
    """Ask for the end of all that is under way."""
    from ketfit.hardware.runs.run import cancel_run

    jobs = {job: where.value for job, where in cancel_run(run, _own(backend, run)).items()}
    print_report({"run": str(run), "jobs": jobs}, as_json, key_value_table(jobs or {"jobs": "none was under way"}))


@app.command()
def check(
    backend: Annotated[
        str, typer.Argument(help="As for plan: simulator, aer, ionq:MACHINE, ibm:MACHINE, module:function.")
    ],
    options: Options = [],  # noqa: B006
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Keep what a simulator keeps in this folder.", parser=_folder),
    ] = None,
    shots: Annotated[int, typer.Option(help="Of each circuit.", min=100)] = 1000,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a job.", min=0, callback=_finite)] = 600,
    as_json: AsJson = False,
) -> None:
    """Run the conformance suite on a backend: a few small jobs, which a QPU charges for."""
    from ketfit.hardware.backends.registry import load_backend
    from ketfit.hardware.testing.conformance import check_backend

    with tempfile.TemporaryDirectory() if output is None else nullcontext(output) as folder:
        made = load_backend(backend, Path(folder), _options(options), allow_import=True)
        findings = check_backend(made, shots=shots, wait_s=wait)
    table = Table("check", "", "finding", title=made.describe().name)
    for finding in findings:
        table.add_row(finding.check, "ok" if finding.passed else "FAILED", literal_text(finding.message))
    passed = all(finding.passed for finding in findings)
    report = {"backend": backend, "passed": passed, "findings": [asdict(finding) for finding in findings]}
    print_report(report, as_json, table)
    if not passed:
        raise typer.Exit(1)


def _options(given: list[str]) -> dict[str, Any]:
    from ketfit.base_config import parse_toml_value

    options: dict[str, Any] = {}
    for option in given:
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise ConfigError(f"--option {option!r}: write it as name=value")
        if name in options:
            raise ConfigError(f"--option {option!r}: {name} is given twice")
        options[name] = parse_toml_value(value)
    return options


def _own(backend: str | None, run: Path) -> Any:
    """A user's own backend, which a run's folder must not name by itself."""
    if backend is None:
        return None
    from ketfit.hardware.backends.registry import load_backend
    from ketfit.hardware.runs.plan import read_plan

    plan = read_plan(run).plan
    if plan.backend != backend:
        raise ConfigError(f"{run} was planned for the backend {plan.backend!r}, not for {backend!r}")
    return load_backend(backend, run, plan.options, seed=plan.seed, allow_import=True)
