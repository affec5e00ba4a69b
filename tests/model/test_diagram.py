"""The picture of a head says what the head has."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from ketfit.model.config import HeadConfig
from ketfit.model.diagram import draw_overview
from ketfit.model.head import QuantumHead


@pytest.mark.parametrize(
    ("settings", "classes"),
    [
        ({}, 2),
        ({"n_encoders": 2, "n_reuploads": 2, "tie_reuploads": False}, 3),
        ({"n_encoders": 5, "encoder_input": "slices", "n_measured": 3, "skip_connection": True}, 6),
        ({"n_encoders": 3, "merge": "mean"}, 2),
    ],
)
def test_draw_overview_numbers_equal_head(settings: dict[str, Any], classes: int) -> None:
    config = HeadConfig(**{"n_qubits": 4, "main_layers": 1, **settings})
    head = QuantumHead(config, 16, classes)
    root = ElementTree.fromstring(draw_overview(config, 16, classes))
    texts = [part.text or "" for part in root.iter("text")]
    counts = head.parameter_counts()
    assert f"{head.encoder.weights.numel()} angles" in texts
    assert f"{head.weights.numel()} angles" in texts
    assert f"{sum(parameter.numel() for parameter in head.linear.parameters())} numbers" in texts
    assert f"{head.linear.in_features} → {classes}" in texts
    assert f"QPU circuit, {head.circuit.n_qubits} qubits" in texts
    assert f"{counts['total']} parameters" in (root.get("aria-label") or "")
    names = [text for text in texts if text.startswith("encoder ")]
    assert len(names) == min(3, config.n_encoders) and names[-1] == f"encoder {config.n_encoders}"
    assert ("⋮" in texts) == (config.n_encoders > 3)
    assert ("z, past the circuit" in texts) == config.skip_connection


def test_draw_overview_shows_principal_components() -> None:
    root = ElementTree.fromstring(draw_overview(HeadConfig.recommended(768, for_qpu=True), 768, 2))
    texts = [part.text or "" for part in root.iter("text")]
    assert "768 → 31 components" in texts
    assert "31" in texts and "768" not in texts
    label = root.get("aria-label") or ""
    assert "Embedding of 768 numbers, projected on 31 principal components, 1 encoder" in label
    assert label.endswith("219 parameters")


def test_draw_overview_is_inside_frame() -> None:
    for encoders in (1, 2, 9):
        root = ElementTree.fromstring(draw_overview(HeadConfig(n_qubits=2, n_encoders=encoders, connectivity=1), 4, 2))
        group = root.find("g")
        assert group is not None
        shift = float((group.get("transform") or "").removesuffix(")").split()[-1])
        for part in group.iter():
            if part.get("y") is not None:
                top = shift + float(part.get("y", ""))
                assert top > 0 and top + float(part.get("height", 0)) < float(root.get("height", ""))
