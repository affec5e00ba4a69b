"""Tabulate and plot accuracy against the number of labelled sentences, from the rows of the study few_shot.toml.

ketfit study run studies/few_shot.toml -o studies/results/few_shot --data sst2.tsv
ketfit study report studies/results/few_shot
python studies/few_shot.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from parameters import plot_means

RESULTS = Path(__file__).parent / "results" / "few_shot"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "few_shot.svg"
FACTOR = "data.per_label"


def table(summary: dict[str, Any]) -> str:
    """Return the mean accuracy of logistic regression, and that of the other head minus it in points, in Markdown."""
    bodies = dict.fromkeys(cell["body"] for cell in summary["cells"])
    columns: dict[tuple[str, str], dict[int, str]] = {}
    for cell in summary["cells"]:
        if cell["kind"] == "logistic-regression":
            mean, low, high = (100 * value for value in (cell["accuracy"]["mean"], *_interval(cell)))
            columns.setdefault((cell["body"], "accuracy"), {})[_level(cell)] = f"{mean:.1f} % ({low:.1f} to {high:.1f})"
    for pair in summary["comparisons"]:
        points, low, high = (100 * value for value in (pair["difference"], *_interval(pair)))
        column = columns.setdefault((pair["body"], pair["head"]), {})
        column[_level(pair)] = f"{points:+.1f} ({low:+.1f} to {high:+.1f})"
    ordered = [(body, kind) for body in bodies for kind in dict.fromkeys(kind for _, kind in columns)]
    titles = [body if kind == "accuracy" else f"{kind} head minus it" for body, kind in ordered]
    head = [f"| sentences of each class | {' | '.join(titles)} |", "|---:|" + "---:|" * len(titles)]
    rows = ([str(level), *(columns[column][level] for column in ordered)] for level in columns[ordered[0]])
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def draw(cells: list[dict[str, Any]], path: Path) -> None:
    """Plot means over the seeds with intervals for new seeds and sentences, one line for each head and body."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ketfit"
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 4), layout="constrained")
    groups = dict.fromkeys((cell["body"], cell["head"]) for cell in cells)
    for number, (body, head) in enumerate(groups):
        own = [cell for cell in cells if (cell["body"], cell["head"]) == (body, head)]
        levels = [_level(cell) * (1 + 0.03 * number) for cell in own]  # side by side, so that bars do not overlap
        plot_means(panel, own, levels, fmt=("o-", "s--")[number % 2], label=f"{head}, {body}")
    panel.set_xscale("log", base=2)
    panel.set_xticks(levels := list(dict.fromkeys(map(_level, cells))), map(str, levels))
    panel.set_xlabel("labelled sentences of each class")
    panel.set_ylabel("test accuracy (%)")
    panel.grid(alpha=0.3)
    panel.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def _interval(result: dict[str, Any]) -> tuple[float, float]:
    return result["crossed"]["low"], result["crossed"]["high"]


def _level(result: dict[str, Any]) -> int:
    return int(result["levels"][FACTOR])


if __name__ == "__main__":
    found = json.loads((RESULTS / "summary.json").read_text(encoding="utf-8"))
    written = table(found)
    (RESULTS / "table.md").write_text(written, encoding="utf-8")
    draw(found["cells"], FIGURE)
    sys.stdout.write(written)
