"""The card of a saved model: its record and its circuits, as a page that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from ketfit.energy.profiles import QpuProfile, load_profile
from ketfit.energy.qpu import native_gates, qpu_cost
from ketfit.model.head import QuantumHead
from ketfit.persistence.schema import ModelMetadata

DEVICE = "ionq-forte-enterprise"
"""The QPU whose energy the card estimates."""

SHOTS = 1000
"""Of one inference, where the model has none of its own."""


def model_card(record: ModelMetadata, head: QuantumHead) -> str:
    """The card of a model in Markdown, from its record and its head: what those do not know is not in it."""
    # Markdown, not HTML: what comes from outside stands in code spans, where nothing else has a meaning.
    environment = Environment(loader=PackageLoader("ketfit.persistence", "."), undefined=StrictUndefined)  # noqa: S701
    environment.filters |= {"code": _code_span, "figure": _figure}
    noise = {} if record.head.noise is None else record.head.noise.model_dump(exclude_defaults=True)
    return environment.get_template("model_card.md.j2").render(
        record=record,
        metrics=_with_intervals(record.metrics),
        exact=record.head.shots is None and not noise,
        noise=", ".join(f"{name} {value}" for name, value in noise.items()),
        counts=head.parameter_counts(),
        gates=head.circuit.gate_counts(),
        depth=head.circuit.depth(),
        energy=_energy(record, head),
    )


def _energy(record: ModelMetadata, head: QuantumHead) -> str:
    """Joules of one inference on a QPU, with what they rest on."""
    profile = _device()
    circuit = head.circuit.light_cone(range(record.head.n_measured))
    shots = record.head.shots or SHOTS
    joules = qpu_cost(native_gates(circuit, profile.entangler), 1, shots, profile).energy.joules
    low, high = profile.power_watts.range.low, profile.power_watts.range.high
    return (
        f"about {joules.value:,.0f} J an inference of {shots:,} shots on {profile.name}, {joules.low:,.0f} to "
        f"{joules.high:,.0f} J: nobody has published its power, which is taken to be {low:,.0f} to {high:,.0f} W"
    )


@lru_cache
def _device() -> QpuProfile:
    return load_profile(DEVICE, QpuProfile)


def _with_intervals(metrics: Mapping[str, float]) -> list[tuple[str, float, tuple[float, float] | None]]:
    """Metrics by name, those that have one with their interval, whose ends are ``NAME_low`` and ``NAME_high``."""
    ends = {name: (f"{name}_low", f"{name}_high") for name in metrics}
    whole = {name: pair for name, pair in ends.items() if metrics.keys() >= set(pair)}
    inner = {end for pair in whole.values() for end in pair}
    return [
        (name, value, (metrics[whole[name][0]], metrics[whole[name][1]]) if name in whole else None)
        for name, value in metrics.items()
        if name not in inner
    ]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4f}"


def _code_span(text: object) -> str:
    """Text as a Markdown code span that ends where it ends: one line, behind more backticks than it has in a row."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"`{line}`"
