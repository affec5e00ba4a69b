"""Train and compare heads on the bundled data set: ``ketfit demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.head_table import head_report
from ketfit.cli.options import (
    AsJson,
    DataOptions,
    Output,
    check_body,
    check_source,
    sample_few_shot,
    takes_data_options,
)
from ketfit.cli.output import echo_stderr, print_report

ONE_DRAW = (
    "(one draw: McNemar's test for these trained heads on new sentences, adjusted by Holm; ketfit compare repeats the "
    "draw)"
)


@takes_data_options
def demo(
    data: Annotated[str, typer.Option(help="Data set; the default is bundled.")] = "rotten-tomatoes",
    body: Annotated[str, typer.Option(help="Body; the default is bundled.")] = "all-MiniLM-L6-v2",
    per_label: Annotated[int, typer.Option(help="Sentences per label to train and validate on.", min=2)] = 256,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    output: Output = Path("ketfit-demo"),
    *,
    data_options: DataOptions,
    as_json: AsJson = False,
) -> None:
    """Train quantum and classical heads on the same sentences, compare them on the others and save the model."""
    from ketfit.bodies.body import load_body
    from ketfit.estimators.quantum import QuantumHeadClassifier
    from ketfit.estimators.text import TextClassifier
    from ketfit.evaluation.compare import compare_heads, standard_heads, with_interval
    from ketfit.evaluation.paired_difference import conclusions, differences_on_one_split
    from ketfit.persistence.model_files import check_model_folder
    from ketfit.persistence.schema import check_class_names

    check_model_folder(output)
    check_source(data, "--data")
    check_body(body)
    dataset = data_options.load(data)
    parts = sample_few_shot(dataset, per_label, "--per-label", seed=seed)
    check_class_names(dataset.classes)
    loaded = load_body(body)
    echo_stderr(f"embedding {len(dataset):,} sentences with {body}")
    with exit_on_interrupt("embeddings are cached; run the same command to continue"):
        embeddings = loaded.encode(dataset.texts, progress=True)
    heads = standard_heads(loaded.dimension, len(dataset.classes), seed=seed)
    rows = []
    for row in compare_heads(heads, embeddings, np.asarray(dataset.labels), parts, progress=True):
        echo_stderr(
            f"{row.name}: {row.test_accuracy:.2%} of {len(parts.test):,} test sentences, {row.fit_seconds:.1f} s"
        )
        rows.append(row)
    quantum = heads["quantum head"]
    assert isinstance(quantum, QuantumHeadClassifier)
    assert rows[0].interval is not None
    metrics = with_interval("test_accuracy", rows[0].test_accuracy, rows[0].interval)
    metrics["test_sentences"] = len(parts.test)
    TextClassifier.from_parts(loaded, quantum).save_pretrained(output, data=dataset.name, metrics=metrics)
    report = {
        "data": dataset.name,
        "body": loaded.name,
        "train_size": len(parts.train),
        "test_size": len(parts.test),
        "heads": [row.to_json() for row in rows],
        "model": str(output),
    }
    title = (
        f"{dataset.name}: {len(parts.train)} to train, {len(parts.validation)} to validate, {len(parts.test):,} to test"
    )
    correct = {row.name: row.correct for row in rows if row.correct is not None}
    reference = "logistic regression"
    found = [*conclusions(differences_on_one_split(correct, reference), reference), ONE_DRAW]
    table = head_report(rows, found, title)
    print_report(report, as_json, table, f"saved in {output}; try: ketfit predict {output} 'a film to remember'")
