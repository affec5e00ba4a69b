"""Render the steps of a prediction as HTML, from ``views.html.j2``."""

from __future__ import annotations

import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ketfit.app.trace import PredictionTrace
from ketfit.circuit.drawing.svg import draw_svg

HEATMAP_COLUMNS = 96
MAX_OUTCOMES = 16
MAX_CLASSES = 12


def render_circuit(trace: PredictionTrace) -> str:
    """Return the QPU circuit with its angles."""
    drawing = draw_svg(trace.circuit, trace.weights, trace.inputs, range(len(trace.expectations)))
    return render("circuit", trace, drawing)


def render_outputs(trace: PredictionTrace) -> str:
    """Return the outcomes of the measured qubits, and the expectations that the linear layer gets."""
    shots, error = trace.settings.shots, trace.settings.two_qubit_error
    measurement = "Exact probabilities." if shots is None else f"{shots:,} shots of this circuit."
    if error:
        measurement += f" Every CNOT depolarizes its qubits with probability {error:.3g}."
    if trace.trajectories is not None:
        measurement += f" The noise is a mean over {trace.trajectories:,} random trajectories."
    intervals = []
    for value, exact in zip(trace.expectations, trace.exact_expectations, strict=True):
        margin = 2 * math.sqrt(max(0.0, 1 - value * value) / shots) if shots else 0.0
        intervals.append((value, exact, max(-1.0, value - margin), min(1.0, value + margin)))
    return render("outputs", trace, measurement, intervals)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "\N{MINUS SIGN}")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ketfit.app", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=_signed, zip=zip)
    environment.globals.update(HEATMAP_COLUMNS=HEATMAP_COLUMNS, MAX_OUTCOMES=MAX_OUTCOMES, MAX_CLASSES=MAX_CLASSES)
    return environment


_MACROS: Any = _environment().get_template("views.html.j2").module


def render(macro: str, *values: Any) -> str:
    """Return the HTML of a macro of ``views.html.j2``."""
    return str(getattr(_MACROS, macro)(*values)).strip()
