"""Define the arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ketfit.errors import BodyError, ConfigError, DataError, DataOptionError

if TYPE_CHECKING:
    from ketfit.data.dataset import Dataset
    from ketfit.data.splits import Split
    from ketfit.model.classical import ClassicalSettings
    from ketfit.model.config import FitConfig, HeadConfig

Data = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet file, data set on the Hub, or rotten-tomatoes.")]
Model = Annotated[str, typer.Argument(help="Folder of a saved model, or its name on the Hub.")]
MovedBody = Annotated[
    str | None, typer.Option("--body", help="New folder or name of the body of the model, if it was moved.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to save the model in.", file_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
TextColumn = Annotated[str, typer.Option(help="Column with the sentences.")]
Encoding = Annotated[str, typer.Option(help="Encoding of a text file.")]
Delimiter = Annotated[str | None, typer.Option(help="Field separator of a CSV file; a comma if left out.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings.", exists=True, dir_okay=False)
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="A setting, such as train.epochs=80; may be repeated. A head without kind is the paper's.",
    ),
]
TUNE_WORDS = ("frozen", "contrastive", "end-to-end", "full")  # full is the earlier word for end-to-end


def _check_tune(text: str) -> str:
    for word in text.split(","):
        if word not in TUNE_WORDS:
            raise typer.BadParameter(f"{word!r} is not one of frozen, contrastive, end-to-end")
    return text


Tune = Annotated[
    list[str],
    typer.Option(
        help="Fine-tuning of the body: frozen, contrastive, end-to-end, or contrastive,end-to-end for both in that "
        "order. If left out, that of the settings file, or frozen.",
        parser=_check_tune,
        metavar="STAGES",
    ),
]
Head = Literal["quantum", "logistic", "svc", "mlp", "auto"]


@dataclass(frozen=True)
class DataOptions:
    """The options of every command that reads a labelled data set; `takes_data_options` adds them to a command."""

    text_column: TextColumn = "text"
    label_column: Annotated[str, typer.Option(help="Column with the labels.")] = "label"
    split: Annotated[str | None, typer.Option("--split", help="Split of a Hub data set.")] = None
    encoding: Encoding = "utf-8"
    delimiter: Delimiter = None
    data_format: Annotated[
        Literal["csv", "tsv", "jsonl", "parquet"] | None,
        typer.Option("--format", help="Format of a file whose suffix does not name it."),
    ] = None

    def load(self, source: str, weight_column: str | None = None, group_column: str | None = None) -> Dataset:
        """Return the data set that the options describe."""
        from ketfit.data.dataset import load_dataset

        return load_dataset(
            source,
            text_column=self.text_column,
            label_column=self.label_column,
            weight_column=weight_column,
            group_column=group_column,
            split=self.split,
            format=self.data_format,
            encoding=self.encoding,
            delimiter=self.delimiter,
        )

    def refuse_without_data(self) -> None:
        """Raise typer.BadParameter if an option was given and --data was not."""
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                name = field.name.removeprefix("data_").replace("_", "-")
                raise typer.BadParameter(f"--{name} is about --data; give that too")


def takes_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `data_options` of a command by one option for each field of `DataOptions`."""
    hints = get_type_hints(DataOptions, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if name != "data_options":
            parameters[name] = parameter.replace(kind=keyword)
            continue
        for field in fields(DataOptions):
            parameters[field.name] = inspect.Parameter(
                field.name, keyword, default=field.default, annotation=hints[field.name]
            )

    @functools.wraps(command)
    def with_data_options(**arguments: Any) -> None:
        options = DataOptions(**{field.name: arguments.pop(field.name) for field in fields(DataOptions)})
        command(**arguments, data_options=options)

    with_data_options.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    with_data_options.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return with_data_options


def fit_config(
    path: Path | None,
    settings: list[str],
    body: str | None,
    tune: list[str],
    head: Head | None = None,
    validation: str | None = None,
    *,
    loss: str | None = None,
) -> FitConfig:
    """Return the settings of a TOML file, overridden by --set, --body, --tune, --head and --validation.

    `loss` is the loss of contrastive stages whose settings name none; with it, one such stage is the default.

    Raises:
        ConfigError: The settings are unknown or out of range, or do not fit the options.
    """
    from ketfit.base_config import read_toml, set_dotted_key
    from ketfit.model.config import FitConfig

    with naming_option("--config", path):
        tables = {} if path is None else read_toml(path)
    for setting in settings:
        set_dotted_key(tables, setting)
    if body is not None:
        tables["body"] = body
    if head is not None:
        _set_head(tables, head)
    if validation is not None:
        tables["validation"] = validation
    if methods := tuning_methods(tune):
        tables["tune"] = _stage_tables(tables.get("tune", {}), methods)
    elif tune:
        tables.pop("tune", None)
    if loss is not None:
        tables["tune"] = _with_loss(tables.get("tune", {}), loss)
    places = [*([] if path is None else [str(path)]), *(["--set"] if settings else [])]
    return FitConfig.from_mapping(tables, where=" and ".join(places) or "the settings")


def tuning_methods(tune: list[str]) -> list[str]:
    """Return the methods of the stages of --tune; none for a frozen body.

    Raises:
        ConfigError: frozen stands beside a method.
    """
    methods = [word for text in tune for word in text.split(",")]
    if methods == ["frozen"]:
        return []
    if "frozen" in methods:
        raise ConfigError(f"--tune {','.join(methods)}: a frozen body has no stages; leave out frozen, or the others")
    return methods


def _stage_tables(tables: Any, methods: list[str]) -> Any:
    """Return the tables of the stages of --tune, with the settings that the file or --set has for each.

    Args:
        tables: The table ``[tune]`` or the list ``[[tune]]``; what is neither is returned unchanged, to be refused.
        methods: The words of --tune.

    Raises:
        ConfigError: One table without a method has settings, and --tune names several stages; or the table has another
            method than --tune.
    """
    if isinstance(tables, dict):
        if "method" in tables and (given := _method_name(tables["method"])) not in map(_method_name, methods):
            raise ConfigError(
                f"--tune {','.join(methods)}: the settings of tune are those of method {given!r}; leave out one of both"
            )
        if len(methods) == 1:
            return {**tables, "method": methods[0]}
        if tables and "method" not in tables:
            raise ConfigError(
                f"tune.{next(iter(tables))} is a setting of one stage, and --tune names {len(methods)}; put the "
                "settings of each stage into a [[tune]] table of the file of --config"
            )
        tables = [tables] if tables else []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        return tables
    own = {_method_name(table.get("method")): table for table in tables}
    if len(own) < len(tables):
        return tables
    stages = [{**own.get(_method_name(method), {}), "method": method} for method in methods]
    return stages if len(stages) > 1 else stages[0]


def _with_loss(tables: Any, loss: str) -> Any:
    """Return the settings of the stages, with `loss` for contrastive ones that name none."""
    if isinstance(tables, list):
        return [_with_loss(table, loss) for table in tables]
    if not isinstance(tables, dict):
        return tables  # to be refused
    stage = {"method": "contrastive", **tables}
    return {"loss": loss, **stage} if stage["method"] == "contrastive" else stage


def _method_name(method: object) -> str:
    return "end-to-end" if method == "full" else str(method)


def _set_head(tables: dict[str, Any], head: Head) -> None:
    """Set the kind of head in parsed tables; a table [head] keeps its settings.

    Raises:
        ConfigError: the table is for another kind of head, or --head is auto, which chooses among default settings.
    """
    kind = "logistic-regression" if head == "logistic" else head
    table = tables.get("head")
    if not isinstance(table, dict):
        tables.pop("head", None)
        if kind != "quantum":
            tables["head"] = kind
        return
    if kind == "auto":
        raise ConfigError("--head auto chooses among heads with their defaults; remove the table head, or name a kind")
    if table.get("kind", kind) != kind:
        raise ConfigError(f"--head {head}: the table head has kind={table['kind']!r}; leave one of them out")
    tables["head"] = {**table, "kind": kind}


def circuit_settings(head: HeadConfig | ClassicalSettings | str | None, source: Path) -> HeadConfig:
    """Return the settings of a quantum head in a file of settings.

    Raises:
        ConfigError: there are none.
    """
    from ketfit.model.config import HeadConfig

    if head is None:
        raise ConfigError(f"{source} has no table [head]; the head that fit would choose depends on the body")
    if isinstance(head, str):
        raise ConfigError(f"{source} has head={head!r} and no circuit; give it a table [head] of a quantum head")
    if not isinstance(head, HeadConfig):
        raise ConfigError(f"{source} has a table [head] of a classical head, which has no circuit")
    return head


def check_quantum_model(model: str, purpose: str) -> None:
    """Raise ConfigError if a saved model has no circuit, before anything else is loaded.

    Args:
        model: A folder, or a name on the Hub.
        purpose: What the circuit is needed for, such as "run on hardware".
    """
    from ketfit.persistence.model_files import find_model, load_metadata

    kind = load_metadata(find_model(model)).head_kind
    if kind != "quantum":
        raise ConfigError(f"{model} has a head of kind {kind!r} and no circuit to {purpose}; use a quantum head")


@contextmanager
def naming_option(option: str, value: object) -> Iterator[None]:
    """Raise errors about data, bodies and settings in the block as DataOptionError that names an option."""
    try:
        yield
    except (BodyError, ConfigError, DataError) as error:
        raise DataOptionError(f"{option} {value}: {error}") from error


def check_source(source: str, option: str) -> None:
    """Raise DataOptionError unless a data set is bundled, a file, or named like one on the Hub."""
    from ketfit.data.dataset import BUNDLED, is_hub_name

    if Path(source).is_dir():
        raise DataOptionError(f"{option} {source} is a folder; name a file in it")
    if source != BUNDLED and not Path(source).exists() and not is_hub_name(source):
        raise DataOptionError(f"{option} {source}: no such file; a data set on the Hub is named 'user/name'")


def check_body(name: str | None, option: str = "--body", revision: str | None = None) -> None:
    """Raise DataOptionError if a body cannot be found; None is accepted."""
    from ketfit.bodies.sources import find_body
    from ketfit.data.sequences import text_fault

    if name is None:
        return
    with naming_option(option, name):
        if text_fault(name):  # the metadata of a model hold the name of its body
            raise DataOptionError("the name is empty, or not valid Unicode")
        find_body(name, revision)


def sample_few_shot(dataset: Dataset, per_label: int, option: str, **settings: Any) -> Split:
    """Return a few-shot split with test sentences.

    Args:
        dataset: The data set to split.
        per_label: Sentences per label, the value of the option.
        option: Name of the option, for errors.
        **settings: Arguments of `few_shot_split`.

    Raises:
        DataOptionError: the sentences are too few, or none is left for the test; the message names the largest
            number that leaves some.
    """
    from ketfit.data.splits import check_classes, few_shot_split

    check_classes(dataset)
    with naming_option(option, per_label):
        parts = few_shot_split(dataset, per_label, **settings)
        if len(parts.test):
            return parts
        fewer = range(per_label - 1, 1, -1)
        largest = next((k for k in fewer if len(few_shot_split(dataset, k, **settings).test)), None)
        fix = "add sentences" if largest is None else f"{largest} is the largest number that leaves some"
        raise DataOptionError(f"no sentence of {dataset.name} would be left to test on; {fix}")


def check_outside_model(folder: Path, **files: Path | None) -> None:
    """Check that other outputs of a command, by the names of their options, do not lie in the folder of its model.

    Raises:
        ConfigError: One does: it would be lost, or the model could not be saved.
    """
    folder = folder.resolve()
    for name, path in files.items():
        if path is not None and folder in (path.resolve(), *path.resolve().parents):
            raise ConfigError(f"--{name} {path} is in the folder of the model, {folder.name}; name another place")
