"""Settings of the fine-tuning of a body, saved with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ketfit.base_config import Config, Finite, Positive
from ketfit.errors import ConfigError

Precision = Literal["float32", "bfloat16"]  # of tuning
EmbeddingPrecision = Literal["float32", "bfloat16", "int8"]

Rate = Annotated[Finite, Field(gt=0, le=1e37)]


class _Tuning(Config):
    """Settings that both methods share."""

    batch_size: Annotated[int, Field(ge=2, description="Pairs or sentences per step, over all devices")] = 16
    learning_rate: Annotated[Rate, Field(description="Of AdamW for the body")] = 2e-5
    weight_decay: Annotated[Finite, Field(ge=0, description="Of AdamW")] = 0.01
    last_layers: Annotated[
        Positive | None, Field(description="Tune only so many layers of the transformer, the last ones; None is all")
    ] = None
    precision: Annotated[
        Precision, Field(description="Of the body's matrix products while it is tuned; its weights stay float32")
    ] = "float32"
    group_by_length: Annotated[
        bool, Field(description="Sentences of a step are alike in length, so that less is padded; not for triplets")
    ] = False


class ContrastiveConfig(_Tuning):
    """Settings of contrastive tuning, before the head: embeddings of one label move together, others apart.

    It is the first stage of SetFit (Tunstall et al., arXiv 2209.11055), on sentence-transformers' trainer and losses.
    """

    method: Literal["contrastive"] = "contrastive"
    loss: Annotated[
        Literal["cosine", "triplet"],
        Field(description="CosineSimilarityLoss on pairs, or BatchHardSoftMarginTripletLoss on labelled batches"),
    ] = "cosine"
    epochs: Annotated[int, Field(ge=1, description="Passes over the sentences, each with pairs of its own")] = 1
    pairs_per_sentence: Annotated[
        int,
        Field(ge=1, description="With the cosine loss: pairs of one label, and as many of two, a sentence and pass"),
    ] = 4
    warmup: Annotated[
        Finite, Field(ge=0, lt=1, description="Share of the steps in which the learning rate rises; then it falls")
    ] = 0.1

    @model_validator(mode="after")
    def _can_be_grouped(self) -> ContrastiveConfig:
        if self.group_by_length and self.loss == "triplet":
            raise ValueError("group_by_length=True takes labels apart, and triplets need all in a step; leave it out")
        return self


class EndToEndConfig(_Tuning):
    """Settings of end-to-end training of body, encoders, circuit and linear layer, each with its own learning rate.

    The head is first trained on the embeddings of the body as it was, so that its first gradients do not spoil it
    (Kumar et al., arXiv 2202.10054). Best weights are those of the whole, by `selection` on the validation share.
    """

    method: Literal["full"] = "full"
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


TuneConfig = ContrastiveConfig | EndToEndConfig

_METHODS: dict[str, type[ContrastiveConfig] | type[EndToEndConfig]] = {
    "contrastive": ContrastiveConfig,
    "full": EndToEndConfig,
}


def tuning_class(settings: Mapping[str, Any], where: str) -> type[ContrastiveConfig] | type[EndToEndConfig]:
    """Return the class of the settings in a table, by its key ``method``.

    Raises:
        ConfigError: the method is missing or unknown.
    """
    method = settings.get("method")
    if not isinstance(method, str) or method not in _METHODS:
        raise ConfigError(f"{where}: method={method!r}; it is one of {', '.join(_METHODS)}")
    return _METHODS[method]


def read_tuning(settings: Mapping[str, Any], where: str = "the configuration") -> TuneConfig:
    """Return the settings in a table, by its key ``method``.

    Raises:
        ConfigError: the method is missing or unknown, a key is unknown, or a value does not fit.
    """
    return tuning_class(settings, where).from_mapping(settings, where)
