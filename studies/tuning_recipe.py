"""Choose the settings of a tuning on training and validation sentences, without any test sentence.

    python studies/tuning_recipe.py --data reviews.tsv --data trec.tsv
    python studies/tuning_recipe.py --data reviews.tsv --data trec.tsv --stage few-sentences
    python studies/tuning_recipe.py --data reviews.tsv --data trec.tsv --stage end-to-end

Every recipe of the contrastive stage tunes the body on the training sentences of each draw; logistic regression is
fitted on their embeddings, and its loss is measured on the validation sentences of the draw. The stage of few sentences
tunes in the same way on a part of each draw only, with as many sentences of each label, and measures the loss on all
the rest of the draw. The recipes of the end-to-end stage start from the body after contrastive tuning with its default
settings and from a linear layer fitted on it. These and those for few sentences are compared by the loss with the
logits divided by the best temperature, because the layer is overconfident after end-to-end training, and logistic
regression is not confident enough after few sentences. Differences are to the stage before: the frozen body, or the
contrastively tuned one. Every row is written when it is complete, and an interrupted run resumes with the same
``--sentences``. Rows and a table of each stage go into ``studies/results/tuning_recipe/``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from run_options import check_options, options_of
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from ketfit import ContrastiveConfig, EndToEndConfig
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import KetFitError
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.end_to_end import tune_end_to_end
from ketfit.storage.append_log import AppendLog, read_json_lines

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

FEW_RECIPES: dict[str, ContrastiveConfig | None] = {
    "frozen": None,
    "batch 64": ContrastiveConfig(batch_size=64),
    "batch 32": ContrastiveConfig(batch_size=32),
    "batch 16": ContrastiveConfig(batch_size=16),
    "batch 16, rate 5e-5": ContrastiveConfig(batch_size=16, learning_rate=5e-5),
    "batch 16, rate 1e-4": ContrastiveConfig(batch_size=16, learning_rate=1e-4),
    "batch 64, epochs 16": ContrastiveConfig(batch_size=64, epochs=16),
    "batch 16, epochs 16": ContrastiveConfig(batch_size=16, epochs=16),
    "pairs": RECIPES["pairs"],
}

LAYER = EndToEndConfig(precision="auto", group_by_length=True)
END_TO_END: dict[str, EndToEndConfig | None] = {
    "contrastive only": None,
    "centre": LAYER,
    "rate 5e-6": LAYER.updated(learning_rate=5e-6),
    "rate 5e-5": LAYER.updated(learning_rate=5e-5),
    "batch 32": LAYER.updated(batch_size=32),
    "batch 32, rate 5e-5": LAYER.updated(batch_size=32, learning_rate=5e-5),
    "decay 0.8": LAYER.updated(layer_decay=0.8),
    "head 10 times as fast": LAYER.updated(angle_learning_rate=1e-2, linear_learning_rate=1e-2),
}
STAGES: dict[str, dict[str, Any]] = {
    "contrastive": RECIPES,
    "few-sentences": FEW_RECIPES,
    "end-to-end": END_TO_END,
}
COMPARED = {"contrastive": "validation_loss", "few-sentences": "calibrated_loss", "end-to-end": "calibrated_loss"}


@dataclass(frozen=True, eq=False)
class Draw:
    """Training and validation sentences of one draw, with their labels."""

    data: str
    number: int
    per_label: int
    train: tuple[list[str], NDArray[Any]]
    validation: tuple[list[str], NDArray[Any]]

    @classmethod
    def of(cls, dataset: Dataset, per_label: int, number: int) -> Draw:
        """Return a draw of a data set."""
        split = few_shot_split(dataset, per_label, seed=number)
        texts, labels = np.array(dataset.texts, dtype=object), np.array(dataset.labels)
        train, held_out = ((texts[rows].tolist(), labels[rows]) for rows in (split.train, split.validation))
        return cls(Path(dataset.name).stem, number, per_label, train, held_out)

    def with_few(self, count: int) -> Draw:
        """Return the draw with only `count` sentences to train on, and all others to validate on."""
        texts, labels = self.train[0] + self.validation[0], np.concatenate([self.train[1], self.validation[1]])
        few, others, of_few, of_others = train_test_split(
            texts, labels, train_size=count, stratify=labels, random_state=self.number
        )
        return replace(self, train=(few, of_few), validation=(others, of_others))


def run(body: Body, draw: Draw, stage: str, recipe: str) -> dict[str, Any]:
    """Return the row of one recipe on one draw: loss and accuracy on the validation sentences, and seconds."""
    try_recipe = try_end_to_end if stage == "end-to-end" else try_contrastive
    probabilities, seconds = try_recipe(body, draw, STAGES[stage][recipe])
    _, codes = np.unique(draw.validation[1], return_inverse=True)
    return {
        "data": draw.data,
        "body": body.name,
        "recipe": recipe,
        "draw": draw.number,
        "per_label": draw.per_label,
        "train_size": len(draw.train[0]),
        "validation_loss": float(log_loss(codes, probabilities)),
        "calibrated_loss": calibrated_loss(codes, probabilities),
        "validation_accuracy": float((probabilities.argmax(axis=1) == codes).mean()),
        "validation_size": len(codes),
        "seconds": round(seconds, 1),
    }


def calibrated_loss(codes: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Return the lowest loss over all temperatures that the logits can be divided by."""
    logits = np.log(np.clip(probabilities, 1e-12, None))
    search = minimize_scalar(
        lambda rate: log_loss(codes, softmax(logits * np.exp(rate), axis=1)), bounds=(-4, 2), method="bounded"
    )
    return float(search.fun)


def try_contrastive(body: Body, draw: Draw, config: ContrastiveConfig | None) -> tuple[NDArray[Any], float]:
    """Return the probabilities of logistic regression on the tuned body, and the seconds of the tuning."""
    start = time.perf_counter()
    tuned = body if config is None else tune_body(body, *draw.train, config, seed=draw.number)
    seconds = time.perf_counter() - start
    x, z = (tuned.encode(part[0], cache=config is None) for part in (draw.train, draw.validation))
    regression = LogisticRegression(max_iter=1000).fit(x, draw.train[1])
    if config is not None:
        shutil.rmtree(tuned.folder)
    return regression.predict_proba(z), seconds


def try_end_to_end(body: Body, draw: Draw, config: EndToEndConfig | None) -> tuple[NDArray[Any], float]:
    """Return the probabilities of a linear layer after the best epoch, and the seconds of the end-to-end stage."""
    tuned = tune_body(body, *draw.train, ContrastiveConfig(), seed=draw.number)
    x, z = (tuned.encode(part[0]) for part in (draw.train, draw.validation))
    layer = MLPHead(hidden=0, seed=draw.number).fit(x, draw.train[1], validation=(z, draw.validation[1]))
    start = time.perf_counter()
    if config is not None:
        after, layer = tune_end_to_end(tuned, layer, *draw.train, config, validation=draw.validation)
        z = after.encode(draw.validation[0], cache=False)
        shutil.rmtree(after.folder)
    return layer.predict_proba(z), time.perf_counter() - start


def table(rows: Sequence[dict[str, Any]], stage: str, command: str) -> str:
    """Return a Markdown table: the change of the loss from that of a reference, by recipe, data set and body."""
    frame = pd.DataFrame(rows)
    frame["place"] = frame["data"] + ", " + frame["body"]
    if stage == "few-sentences":
        frame["place"] += ", " + frame["train_size"].astype(str) + " sentences"
    reference, measure = next(iter(STAGES[stage])), COMPARED[stage]
    losses = frame.pivot_table(measure, "recipe", ["place", "draw"])
    change = losses - losses.loc[reference]
    places = frame.sort_values(["data", "body", "train_size"])["place"].unique()
    accuracy = frame.pivot_table("validation_accuracy", "recipe", "place")
    order = change.mean(axis=1).sort_values().index
    lines = [
        f"Made by `{command}`: change of the {measure.replace('_', ' ')} from `{reference}` on the same draws with its",
        "standard error over the draws, their number in brackets, and the mean validation accuracy.\n",
        f"| recipe | {' | '.join(places)} |",
        "|---|" + "---|" * len(places),
    ]
    for recipe in order:
        cells = []
        for place in places:
            own = change.loc[recipe, place].dropna()
            if own.empty:
                cells.append("")
                continue
            error = f" ± {own.std(ddof=1) / len(own) ** 0.5:.3f}" if len(own) > 1 else ""
            cells.append(f"{own.mean():+.3f}{error} ({len(own)}), {accuracy.loc[recipe, place]:.1%}")
        lines.append(f"| {recipe} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, action="append", help="file with columns text and label; repeatable")
    parser.add_argument("--stage", choices=STAGES, default="contrastive")
    parser.add_argument("--body", default="all-MiniLM-L6-v2")
    parser.add_argument("--sentences", type=int, default=512, help="drawn in all, as many of each label")
    parser.add_argument("--few", type=int, default=56, help="sentences to tune on in the stage few-sentences")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", help="names of recipes; all of the stage by default")
    options = parser.parse_args(arguments)
    recipes = STAGES[options.stage]
    if unknown := set(options.recipes or ()) - recipes.keys():
        parser.error(f"unknown recipe {min(unknown)!r}; known: {', '.join(recipes)}")
    if len({Path(file).stem for file in options.data}) < len(options.data):
        parser.error(f"two files of --data have the same name: {', '.join(options.data)}; rename one")
    return options


def main(arguments: list[str]) -> None:
    """Run the missing rows, draw by draw, and write the table."""
    options = parse(arguments)
    recipes = options.recipes or STAGES[options.stage]
    datasets = [load_dataset(file) for file in options.data]
    body = load_body(options.body, device="cpu")
    path = RESULTS / f"{options.stage}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with AppendLog(path, ".lock", KetFitError(f"another process writes {path}")) as file:
        rows = file.open(lambda: read_json_lines(path))
        check_options(path, rows, {"sentences": options.sentences}, parse)
        of_run = {Path(dataset.name).stem: options_of(options, dataset, "sentences") for dataset in datasets}
        for name, own in of_run.items():
            check_options(path, [row for row in rows if row["data"] == name], own, parse)
        done = {(row["data"], row["body"], row["recipe"], row["draw"], row["train_size"]) for row in rows}
        for number in range(options.draws):
            for dataset in datasets:
                draw = Draw.of(dataset, options.sentences // len(dataset.classes), number)
                if options.stage == "few-sentences":
                    draw = draw.with_few(options.few)
                for recipe in recipes:
                    if (draw.data, body.name, recipe, number, len(draw.train[0])) not in done:
                        row = {"options": of_run[draw.data], **run(body, draw, options.stage, recipe)}
                        file.append(json.dumps(row).encode())
                        sys.stderr.write(f"{row}\n")
    command = f"python studies/tuning_recipe.py {shlex.join(arguments)}"
    written = table(read_json_lines(path), options.stage, command)
    path.with_suffix(".md").write_text(written, encoding="utf-8")
    sys.stdout.write(written)


if __name__ == "__main__":
    main(sys.argv[1:])
