"""Settings of the fine-tuning of a body, saved with the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator
from typing_extensions import Self

from ketfit.base_config import Config, Finite, Positive
from ketfit.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
TuningPrecision = Literal["float32", "bfloat16", "auto"]
EmbeddingPrecision = Literal["float32", "bfloat16", "int8"]

Rate = Annotated[Finite, Field(gt=0, le=1e37)]

WIDE = 512
"""Width of the embeddings from which contrastive tuning has the lower learning rate by default."""

_SMALLEST_BATCH, _LARGEST_BATCH = 16, 64  # of the supervised loss by default
_BATCH_UNIT = 8  # default batches are multiples of it, so that several processes can share them


def _as_tuples(value: Any) -> Any:
    """Return a list of lists as tuples; JSON and TOML have lists only."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


class _Tuning(Config):
    """Settings that both methods share."""

    ADDED_SETTINGS: ClassVar[Mapping[str, Any]] = {"layer_decay": 1.0}

    batch_size: Annotated[int | None, Field(ge=2, description="Pairs or sentences per step, over all devices")] = None
    learning_rate: Annotated[Rate | None, Field(description="Of AdamW for the body")] = None
    weight_decay: Annotated[Finite, Field(ge=0, description="Of AdamW")] = 0.01
    last_layers: Annotated[
        Positive | None, Field(description="Tune only so many layers of the transformer, the last ones; None is all")
    ] = None
    layer_decay: Annotated[
        Finite, Field(gt=0, le=1, description="Each layer's learning rate as a share of that of the layer above it")
    ] = 1.0
    precision: Annotated[
        TuningPrecision,
        Field(
            description="Of the body's matrix products while it is tuned; its weights stay float32. auto is bfloat16 "
            "where the device has instructions for it"
        ),
    ] = "auto"
    group_by_length: Annotated[
        bool,
        Field(description="Sentences of a step are alike in length, so that less is padded; for pairs and end to end"),
    ] = False


class ContrastiveConfig(_Tuning):
    """Settings of contrastive tuning, before the head: embeddings of one label move together, others apart.

    The supervised loss takes all pairs of a batch (Khosla et al., arXiv 2004.11362) and embeds each sentence once a
    step. Its defaults were chosen by ``studies/tuning_recipe.py``. The cosine loss on pairs is the first stage of
    SetFit (Tunstall et al., arXiv 2209.11055); with it and the triplet loss, `batch_size` is 16, `learning_rate` 2e-5
    and `epochs` 1 unless they are given.

    >>> ContrastiveConfig().epochs, ContrastiveConfig(loss="cosine").epochs
    (8, 1)
    """

    ADDED_SETTINGS: ClassVar[Mapping[str, Any]] = {
        "layer_decay": 1.0,
        "temperature": 0.1,
        "cross_entropy": 0.0,
        "patience": None,
        "unlike_labels": None,
    }

    method: Literal["contrastive"] = "contrastive"
    batch_size: Annotated[
        int | None,
        Field(
            ge=2,
            description="Pairs or sentences per step, over all devices; None is a fifth of the sentences, but 16 to 64",
        ),
    ] = None
    learning_rate: Annotated[
        Rate | None,
        Field(description="Of AdamW for the body; None is 5e-5, and 2e-5 for embeddings of 512 numbers or more"),
    ] = None
    loss: Annotated[
        Literal["supervised", "cosine", "triplet"],
        Field(
            description="Supervised contrastive loss on label-balanced batches, CosineSimilarityLoss on pairs, or "
            "BatchHardSoftMarginTripletLoss on labelled batches"
        ),
    ] = "supervised"
    temperature: Annotated[Finite, Field(gt=0, description="With the supervised loss: divides the cosines")] = 0.1
    cross_entropy: Annotated[
        Finite, Field(ge=0, description="With the supervised loss: weight of the cross-entropy of a linear layer")
    ] = 0.0
    epochs: Annotated[int, Field(ge=1, description="Passes over the sentences, each with batches of its own")] = 8
    pairs_per_sentence: Annotated[
        int,
        Field(ge=1, description="With the cosine loss: pairs of one label, and as many of two, a sentence and pass"),
    ] = 4
    unlike_labels: Annotated[
        tuple[tuple[int | str, int | str], ...] | None,
        BeforeValidator(_as_tuples),
        Field(description="With the cosine loss: the pairs of labels that unlike pairs are drawn from; None is all"),
    ] = None
    warmup: Annotated[
        Finite, Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises; then it falls")
    ] = 0.1
    patience: Annotated[
        Positive | None,
        Field(
            description="Stop after so many epochs in which the validation loss of logistic regression on the "
            "embeddings did not fall, and keep the best epoch's weights; None never stops early"
        ),
    ] = None

    def batch_size_for(self, n_sentences: int, n_labels: int) -> int:
        """Return the number of pairs or sentences per step for a number of training sentences and of labels.

        Few sentences need small batches, because a pass has few steps otherwise. A default batch has room for two
        sentences of each label, up to 64.

        >>> config = ContrastiveConfig()
        >>> [config.batch_size_for(n, 2) for n in (50, 200, 1000)], config.batch_size_for(50, 10)
        ([16, 40, 64], 24)
        """
        if self.batch_size is not None:
            return self.batch_size
        if self.loss != "supervised":
            return _SMALLEST_BATCH
        two_of_each = math.ceil(2 * n_labels / _BATCH_UNIT) * _BATCH_UNIT
        fifth = n_sentences // 5 // _BATCH_UNIT * _BATCH_UNIT
        return min(_LARGEST_BATCH, max(_SMALLEST_BATCH, two_of_each, fifth))

    def rate_for(self, width: int) -> float:
        """Return the learning rate for a body whose embeddings have `width` numbers.

        >>> ContrastiveConfig().rate_for(384), ContrastiveConfig().rate_for(768)
        (5e-05, 2e-05)
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-5 if width < WIDE else 2e-5

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_of_loss(cls, settings: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        pairs = isinstance(settings, dict) and settings.get("loss") in ("cosine", "triplet")
        defaults = {"batch_size": 16, "learning_rate": 2e-5, "epochs": 1} if pairs else {}
        return cls._validated_with_defaults(settings, defaults, handler)

    @model_validator(mode="after")
    def _check_loss(self) -> ContrastiveConfig:
        if self.group_by_length and self.loss != "cosine":
            raise ValueError(
                f"group_by_length=True takes labels apart, and the {self.loss} loss needs all in a step; leave it out"
            )
        if self.cross_entropy and self.loss != "supervised":
            raise ValueError(f"cross_entropy={self.cross_entropy} is for loss='supervised'; leave it out")
        default = type(self).model_fields["pairs_per_sentence"].default
        if self.pairs_per_sentence != default and self.loss != "cosine":
            raise ValueError(f"pairs_per_sentence={self.pairs_per_sentence} is for loss='cosine'; leave it out")
        if self.unlike_labels is not None and self.loss != "cosine":
            raise ValueError(f"unlike_labels={self.unlike_labels} is for loss='cosine'; leave it out")
        return self


class EndToEndConfig(_Tuning):
    """Settings of end-to-end training of body, encoders, circuit and linear layer, each with its own learning rate.

    The head is first trained on the embeddings of the body as it was, so that its first gradients do not spoil it
    (Kumar et al., arXiv 2202.10054). Best weights are those of the whole, by `selection` on the validation share.
    """

    method: Literal["full"] = "full"
    batch_size: Annotated[int, Field(ge=2, description="Sentences per step, over all devices")] = 16
    learning_rate: Annotated[
        Rate | None,
        Field(description="Of AdamW for the body; None is 2e-5, and 5e-6 for a body after contrastive tuning"),
    ] = None
    epochs: Annotated[int, Field(ge=1, description="Passes over the training sentences")] = 5
    angle_learning_rate: Annotated[Rate, Field(description="Of AdamW for the angles of a quantum head")] = 1e-3
    linear_learning_rate: Annotated[Rate, Field(description="Of AdamW for linear layers of the head")] = 1e-3
    schedule: Annotated[
        Literal["constant", "cosine"], Field(description="Learning rates over the epochs; cosine falls towards zero")
    ] = "cosine"
    selection: Annotated[
        Literal["loss", "accuracy"], Field(description="What the best epoch is chosen by, on the validation share")
    ] = "loss"
    patience: Annotated[
        Positive | None, Field(description="Stop after so many epochs without a new best; None never stops early")
    ] = 3

    def rate_after(self, stages: Sequence[TuneConfig]) -> float:
        """Return the learning rate for a body after earlier stages.

        A body that contrastive tuning fitted to the sentences overfits at the higher rate
        (``studies/tuning_recipe.py``).

        >>> EndToEndConfig().rate_after([ContrastiveConfig()])
        5e-06
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-6 if stages else 2e-5


TuneConfig = ContrastiveConfig | EndToEndConfig

_METHODS: dict[str, type[ContrastiveConfig] | type[EndToEndConfig]] = {
    "contrastive": ContrastiveConfig,
    "end-to-end": EndToEndConfig,
    "full": EndToEndConfig,  # the word in files and task ids
}


def tuning_class(settings: Mapping[str, Any], where: str) -> type[ContrastiveConfig] | type[EndToEndConfig]:
    """Return the class of the settings in a table, by its key ``method``.

    Raises:
        ConfigError: the method is missing or unknown.
    """
    method = settings.get("method")
    if not isinstance(method, str) or method not in _METHODS:
        raise ConfigError(f"{where}: method={method!r}; it is contrastive or end-to-end")
    return _METHODS[method]


def read_tuning(settings: Mapping[str, Any], where: str = "the configuration") -> TuneConfig:
    """Return the settings in a table, by its key ``method``.

    Raises:
        ConfigError: the method is missing or unknown, a key is unknown, or a value does not fit.
    """
    config = tuning_class(settings, where)
    return config.from_mapping({**settings, "method": config.model_fields["method"].default}, where)


def read_stages(value: Any, where: str = "the configuration") -> Any:
    """Return a table of settings as a tuning, and a list of tables as a tuple; other values are returned unchanged.

    Raises:
        ConfigError: a table cannot be read (see `read_tuning`), or the stages do not follow each other.
    """
    if isinstance(value, Mapping):
        return read_tuning(value, where)
    if not isinstance(value, (list, tuple)):
        return value
    stages = [
        read_tuning(stage, f"{where}[{number}]") if isinstance(stage, Mapping) else stage
        for number, stage in enumerate(value)
    ]
    try:
        return as_stages(stages)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def as_stages(tune: TuneConfig | Sequence[TuneConfig] | None) -> tuple[TuneConfig, ...]:
    """Return the stages of a tuning in their order; a frozen body, None, has none.

    >>> [stage.method for stage in as_stages([ContrastiveConfig(), EndToEndConfig()])]
    ['contrastive', 'full']

    Raises:
        ConfigError: `tune` or a stage is of the wrong type, the list is empty, or the stages do not follow each other.
    """
    if tune is None:
        return ()
    stages = tuple(tune) if isinstance(tune, (list, tuple)) else (tune,)
    for stage in stages:
        if not isinstance(stage, ContrastiveConfig | EndToEndConfig):
            raise ConfigError(
                f"tune={stage!r} is of the wrong type; pass a ContrastiveConfig, an EndToEndConfig, or a list of them "
                "(None leaves the body frozen)"
            )
    if not stages:
        raise ConfigError("tune is an empty list; name a stage, or leave tune out for a frozen body")
    names = [stage_name(stage) for stage in stages]
    for name, next_name in pairwise(names):
        if name == next_name:
            raise ConfigError(f"tune has two {name} stages in a row; leave one out")
        if name == "end-to-end":
            raise ConfigError(
                f"tune has {next_name} tuning after end-to-end training, which would undo the fit of body and head; "
                f"put the {next_name} stage first"
            )
    return stages


def stage_name(stage: TuneConfig) -> str:
    """Return "contrastive" or "end-to-end"."""
    return "end-to-end" if isinstance(stage, EndToEndConfig) else stage.method


def describe_stages(stages: Sequence[TuneConfig]) -> str:
    """Return the names of stages as text.

    >>> describe_stages([ContrastiveConfig(), EndToEndConfig()])
    'contrastive, then end-to-end'
    """
    return ", then ".join(map(stage_name, stages))
