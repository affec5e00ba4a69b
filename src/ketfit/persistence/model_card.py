"""The model card: a Markdown page about a saved model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache, reduce
from operator import add
from typing import Any, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from ketfit.circuit.ansatz import AnsatzName
from ketfit.circuit.circuit import Circuit
from ketfit.energy.crossover import inference_gates
from ketfit.energy.profiles import QpuProfile, load_profile
from ketfit.energy.qpu import qpu_cost
from ketfit.model.config import HeadConfig
from ketfit.persistence.schema import ESTIMATORS, HEAD_NAMES, ModelMetadata
from ketfit.simulate.native import MAX_JOINT

ENERGY_PROFILE = "ionq-forte-enterprise"
"""Profile of the QPU for the energy estimate of the card."""

_UNSHOWN = ("n_support", "calibrated")  # the card has them elsewhere

ENERGY_SHOTS = 1000
"""Shots of one inference if the model is exact."""


def model_card(metadata: ModelMetadata) -> str:
    """Return the model card, in Markdown, of a saved model."""
    # Not escaped as HTML: this is Markdown, and texts of users are in code spans.
    environment = Environment(loader=PackageLoader("ketfit.persistence", "."), undefined=StrictUndefined)  # noqa: S701
    environment.filters |= {"code": _code_span, "figure": _format_metric}
    config = metadata.head
    return environment.get_template("model_card.md.j2").render(
        metadata=metadata,
        metrics=_with_intervals(metadata.metrics),
        head_names=HEAD_NAMES,
        estimators=ESTIMATORS,
        settings=", ".join(f"{name} {value}" for name, value in config if name not in _UNSHOWN and value is not None),
        counts=config.count_parameters(metadata.embedding_dim, len(metadata.classes)),
        quantum=_quantum_values(config) if isinstance(config, HeadConfig) else None,
    )


def _quantum_values(config: HeadConfig) -> dict[str, Any]:
    """Return what the card of a quantum head says about its circuit."""
    circuit = config.qpu_circuit()
    noise = {} if config.noise is None else config.noise.model_dump(exclude_defaults=True)
    return {
        "exact": config.shots is None and not noise,
        "noise": ", ".join(f"{name} {value}" for name, value in noise.items()),
        "encoder_ansatz": _ansatz(config.encoder_ansatz),
        "ansatz": _ansatz(config.ansatz),
        "gates": _gates(circuit),
        "depth": circuit.depth(),
        "readout": f"{config.n_measured} measured" if config.readout is None else f"reads {', '.join(config.readout)}",
        "energy": _energy(config),
    }


def _ansatz(ansatz: str) -> str:
    """Return the name of an ansatz, with a comma, or "" for the ring."""
    if ansatz == "ring":
        return ""
    return f", {ansatz.replace('_', ' ')} ansatz" if ansatz in get_args(AnsatzName) else ", an ansatz of its own"


def _gates(circuit: Circuit) -> str:
    counts = circuit.gate_counts()
    if circuit.is_ry_cx:
        return f"{counts['ry']} rotations and {counts['cx']} CNOTs"
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _energy(config: HeadConfig) -> str:
    """Return the energy of one inference on a QPU, with its assumptions, as text."""
    if any(len(word.qubits) > MAX_JOINT for word in config.observables or ()):
        return f"not estimated: shots of a Pauli word on more than {MAX_JOINT} qubits are not supported"
    profile = _energy_profile()
    shots = config.shots or ENERGY_SHOTS
    circuits = inference_gates(config, config.qpu_qubits, profile.entangler)
    joules = reduce(add, (qpu_cost(gates, 1, shots, profile) for gates in circuits)).energy.joules
    runs = f"{shots:,} shots" if len(circuits) == 1 else f"{len(circuits)} circuits of {shots:,} shots each"
    low, high = profile.power_watts.range.low, profile.power_watts.range.high
    return (
        f"about {joules.value:,.0f} J an inference of {runs} on {profile.name}, {joules.low:,.0f} to "
        f"{joules.high:,.0f} J: its power is not published and is assumed to be {low:,.0f} to {high:,.0f} W"
    )


@lru_cache
def _energy_profile() -> QpuProfile:
    return load_profile(ENERGY_PROFILE, QpuProfile)


def _with_intervals(metrics: Mapping[str, float]) -> list[tuple[str, float, tuple[float, float] | None]]:
    """Return name, value and interval of the metrics; ``NAME_low`` and ``NAME_high`` are the interval of ``NAME``."""
    ends = {name: (f"{name}_low", f"{name}_high") for name in metrics}
    intervals = {name: pair for name, pair in ends.items() if metrics.keys() >= set(pair)}
    interval_ends = {end for pair in intervals.values() for end in pair}
    return [
        (name, value, (metrics[intervals[name][0]], metrics[intervals[name][1]]) if name in intervals else None)
        for name, value in metrics.items()
        if name not in interval_ends
    ]


def _format_metric(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4f}"


def _code_span(text: object) -> str:
    """Return text as a Markdown code span: one line, between more backticks than it has in a row."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"
