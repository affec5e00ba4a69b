"""Arguments and options that several commands share, and the settings that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ketfit.model.config import FitConfig

Data = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet file, a Hub data set, or rotten-tomatoes.")]
Model = Annotated[str, typer.Argument(help="Folder of a saved model, or its name on the Hub.")]
MovedBody = Annotated[
    str | None, typer.Option("--body", help="The model's own body, if it is not where it was: its folder or name.")
]
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


def fit_config(path: Path | None, settings: list[str], body: str | None, tune: Tune | None) -> FitConfig:
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
