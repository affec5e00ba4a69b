"""Estimate the energy of an inference on a QPU and in simulation: ``ketfit energy``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Group
from rich.table import Table

from ketfit.cli.options import AsJson, circuit_settings
from ketfit.cli.output import echo_stderr, literal_text, print_report
from ketfit.errors import ConfigError

MEASURED_QUBITS = 20
MAX_SHOTS = 10**12
_FORMATS = ("svg", "png", "pdf")


def energy(
    model: Annotated[str | None, typer.Argument(help="A saved model; Figure 5 of the paper if left out.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with a table [head].")] = None,
    qpu: Annotated[str, typer.Option(help="Profile of the QPU: a name or a TOML file.")] = "ionq-forte-enterprise",
    against: Annotated[
        list[str],
        typer.Option(help="Processor of the simulation; may be repeated, the first gives the crossover."),
    ] = ["nvidia-a100", "nvidia-h100", "amd-epyc-9654", "laptop"],  # noqa: B006 - Typer reads it, nothing writes it
    shots: Annotated[int, typer.Option(help="Shots per inference.", min=1, max=MAX_SHOTS)] = 1000,
    plot: Annotated[Path | None, typer.Option(help="File to write a plot to: .svg, .png or .pdf.")] = None,
    network: Annotated[bool, typer.Option("--network", help="Also estimate tensor networks.")] = False,
    measure: Annotated[
        Literal["rapl", "nvml"] | None, typer.Option(help="Also run it on this machine and read its energy counter.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the energy of one inference on a QPU and in simulation, where they cross, and the assumptions."""
    from ketfit.energy.crossover import FOLLOW_UP, MAX_QUBITS, PAPER, SHOTS, CrossoverModel, assumptions_of
    from ketfit.energy.profiles import ProcessorProfile, QpuProfile, StatevectorProfile, load_profile

    if model is not None and config is not None:
        raise typer.BadParameter("give a model or --config, not both")
    if plot is not None and plot.suffix.removeprefix(".").lower() not in _FORMATS:
        raise ConfigError(f"--plot {str(plot)!r}: a picture is .svg, .png or .pdf")
    head = _head(model, config)
    program = load_profile("statevector", StatevectorProfile)
    spread = (shots, min(shots, SHOTS[1]), max(shots, SHOTS[2]))
    with _naming("--qpu"):
        comparison = CrossoverModel(head, load_profile(qpu, QpuProfile), program, spread)
    with _naming("--against"):
        processors = [load_profile(name, ProcessorProfile) for name in against]
    measured = None if measure is None else _measure(comparison, measure)
    echo_stderr(f"counting gates up to {MAX_QUBITS} qubits")
    crossovers = [comparison.crossover(processor) for processor in processors]
    rows = list(comparison.points(processors, range(max(comparison.min_qubits, 4), 57, 2)))
    if network:
        echo_stderr("planning contractions")
        rows += comparison.network_points(processors[0], range(max(comparison.min_qubits, 4), 57, 4))
    first = crossovers[0]
    report: dict[str, Any] = {
        "circuit": {name: getattr(head, name) for name in ("main_layers", "n_reuploads", "connectivity")},
        "qpu": comparison.qpu.name,
        "against": first.device,
        "crossover_qubits": first.qubits,
        "range": [first.earliest, first.latest],
        "published": {"paper_estimate": PAPER, "follow_up_measurement": FOLLOW_UP},
        "crossovers": [asdict(crossover) for crossover in crossovers],
        "rows": [asdict(row) for row in rows],
        "assumptions": [asdict(assumption) for assumption in assumptions_of(comparison, processors[0])],
    }
    if measured is not None:
        report["measured"] = asdict(measured)
    if plot is not None:
        from ketfit.energy.plot import draw_comparison
        from ketfit.storage.atomic import write_file

        picture = io.BytesIO()
        metadata = {"Date": None} if plot.suffix.lower() == ".svg" else None
        figure = draw_comparison(rows, first)
        figure.savefig(picture, format=plot.suffix.removeprefix(".").lower(), metadata=metadata, dpi=120)
        write_file(plot, picture.getvalue())
        report["plot"] = str(plot)
    print_report(report, as_json, _tables(report))


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Name an option in the errors of the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from error


def _measure(comparison: Any, counter: str) -> Any:
    from ketfit.bodies.device import check_device
    from ketfit.energy.meters import nvml_meter, rapl_meter

    if counter == "nvml":
        with _naming("--measure nvml"):
            check_device("cuda")
    meter = rapl_meter() if counter == "rapl" else nvml_meter()
    echo_stderr(f"running {MEASURED_QUBITS} qubits here, with {meter.name} counting")
    return comparison.measure(meter, MEASURED_QUBITS)


def _head(model: str | None, config: Path | None) -> Any:
    from ketfit.model.config import FitConfig, HeadConfig
    from ketfit.persistence.model_files import find_model, load_model

    if model is not None:
        return load_model(find_model(model))[0].config
    if config is None:
        return HeadConfig.paper()
    with _naming("--config"):
        head = FitConfig.from_toml(config).head
    return circuit_settings(head, config)


def _tables(report: dict[str, Any]) -> Group:
    crossings = Table("against", "crossover", "range", title=f"{report['qpu']}: qubits from which it needs less")
    for crossover in report["crossovers"]:
        both = dict.fromkeys(_shown(crossover[end]) for end in ("earliest", "latest"))
        crossings.add_row(literal_text(crossover["device"]), _shown(crossover["qubits"]), " to ".join(both))
    energies = Table("device", "qubits", "devices", "seconds", "joules", "range", "kind", title="one inference")
    for row in [*report["rows"], *([report["measured"]] if "measured" in report else [])]:
        if row["qubits"] % 20 == 0 or row["kind"] == "measured" or row["device"].startswith("tensor"):
            energies.add_row(
                literal_text(row["device"]),
                str(row["qubits"]),
                f"{row['devices']:,}",
                f"{row['seconds']:.2g}",
                f"{row['joules']:.2g}",
                f"{row['low']:.2g} to {row['high']:.2g}",
                row["kind"],
            )
    grounds = Table("assumption", "value", "range", "basis", title=f"assumptions, against {report['against']}")
    for ground in report["assumptions"]:
        ends = f"{ground['low']:,.6g} to {ground['high']:,.6g}"
        grounds.add_row(literal_text(ground["name"]), f"{ground['value']:,.6g}", ends, ground["basis"])
    return Group(energies, grounds, crossings)


def _shown(qubits: int | None) -> str:
    return "none" if qubits is None else str(qubits)
