"""Groups of sentences in `TextClassifier.fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.errors import InputError
from ketfit.learn.text import TextClassifier
from ketfit.model.tuning import ContrastiveConfig


class Split(Exception):
    """The groups that a split was asked to keep together."""


@pytest.mark.parametrize("tune", [None, ContrastiveConfig()])
def test_split_keeps_groups_and_copies_together(
    tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch, tune: ContrastiveConfig | None
) -> None:
    """A copy of a sentence in another group joins the two groups."""
    texts = [f"a {word} film {n}" for n in range(20) for word in ("good", "bad")]
    groups = [f"author {n // 4}" for n in range(len(texts))]
    texts[9], texts[33] = "The SAME film", "the same film"

    def split(codes: Any, fraction: float, seed: int, groups: Any) -> Any:
        raise Split(np.asarray(groups))

    for module in ("text", "estimator"):
        monkeypatch.setattr(f"ketfit.learn.{module}.holdout_split", split)
    with pytest.raises(Split) as asked:
        TextClassifier(str(tiny_body_folder), tune=tune).fit(texts, ["good", "bad"] * 20, groups=groups)
    (found,) = asked.value.args
    joined = ["author 8" if group == "author 2" else group for group in groups]
    assert (found[:, None] == found).tolist() == [[a == b for b in joined] for a in joined]


def test_groups_of_another_length_are_refused(tiny_body_folder: Path) -> None:
    with pytest.raises(InputError, match="group"):
        TextClassifier(str(tiny_body_folder)).fit(["a good film", "a bad film"], ["x", "y"], groups=["one"])
