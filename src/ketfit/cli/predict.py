"""``ketfit predict``: the labels of a few sentences, or of a file of any length."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ketfit.cli.options import AsJson, Model
from ketfit.console import plain, print_report, say


def predict(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences.")] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="UTF-8 text file, a sentence a line; - is stdin.", allow_dash=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The label of each sentence, and the probability of each class."""
    from ketfit.learn.data_sources import read_lines
    from ketfit.learn.text import TextClassifier

    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give sentences, or --input FILE, and not both")
    sentences = texts if input_file is None else read_lines(input_file)
    assert sentences is not None
    say(f"loading {model}")
    classifier = TextClassifier.from_pretrained(model)
    probabilities = classifier.predict_proba(sentences, progress=True)
    classes = classifier.classes_.tolist()
    predictions = [
        {
            "text": text,
            "label": classes[int(row.argmax())],
            "probabilities": {str(name): float(p) for name, p in zip(classes, row, strict=True)},
        }
        for text, row in zip(sentences, probabilities, strict=True)
    ]
    table = Table("label", "probability", "sentence")
    for prediction, row in zip(predictions, probabilities, strict=True):
        table.add_row(str(prediction["label"]), f"{row.max():.3f}", plain(str(prediction["text"])))
    print_report({"model": model, "predictions": predictions}, as_json, table)
