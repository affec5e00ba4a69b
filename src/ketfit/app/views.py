"""Render the steps of a prediction as HTML, from ``views.html.j2``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ketfit.app.trace import ClassicalTrace, PredictionTrace
from ketfit.circuit.drawing.svg import draw_svg

HEATMAP_COLUMNS = 96
MAX_OUTCOMES = 16
MAX_CLASSES = 12
MAX_EXPECTATIONS = 64
MITIGATION_NAMES = {"readout": "inverting the readout error", "zero_noise": "extrapolating to zero noise"}


def render_prediction(trace: PredictionTrace | ClassicalTrace) -> str:
    """Return the label, the probabilities of the classes and the prediction of the classical head."""
    return _render("prediction", trace)


def render_inputs(trace: PredictionTrace) -> str:
    """Return the embedding as a heat map, and the expectations of the encoders."""
    return _render("inputs", trace)


def render_classical(trace: ClassicalTrace) -> str:
    """Return the embedding as a heat map, and the classical head that reads it."""
    return _render("classical", trace)


def render_circuit(trace: PredictionTrace) -> str:
    """Return the QPU circuit with its angles."""
    measured = range(len(trace.expectations)) if trace.words is None else ()  # the marks of a drawing are for Z
    drawing = draw_svg(trace.circuit, trace.weights, trace.inputs, measured)
    widths = [len(gate.qubits) for gate in trace.circuit.gates]
    gates = f"{widths.count(1)} gates on one qubit and {sum(width > 1 for width in widths)} on several"
    if trace.circuit.is_ry_cx:
        gates = "{ry} rotations and {cx} CNOTs".format(**trace.circuit.gate_counts())
    return _render("circuit", trace, drawing, gates)


def render_outputs(trace: PredictionTrace) -> str:
    """Return the outcomes of the measured qubits, and the expectations that the linear layer gets."""
    shots, error = trace.settings.shots, trace.settings.two_qubit_error
    if trace.words is None:
        measurement = "Exact probabilities." if shots is None else f"{shots:,} shots of this circuit."
    elif shots is None:
        measurement = "The words are computed exactly, without outcomes."
    else:
        measurement = f"{shots:,} shots of each of {trace.n_groups} groups of words that are measured together."
    if error:
        gate = "CNOT" if trace.circuit.is_ry_cx else "two-qubit gate"
        measurement += f" Every {gate} depolarizes its qubits with probability {error:.3g}."
    if trace.trajectories is not None:
        measurement += f" The noise is a mean over {trace.trajectories:,} random trajectories."
    if trace.mitigation:
        names = " and ".join(MITIGATION_NAMES[name] for name in trace.mitigation)
        measurement += f" The expectations below are mitigated by {names}"
        measurement += "." if trace.words is not None else "; these outcomes are not."
    intervals = []
    for name, value, exact in zip(trace.names, trace.expectations, trace.exact_expectations, strict=True):
        margin = 2 * math.sqrt(max(0.0, 1 - value * value) / shots) if shots and not trace.mitigation else 0.0
        intervals.append((name, value, exact, max(-1.0, value - margin), min(1.0, value + margin)))
    return _render("outputs", trace, measurement, intervals)


def render_message(text: str) -> str:
    """Return an error message."""
    return _render("message", text)


def render_table(
    sentences: Sequence[str], labels: Sequence[str], probabilities: Sequence[float], shown: int, notice: str | None
) -> str:
    """Return the first `shown` of many sentences with their labels, under a notice about all of them."""
    rows = list(zip(sentences, labels, probabilities, strict=True))
    return _render("table", rows[:shown], len(rows) - shown, notice)


def render_metadata(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values of the model."""
    return _render("metadata", rows)


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
    environment.globals.update(
        HEATMAP_COLUMNS=HEATMAP_COLUMNS,
        MAX_OUTCOMES=MAX_OUTCOMES,
        MAX_CLASSES=MAX_CLASSES,
        MAX_EXPECTATIONS=MAX_EXPECTATIONS,
    )
    return environment


_MACROS: Any = _environment().get_template("views.html.j2").module


def _render(macro: str, *values: Any) -> str:
    return str(getattr(_MACROS, macro)(*values)).strip()
