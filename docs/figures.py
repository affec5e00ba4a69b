"""Draw the figures of the documentation with the library itself; `make docs` runs it, and a test compares.

python docs/figures.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from ketfit import HeadConfig
from ketfit.circuit.ansatz import encoder_circuit, reuploading_circuit, ring_layers
from ketfit.circuit.drawing.svg import SvgLayout, draw_svg, svg_file, svg_open
from ketfit.model.diagram import draw_overview

WIDTH = 740
"""Pixels of the page's column."""

# The data flow: what each part is, and the package that holds it; between two parts the data that pass.
PARTS = (
    ("body", "sentence", "transformer", "bodies/"),
    ("encoder", "simulated,", "exact", "model/"),
    ("QPU circuit", "simulated, or", "on a QPU", "simulate/, hardware/"),
    ("linear layer", "logits,", "softmax", "model/"),
)
DATA = (("text", ""), ("embedding", "384 or 768"), ("⟨Z⟩", "one per qubit"), ("⟨Z⟩", "measured qubits"), ("label", ""))

# The packages from the highest to the lowest; each imports only from those below it.
LAYERS = (
    (("cli", "command line"),),
    (("app", "browser demo"),),
    (("study", "compare heads"), ("hardware", "run on a QPU"), ("interop", "PennyLane, Qiskit")),
    (("evaluation", "metrics, comparison, prediction of files"),),
    (("estimators", "TextClassifier, QuantumHeadClassifier, classical heads"),),
    (("persistence", "model files, Hub"),),
    (("bodies", "embed, fine-tune, cache"), ("training", "loop, calibration")),
    (("data", "tables, splits"), ("energy", "joules per inference")),
    (("model", "settings, encoder, head: torch modules"),),
    (("simulate", "expectations, noise, shots, C++ kernel"),),
    (("circuit", "one description of every circuit"),),
    (("storage", "atomic files, hashes, append log"),),
    (("base_config", "settings"), ("rng", "random streams")),
    (("integers", "counts"), ("memory", "free memory"), ("progress", "progress bars"), ("ray_cluster", "Ray")),
    (("errors", "exceptions"),),
)


def figures() -> dict[str, str]:
    """Return the text of each file by its name."""
    head = HeadConfig.paper(n_encoders=2, n_qubits=10, n_reuploads=2)
    return {
        "architecture.svg": svg_file(_data_flow()),
        "layers.svg": svg_file(_layers()),
        "model.svg": svg_file(draw_overview(head, embedding_dim=768, n_classes=2)),
        "reuploading.svg": svg_file(_reuploading(n_qubits=3, n_reuploads=2)),
        "ansatz.svg": svg_file(_ansatz(n_qubits=4, layers=3, connectivity=2)),
    }


def _data_flow() -> str:
    width, gap, top, height = 104, 72, 34, 92
    down = top + height + 40
    across = len(PARTS) * width + len(DATA) * gap + 20
    label = "Text, body, embedding, encoder, QPU circuit, linear layer, label"
    shapes = [svg_open(across, down, label)]
    middle = top + height / 2
    for number, (name, *lines, package) in enumerate(PARTS):
        left = 10 + gap + number * (width + gap)
        shapes.append(_box(left, top, width, height, (name, *lines), filled=name == "QPU circuit"))
        shapes.append(_text(left + width / 2, top + height + 22, package, quiet=True))
    for number, (name, size) in enumerate(DATA):
        start = 10 + number * (width + gap)
        shapes.append(f'<path d="M{start + 5} {middle}H{start + gap - 10}" stroke="currentColor"/>')
        shapes.append(f'<path d="M{start + gap - 4} {middle}l-8 -4v8z"/>')
        shapes.append(_text(start + gap / 2, middle - 9, name, size=11))
        shapes.extend(
            _text(start + gap / 2, middle + 18 + 12 * row, word, size=9, quiet=True)
            for row, word in enumerate(size.split(" ", 1) if size else ())
        )
    return "".join([*shapes, "</svg>"])


def _layers() -> str:
    height, gap, margin = 42, 11, 14
    shapes = [svg_open(WIDTH, len(LAYERS) * (height + gap) - gap + 2 * margin, "Packages, from cli down to errors")]
    for row, packages in enumerate(LAYERS):
        width = (WIDTH - 2 * margin - (len(packages) - 1) * gap) / len(packages)
        for column, lines in enumerate(packages):
            left, top = margin + column * (width + gap), margin + row * (height + gap)
            shapes.append(_box(left, top, width, height, lines, filled="circuit" in lines))
    for row, _ in enumerate(pairwise(LAYERS), start=1):
        shapes.append(f'<path d="M{WIDTH / 2} {margin + row * (height + gap) - 1}l-5 -9h10z"/>')
    return "".join([*shapes, "</svg>"])


def _box(left: float, top: float, width: float, height: float, lines: Sequence[str], filled: bool) -> str:
    style = "filled" if filled else "box"
    frame = f'x="{left}" y="{top}" width="{width}" height="{height}" rx="6" fill="white" stroke="currentColor"'
    first = top + height / 2 + 4 - 9 * (len(lines) - 1)
    texts = [
        _text(left + width / 2, first + 18 * row, line, size=12 if row == 0 else 10.5, quiet=row > 0)
        for row, line in enumerate(lines)
    ]
    return f'<rect class="{style}" {frame}/>{"".join(texts)}'


def _text(x: float, y: float, text: str, size: float = 10.5, quiet: bool = False) -> str:
    style = ' class="quiet"' if quiet else ""
    return f'<text{style} x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'


def _reuploading(n_qubits: int, n_reuploads: int) -> str:
    circuit = reuploading_circuit(n_qubits, n_reuploads, reupload_layers=1, main_layers=1, connectivity=1)
    rings = len(ring_layers(n_qubits, layers=1, connectivity=1).gates)
    sections = [section for _ in range(n_reuploads) for section in (("load", n_qubits), ("PQC1", rings))]
    return draw_svg(circuit, measured=[0], layout=SvgLayout(sections=[*sections, ("PQC2", rings)]))


def _ansatz(n_qubits: int, layers: int, connectivity: int) -> str:
    circuit = encoder_circuit(n_qubits, layers, connectivity)
    rings = [
        (f"layer {layer}, distance {distance}", 2 * n_qubits)
        for layer in range(1, layers + 1)
        for distance in range(1, connectivity + 1)
    ]
    rings.insert(connectivity, ("column", n_qubits))
    return draw_svg(circuit, measured=range(n_qubits), layout=SvgLayout(WIDTH, rings))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    for name, text in figures().items():
        (folder / name).write_text(text, encoding="utf-8")
