"""End-to-end training of body and head, with gradients through the amplitudes into the transformer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from ketfit.bodies.body import Body
from ketfit.bodies.finetuned import (
    available_precision,
    check_memory,
    embed_by_length,
    layer_learning_rates,
    load_finetuned,
    save_finetuned,
    tokenize,
    trainable_copy,
)
from ketfit.data.labelled import LabelledTexts, SentenceValidation
from ketfit.errors import BodyError, ConfigError
from ketfit.estimators.base import TorchHeadClassifier, calibrated_temperature, class_indices
from ketfit.estimators.pretrained import PretrainedHead
from ketfit.model.config import TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.model.tuning import EndToEndConfig
from ketfit.rng import chosen_seed
from ketfit.training.cross_validation import FoldResult, train_fold
from ketfit.training.loop import Epoch, Samples, train

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Head = TypeVar("Head", bound=TorchHeadClassifier)


class TunedModule(nn.Module):
    """A transformer and a head as one module, from tokens to logits.

    Args:
        transformer: The transformer; its parameters that require gradients are tuned.
        head: The module from embeddings to logits.
        config: Learning rates and precision.
        names: Names of the transformer's inputs in the order of the second axis of `forward`'s tokens, with
            ``attention_mask`` among them.
    """

    def __init__(
        self, transformer: SentenceTransformer, head: nn.Module, config: EndToEndConfig, names: Sequence[str]
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head
        self.config = config
        self.names = tuple(names)
        self._generator: torch.Generator | None = None

    @property
    def generator(self) -> torch.Generator | None:
        """The source of the dropout, and of the head's shots and trajectories."""
        return self._generator

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        if isinstance(self.head, QuantumHead):
            self.head.generator = generator

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, shape (batch, n_classes), from tokens of shape (batch, len(names), length), int64."""
        return self.head(self.embed(tokens))  # type: ignore[no-any-return]

    def embed(self, tokens: Tensor) -> Tensor:
        """Return embeddings, shape (batch, dimension), of the head's dtype, from the tokens of `forward`."""
        features = dict(zip(self.names, tokens.unbind(dim=1), strict=True))
        with ExitStack() as stack:
            if self.training:  # dropout uses torch's global generator, whose state must not change
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
            if self.config.precision == "bfloat16":
                stack.enter_context(torch.autocast(tokens.device.type, torch.bfloat16))
            embeddings = embed_by_length(self.transformer, features)
        return embeddings.to(next(self.head.parameters()).dtype)

    def lengths(self, tokens: Tensor) -> Tensor | None:
        """Return the tokens of each sentence, shape (batch,), if batches are grouped by length, else None."""
        return tokens[:, self.names.index("attention_mask")].sum(dim=1) if self.config.group_by_length else None

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the trained parameters of the body, the circuit and the linear layers, each with a learning rate."""
        linear = {id(p) for layer in self.head.modules() if isinstance(layer, nn.Linear) for p in layer.parameters()}
        trained = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        config = self.config
        groups = [
            *layer_learning_rates(self.transformer, config.rate_after(()), config.layer_decay),
            ([parameter for parameter in trained if id(parameter) not in linear], config.angle_learning_rate),
            ([parameter for parameter in trained if id(parameter) in linear], config.linear_learning_rate),
        ]
        return [group for group in groups if group[0]]


def check_embedding_width(head: PretrainedHead | TorchHeadClassifier, body: Body) -> None:
    """Refuse a head that was fitted on embeddings of another width than the body's.

    Raises:
        ConfigError: The widths differ.
    """
    if head.n_features_in_ != body.dimension:
        raise ConfigError(
            f"the head takes embeddings of width {head.n_features_in_}; {body.name!r} makes {body.dimension}"
        )


def tune_end_to_end(
    body: Body,
    head: Head,
    texts: Sequence[str],
    labels: ArrayLike,
    config: EndToEndConfig | None = None,
    *,
    validation: SentenceValidation | None = None,
    sample_weight: ArrayLike | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    epochs: int | None = None,
    on_epoch_end: Callable[[Epoch], None] | None = None,
) -> tuple[Body, Head]:
    """Train a body and a head that was fitted on its embeddings end to end, in copies of both.

    The head's ``seed`` (or ``random_state``) is the source of the order of the batches and of the dropout; its
    ``class_weight`` applies.

    Args:
        body: The body to start from.
        head: Quantum or classical, fitted on embeddings of `body`.
        texts: Sentences to train on.
        labels: Labels among `head.classes_`, one per sentence.
        config: Settings of the training; None is `EndToEndConfig()`.
        validation: Sentences, labels and, optionally, weights to choose the best epoch on; without them it is the last
            one.
        sample_weight: Weights of the sentences, shape (n,), zero or more; sentences of weight zero are left out.
        checkpoint: A file written after every epoch, five times as large as the body; the same call resumes from it.
        progress: Show a bar on stderr.
        epochs: Stop after so many epochs of the schedule; None trains all of them, or up to the patience.
        on_epoch_end: Called after every epoch that this call trains.

    Returns:
        The tuned body, stored in the folder ``tuned`` of the cache under its fingerprint, and the trained head.

    Raises:
        DataError: A label is not among `head.classes_`.
        ConfigError: The settings or the head do not fit the body.
        InsufficientMemoryError: The free memory cannot hold weights, gradients, averages and activations.
        TrainingError, ModelFileError, StorageError: As in `train`.
        BodyError: The body cannot be trained.
    """
    config = _completed(config or EndToEndConfig(), body)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    data = LabelledTexts.from_columns(texts, labels, sample_weight)
    held = None if validation is None else LabelledTexts.from_validation(validation)
    run = _prepare(body, head, data, held, config, checkpoint)
    module, held_out, seed = run.module, run.validation, run.seed
    result = train(
        module,
        run.samples,
        held_out,
        run.settings,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        epochs=epochs,
        on_epoch_end=on_epoch_end,
    )
    fitted = copy.copy(head)
    fitted.history_, fitted.best_epoch_, fitted.fold_histories_ = result.history, result.best_epoch, ()
    fitted.temperature_, fitted.validation_size_ = 1.0, 0
    if held_out is not None:
        fitted.validation_size_ = len(held_out)
        if head.calibrate:
            fitted.temperature_ = calibrated_temperature(module, held_out, config.batch_size)
    calibrated = head.calibrate and held_out is not None
    fitted.fit_settings_ = replace(head.fit_settings_, seed=seed, calibrate=calibrated)
    fitted.train_size_ = len(run.samples)
    tuned = load_finetuned(save_finetuned(module.transformer, None), body, config, seed)
    fitted.module_ = module.head.to(next(head.module_.parameters()).device)  # that of the body may be another one
    return tuned, fitted


def train_end_to_end_fold(
    body: Body,
    head: TorchHeadClassifier,
    data: LabelledTexts,
    held_out: LabelledTexts,
    config: EndToEndConfig,
    *,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> FoldResult:
    """Train copies of a body and of a fitted head end to end for all epochs, and validate each on one fold.

    Args:
        body: The body to start from.
        head: The head, fitted on embeddings of `data` by `body`.
        data: The sentences of the other folds.
        held_out: The sentences of this fold.
        config: Settings of the training.
        checkpoint: A file written at the end; a later call reads the result from it.
        progress: Show a bar on stderr.

    Raises:
        KetFitError: As in `tune_end_to_end`.
    """
    run = _prepare(body, head, data, held_out, _completed(config, body), None)
    assert run.validation is not None
    return train_fold(
        run.module,
        run.samples,
        run.validation,
        run.settings,
        seed=run.seed,
        keep_logits=head.calibrate,
        checkpoint=checkpoint,
        progress=progress,
    )


def _completed(config: EndToEndConfig, body: Body) -> EndToEndConfig:
    """Return the settings with the learning rate and the precision that the defaults mean for a body."""
    rate = config.rate_after(() if body.tuning is None else body.tuning.stages)
    precision = available_precision(config.precision, body.transformer.device)
    return config.updated(learning_rate=rate, precision=precision)


@dataclass(frozen=True, eq=False)
class _PreparedRun:
    """A module of body and head with its samples, and the settings of its training."""

    module: TunedModule
    samples: Samples
    validation: Samples | None
    settings: TrainConfig
    seed: int


def _prepare(
    body: Body,
    head: TorchHeadClassifier,
    data: LabelledTexts,
    held_out: LabelledTexts | None,
    config: EndToEndConfig,
    checkpoint: Path | None,
) -> _PreparedRun:
    """Check that body, head, sentences and memory fit, and return copies of body and head as one module."""
    check_embedding_width(head, body)
    transformer = trainable_copy(body, config.last_layers)
    class_weights = getattr(head, "class_weights_", None)
    if class_weights is None:  # a loaded head with balanced classes: its metadata do not have their weights
        class_weights = compute_class_weight(head.class_weight, classes=head.classes_, y=data.labels)
    names, samples = _samples(transformer, head, class_weights, data)
    validation = None if held_out is None else _samples(transformer, head, class_weights, held_out)[1]
    check_memory(transformer, config.batch_size, samples.x.shape[2], copies=1, checkpoint=checkpoint is not None)
    module = TunedModule(transformer, copy.deepcopy(head.module_).to(transformer.device), config, names)
    shared = TrainConfig.model_fields.keys() & EndToEndConfig.model_fields.keys()
    settings = TrainConfig(**{name: getattr(config, name) for name in shared})
    return _PreparedRun(module, samples, validation, settings, chosen_seed(head.random_state, head.seed))


def _samples(
    transformer: SentenceTransformer, head: TorchHeadClassifier, class_weights: NDArray[Any], data: LabelledTexts
) -> tuple[list[str], Samples]:
    """Return the names of the transformer's inputs, and the tokens, classes and weights of the sentences."""
    codes = class_indices(data.labels, head.classes_, "the labels hold {!r}, which the head was not fitted on")
    weight = class_weights[codes] * (1 if data.weight is None else data.weight)
    features = tokenize(transformer, data.texts)
    tensors = {name: value for name, value in features.items() if isinstance(value, Tensor) and value.dim() == 2}
    if "attention_mask" not in tensors:
        raise BodyError("this body reads no tokens with an attention mask, and cannot be trained with its head")
    device, dtype = transformer.device, next(head.module_.parameters()).dtype
    x = torch.stack(list(tensors.values()), dim=1).to(device)
    y, w = (torch.from_numpy(part).to(device) for part in (codes, weight))
    return list(tensors), Samples(x, y, w.to(dtype))
