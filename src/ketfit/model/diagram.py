"""Draw a head as one picture: embedding, encoders, QPU circuit and classes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ketfit.circuit.drawing.svg import svg_open
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig

# Pixels, upright from the middle of the picture: the columns' centers and the width of their boxes, the picture's
# width, the height of the QPU circuit, the distance of two encoders, the way past the circuit, the lines below.
_CENTERS = (62, 214, 452, 642, 716)
_WIDTHS = (104, 132, 244, 84, 0)
_ACROSS, _QPU, _PITCH, _PAST, _BELOW, _MARGIN = 756, 92, 62, 74, 46, 14
_MAX_DRAWN = 3


def draw_overview(head: HeadConfig, embedding_dim: int, n_classes: int) -> str:
    """Return the parts of a head, the values between them and the parameters of each as an ``<svg>`` element.

    The model of arXiv 2504.08732 as in its Figure 1, with the numbers of `head`. Three encoders at most are drawn; of
    more the first two and the last. ``ketfit.circuit.drawing.svg.svg_file`` makes a file of it.

    Args:
        head: What to draw.
        embedding_dim: Numbers in an embedding.
        n_classes: Classes.

    Raises:
        ConfigError: a number is not an integer, or less than 1, or the head has more components than that.
    """
    embedding_dim = as_integer(embedding_dim, "embedding_dim", minimum=1)
    n_classes = as_integer(n_classes, "n_classes", minimum=1)
    encoders, qpu = head.count_angles()
    linear_inputs = head.n_readouts
    linear = (linear_inputs + 1) * n_classes
    width = head.input_width(embedding_dim)
    projected = "" if head.components is None else f"projected on {_many(width, 'principal component')}, "
    label = (
        f"Embedding of {embedding_dim} numbers, {projected}{_many(head.n_encoders, 'encoder')}, "
        f"QPU circuit on {head.qpu_qubits} qubits, linear layer, {_many(n_classes, 'class', 'classes')}; "
        f"{head.count_parameters(embedding_dim, n_classes)['total']} parameters"
    )
    drawn, slices = min(head.n_encoders, _MAX_DRAWN), head.encoder_input == "slices"
    half = max(_QPU, drawn * _PITCH) / 2
    above = max(half, _PAST + 16 if head.skip_connection else 0) + _MARGIN
    parts = [
        _box(0, 0, 64, ("sentence", "transformer")),
        *_encoders(head, drawn),
        _box(2, 0, _QPU, _qpu_lines(head), inner=True),
        _box(3, 0, 64, ("linear", f"{linear_inputs} → {n_classes}")),
        _text(_CENTERS[4] + 4, 4, "label", size=12),
        *_arrows(head, width),
        _below(half, 0, "frozen or tuned", *([f"{embedding_dim} → {width} components"] if projected else [])),
        _below(half, 1, _many(encoders, "angle"), "simulated, exact" + (", a slice each" if slices else "")),
        _below(half, 2, _many(qpu, "angle"), "simulated, or on a QPU"),
        _below(half, 3, _many(linear, "number")),
    ]
    opening = svg_open(_ACROSS, above + half + _BELOW + _MARGIN, label)
    return f'{opening}<g transform="translate(0 {above})">{"".join(parts)}</g></svg>'


def _many(number: int, one: str, more: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def _encoders(head: HeadConfig, drawn: int) -> list[str]:
    """Yield a box per encoder, or for the first two and the last, with dots between."""
    numbers = [*range(1, drawn), head.n_encoders]
    top = -_PITCH * (drawn - 1) / 2
    parts = []
    for index, number in enumerate(numbers):
        lines = (f"encoder {number}", f"{head.n_qubits} qubits, {_many(head.encoder_layers, 'layer')}")
        parts.append(_box(1, top + index * _PITCH, 46, lines))
    if head.n_encoders > _MAX_DRAWN:
        parts.append(_text(_CENTERS[1], top + 1.5 * _PITCH + 4, "⋮", size=13))
    return parts


def _qpu_lines(head: HeadConfig) -> Sequence[str]:
    shared = "" if head.n_reuploads == 1 else ", shared" if head.tie_reuploads else ", each its own"
    return (
        f"QPU circuit, {head.qpu_qubits} qubits",
        f"{head.n_reuploads} times [ R{head.angle_axis.upper()}(s·z)  PQC1 ]{shared}",
        f"PQC2, {_many(head.main_layers, 'layer')}",
    )


def _arrows(head: HeadConfig, width: int) -> list[str]:
    """Yield the arrows: x, z and the expectations; with a skip connection z also enters the linear layer."""
    ends = [(center - width / 2, center + width / 2) for center, width in zip(_CENTERS, _WIDTHS, strict=True)]
    flows = [
        (0, "x", f"{width:,}"),
        (1, "z" if head.merge == "concat" else "mean z", f"{head.qpu_qubits:,}"),
        (2, "⟨Z⟩", f"{head.n_measured:,}") if head.readout is None else (2, "⟨P⟩", f"{len(head.readout):,}"),
    ]
    parts = [_arrow(ends[index][1] + 4, ends[index + 1][0] - 4) for index in range(3)]
    parts.append(_arrow(ends[3][1] + 4, _CENTERS[4] - 14))
    for index, name, count in flows:
        middle = (ends[index][1] + ends[index + 1][0]) / 2
        parts += [_text(middle, -8, name, size=12), _text(middle, 17, count, quiet=True)]
    if head.skip_connection:
        start, stop = ends[1][1] + 10, _CENTERS[3]
        path = f"M{start} 0V{-_PAST}H{stop}V-36"
        parts.append(f'<path d="{path}" fill="none" stroke="currentColor"/>')
        parts.append(f'<path d="M{stop} -34l-4 -8h8z"/>')
        parts.append(_text((start + stop) / 2, -_PAST - 6, "z, past the circuit", quiet=True))
    return parts


def _arrow(start: float, stop: float) -> str:
    line = f'<path d="M{start} 0H{stop - 6}" stroke="currentColor"/>'
    return f'{line}<path d="M{stop} 0l-8 -4v8z"/>'


def _box(column: int, middle: float, height: float, lines: Sequence[str], inner: bool = False) -> str:
    width = _WIDTHS[column]
    x, y = _CENTERS[column] - width / 2, middle - height / 2
    style = "filled" if inner else "box"
    texts = []
    for number, line in enumerate(lines):
        offset = (number - (len(lines) - 1) / 2) * 20
        texts.append(_text(_CENTERS[column], middle + offset + 4, line, size=12 if number == 0 or column == 0 else 11))
    frame = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="white" stroke="currentColor"'
    return f'<rect class="{style}" {frame}/>{"".join(texts)}'


def _below(half: float, column: int, *lines: str) -> str:
    return "".join(
        _text(_CENTERS[column], half + 26 + 16 * index, line, quiet=True) for index, line in enumerate(lines)
    )


def _text(x: float, y: float, text: str, size: float = 10.5, quiet: bool = False) -> str:
    style = ' class="quiet"' if quiet else ""
    return f'<text{style} x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
