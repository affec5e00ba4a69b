"""Choose the settings of contrastive tuning on training and validation sentences, without any test sentence.

    python studies/tuning_recipe.py --data reviews.tsv --data trec.tsv
    python studies/tuning_recipe.py --data reviews.tsv --data trec.tsv --body all-mpnet-base-v2 --recipes frozen ...

Every recipe tunes the body on the training sentences of each draw; logistic regression is fitted on their embeddings,
and its loss is measured on the validation sentences of the draw. The recipe with the lowest mean loss, relative to the
frozen body, is the one to freeze. Every row is written when it is complete, and an interrupted run resumes. Rows and a
table go into ``studies/results/tuning_recipe/``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from ketfit import ContrastiveConfig
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import KetFitError
from ketfit.storage.append_log import AppendLog, complete_lines

RESULTS = Path(__file__).parent / "results" / "tuning_recipe"

CENTRE = ContrastiveConfig(
    loss="supervised", batch_size=64, epochs=8, learning_rate=2e-5, temperature=0.1, precision="auto"
)
RECIPES: dict[str, ContrastiveConfig | None] = {
    "frozen": None,
    "pairs": ContrastiveConfig(loss="cosine", precision="auto", group_by_length=True),
    "centre": CENTRE,
    "rate 5e-5": CENTRE.updated(learning_rate=5e-5),
    "rate 1e-4": CENTRE.updated(learning_rate=1e-4),
    "temperature 0.05": CENTRE.updated(temperature=0.05),
    "temperature 0.3": CENTRE.updated(temperature=0.3),
    "epochs 4": CENTRE.updated(epochs=4),
    "epochs 16": CENTRE.updated(epochs=16),
    "batch 32": CENTRE.updated(batch_size=32),
    "decay 0.8": CENTRE.updated(layer_decay=0.8),
    "rate 5e-5, decay 0.8": CENTRE.updated(learning_rate=5e-5, layer_decay=0.8),
    "cross-entropy 1": CENTRE.updated(cross_entropy=1.0),
    "rate 5e-5, cross-entropy 1": CENTRE.updated(learning_rate=5e-5, cross_entropy=1.0),
    "rate 5e-5, temperature 0.3": CENTRE.updated(learning_rate=5e-5, temperature=0.3),
    "rate 5e-5, epochs 4": CENTRE.updated(learning_rate=5e-5, epochs=4),
}


def run(body: Body, dataset: Dataset, per_label: int, draw: int, recipe: str) -> dict[str, Any]:
    """Return the row of one recipe on one draw: loss and accuracy on the validation sentences, and seconds."""
    split = few_shot_split(dataset, per_label, seed=draw)
    texts, labels = np.array(dataset.texts, dtype=object), np.array(dataset.labels)
    train, held_out = ((texts[rows].tolist(), labels[rows]) for rows in (split.train, split.validation))
    config, start = RECIPES[recipe], time.perf_counter()
    tuned = body if config is None else tune_body(body, *train, config, seed=draw)
    seconds = time.perf_counter() - start
    x, z = (tuned.encode(part[0], cache=config is None) for part in (train, held_out))
    regression = LogisticRegression(max_iter=1000).fit(x, train[1])
    if config is not None:
        shutil.rmtree(tuned.folder)
    return {
        "data": Path(dataset.name).stem,
        "body": body.name,
        "recipe": recipe,
        "draw": draw,
        "per_label": per_label,
        "validation_loss": float(log_loss(held_out[1], regression.predict_proba(z), labels=regression.classes_)),
        "validation_accuracy": float((regression.predict(z) == held_out[1]).mean()),
        "validation_size": len(held_out[1]),
        "seconds": round(seconds, 1),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows so far, without an incomplete last line."""
    return [json.loads(line) for line in complete_lines(path.read_bytes())] if path.exists() else []


def table(rows: Sequence[dict[str, Any]], command: str) -> str:
    """Return a Markdown table: the mean loss of each recipe by data set and body, and its change from frozen."""
    frame = pd.DataFrame(rows)
    frame["place"] = frame["data"] + ", " + frame["body"]
    losses = frame.pivot_table("validation_loss", "recipe", ["place", "draw"])
    change = losses - losses.loc["frozen"]
    places = sorted(frame["place"].unique())
    seconds = frame.pivot_table("seconds", "recipe", "place")
    accuracy = frame.pivot_table("validation_accuracy", "recipe", "place")
    order = change.mean(axis=1).sort_values().index
    heading = " | ".join(f"{place}: loss, change, accuracy, seconds" for place in places)
    lines = [f"Made by `{command}`.\n", f"| recipe | {heading} |", "|---|" + "---|" * len(places)]
    for recipe in order:
        cells = []
        for place in places:
            own = change.loc[recipe, place].dropna()
            if own.empty:
                cells.append("")
                continue
            error = own.std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else float("nan")
            cells.append(
                f"{losses.loc[recipe, place].mean():.4f}, {own.mean():+.4f} ± {error:.4f}, "
                f"{accuracy.loc[recipe, place]:.2%}, {seconds.loc[recipe, place]:.0f}"
            )
        lines.append(f"| {recipe} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Run the missing rows, draw by draw, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, action="append", help="file with columns text and label; repeatable")
    parser.add_argument("--body", default="all-MiniLM-L6-v2")
    parser.add_argument("--sentences", type=int, default=512, help="drawn in all, as many of each label")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    options = parser.parse_args(arguments)
    datasets = [load_dataset(file) for file in options.data]
    body = load_body(options.body, device="cpu")
    path = RESULTS / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with AppendLog(path, ".lock", KetFitError(f"another process writes {path}")) as file:
        done = {(row["data"], row["body"], row["recipe"], row["draw"]) for row in file.open(lambda: read(path))}
        for draw in range(options.draws):
            for recipe in options.recipes:
                for dataset in datasets:
                    per_label = options.sentences // len(dataset.classes)
                    if (Path(dataset.name).stem, body.name, recipe, draw) in done:
                        continue
                    row = run(body, dataset, per_label, draw, recipe)
                    file.append(json.dumps(row).encode())
                    sys.stderr.write(f"{row}\n")
    written = table(read(path), f"python studies/tuning_recipe.py {shlex.join(arguments)}")
    path.with_name("table.md").write_text(written, encoding="utf-8")
    sys.stdout.write(written)


if __name__ == "__main__":
    main(sys.argv[1:])
