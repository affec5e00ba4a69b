"""Show a model in the browser: ``ketfit app``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.options import (
    DataOptions,
    Model,
    MovedBody,
    check_body,
    check_source,
    naming_option,
    takes_data_options,
)
from ketfit.cli.output import echo_stderr

if TYPE_CHECKING:
    from ketfit.bodies.body import Body


@takes_data_options
def app(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled sentences to fit logistic regression on, for comparison."),
    ] = None,
    few_shot: Annotated[
        int | None, typer.Option(help="Sentences per label to fit it on, sampled as by fit --few-shot.", min=2)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.", min=0, max=65535)] = 7860,
    *,
    data_options: DataOptions,
    body: MovedBody = None,
) -> None:
    """Show a model in the browser: every step of a prediction, with shots and noise to vary.

    Needs the extra app. Runs until Ctrl-C and contacts no other host.
    """
    from ketfit.app.server import check_address, require_gradio, serve
    from ketfit.app.trace import TracePredictor, fit_baseline
    from ketfit.data.splits import few_shot_split
    from ketfit.estimators.text import TextClassifier

    dataset = None
    if data is None:
        if few_shot is not None:
            raise typer.BadParameter("--few-shot is about --data; give that too")
        data_options.refuse_without_data()
    else:
        check_source(data, "--data")
    require_gradio()
    check_body(body)
    check_address(host, port)
    if data is not None:
        dataset = data_options.load(data)
    echo_stderr(f"loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    metadata = _metadata(model, classifier.body_)
    classical = None
    if dataset is not None:
        name = dataset.name
        if few_shot is not None:
            with naming_option("--few-shot", few_shot):
                fraction = classifier.validation_fraction if classifier.uses_validation else 0.0
                parts = few_shot_split(dataset, few_shot, fraction, classifier.seed)
            dataset = dataset.take(parts.train)
        classical = fit_baseline(classifier, dataset)
        metadata.append(("logistic regression", f"fitted on {len(dataset):,} sentences of {name}"))
    if host not in ("127.0.0.1", "localhost", "::1"):
        echo_stderr(f"warning: {host} is open to other machines, without a password")
    with exit_on_interrupt("the server is stopped and its files are removed"):
        serve(TracePredictor(classifier, classical), metadata, host, port, _echo_url)


def _echo_url(url: str) -> None:
    echo_stderr(f"the demo is at {url} (Ctrl-C stops it)")


def _metadata(model: str, loaded_body: Body) -> list[tuple[str, str]]:
    """Return names and values that describe a model, from its metadata."""
    from ketfit.model.config import HeadConfig
    from ketfit.model.tuning import describe_stages
    from ketfit.persistence.model_files import find_model, load_head
    from ketfit.persistence.schema import HEAD_NAMES

    record = load_head(find_model(model))[1]
    assert record.body is not None
    tuning = loaded_body.tuning
    tuned = "frozen" if tuning is None else f"tuned ({describe_stages(tuning.stages)})"
    config = record.head
    counts = config.count_parameters(record.embedding_dim, len(record.classes))
    parts = ", ".join(f"{n:,} {name}" for name, n in counts.items() if n and name != "total")
    metadata = [
        ("model", model),
        ("body", f"{record.body.name}, {tuned}, {record.embedding_dim} numbers"),
        ("classes", ", ".join(map(str, record.classes))),
        ("head", f"{HEAD_NAMES[record.head_kind]}, {counts['total']:,} parameters: {parts}"),
    ]
    if isinstance(config, HeadConfig):
        circuit = config.qpu_circuit()
        gates = circuit.gate_counts()
        other = "".join(f"{count} {name}, " for name, count in gates.items() if name not in ("ry", "cx"))
        if config.components is not None:
            fitted = record.embedding_dim * (config.components + 1)
            components = f"{config.components} of the training embeddings, {fitted:,} fitted numbers"
            metadata.append(("principal components", components))
        metadata += [
            ("encoders", f"{config.n_encoders} of {config.n_qubits} qubits"),
            (
                "QPU circuit",
                f"{circuit.n_qubits} qubits, {gates['ry']} RY, {gates['cx']} CNOT, {other}depth {circuit.depth()}",
            ),
        ]
    metadata.append(("trained on", f"{record.train_size:,} sentences" + (f" of {record.data}" if record.data else "")))
    metadata += [(name.replace("_", " "), f"{value:.4g}") for name, value in record.metrics.items()]
    return metadata
