"""Draws the figures of how-it-works.md with the library itself; `make docs` runs it, and a test compares.

python docs/figures.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from ketfit import HeadConfig
from ketfit.circuit.ansatz import encoder_circuit, reuploading_circuit, ring_layers
from ketfit.circuit.drawing.svg import draw_svg, svg_file
from ketfit.model.diagram import draw_overview

WIDTH = 740
"""Pixels of the page's column."""


def figures() -> dict[str, str]:
    """The text of each file, by its name."""
    head = HeadConfig.paper(n_encoders=2, n_qubits=10, n_reuploads=2)
    return {
        "model.svg": svg_file(draw_overview(head, embedding_dim=768, n_classes=2)),
        "reuploading.svg": svg_file(_reuploading(n_qubits=3, n_reuploads=2)),
        "ansatz.svg": svg_file(_ansatz(n_qubits=4, layers=3, connectivity=2)),
    }


def _reuploading(n_qubits: int, n_reuploads: int) -> str:
    circuit = reuploading_circuit(n_qubits, n_reuploads, reupload_layers=1, main_layers=1, connectivity=1)
    rings = len(ring_layers(n_qubits, layers=1, connectivity=1).gates)
    sections = [section for _ in range(n_reuploads) for section in (("load", n_qubits), ("PQC1", rings))]
    return draw_svg(circuit, measured=[0], sections=[*sections, ("PQC2", rings)])


def _ansatz(n_qubits: int, layers: int, connectivity: int) -> str:
    circuit = encoder_circuit(n_qubits, layers, connectivity)
    rings = [
        (f"layer {layer}, distance {distance}", 2 * n_qubits)
        for layer in range(1, layers + 1)
        for distance in range(1, connectivity + 1)
    ]
    rings.insert(connectivity, ("column", n_qubits))
    return draw_svg(circuit, measured=range(n_qubits), width=WIDTH, sections=rings)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in figures().items():
        (folder / name).write_text(text, encoding="utf-8")
