"""What the demo shows of a sentence's path, as HTML: each station from the values of a `PredictionTrace`.

All text from outside goes through `html.escape`. Colours come from the page's style alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from ketfit.app.trace import MeasuredExpectation, PredictionTrace
from ketfit.circuit.drawing.svg import draw_svg

_STRIP = 96  # embedding entries in a row
_MAX_READINGS = 16
_MAX_CLASSES = 12


def render_prediction(journey: PredictionTrace) -> str:
    """The label, the probabilities of the classes, and what the classical head says."""
    notice = journey.embedded.notice
    told = f'<p class="kf-notice">{escape(notice)}</p>' if notice else ""
    changed = ""
    exact = journey.classes[_best(journey.exact_probabilities)]
    if exact != journey.label:
        changed = f'<p class="kf-notice">Without shots and noise it would be <b>{escape(exact)}</b>.</p>'
    return (
        f'<section class="kf-card kf-verdict" aria-live="polite"><p class="kf-quiet">The quantum head says</p>'
        f'<p class="kf-label">{escape(journey.label)}</p>'
        f"{_bars(journey.classes, journey.probabilities)}{changed}{told}{_classical(journey)}</section>"
    )


def render_inputs(journey: PredictionTrace) -> str:
    """The embedding as a strip, and the encoders' readouts."""
    size = len(journey.embedded.embedding)
    rows = [
        f'<div class="kf-encoder">{_title("Encoder", number, journey.readouts)}{_expectation_bars(row)}</div>'
        for number, row in enumerate(journey.readouts)
    ]
    return _station(
        1,
        "Embedding",
        f"The body turns the sentence into {size:,} numbers. Teal is positive, rose negative.",
        _embedding_heatmap(journey.embedded.embedding),
    ) + _station(
        2,
        "Encoder ⟨Z⟩",
        "Loaded as amplitudes and turned by the encoder's circuit, each qubit is read exactly.",
        "".join(rows),
    )


def render_circuit(journey: PredictionTrace) -> str:
    """The QPU circuit with its angles."""
    counts = journey.circuit.gate_counts()
    text = (
        f"The readouts become rotation angles (tinted), the others are trained: {counts.get('ry', 0)} rotations and "
        f"{counts.get('cx', 0)} CNOTs on {journey.circuit.n_qubits} qubits. Angles in radians; scroll to follow it."
    )
    drawing = draw_svg(journey.circuit, journey.weights, journey.inputs, range(len(journey.values)))
    frame = f'<div class="kf-scroll" tabindex="0" role="region" aria-label="Circuit, scrolls sideways">{drawing}</div>'
    return _station(3, "QPU circuit", text, frame)


def render_outputs(journey: PredictionTrace) -> str:
    """The readings of the measured qubits, and the expectation values that the linear layer sees."""
    shots = journey.settings.shots
    how = (
        "Exact probabilities, as from infinitely many shots."
        if shots is None
        else f"{shots:,} shots of this render_circuit."
    )
    if journey.settings.two_qubit_error:
        how += f" Every CNOT depolarizes its qubits with probability {journey.settings.two_qubit_error:.3g}."
    if journey.trajectories is not None:
        how += f" The noise is a mean over {journey.trajectories:,} random trajectories."
    lines = [
        _line(number, value, exact, shots)
        for number, (value, exact) in enumerate(zip(journey.values, journey.exact_values, strict=True))
    ]
    return _station(4, "Shots" if shots else "Readings", how, _histogram(journey.readings, shots)) + _station(
        5,
        "Expectation",
        "⟨Z⟩ of what is measured: the dot as read, the ring exact and noiseless"
        + (", the bar two standard errors of the shots." if shots else "."),
        "".join(lines),
    )


def render_message(text: str) -> str:
    """A line about something that did not work."""
    return f'<p class="kf-error" role="alert">{escape(text)}</p>'


def render_table(sentences: Sequence[str], labels: Sequence[str], probabilities: Sequence[float], shown: int) -> str:
    """The first `shown` of many sentences with their labels."""
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{probability:.3f}</td><td>{escape(sentence)}</td></tr>"
        for sentence, label, probability in list(zip(sentences, labels, probabilities, strict=True))[:shown]
    )
    more = len(sentences) - shown
    rest = f'<p class="kf-quiet">and {more:,} more in the file below</p>' if more > 0 else ""
    return (
        '<div class="kf-card"><div class="kf-scroll kf-table" tabindex="0" role="region" aria-label="Predictions">'
        "<table><thead><tr><th>label</th><th>probability</th><th>sentence</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{rest}</div>"
    )


def render_metadata(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<div class="kf-card"><dl class="kf-facts">{items}</dl></div>'


def _station(number: int, title: str, text: str, content: str) -> str:
    return (
        f'<section class="kf-card"><h2><span class="kf-number">{number}</span>{escape(title)}</h2>'
        f'<p class="kf-quiet">{escape(text)}</p>{content}</section>'
    )


def _title(name: str, number: int, rows: Sequence[object]) -> str:
    return f"<h3>{name} {number}</h3>" if len(rows) > 1 else ""


def _best(numbers: Sequence[float]) -> int:
    return max(range(len(numbers)), key=numbers.__getitem__)


def _bars(names: Sequence[str], shares: Sequence[float]) -> str:
    """Classes by falling probability."""
    order = sorted(range(len(names)), key=lambda place: -shares[place])
    rows = "".join(
        f'<li><span class="kf-name">{escape(names[place])}</span>'
        f'<span class="kf-bar"><i style="width:{100 * shares[place]:.2f}%"></i></span>'
        f'<span class="kf-figure">{shares[place]:.1%}</span></li>'
        for place in order[:_MAX_CLASSES]
    )
    more = len(names) - _MAX_CLASSES
    return f'<ul class="kf-bars">{rows}</ul>' + (f'<p class="kf-quiet">and {more} more classes</p>' if more > 0 else "")


def _classical(journey: PredictionTrace) -> str:
    opinion = journey.classical
    if opinion is None:
        return (
            '<p class="kf-quiet kf-classical">No classical head beside it: a saved model has the quantum head only. '
            "Start the demo with <code>--data FILE</code>, and logistic regression is fitted on those sentences.</p>"
        )
    agrees = "agrees" if opinion.label == journey.label else "does not agree"
    return (
        f'<div class="kf-classical"><p class="kf-quiet">{escape(opinion.name.capitalize())} on the same embedding '
        f"{agrees}:</p>{_bars(journey.classes, opinion.probabilities)}</div>"
    )


def _embedding_heatmap(embedding: Sequence[float]) -> str:
    largest = max(map(abs, embedding)) or 1.0
    rows = math.ceil(len(embedding) / _STRIP)
    cells = "".join(
        f'<rect class="{"plus" if value >= 0 else "minus"}" x="{place % _STRIP}" y="{place // _STRIP * 5}" '
        f'width="1" height="4.4" fill-opacity="{abs(value) / largest:.2f}"/>'
        for place, value in enumerate(embedding)
    )
    return (
        f'<svg class="kf-strip" viewBox="0 0 {_STRIP} {rows * 5 - 0.6}" preserveAspectRatio="none" '
        f'style="height:{rows * 1.5}rem" role="img" aria-label="{len(embedding)} numbers of the embedding, from '
        f'{min(embedding):.3f} to {max(embedding):.3f}">{cells}</svg>'
        f'<p class="kf-scale"><span>\N{MINUS SIGN}{largest:.2f}</span><i></i><span>{largest:.2f}</span></p>'
    )


def _expectation_bars(values: Sequence[float]) -> str:
    return '<ul class="kf-dials">' + "".join(_dial(f"q{place}", value) for place, value in enumerate(values)) + "</ul>"


def _dial(name: str, value: float) -> str:
    start, width = 50 + 50 * min(value, 0), 50 * abs(value)
    side = "plus" if value >= 0 else "minus"
    return (
        f'<li><span class="kf-name">{name}</span><span class="kf-dial"><i class="{side}" '
        f'style="left:{start:.2f}%;width:{width:.2f}%"></i></span><span class="kf-figure">{_signed(value)}</span></li>'
    )


def _histogram(readings: Sequence[MeasuredExpectation], shots: int | None) -> str:
    if not readings:
        return '<p class="kf-quiet">So many qubits are measured that their readings are not counted together.</p>'
    shares = [r.probability if r.count is None or not shots else r.count / shots for r in readings]
    order = sorted(range(len(readings)), key=lambda place: -shares[place])[:_MAX_READINGS]
    most = max(max(shares), max(r.probability for r in readings), 1e-9)
    rows = []
    for place in sorted(order):
        reading, share = readings[place], shares[place]
        told = f"{share:.1%}" if reading.count is None else f"{reading.count:,}"
        rows.append(
            f'<li><span class="kf-name kf-bits">{reading.bits}</span><span class="kf-bar">'
            f'<i style="width:{100 * share / most:.2f}%"></i>'
            f'<b style="left:{100 * reading.probability / most:.2f}%"></b></span>'
            f'<span class="kf-figure">{told}</span></li>'
        )
    more = len(readings) - len(order)
    rest = f"; {more:,} rarer readings are not shown" if more > 0 else ""
    note = "" if shots is None and not rest else f'<p class="kf-quiet">The mark is what is expected{rest}.</p>'
    return f'<ul class="kf-bars kf-shots">{"".join(rows)}</ul>{note}'


def _line(number: int, value: float, exact: float, shots: int | None) -> str:
    error = 0.0 if not shots else 2 * math.sqrt(max(0.0, 1 - value * value) / shots)
    low, high = max(-1.0, value - error), min(1.0, value + error)
    place = "left:{:.2f}%".format
    return (
        f'<div class="kf-line"><span class="kf-name">q{number}</span><span class="kf-axis">'
        f'<i class="kf-error-bar" style="{place(50 + 50 * low)};width:{50 * (high - low):.2f}%"></i>'
        f'<i class="kf-exact" style="{place(50 + 50 * exact)}"></i><i class="kf-read" style="{place(50 + 50 * value)}">'
        f'</i></span><span class="kf-figure">{_signed(value)}</span></div>'
        f'<p class="kf-ends"><span>\N{MINUS SIGN}1</span><span>exact {_signed(exact)}</span><span>1</span></p>'
    )


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "\N{MINUS SIGN}")
