"""Draws accuracy against trained parameters from the rows of the study parameters.toml.

ketfit study run studies/parameters.toml -o studies/results/parameters --data sst2.tsv
ketfit study report studies/results/parameters
python studies/parameters.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUMMARY = Path(__file__).parent / "results" / "parameters" / "summary.json"
FIGURE = Path(__file__).parent.parent / "docs" / "parameters.svg"
GROUPS = {"quantum": "quantum head", "logistic-regression": "linear, on random directions", "mlp": "MLP"}
MARKERS = {"quantum": "o", "logistic-regression": "s", "mlp": "^"}


def draw(cells: list[dict[str, Any]], path: Path) -> None:
    """Means over the seeds with their intervals for new seeds and new sentences; a line joins the heads of a kind."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ketfit"
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for kind, label in GROUPS.items():
        own = [cell for cell in cells if cell["kind"] == kind and cell["head"] != "paper, literal"]
        own.sort(key=lambda cell: cell["parameters"])
        _points(panel, own, fmt=f"{MARKERS[kind]}-", label=label)
    _points(
        panel, [cell for cell in cells if cell["head"] == "paper, literal"], fmt="x", label="the paper's literal head"
    )
    panel.set_xscale("log")
    panel.set_xlabel("trained parameters")
    panel.set_ylabel("test accuracy (%)")
    panel.grid(alpha=0.3, which="both")
    panel.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def _points(panel: Any, cells: list[dict[str, Any]], **style: Any) -> None:
    means = [100 * cell["accuracy"]["mean"] for cell in cells]
    below = [mean - 100 * cell["crossed"]["low"] for mean, cell in zip(means, cells, strict=True)]
    above = [100 * cell["crossed"]["high"] - mean for mean, cell in zip(means, cells, strict=True)]
    panel.errorbar([cell["parameters"] for cell in cells], means, [below, above], capsize=3, **style)


if __name__ == "__main__":
    draw(json.loads(SUMMARY.read_text(encoding="utf-8"))["cells"], FIGURE)
