"""Plot accuracy against trained parameters from the rows of the study parameters.toml.

ketfit study run studies/parameters.toml -o studies/results/parameters --data sst2.tsv
ketfit study report studies/results/parameters
python studies/parameters.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUMMARY = Path(__file__).parent / "results" / "parameters" / "summary.json"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "parameters.svg"
GROUPS = {
    "quantum head": ("o", lambda cell: cell["kind"] == "quantum" and not _is_literal(cell)),
    "linear, on random directions": ("s", lambda cell: _is_linear(cell) and not _is_principal(cell)),
    "linear, on principal directions": (
        "D",
        lambda cell: _is_linear(cell) and (_is_principal(cell) or _is_whole(cell)),
    ),
    "MLP": ("^", lambda cell: cell["kind"] == "mlp"),
}


def draw(cells: list[dict[str, Any]], path: Path) -> None:
    """Plot means over the seeds with intervals for new seeds and sentences; a line joins the heads of a kind."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ketfit"
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for label, (marker, belongs) in GROUPS.items():
        own = sorted(filter(belongs, cells), key=lambda cell: cell["parameters"])
        plot_means(panel, own, [cell["parameters"] for cell in own], fmt=f"{marker}-", label=label)
    literal = list(filter(_is_literal, cells))
    plot_means(panel, literal, [cell["parameters"] for cell in literal], fmt="x", label="the paper's literal head")
    panel.set_xscale("log")
    panel.set_xlabel("trained parameters")
    panel.set_ylabel("test accuracy (%)")
    panel.grid(alpha=0.3, which="both")
    panel.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def _is_literal(cell: dict[str, Any]) -> bool:
    return bool(cell["head"] == "paper, literal")


def _is_linear(cell: dict[str, Any]) -> bool:
    return bool(cell["kind"] == "logistic-regression")


def _is_principal(cell: dict[str, Any]) -> bool:
    return "principal" in cell["head"]


def _is_whole(cell: dict[str, Any]) -> bool:
    return bool(cell["head"] == "logistic regression")


def plot_means(panel: Any, cells: list[dict[str, Any]], x: list[float], **style: Any) -> None:
    """Plot the mean accuracy of each cell in per cent, with its interval for new seeds and sentences."""
    means = [100 * cell["accuracy"]["mean"] for cell in cells]
    below = [mean - 100 * cell["crossed"]["low"] for mean, cell in zip(means, cells, strict=True)]
    above = [100 * cell["crossed"]["high"] - mean for mean, cell in zip(means, cells, strict=True)]
    panel.errorbar(x, means, [below, above], capsize=3, **style)


if __name__ == "__main__":
    draw(json.loads(SUMMARY.read_text(encoding="utf-8"))["cells"], FIGURE)
