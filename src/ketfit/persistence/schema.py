"""The metadata of a saved model, ``config.json``, and its strict parser."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ketfit.base_config import Config, Finite
from ketfit.errors import ConfigError, DataError, ModelFileError
from ketfit.model.classical import HeadKind, LogisticRegressionConfig, MLPConfig, SVCConfig
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head_choice import HeadChoice, HeadLoss
from ketfit.model.tuning import EmbeddingPrecision, TuneConfig, tuning_class
from ketfit.storage.hashing import hash_json
from ketfit.storage.strict_json import dump_json, parse_json

SCHEMA_VERSION: Literal[4] = 4
READABLE_VERSIONS = (1, 2, 3, 4)
WEIGHTS, METADATA, CARD, BODY = "model.safetensors", "config.json", "README.md", "body"
HASH_KEY = "record_sha256"
OPTIONAL_KEYS = frozenset({"feature_names", "head_choice", "validation_folds"})
"""Keys that are written only if they have a value."""

MAX_METADATA_BYTES = 2**20  # the metadata of a thousand classes has about ten thousand bytes

Count = Annotated[int, Field(ge=0)]
HeadSettings = HeadConfig | LogisticRegressionConfig | SVCConfig | MLPConfig
HEAD_SETTINGS: dict[HeadKind, type[HeadSettings]] = {
    "quantum": HeadConfig,
    "logistic-regression": LogisticRegressionConfig,
    "svc": SVCConfig,
    "mlp": MLPConfig,
}
HEAD_NAMES: dict[HeadKind, str] = {
    "quantum": "quantum head",
    "logistic-regression": "logistic regression",
    "svc": "support vector classifier",
    "mlp": "multilayer perceptron",
}
"""Name of each kind of head in sentences."""

ESTIMATORS: dict[HeadKind, str] = {
    "quantum": "QuantumHeadClassifier",
    "logistic-regression": "LogisticRegressionHead",
    "svc": "SVCHead",
    "mlp": "MLPHead",
}
"""Name of the estimator of each kind of head."""

TRAINED_IN_EPOCHS: tuple[HeadKind, ...] = ("quantum", "mlp")


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
    stages: Annotated[list[TuneConfig], Field(description="Settings of the tuning, in order", min_length=1)]
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

    schema_version: Literal[4]
    ketfit_version: str
    head_kind: HeadKind
    head: Annotated[HeadSettings, Field(description="Settings of that kind of head")]
    head_choice: Annotated[HeadChoice | None, Field(description="How the kind was chosen, for head='auto'")] = None
    train: Annotated[TrainConfig | None, Field(description="None for a head that is not trained in epochs")]
    seed: Annotated[Count | None, Field(description="None for a head without a seed")]
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] | None
    validation_folds: Annotated[
        Annotated[int, Field(ge=2)] | None, Field(description="Folds of cross-validation; None is one split")
    ] = None
    class_weight: Literal["balanced"] | list[Finite] | None
    classes: list[int] | list[str]
    embedding_dim: Annotated[int, Field(ge=1)]
    feature_names: Annotated[list[str] | None, Field(description="Of the columns of the embeddings, in order")] = None
    dtype: Literal["float32", "float64"]
    train_size: Count
    validation_size: Count
    best_epoch: Count | None
    temperature: Annotated[Finite, Field(gt=0)] | None
    body: BodyMetadata | None
    data: str | None
    metrics: dict[Annotated[str, Field(pattern=r"^\w+$")], Finite]
    weights_sha256: str

    @model_serializer(mode="wrap")
    def _dump_without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None or name not in OPTIONAL_KEYS}

    @model_validator(mode="after")
    def _check_head(self) -> ModelMetadata:
        kind, config = self.head_kind, self.head
        if not isinstance(config, HEAD_SETTINGS[kind]):
            raise ValueError(f"head has settings of another kind than head_kind={kind!r}")
        required = ("train", "best_epoch", "seed", "validation_fraction") if kind in TRAINED_IN_EPOCHS else ()
        for name in required:
            if getattr(self, name) is None:
                raise ValueError(f"{name}=None: a head of kind {kind} has it")
        for name in () if required else ("train", "best_epoch", "temperature"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)!r}: a head of kind {kind} has none")
        if isinstance(config, SVCConfig) and len(config.n_support) != len(self.classes):
            raise ValueError(f"n_support has {len(config.n_support)} numbers for {len(self.classes)} classes")
        return self

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
    if version not in READABLE_VERSIONS or not isinstance(version, int) or isinstance(version, bool):
        raise ModelFileError(
            f"{path} has schema_version={version!r} and this KetFit reads {', '.join(map(str, READABLE_VERSIONS))}; "
            "read it with the KetFit that wrote it, or upgrade"
        )
    if HASH_KEY not in settings:
        raise ModelFileError(f"{path} lacks {HASH_KEY}; save or download the model again")
    intact = settings.pop(HASH_KEY) == hash_json(settings, sort_keys=True)
    if version == 1:
        settings = _upgrade_version_1(settings, path)
    if version <= 2:
        settings = _upgrade_version_2(settings, path)
    return _parse_metadata(_upgrade_version_3(settings, path) if version <= 3 else settings, path), intact


def _upgrade_version_1(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Convert metadata of version 1, which has neither temperatures nor tuned bodies, to version 2."""
    body = settings.get("body")
    if isinstance(body, dict):
        settings = {**settings, "body": _with_new_keys(body, path, 1, {"dtype": "float32", "tuned": None})}
    return _with_new_keys(settings, path, 1, {"temperature": None})


def _upgrade_version_2(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Convert metadata of version 2, which has quantum heads and one stage of tuning, to version 3."""
    head, body = settings.get("head"), settings.get("body")
    if isinstance(head, dict):
        settings = {**settings, "head": _with_new_keys(head, path, 2, {"components": None})}
    if isinstance(body, dict) and isinstance(tuned := body.get("tuned"), dict):
        if "settings" not in tuned:
            raise ModelFileError(f"{path} lacks settings of the tuned body")
        stage = tuned["settings"]
        if isinstance(stage, dict):
            stage = _with_new_keys(stage, path, 2, _added_settings(stage))
        rest = {name: value for name, value in tuned.items() if name != "settings"}
        settings = {**settings, "body": {**body, "tuned": _with_new_keys(rest, path, 2, {"stages": [stage]})}}
    return _with_new_keys(settings, path, 2, {"head_kind": "quantum", "head_choice": None})


def _upgrade_version_3(settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """Convert metadata of version 3, whose quantum heads have ring ansätze and read Z, to version 4."""
    head = settings.get("head")
    if settings.get("head_kind") == "quantum" and isinstance(head, dict):
        new = {name: value for name, value in HeadConfig.ADDED_SETTINGS.items() if name != "components"}
        settings = {**settings, "head": _with_new_keys(head, path, 3, new)}
    return {**settings, "schema_version": SCHEMA_VERSION}


def _added_settings(stage: dict[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a method of tuning that version 2 does not have, with values that mean its behaviour."""
    try:
        return tuning_class(stage, "settings").ADDED_SETTINGS
    except ConfigError:  # an unknown method, which is refused when the settings are read
        return {}


def _with_new_keys(table: dict[str, Any], path: Path, version: int, new: Mapping[str, Any]) -> dict[str, Any]:
    if unexpected := table.keys() & new.keys():
        raise ModelFileError(f"{path} has {min(unexpected)!r}, which schema_version={version} does not have")
    return {**table, **new}


def _parse_metadata(settings: dict[str, Any], path: Path) -> ModelMetadata:
    """Build the metadata; every key is required, because a default for a missing one could give another model."""
    try:
        return _parse_table(ModelMetadata, settings, str(path))
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


_Table = TypeVar("_Table", bound=Config)
_TABLES: dict[type[Config], dict[str, type[Config]]] = {
    ModelMetadata: {"train": TrainConfig, "body": BodyMetadata, "head_choice": HeadChoice},
    BodyMetadata: {"tuned": TunedBodyMetadata},
}


def _parse_table(table: type[_Table], settings: dict[str, Any], where: str) -> _Table:
    """Build a table and its nested tables, with every key required."""
    nested: dict[str, Any] = {}
    for name, inner in _TABLES.get(table, {}).items():
        if isinstance(value := settings.get(name), dict):
            nested[name] = _parse_table(inner, value, name)
    if table is ModelMetadata and "head" in settings:
        if not isinstance(head := settings["head"], dict):
            raise ConfigError(f"{where}: head={head!r} is not a table")
        nested["head"] = _parse_table(_head_class(settings.get("head_kind"), where), head, "head")
    if table is TunedBodyMetadata:
        nested |= _parse_list(settings, "stages", lambda value: tuning_class(value, "stages"))
    if table is HeadChoice:
        nested |= _parse_list(settings, "losses", lambda _: HeadLoss)
    missing = [key for key in table.model_fields if key not in settings and key not in OPTIONAL_KEYS]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)} of {table.__name__}")
    return table.from_mapping({**settings, **nested}, where=where)


def _head_class(kind: Any, where: str) -> type[HeadSettings]:
    if not isinstance(kind, str) or kind not in HEAD_SETTINGS:
        raise ConfigError(f"{where}: head_kind={kind!r}; it is one of {', '.join(HEAD_SETTINGS)}")
    return HEAD_SETTINGS[kind]


def _parse_list(
    settings: dict[str, Any], name: str, class_of: Callable[[dict[str, Any]], type[Config]]
) -> dict[str, list[Config]]:
    """Return the tables in the list `name` of the settings, built; nothing if it is not a list of tables."""
    values = settings.get(name)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        return {}
    return {name: [_parse_table(class_of(value), value, f"{name}[{index}]") for index, value in enumerate(values)]}


def metadata_bytes(metadata: ModelMetadata) -> bytes:
    """Return the content of ``config.json``, with its own hash."""
    settings = metadata.model_dump()
    return (
        dump_json({**settings, HASH_KEY: hash_json(settings, sort_keys=True)}, "the model's metadata", indent=2) + "\n"
    ).encode()
