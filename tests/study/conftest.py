"""Fixtures: a plan that runs in seconds, with 120 sentences, a tiny body and heads on five qubits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ketfit.study.spec import StudyPlan

GOOD = ["a warm and funny film", "bright and tender", "a joy from start to end", "funny and wise", "great fun"]
BAD = ["a cold and empty film", "dull and long", "a bore from start to end", "slow and stale", "no fun"]


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "reviews.tsv"
    lines = [
        f"{text} {number}\t{label}"
        for number in range(12)
        for label, texts in (("good", GOOD), ("bad", BAD))
        for text in texts
    ]
    path.write_text("\n".join(["text\tlabel", *lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def settings(sentences: Path, tiny_body_folder: Path) -> dict[str, Any]:
    """Return the plan as a mapping, as read from its TOML file."""
    return {
        "name": "Tiny",
        "question": "Does the quantum head help?",
        "seeds": 2,
        "bodies": [str(tiny_body_folder)],
        "data": {"source": str(sentences), "per_label": 20, "validation_fraction": 0.25},
        "train": {"epochs": 3},
        "heads": {
            "quantum": {"kind": "quantum", "settings": {"n_qubits": 5, "main_layers": 1}},
            "linear": {"kind": "logistic-regression"},
        },
        "factors": {"head.encoder_layers": [1, 2], "head.connectivity": [1, 2]},
        "design": {"kind": "full"},
        "report": {"reference": "linear"},
    }


@pytest.fixture
def plan(settings: dict[str, Any]) -> StudyPlan:
    return StudyPlan.from_mapping(settings)
