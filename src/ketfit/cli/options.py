"""Arguments and options that several commands share, and the settings that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ketfit.errors import BodyError, ConfigError, DataError, DataOptionError

if TYPE_CHECKING:
    from ketfit.data.dataset import Dataset
    from ketfit.data.splits import Split
    from ketfit.model.config import FitConfig

Data = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet file, a Hub data set, or rotten-tomatoes.")]
Model = Annotated[str, typer.Argument(help="Folder of a saved model, or its name on the Hub.")]
MovedBody = Annotated[
    str | None, typer.Option("--body", help="The model's own body, if it is not where it was: its folder or name.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to save the model in.", file_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
TextColumn = Annotated[str, typer.Option(help="Column with the sentences.")]
LabelColumn = Annotated[str, typer.Option(help="Column with the labels.")]
DataSplit = Annotated[str | None, typer.Option("--split", help="Split of a Hub data set.")]
DataFormat = Annotated[
    Literal["csv", "tsv", "jsonl", "parquet"] | None, typer.Option("--format", help="Of a file without its suffix.")
]
Encoding = Annotated[str, typer.Option(help="Encoding of a text file.")]
Delimiter = Annotated[str | None, typer.Option(help="What separates the fields of a CSV file, if not a comma.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings.", exists=True, dir_okay=False)
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", help="One setting, such as train.epochs=80; may be repeated. Head settings start from the paper's."
    ),
]
Tune = Literal["frozen", "contrastive", "full"]


def fit_config(path: Path | None, settings: list[str], body: str | None, tune: Tune | None) -> FitConfig:
    """The TOML file's settings, then those of --set, then --body and --tune."""
    from ketfit.base_config import read_toml, set_dotted_key
    from ketfit.model.config import FitConfig

    with blamed_on("--config", path):
        tables = {} if path is None else read_toml(path)
    for setting in settings:
        set_dotted_key(tables, setting)
    if body is not None:
        tables["body"] = body
    if tune == "frozen":
        tables.pop("tune", None)
    elif tune is not None:
        own = tables.get("tune", {})
        tables["tune"] = {**own, "method": tune} if isinstance(own, dict) else own
    places = [*([] if path is None else [str(path)]), *(["--set"] if settings else [])]
    return FitConfig.from_mapping(tables, where=" and ".join(places) or "the settings")


@contextmanager
def blamed_on(option: str, value: object) -> Iterator[None]:
    """Inside, data, bodies and settings that cannot be used are the fault of an option, which the error names.

    Raises:
        DataOptionError: in the place of the error.
    """
    try:
        yield
    except (BodyError, ConfigError, DataError) as error:
        raise DataOptionError(f"{option} {value}: {error}") from error


def check_source(source: str, option: str) -> None:
    """Refuse a data set that is not bundled, not a file, and not named like one on the Hub; a folder is no file.

    Raises:
        DataOptionError: with the option.
    """
    from ketfit.data.dataset import BUNDLED, is_hub_name

    if Path(source).is_dir():
        raise DataOptionError(f"{option} {source}: it is a folder; name one file in it")
    if source != BUNDLED and not Path(source).exists() and not is_hub_name(source):
        raise DataOptionError(f"{option} {source}: there is no such file; a data set on the Hub is named 'user/name'")


def check_body(name: str | None, option: str = "--body", revision: str | None = None) -> None:
    """Refuse a body that cannot be found, before anything is computed; None is no body to look for.

    Raises:
        DataOptionError: with the option.
    """
    from ketfit.bodies.sources import find_body
    from ketfit.data.sequences import text_fault

    if name is None:
        return
    with blamed_on(option, name):
        if text_fault(name):  # a model records the name of its body
            raise DataOptionError("the name is empty, or not valid Unicode")
        find_body(name, revision)


def refuse_idle(reason: str, given: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Refuse options that would be ignored.

    Args:
        reason: Why they would be, put behind the option.
        given: Values by option.
        defaults: What an option is if it is left out; None for those that are missing.

    Raises:
        typer.BadParameter: with the first option that is not at its default.
    """
    for option, value in given.items():
        if value != defaults.get(option):
            raise typer.BadParameter(f"{option} {reason}")


def draw_few(dataset: Dataset, per_label: int, option: str, **settings: Any) -> Split:
    """Return the few-shot split of an option's number of sentences per label, with sentences left to test on.

    Args:
        dataset: What is split.
        per_label: The value of the option.
        option: Its name.
        **settings: As `few_shot_split` takes them.

    Raises:
        DataOptionError: there are too few sentences to draw, or none would be left; the message names the option and
            the largest number that leaves some.
    """
    from ketfit.data.splits import check_classes, few_shot_split

    check_classes(dataset)
    with blamed_on(option, per_label):
        parts = few_shot_split(dataset, per_label, **settings)
        if len(parts.test):
            return parts
        fewer = range(per_label - 1, 1, -1)
        largest = next((k for k in fewer if len(few_shot_split(dataset, k, **settings).test)), None)
        fix = "add sentences" if largest is None else f"{largest} is the largest number that leaves some"
        raise DataOptionError(f"no sentence of {dataset.name} would be left to test on; {fix}")
