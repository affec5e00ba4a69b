"""The model card: a Markdown page about a saved model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from ketfit.energy.profiles import QpuProfile, load_profile
from ketfit.energy.qpu import native_gates, qpu_cost
from ketfit.model.head import QuantumHead
from ketfit.persistence.schema import ModelMetadata

ENERGY_PROFILE = "ionq-forte-enterprise"
"""Profile of the QPU for the energy estimate of the card."""

ENERGY_SHOTS = 1000
"""Shots of one inference if the model is exact."""


def model_card(metadata: ModelMetadata, head: QuantumHead) -> str:
    """Return the model card, in Markdown, of a head and its metadata."""
    # Not escaped as HTML: this is Markdown, and texts of users are in code spans.
    environment = Environment(loader=PackageLoader("ketfit.persistence", "."), undefined=StrictUndefined)  # noqa: S701
    environment.filters |= {"code": _code_span, "figure": _format_metric}
    noise = {} if metadata.head.noise is None else metadata.head.noise.model_dump(exclude_defaults=True)
    return environment.get_template("model_card.md.j2").render(
        metadata=metadata,
        metrics=_with_intervals(metadata.metrics),
        exact=metadata.head.shots is None and not noise,
        noise=", ".join(f"{name} {value}" for name, value in noise.items()),
        counts=head.parameter_counts(),
        projection_size=0 if head.projection is None else head.projection.size,
        gates=head.circuit.gate_counts(),
        depth=head.circuit.depth(),
        energy=_energy(metadata, head),
    )


def _energy(metadata: ModelMetadata, head: QuantumHead) -> str:
    """Return the energy of one inference on a QPU, with its assumptions, as text."""
    profile = _energy_profile()
    circuit = head.circuit.light_cone(range(metadata.head.n_measured))
    shots = metadata.head.shots or ENERGY_SHOTS
    joules = qpu_cost(native_gates(circuit, profile.entangler), 1, shots, profile).energy.joules
    low, high = profile.power_watts.range.low, profile.power_watts.range.high
    return (
        f"about {joules.value:,.0f} J an inference of {shots:,} shots on {profile.name}, {joules.low:,.0f} to "
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
