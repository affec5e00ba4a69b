"""The metadata of a saved model, ``config.json``, and its strict parser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ketfit.base_config import Config, Finite
from ketfit.errors import ConfigError, DataError, ModelFileError
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import EmbeddingPrecision, TuneConfig, tuning_class
from ketfit.storage.hashing import hash_json
from ketfit.storage.strict_json import dump_json, parse_json

SCHEMA_VERSION: Literal[2] = 2
WEIGHTS, METADATA, CARD, BODY = "model.safetensors", "config.json", "README.md", "body"
HASH_KEY = "record_sha256"
OPTIONAL_KEYS = frozenset({"feature_names"})
"""Keys that are written only if they have a value, so that most models load in earlier versions too."""

MAX_METADATA_BYTES = 2**20  # the metadata of a thousand classes has about ten thousand bytes

Count = Annotated[int, Field(ge=0)]


def check_class_names(classes: Sequence[str] | Sequence[int]) -> None:
    """Check that the metadata of a model can hold the class labels, before a training.

    Raises:
        DataError: the labels take too many bytes.
    """
    size = len(json.dumps(classes, indent=4))
    if size > MAX_METADATA_BYTES - 2**16:
        raise DataError(
            f"the {len(classes):,} labels take {size:,} bytes; a model file allows {MAX_METADATA_BYTES - 2**16:,}: "
            "shorten them, or name another label_column= (--label-column)"
        )


class TunedBodyMetadata(Config):
    """The fine-tuning of the body in the subfolder ``body`` of the model folder."""

    fingerprint: Annotated[str, Field(description="SHA-256 over the tuned body's files")]
    settings: TuneConfig
    seed: Count


class BodyMetadata(Config):
    """The sentence transformer of a model, before and after any fine-tuning."""

    name: str
    source: Literal["bundled", "local", "hub"]
    revision: str | None
    fingerprint: Annotated[str, Field(description="SHA-256 over the body's files, before any tuning")]
    dimension: Annotated[int, Field(ge=1)]
    dtype: EmbeddingPrecision
    tuned: TunedBodyMetadata | None


class ModelMetadata(Config):
    """The content of ``config.json``: a saved model without its tensors."""

    schema_version: Literal[2]
    ketfit_version: str
    head: HeadConfig
    train: TrainConfig
    seed: Count
    validation_fraction: Annotated[float, Field(ge=0, lt=1)]
    class_weight: Literal["balanced"] | list[Finite] | None
    classes: list[int] | list[str]
    embedding_dim: Annotated[int, Field(ge=1)]
    feature_names: Annotated[list[str] | None, Field(description="Of the columns of the embeddings, in order")] = None
    dtype: Literal["float32", "float64"]
    train_size: Count
    validation_size: Count
    best_epoch: Count
    temperature: Annotated[Finite, Field(gt=0)] | None
    body: BodyMetadata | None
    data: str | None
    metrics: dict[Annotated[str, Field(pattern=r"^\w+$")], Finite]
    weights_sha256: str

    @model_serializer(mode="wrap")
    def _dump_without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None or name not in OPTIONAL_KEYS}

    @model_validator(mode="after")
    def _check_consistency(self) -> ModelMetadata:
        if len(set(self.classes)) < len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes must be at least two different labels, got {self.classes}")
        if isinstance(self.class_weight, list) and len(self.class_weight) != len(self.classes):
            raise ValueError(f"class_weight has {len(self.class_weight)} numbers for {len(self.classes)} classes")
        if self.feature_names is not None and len(self.feature_names) != self.embedding_dim:
            raise ValueError(f"{len(self.feature_names)} feature_names for embedding_dim={self.embedding_dim}")
        if self.body is not None and self.body.dimension != self.embedding_dim:
            raise ValueError(
                f"embedding_dim={self.embedding_dim} differs from the body's dimension={self.body.dimension}"
            )
        return self


def read_metadata(path: Path, content: bytes) -> tuple[ModelMetadata, bool]:
    """Parse the content of the file `path`; return the metadata, and whether its hash is correct.

    Raises:
        ModelFileError: the content is damaged, of an unsupported version, or inconsistent.
    """
    try:
        settings = parse_json(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged, or not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ModelFileError(f"{path} is not a JSON object")
    version = settings.get("schema_version")
    if version not in (1, SCHEMA_VERSION) or not isinstance(version, int) or isinstance(version, bool):
        raise ModelFileError(
            f"{path} has schema_version={version!r} and this KetFit reads 1 and {SCHEMA_VERSION}; "
            "read it with the KetFit that wrote it, or upgrade"
        )
    if HASH_KEY not in settings:
        raise ModelFileError(f"{path} lacks {HASH_KEY}; save or download the model again")
    intact = settings.pop(HASH_KEY) == hash_json(settings, sort_keys=True)
    return _parse_metadata(_upgrade_version_1(settings, path) if version == 1 else settings, path), intact


def _upgrade_version_1(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Convert metadata of version 1, which has neither temperatures nor tuned bodies, to version 2."""
    body = settings.get("body")
    if isinstance(body, dict):
        settings = {**settings, "body": _with_new_keys(body, path, dtype="float32", tuned=None)}
    return {**_with_new_keys(settings, path, temperature=None), "schema_version": SCHEMA_VERSION}


def _with_new_keys(table: dict[str, Any], path: Path, **new: Any) -> dict[str, Any]:
    if unexpected := table.keys() & new.keys():
        raise ModelFileError(f"{path} has {min(unexpected)!r}, which schema_version=1 does not have")
    return {**table, **new}


def _parse_metadata(settings: dict[str, Any], path: Path) -> ModelMetadata:
    """Build the metadata; every key is required, because a default for a missing one could give another model."""
    try:
        return _parse_table(ModelMetadata, settings, str(path))
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


_Table = TypeVar("_Table", bound=Config)
_TABLES: dict[type[Config], dict[str, type[Config] | None]] = {
    ModelMetadata: {"head": HeadConfig, "train": TrainConfig, "body": BodyMetadata},
    BodyMetadata: {"tuned": TunedBodyMetadata},
    TunedBodyMetadata: {"settings": None},  # the class depends on its method
}


def _parse_table(table: type[_Table], settings: dict[str, Any], where: str) -> _Table:
    """Build a table and its nested tables, with every key required."""
    nested = {}
    for name, inner in _TABLES.get(table, {}).items():
        value = settings.get(name)
        if isinstance(value, dict):
            nested[name] = _parse_table(inner or tuning_class(value, name), value, name)
    missing = [key for key in table.model_fields if key not in settings and key not in OPTIONAL_KEYS]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)} of {table.__name__}")
    return table.from_mapping({**settings, **nested}, where=where)


def metadata_bytes(metadata: ModelMetadata) -> bytes:
    """Return the content of ``config.json``, with its own hash."""
    settings = metadata.model_dump()
    return (
        dump_json({**settings, HASH_KEY: hash_json(settings, sort_keys=True)}, "the model's metadata", indent=2) + "\n"
    ).encode()
