"""Evaluate a saved model: ``ketfit evaluate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import typer

from ketfit.cli.options import (
    AsJson,
    Data,
    DataOptions,
    Model,
    MovedBody,
    check_body,
    check_quantum_model,
    naming_option,
    takes_data_options,
)
from ketfit.cli.output import echo_stderr, evaluation_table, print_report
from ketfit.integers import as_integer


@takes_data_options
def evaluate(
    model: Model,
    data: Data,
    shots: Annotated[int | None, typer.Option(help="Shots per circuit.")] = None,
    noise: Annotated[
        str | None, typer.Option(help="Noise of the QPU circuit: ionq-forte, ionq-aria, or a TOML file.")
    ] = None,
    trajectories: Annotated[
        int | None, typer.Option(help="Trajectories to average noise over; exact if left out.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Ignore the shots and noise of training.")] = False,
    mitigate: Annotated[list[str], typer.Option(help="readout or zero_noise; may be repeated.")] = [],  # noqa: B006
    repeats: Annotated[
        int | None, typer.Option(help="Repetitions of random measurements; 10 if left out.", min=1)
    ] = None,
    *,
    data_options: DataOptions,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a saved model on labelled sentences: accuracy, metrics per class and calibration.

    Shots and noise are those of training unless options change them.
    """
    from ketfit.estimators.quantum import QuantumHeadClassifier
    from ketfit.estimators.text import TextClassifier
    from ketfit.evaluation.compare import evaluate_head
    from ketfit.hardware.runs.postprocessing import check_mitigation
    from ketfit.model.head import MEASUREMENT
    from ketfit.simulate.noise import load_noise

    check_body(body)
    for name, value in (("shots", shots), ("trajectories", trajectories)):
        if value is not None:
            as_integer(value, name, minimum=1)
    with naming_option("--noise", noise):
        noisy = None if noise is None else load_noise(noise)
    with naming_option("--mitigate", ", ".join(mitigate)):
        mitigation = check_mitigation(mitigate)
    if (shots, noise, trajectories, mitigation) != (None, None, None, ()):
        check_quantum_model(model, "run with shots or noise")
    dataset = data_options.load(data)
    echo_stderr(f"{len(dataset):,} sentences of {dataset.name}; loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    dataset = classifier.match_labels(dataset)
    config = None
    if isinstance(classifier.classifier_, QuantumHeadClassifier):
        trained = classifier.classifier_.head_config_
        settings = {name: off if exact else getattr(trained, name) for name, off in MEASUREMENT.items()}
        changes = {"shots": shots, "noise": noisy, "trajectories": trajectories, "mitigation": mitigation}
        settings |= {name: value for name, value in changes.items() if value not in (None, ())}
        classifier = classifier.with_measurement(**settings)
        config = classifier.classifier_.head_config_
    head = classifier.classifier_
    is_random = config is not None and config.is_random
    if repeats is not None and not is_random:
        raise typer.BadParameter("--repeats needs shots or trajectories; this measurement is exact")
    embeddings = classifier.body_.encode(dataset.texts, progress=True)
    accuracy, details = evaluate_head(head, embeddings, np.asarray(dataset.labels), (repeats or 10) if is_random else 1)
    measured: dict[str, Any] = {}
    if config is not None:
        measured = config.model_dump(mode="json", include=set(MEASUREMENT), exclude_defaults=True)
    report = {
        "model": model,
        "data": dataset.name,
        "size": len(dataset),
        **asdict(accuracy),
        "measurement": measured,
        "temperature": getattr(head, "temperature_", None),
        **asdict(details),
    }
    print_report(report, as_json, evaluation_table(report))
