"""The command line: thin verbs over the library.

Exit code 0 is done, 1 failed, 2 wrong usage. With ``--json`` a command prints one JSON object on stdout and nothing
else there; progress and errors go to stderr.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from rich.table import Table

from ketfit.cli.study import app as study_app
from ketfit.console import console, evaluation, fail, plain, print_report, say, two_columns
from ketfit.errors import ConfigError, KetFitError

if TYPE_CHECKING:
    from ketfit.circuit.circuit import Circuit
    from ketfit.learn.data import Dataset
    from ketfit.learn.text import TextClassifier
    from ketfit.model.config import FitConfig

app = typer.Typer(
    help="Fine-tune sentence transformers with quantum classification heads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(study_app, name="study")

Data = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet file, a Hub data set, or rotten-tomatoes.")]
Model = Annotated[str, typer.Argument(help="Folder of a saved model, or its name on the Hub.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to save the model in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
TextColumn = Annotated[str, typer.Option(help="Column with the sentences.")]
LabelColumn = Annotated[str, typer.Option(help="Column with the labels.")]
DataSplit = Annotated[str | None, typer.Option("--split", help="Split of a Hub data set.")]
DataFormat = Annotated[
    Literal["csv", "tsv", "jsonl", "parquet"] | None, typer.Option("--format", help="Of a file without its suffix.")
]
Encoding = Annotated[str, typer.Option(help="Encoding of a text file.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", dir_okay=False)]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", help="One setting, such as train.epochs=80; may be repeated. Head settings start from the paper's."
    ),
]
Tune = Literal["frozen", "contrastive", "full"]


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="Data set; the default is bundled.")] = "rotten-tomatoes",
    body: Annotated[str, typer.Option(help="Body; the default is bundled.")] = "all-MiniLM-L6-v2",
    per_label: Annotated[int, typer.Option(help="Sentences drawn of each label, to train and to validate.")] = 256,
    seed: Annotated[int, typer.Option(help="Source of all chance.")] = 0,
    output: Output = Path("ketfit-demo"),
    as_json: AsJson = False,
) -> None:
    """Train quantum and classical heads on the same few sentences, compare them on all the others, save the model."""
    from ketfit.learn.body import load_body
    from ketfit.learn.classifier import QuantumHeadClassifier
    from ketfit.learn.compare import compare_heads, standard_heads, with_interval
    from ketfit.learn.data import few_shot_split, load_dataset
    from ketfit.learn.files import check_place
    from ketfit.learn.text import TextClassifier

    check_place(output)
    dataset = load_dataset(data)
    split = few_shot_split(dataset, per_label, seed=seed)
    say(f"embedding {len(dataset):,} sentences with {body}")
    loaded = load_body(body)
    embeddings = loaded.encode(dataset.texts, progress=True)
    heads = standard_heads(loaded.dimension, len(dataset.classes), seed=seed)
    rows = []
    for row in compare_heads(heads, embeddings, np.asarray(dataset.labels), split, progress=True):
        say(f"{row.name}: {row.test_accuracy:.2%} of {len(split.test):,} test sentences, {row.fit_seconds:.1f} s")
        rows.append(row)
    quantum = heads["quantum head"]
    assert isinstance(quantum, QuantumHeadClassifier)
    metrics = with_interval("test_accuracy", rows[0].test_accuracy, rows[0].interval)
    metrics["test_sentences"] = len(split.test)
    TextClassifier.from_parts(loaded, quantum).save_pretrained(output, data=dataset.name, metrics=metrics)
    report = {
        "data": dataset.name,
        "body": loaded.name,
        "train_size": len(split.train),
        "test_size": len(split.test),
        "heads": [asdict(row) for row in rows],
        "model": str(output),
    }
    title = (
        f"{dataset.name}: {len(split.train)} to train, {len(split.validation)} to validate, {len(split.test):,} to test"
    )
    table = Table("head", "parameters", "test accuracy", "95 % interval", "fit", title=title)
    for row in rows:
        low, high = row.interval
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            f"{row.test_accuracy:.2%}",
            f"{low:.2%} to {high:.2%}",
            f"{row.fit_seconds:.1f} s",
        )
    print_report(report, as_json, table, f"saved in {output}; try: ketfit predict {output} 'a film to remember'")


@app.command()
def fit(
    data: Data,
    output: Output,
    body: Annotated[str | None, typer.Option(help="Body: a bundled one, a folder, or a name on the Hub.")] = None,
    tune: Annotated[
        Tune | None, typer.Option(help="How the body is trained; if left out, as the settings say, or frozen.")
    ] = None,
    config: ConfigFile = None,
    settings: Settings = [],  # noqa: B006 - Typer reads it, nothing writes it
    few_shot: Annotated[
        int | None, typer.Option(help="Train on so many sentences per label, test on the rest.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File to resume from after an interruption.")] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    split: DataSplit = None,
    encoding: Encoding = "utf-8",
    data_format: DataFormat = None,
    as_json: AsJson = False,
) -> None:
    """Train a quantum head on labelled sentences and save the model."""
    from ketfit.learn.compare import accuracy_interval, with_interval
    from ketfit.learn.data import load_dataset
    from ketfit.learn.files import check_place
    from ketfit.learn.text import TextClassifier

    check_place(output)
    chosen = _fit_config(config, settings, body, tune)
    columns = {"text_column": text_column, "label_column": label_column}
    dataset = load_dataset(data, **columns, split=split, format=data_format, encoding=encoding)
    say(f"{len(dataset):,} sentences of {dataset.name}; loading {chosen.body}")
    classifier = TextClassifier(**{name: getattr(chosen, name) for name in type(chosen).model_fields})
    test = _fit_on(classifier, dataset, few_shot, checkpoint)
    fitted = classifier.classifier_
    best = fitted.history_[fitted.best_epoch_]
    report: dict[str, Any] = {
        "data": dataset.name,
        "body": classifier.body_.name,
        "tuned": chosen.tune.method if chosen.tune else None,
        "parameters": fitted.n_parameters_,
        "train_size": fitted.train_size_,
        "validation_size": fitted.validation_size_,
        "best_epoch": fitted.best_epoch_,
        "validation_accuracy": best.validation_accuracy,
    }
    if cost := fitted.module_.step_cost(min(fitted.train_config_.batch_size, fitted.train_size_)):
        report["qpu_step"] = asdict(cost)
    metrics = {} if best.validation_accuracy is None else {"validation_accuracy": best.validation_accuracy}
    if test is not None:
        correct = int((classifier.predict(test.texts, progress=True) == np.asarray(test.labels)).sum())
        accuracy, interval = accuracy_interval(correct, len(test))
        report |= {"test_size": len(test), "test_accuracy": accuracy, "interval": interval}
        metrics |= {**with_interval("test_accuracy", accuracy, interval), "test_sentences": len(test)}
    classifier.save_pretrained(output, data=dataset.name, metrics=metrics)
    report["model"] = str(output)
    print_report(report, as_json, two_columns(report))


@app.command()
def evaluate(
    model: Model,
    data: Data,
    shots: Annotated[int | None, typer.Option(help="Read the QPU circuit from so many shots.")] = None,
    noise: Annotated[
        str | None, typer.Option(help="Noise of the QPU circuit: ionq-forte, ionq-aria, or a TOML file.")
    ] = None,
    trajectories: Annotated[
        int | None, typer.Option(help="Average noise over so many trajectories; exact if left out.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="First switch off what the model was trained with.")] = False,
    mitigate: Annotated[list[str], typer.Option(help="readout or zero_noise; may be repeated.")] = [],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="How often shots and trajectories are drawn anew.", min=1)] = 10,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    split: DataSplit = None,
    encoding: Encoding = "utf-8",
    data_format: DataFormat = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a saved model on labelled sentences, over all and by class, exact or as a device would have it.

    Shots and noise are those the model was trained with, but for what the options change.
    """
    from ketfit.learn.compare import measure_head
    from ketfit.learn.data import load_dataset
    from ketfit.learn.text import TextClassifier
    from ketfit.model.head import MEASUREMENT
    from ketfit.simulate.noise import load_noise

    columns = {"text_column": text_column, "label_column": label_column}
    dataset = load_dataset(data, **columns, split=split, format=data_format, encoding=encoding)
    say(f"{len(dataset):,} sentences of {dataset.name}; loading {model}")
    classifier = TextClassifier.from_pretrained(model)
    classifier.check_labels(dataset.classes, dataset.name)
    trained = classifier.classifier_.head_config_
    settings = {name: off if exact else getattr(trained, name) for name, off in MEASUREMENT.items()}
    given = {"shots": shots, "noise": noise and load_noise(noise), "trajectories": trajectories, "mitigation": mitigate}
    settings |= {name: value for name, value in given.items() if value not in (None, [])}
    classifier = classifier.with_measurement(**settings)
    head = classifier.classifier_
    embeddings = classifier.body_.encode(dataset.texts, progress=True)
    drawn = repeats if head.head_config_.is_random else 1
    accuracy, details = measure_head(head, embeddings, np.asarray(dataset.labels), drawn)
    measured = head.head_config_.model_dump(mode="json", include=set(MEASUREMENT), exclude_defaults=True)
    report = {
        "model": model,
        "data": dataset.name,
        "size": len(dataset),
        **asdict(accuracy),
        "measurement": measured,
        "temperature": head.temperature_,
        **asdict(details),
    }
    print_report(report, as_json, evaluation(report))


@app.command()
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


@app.command()
def inspect(model: Model, as_json: AsJson = False) -> None:
    """What a saved model is: its body, circuits, parameters and training. The body is not loaded."""
    from ketfit.learn.files import find_model, load_model

    head, record = load_model(find_model(model))
    circuits = {"encoder": head.encoder.circuit, "qpu": head.circuit}
    report: dict[str, Any] = {
        **record.model_dump(),
        "parameters": head.parameter_counts(),
        "unreachable_angles": head.unreachable_angles(),
        "qpu_step": asdict(cost) if (cost := head.step_cost(min(record.train.batch_size, record.train_size))) else None,
        "circuits": {
            name: {"qubits": circuit.n_qubits, **circuit.gate_counts(), "depth": circuit.depth()}
            for name, circuit in circuits.items()
        },
    }
    print_report(report, as_json, two_columns(report))


@app.command()
def draw(
    model: Annotated[str | None, typer.Argument(help="A saved model, to draw with its trained angles.")] = None,
    config: ConfigFile = None,
    module: Annotated[Literal["encoder", "qpu"], typer.Option(help="Which circuit.")] = "qpu",
    encoder: Annotated[int, typer.Option(help="Which of a model's encoders, from 0.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Picture: .svg, .png or .pdf.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a circuit as text, or as a picture with -o; without a model or --config, the paper's."""
    from ketfit.circuit.draw import draw_figure, draw_text

    if model is not None and config is not None:
        raise typer.BadParameter("give a model or --config, not both")
    circuit, weights, measured = _circuit_of(model, config, module, encoder)
    if output is None:
        drawing = draw_text(circuit, weights, measured=measured, width=console().width)
    else:
        from ketfit.learn.files import write_file

        picture = io.BytesIO()
        draw_figure(circuit, weights, measured=measured).savefig(picture, format=_picture_format(output))
        write_file(output, picture.getvalue())
        drawing = str(output)
    if as_json:
        print(json.dumps({"module": module, "drawing": drawing}))  # noqa: T201
    else:
        print(drawing)  # noqa: T201


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed here, and which engine runs."""
    from ketfit.doctor import examine

    report = examine()
    print_report(report, as_json, two_columns(report))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point ``ketfit``."""
    try:
        app(arguments)
    except ConfigError as error:
        fail(error, 2)
    except KetFitError as error:
        fail(error, 1)


def _fit_config(path: Path | None, settings: list[str], body: str | None, tune: Tune | None) -> FitConfig:
    """The TOML file's settings, then those of --set, then --body and --tune."""
    from ketfit.model.config import FitConfig
    from ketfit.settings import assign, read_toml

    tables = {} if path is None else read_toml(path)
    for setting in settings:
        assign(tables, setting)
    if body is not None:
        tables["body"] = body
    if tune == "frozen":
        tables.pop("tune", None)
    elif tune is not None:
        own = tables.get("tune", {})
        tables["tune"] = {**own, "method": tune} if isinstance(own, dict) else own
    return FitConfig.from_mapping(tables, where="the settings" if path is None else str(path))


def _fit_on(
    classifier: TextClassifier, dataset: Dataset, few_shot: int | None, checkpoint: Path | None
) -> Dataset | None:
    """Fit on all sentences; or on `few_shot` of each label, and then the others are returned, to test on."""
    from ketfit.learn.data import few_shot_split

    if few_shot is None:
        classifier.fit(dataset.texts, dataset.labels, checkpoint=checkpoint, progress=True)
        return None
    parts = few_shot_split(dataset, few_shot, classifier.validation_fraction, classifier.seed)
    train = dataset.take(parts.train)
    held = dataset.take(parts.validation) if len(parts.validation) else None
    validation = None if held is None else (held.texts, held.labels)
    classifier.fit(train.texts, train.labels, validation=validation, checkpoint=checkpoint, progress=True)
    return dataset.take(parts.test)


def _circuit_of(
    model: str | None, config: Path | None, module: str, encoder: int
) -> tuple[Circuit, Sequence[float] | None, Sequence[int]]:
    """The circuit to draw, its trained angles if there are any, and the qubits that are read out."""
    from ketfit.learn.files import find_model, load_model
    from ketfit.model.config import HeadConfig

    head = None if model is None else load_model(find_model(model))[0]
    shape = HeadConfig.paper() if head is None else head.config
    if config is not None:
        table = _fit_config(config, [], None, None).head
        if table is None:
            raise ConfigError(f"{config} has no table [head]; the head that fit would choose depends on the body")
        shape = table
    if not 0 <= encoder < shape.n_encoders:
        raise ConfigError(f"--encoder {encoder}: this head has encoders 0 to {shape.n_encoders - 1}")
    if module == "encoder":
        weights = None if head is None else head.encoder.weights[encoder].tolist()
        return shape.encoder_circuit(), weights, range(shape.n_qubits)
    return shape.qpu_circuit(), None if head is None else head.weights.tolist(), range(shape.n_measured)


def _picture_format(path: Path) -> str:
    format = path.suffix.removeprefix(".").lower()
    if format not in ("svg", "png", "pdf"):
        raise ConfigError(f"{path}: a picture is .svg, .png or .pdf")
    return format
