"""Compare all heads on labelled sentences over several draws: ``ketfit compare``."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.head_table import head_report
from ketfit.cli.options import (
    AsJson,
    Data,
    DataOptions,
    Tune,
    check_body,
    check_outside_model,
    check_source,
    naming_option,
    sample_few_shot,
    takes_data_options,
    tuning_methods,
)
from ketfit.cli.output import echo_stderr, print_report
from ketfit.errors import KetFitError, MissingExtraError

if TYPE_CHECKING:
    from ketfit.data.dataset import Dataset
    from ketfit.estimators.text import TextClassifier
    from ketfit.study.compare import HeadComparisonResult
    from ketfit.study.spec import StudyPlan
    from ketfit.study.store import StudyRecord, TaskResult


@takes_data_options
def compare(
    data: Data,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to save the chosen head in.", file_okay=False)
    ] = None,
    html: Annotated[Path | None, typer.Option(help="File to write the report in.", dir_okay=False)] = None,
    body: Annotated[
        str, typer.Option(help="Body: a bundled one, a folder, or a name on the Hub.")
    ] = "all-MiniLM-L6-v2",
    tune: Tune = [],  # noqa: B006 - Typer reads it, nothing writes it
    heads: Annotated[
        list[str],
        typer.Option("--head", help="Head beside logistic: svc, mlp, qpu, quantum, paper; repeatable, all by default."),
    ] = [],  # noqa: B006 - Typer reads it, nothing writes it
    draws: Annotated[int, typer.Option(help="Number of draws, each with a seed of its own.", min=2, max=1000)] = 5,
    few_shot: Annotated[
        int | None,
        typer.Option(
            help="Sentences per label to draw; the others are the test set. If left out: 256, or hold-outs of a "
            "quarter if a label has fewer than 512.",
            min=2,
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(help="Folder of the results, new or to continue; a temporary one if left out.", file_okay=False),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes; one per core if left out.", min=1)] = None,
    *,
    data_options: DataOptions,
    as_json: AsJson = False,
) -> None:
    """Compare all heads on labelled sentences over several draws, and save the simplest one that is good enough."""
    from ketfit.persistence.schema import check_class_names
    from ketfit.study.compare import compare_results
    from ketfit.study.executors import LocalExecutor
    from ketfit.study.runner import run_study
    from ketfit.study.store import StudyRecord, read_results

    _check_targets(output, html, study)
    check_source(data, "DATA")
    check_body(body)
    options = _PlanOptions(data, data_options, body, tune, heads, draws)
    options.plan({})  # settings are checked before the data are read
    dataset = data_options.load(data)
    check_class_names(dataset.classes)
    plan = options.plan(_splits(dataset, few_shot))
    command = shlex.join([*options.command(), *([] if few_shot is None else ["--few-shot", str(few_shot)])])
    with _study_folder(study) as folder:
        with exit_on_interrupt(_interrupted_message(study)):
            executor = LocalExecutor(workers)
            run_study(plan, folder, executor, command=command, progress=True, dataset=dataset)
        record, results = StudyRecord.read(folder), read_results(folder)
    found = compare_results(record, results)
    if html is not None:
        _write_page(html, record, found)
    for head, reason in found.left_out.items():
        echo_stderr(f"warning: {head} is left out: {reason}")
    show = partial(_print, found, plan, {"study": study, "report": html}, as_json)
    if output is None:
        show()
        return
    echo_stderr(f"training {found.best} on all {len(dataset):,} sentences")
    try:
        classifier = _classifier(record, results, found.best)
        with exit_on_interrupt("the comparison is complete, and no model is saved"):
            classifier.fit(dataset.texts, dataset.labels, progress=True)
        classifier.save_pretrained(output, data=dataset.name, metrics=_metrics(found))
    except (KetFitError, typer.Exit):
        show()  # the results of a comparison in a temporary folder are kept nowhere else
        raise
    show(model=output, hint=f"saved {found.best} in {output}; try: ketfit predict {output} 'a sentence'")


@dataclass(frozen=True)
class _PlanOptions:
    """Options that determine the plan, beside the splits."""

    data: str
    data_options: DataOptions
    body: str
    tune: list[str]
    heads: list[str]
    draws: int

    def plan(self, splits: dict[str, Any]) -> StudyPlan:
        """Return the plan with these splits."""
        from ketfit.study.compare import comparison_plan
        from ketfit.study.spec import BodyPlan, DataPlan

        columns = {name.removeprefix("data_"): value for name, value in asdict(self.data_options).items()}
        data = DataPlan(source=self.data, **columns, **splits)
        stages = [{"method": method} for method in tuning_methods(self.tune)]
        body = BodyPlan.from_mapping({"name": self.body, "tune": stages or None}, where="--tune")
        with naming_option("--head", " --head ".join(self.heads)):
            return comparison_plan(data, body, self.heads, self.draws)

    def command(self) -> list[str]:
        """Return the command line, for the report."""
        words = ["ketfit", "compare", self.data, "--body", self.body, "--draws", str(self.draws)]
        words += [word for text in self.tune for word in ("--tune", text)]
        words += [word for head in self.heads for word in ("--head", head)]
        for field in fields(self.data_options):
            if (value := getattr(self.data_options, field.name)) != field.default:
                words += [f"--{field.name.removeprefix('data_').replace('_', '-')}", value]
        return words


def _splits(dataset: Dataset, few_shot: int | None) -> dict[str, Any]:
    """Return the splits as settings of `DataPlan`, after a check that they leave test sentences."""
    from ketfit.study.compare import choose_split

    if few_shot is None:
        return dict(choose_split(dataset))
    sample_few_shot(dataset, few_shot, "--few-shot")
    return {"per_label": few_shot}


def _check_targets(output: Path | None, html: Path | None, study: Path | None) -> None:
    """Check before the work starts that the model, the report and the results can be written."""
    from ketfit.persistence.model_files import check_model_folder
    from ketfit.storage.atomic import check_writable_file, check_writable_target

    if output is not None:
        check_model_folder(output)
        check_outside_model(output, html=html, study=study)
    if study is not None and not study.exists():
        check_writable_target(study.resolve())
    if html is not None:
        check_writable_file(html)
        try:
            import ketfit.study.report.render  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("Writing a report", "'ketfit[study]'") from error


@contextmanager
def _study_folder(folder: Path | None) -> Iterator[Path]:
    """Yield the folder of the results, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ketfit-compare-") as temporary:
        yield Path(temporary)


def _write_page(path: Path, record: StudyRecord, found: HeadComparisonResult) -> None:
    from ketfit.storage.atomic import write_file
    from ketfit.study.report.render import make_page
    from ketfit.study.report.summary import summary_sentences

    write_file(path, make_page(record, found.analysis, summary_sentences(found.analysis)).encode())


def _classifier(record: StudyRecord, results: Mapping[str, TaskResult], head: str) -> TextClassifier:
    """Return an unfitted text classifier with the body and a head of the study."""
    from ketfit.estimators.quantum import QuantumHeadClassifier
    from ketfit.estimators.text import TextClassifier
    from ketfit.study.task import build_head

    config = next(results[task.id].config for task in record.tasks if task.head == head)
    estimator, body = build_head(config, config["tries"][0]), record.plan.bodies[0]
    settings: dict[str, Any] = {"head": estimator}
    if isinstance(estimator, QuantumHeadClassifier):
        settings = {"head": estimator.head, "train": estimator.train}
    fraction = record.plan.data.validation_fraction
    return TextClassifier(body=body.name, tune=body.tune, seed=config["seed"], validation_fraction=fraction, **settings)


def _metrics(found: HeadComparisonResult) -> dict[str, float]:
    """Return the accuracy of the chosen head in the study, and among how many heads it was chosen, for the card."""
    from ketfit.evaluation.compare import with_interval

    row = next(row for row in found.heads if row.name == found.best)
    name, accuracy = "mean_test_accuracy", row.test_accuracy
    metrics = {name: accuracy} if row.interval is None else with_interval(name, accuracy, row.interval)
    return {**metrics, "draws": len(found.analysis.study["seeds"]), "heads_compared": len(found.heads)}


def _print(
    found: HeadComparisonResult,
    plan: StudyPlan,
    files: Mapping[str, Path | None],
    as_json: bool,
    *,
    model: Path | None = None,
    hint: str | None = None,
) -> None:
    """Print the comparison, the places of its files and of the saved model, and a hint."""
    paths = {name: None if path is None else str(path) for name, path in {**files, "model": model}.items()}
    table = head_report(found.heads, _sentences(found, plan), _title(found, plan))
    print_report({**_report(found, plan), **paths}, as_json, table, hint)


def _report(found: HeadComparisonResult, plan: StudyPlan) -> dict[str, Any]:
    from ketfit.model.tuning import describe_stages

    study = found.analysis.study
    accuracies = {cell.head: cell.accuracies for cell in found.analysis.cells}
    return {
        "data": study["data"]["name"],
        "body": plan.bodies[0].name,
        "tuned": None if not plan.bodies[0].stages else describe_stages(plan.bodies[0].stages),
        "draws": len(plan.seeds),
        "per_label": plan.data.per_label if plan.data.test_fraction is None else None,
        "test_fraction": plan.data.test_fraction,
        **{name: study[name] for name in ("train_sizes", "validation_sizes", "test_sizes")},
        "heads": [{**row.to_json(), "accuracies": accuracies[row.name]} for row in found.heads],
        "differences": [asdict(each) for each in found.differences],
        "left_out": dict(found.left_out),
        "conclusions": _sentences(found, plan),
        "caveats": [caveat.text for caveat in found.analysis.caveats],
        "chosen": found.best,
    }


def _title(found: HeadComparisonResult, plan: StudyPlan) -> str:
    study = found.analysis.study
    parts = ("train", "validation", "test")
    train, validation, test = (" to ".join(f"{size:,}" for size in study[f"{part}_sizes"]) for part in parts)
    draws = f"{len(plan.seeds)} {'draws' if plan.data.test_fraction is None else 'hold-outs'}"
    return f"{study['data']['name']}, {draws}: {train} to train, {validation} to validate, {test} to test"


def _sentences(found: HeadComparisonResult, plan: StudyPlan) -> list[str]:
    """Return the conclusions, the chosen head and the meaning of the intervals."""
    from ketfit.evaluation.paired_difference import conclusions
    from ketfit.study.compare import REFERENCE

    if plan.data.test_fraction is None:
        how = f"draws of {plan.data.per_label} sentences per label; intervals are for new draws and new sentences"
    else:
        how = (
            f"stratified hold-outs of {plan.data.test_fraction:.0%} of all sentences, because a label has few; "
            "intervals are widened for the training sentences that hold-outs share (Nadeau and Bengio)"
        )
    return [
        *conclusions(found.differences, REFERENCE),
        f"chosen: {found.best}, the simplest head that is not shown to be worse than the best",
        f"({len(plan.seeds)} {how}; differences are adjusted by Holm)",
    ]


def _interrupted_message(study: Path | None) -> str:
    """Return the message of an interrupted comparison: what is kept, and how to continue."""
    if study is None:
        return "embeddings are cached, results are lost; use --study FOLDER to make the comparison resumable"
    return f"results so far are in {study}; run the same command to continue"
