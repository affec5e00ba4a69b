"""Plan, submit and fetch runs on a QPU: ``ketfit hardware``."""

from __future__ import annotations

import math
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.options import (
    AsJson,
    Data,
    DataOptions,
    Model,
    MovedBody,
    check_body,
    check_quantum_model,
    takes_data_options,
)
from ketfit.cli.output import echo_stderr, key_value_table, literal_text, print_report
from ketfit.errors import ConfigError

if TYPE_CHECKING:
    from ketfit.hardware.backends.base import Backend

app = typer.Typer(help="Run a trained head on a QPU: plan, submit, status, fetch, cancel, check.", no_args_is_help=True)

_INTERRUPTED = "every step is in the ledger; run the same command to continue"


def _folder(value: str | Path) -> Path:
    # Path("") would be the current folder.
    if not str(value):
        raise typer.BadParameter("the name of the folder is empty")
    return Path(value)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def _mitigations(names: Any) -> Any:  # Typer on Python 3.10 fails on an annotation such as list[str]
    if unknown := set(names) - {"readout", "zero_noise"}:
        raise typer.BadParameter(f"unknown mitigation {min(unknown)!r}; known are readout and zero_noise")
    return names


Run = Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN", parser=_folder)]
CustomBackend = Annotated[str | None, typer.Option("--backend", help="Custom backend, module:function.")]
Name = Annotated[
    str,
    typer.Option(help="simulator, aer, ionq:MACHINE, ibm:MACHINE or module:function; simulator:ionq-forte adds noise."),
]
Options = Annotated[list[str], typer.Option("--option", help="Option of the backend, name=value; may be repeated.")]


@app.command()
@takes_data_options
def plan(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", parser=_folder)],
    backend: Name = "simulator",
    options: Options = [],  # noqa: B006
    shots: Annotated[int, typer.Option(help="Shots per circuit.", min=1)] = 1000,
    mitigate: Annotated[
        list[str],
        typer.Option(help="Error mitigation: readout or zero_noise; may be repeated.", callback=_mitigations),
    ] = [],  # noqa: B006
    first: Annotated[int | None, typer.Option(help="Number of sentences to run.", min=1)] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(help="Largest cost; a plan or submission above it is refused.", min=0, callback=_finite),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Prices: a known device, a TOML file, or provider for the rates of the account.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of a simulator.", min=0)] = 0,
    *,
    data_options: DataOptions,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """Plan a run: circuits, gates, shots, jobs, time and cost. Nothing is sent."""
    from ketfit.estimators.text import TextClassifier
    from ketfit.hardware.backends.registry import load_backend
    from ketfit.hardware.runs.plan import plan_run, write_plan
    from ketfit.hardware.runs.postprocessing import check_mitigation

    check_body(body)
    given = _options(options)
    machine = load_backend(backend, output, given, seed=seed, allow_import=True)
    check_quantum_model(model, "run on hardware")
    dataset = data_options.load(data)
    dataset = dataset if first is None else dataset.take(range(min(first, len(dataset))))
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
    written = write_plan(output, planned)
    report = {
        "run": str(output),
        "backend": backend,
        "options": written.described["options"],
        "sentences": written.sentences,
        "distinct_circuits": written.distinct,
        "jobs": written.batches,
        "cost": {**asdict(written.cost), "max_cost": max_cost},
    }
    simulated = machine.describe().is_local and written.cost.price
    free = f"; {backend} runs on this machine and is free: the price is that of the device" if simulated else ""
    print_report(
        report, as_json, key_value_table(report), f"nothing was sent{free}; next: ketfit hardware submit {output}"
    )


def _device(name: str | None, machine: Any) -> Any:
    """Return prices and times by name or from the provider; None for those of the backend."""
    from ketfit.hardware.backends.registry import fetch_prices
    from ketfit.hardware.pricing import load_device

    if name is None:
        return None
    return fetch_prices(machine) if name == "provider" else load_device(name)


@app.command()
def submit(
    run: Run,
    backend: CustomBackend = None,
    again: Annotated[bool, typer.Option("--again", help="Submit failed and rejected jobs again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit the missing jobs, each once. Jobs that run or have a result are never sent again."""
    from ketfit.hardware.runs.run import submit_run

    echo_stderr(f"submitting the missing jobs of {run}; a simulator computes them now")
    with exit_on_interrupt(_INTERRUPTED):
        progress = submit_run(run, _custom_backend(backend, run), again=again)
    report = {"run": str(run), **asdict(progress)}
    print_report(report, as_json, key_value_table(report), f"next: ketfit hardware fetch {run}")


@app.command()
def status(run: Run, as_json: AsJson = False) -> None:
    """Show the progress of a run from its ledger, without asking the provider."""
    from ketfit.hardware.runs.run import run_status

    report = {"run": str(run), **asdict(run_status(run))}
    print_report(report, as_json, key_value_table(report))


@app.command()
def fetch(
    run: Run,
    backend: CustomBackend = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for running jobs.", min=0, callback=_finite)] = 0,
    as_json: AsJson = False,
) -> None:
    """Fetch results; when all are complete, write predictions and accuracy to RUN/predictions.json."""
    from ketfit.hardware.runs.run import PREDICTIONS, fetch_run

    echo_stderr(f"fetching the results of {run}" + (f", for up to {wait:g} s" if wait else ""))
    with exit_on_interrupt(_INTERRUPTED):
        report = fetch_run(run, _custom_backend(backend, run), wait_s=wait)
    shown = {name: value for name, value in report.items() if name != "predictions"}
    print_report(report, as_json, key_value_table(shown), f"predictions: {run / PREDICTIONS}")


@app.command()
def cancel(run: Run, backend: CustomBackend = None, as_json: AsJson = False) -> None:
    """Cancel all jobs that are queued or running."""
    from ketfit.hardware.runs.run import cancel_run

    with exit_on_interrupt(_INTERRUPTED):
        jobs = {job: where.value for job, where in cancel_run(run, _custom_backend(backend, run)).items()}
    print_report({"run": str(run), "jobs": jobs}, as_json, key_value_table(jobs or {"jobs": "none to cancel"}))


@app.command()
def check(
    backend: Annotated[str, typer.Argument(help="simulator, aer, ionq:MACHINE, ibm:MACHINE or module:function.")],
    options: Options = [],  # noqa: B006
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for jobs of a simulator; temporary if left out.", parser=_folder),
    ] = None,
    shots: Annotated[int, typer.Option(help="Shots per circuit.", min=100)] = 1000,
    max_cost: Annotated[
        float | None,
        typer.Option(help="Largest cost; needed where the job has a price.", min=0, callback=_finite),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a job.", min=0, callback=_finite)] = 600,
    as_json: AsJson = False,
) -> None:
    """Run the conformance suite on a backend: one job of five small circuits, which a provider may charge for."""
    from ketfit.hardware.backends.registry import load_backend
    from ketfit.hardware.testing.conformance import check_backend

    with tempfile.TemporaryDirectory() if output is None else nullcontext(output) as folder:
        machine = load_backend(backend, Path(folder), _options(options), allow_import=True)
        if not machine.describe().is_local:
            _check_price(machine, shots, max_cost)
        findings = check_backend(machine, shots=shots, wait_s=wait)
    table = Table("check", "", "finding", title=machine.describe().name)
    for finding in findings:
        table.add_row(finding.check, "ok" if finding.passed else "FAILED", literal_text(finding.message))
    passed = all(finding.passed for finding in findings)
    report = {"backend": backend, "passed": passed, "findings": [asdict(finding) for finding in findings]}
    print_report(report, as_json, table)
    if not passed:
        raise typer.Exit(1)


def _check_price(machine: Backend, shots: int, max_cost: float | None) -> None:
    """Refuse a conformance suite that costs more than a limit, or costs money without one."""
    from ketfit.hardware.pricing import FREE, load_device
    from ketfit.hardware.runs.jobs import Budget, check_budget
    from ketfit.hardware.testing.conformance import estimate_check

    prices = load_device(machine.describe().device)
    if prices is FREE or (prices.price is None and max_cost is None):
        return
    cost = estimate_check(machine, shots=shots)
    if cost.price and max_cost is None:
        raise ConfigError(
            f"the check sends {cost.circuits} circuits with {shots:,} shots each, which costs {cost.price:,.2f} "
            f"{cost.currency} at the bundled prices; set --max-cost, and lower --shots to pay less"
        )
    check_budget(Budget(money=max_cost), replace(cost, circuits=0, shots=0, price=0.0), cost)


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


def _custom_backend(backend: str | None, run: Path) -> Any:
    """Return a custom backend; the code to load is named on the command line, never by the folder of a run."""
    if backend is None:
        return None
    from ketfit.hardware.backends.registry import load_backend
    from ketfit.hardware.runs.plan import read_plan

    plan = read_plan(run).plan
    if plan.backend != backend:
        raise ConfigError(f"{run} was planned for the backend {plan.backend!r}, not for {backend!r}")
    return load_backend(backend, run, plan.options, seed=plan.seed, allow_import=True)
