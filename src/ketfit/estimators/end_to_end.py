"""End to end: body and head are trained together, with gradients through the amplitudes into the transformer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from ketfit.bodies.body import Body
from ketfit.bodies.finetuned import check_memory, load_finetuned, save_finetuned, tokenize, trainable_copy
from ketfit.data.labelled import LabelledTexts
from ketfit.errors import BodyError, ConfigError
from ketfit.estimators.base import TorchHeadClassifier, class_numbers, temperature_of
from ketfit.model.config import TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.model.tuning import EndToEndConfig
from ketfit.rng import chosen_seed
from ketfit.training.loop import Samples, train

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Head = TypeVar("Head", bound=TorchHeadClassifier)


class TunedModule(nn.Module):
    """A transformer and a head as one module, from tokens to logits.

    Args:
        transformer: What requires gradients in it is tuned.
        head: Takes the embeddings.
        config: Learning rates and precision.
        names: What the transformer reads, in the order in which `forward` is given it; ``attention_mask`` is in it.
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
        """Source of the dropout, and of the head's shots and trajectories."""
        return self._generator

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        if isinstance(self.head, QuantumHead):
            self.head.generator = generator

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (batch, n_classes) from tokens of shape (batch, len(names), longest), int64."""
        return self.head(self.embed(tokens))  # type: ignore[no-any-return]

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of shape (batch, dimension), of the head's dtype, from what `forward` takes."""
        features = dict(zip(self.names, tokens.unbind(dim=1), strict=True))
        used = features["attention_mask"].any(dim=0)  # the longest of this batch may be shorter than that of all
        features = {name: feature[:, used] for name, feature in features.items()}
        with ExitStack() as stack:
            if self.training:  # dropout draws from torch's own generator, which nobody else should see moved
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
            if self.config.precision == "bfloat16":
                stack.enter_context(torch.autocast(tokens.device.type, torch.bfloat16))
            embeddings: Tensor = self.transformer(features)["sentence_embedding"]
        return embeddings.to(next(self.head.parameters()).dtype)

    def lengths(self, tokens: Tensor) -> Tensor | None:
        """Tokens of each sentence, shape (batch,), if batches are to be of sentences alike in length."""
        return tokens[:, self.names.index("attention_mask")].sum(dim=1) if self.config.group_by_length else None

    def parts(self) -> list[tuple[list[nn.Parameter], float]]:
        """Trained parameters and their learning rates: the body's, the angles', the linear layers'."""
        linear = {
            id(parameter)
            for layer in self.head.modules()
            if isinstance(layer, nn.Linear)
            for parameter in layer.parameters()
        }
        trained = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        config = self.config
        parts = [
            ([part for part in self.transformer.parameters() if part.requires_grad], config.learning_rate),
            ([part for part in trained if id(part) not in linear], config.angle_learning_rate),
            ([part for part in trained if id(part) in linear], config.linear_learning_rate),
        ]
        return [part for part in parts if part[0]]


def tune_end_to_end(
    body: Body,
    head: Head,
    texts: Sequence[str],
    labels: ArrayLike,
    config: EndToEndConfig | None = None,
    *,
    validation: tuple[Sequence[str], ArrayLike] | tuple[Sequence[str], ArrayLike, ArrayLike | None] | None = None,
    sample_weight: ArrayLike | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> tuple[Body, Head]:
    """Train a body together with a head that was fitted on its embeddings; both that are given stay as they are.

    The head's own ``seed`` (or ``random_state``) is the source of the order of the batches and of the dropout, its
    ``class_weight`` holds.

    Args:
        body: What to start from.
        head: Quantum or classical, fitted on embeddings of `body`.
        texts: Sentences to train on.
        labels: Of `head.classes_`, as many.
        config: How to tune.
        validation: Sentences, labels and, if there are any, weights that the best epoch is chosen on; without them it
            is the last one.
        sample_weight: Weights of the sentences, shape (n,), not negative; those of weight zero are left out.
        checkpoint: A file written after every epoch, and resumed from if it is there: the body's size five times.
        progress: Show a bar on stderr.

    Returns:
        The tuned body, kept in the folder ``tuned`` of the cache under its fingerprint, and the head that goes with it.

    Raises:
        DataError: a label that the head does not know.
        ConfigError: the settings or the head do not fit the body.
        InsufficientMemoryError: the free memory cannot hold weights, gradients, averages and activations.
        TrainingError, ModelFileError, StorageError: as in `train`.
        BodyError: the body cannot be trained.
    """
    config = config or EndToEndConfig()
    if head.n_features_in_ != body.dimension:
        raise ConfigError(
            f"the head takes embeddings of width {head.n_features_in_}; {body.name!r} makes {body.dimension}"
        )
    transformer = trainable_copy(body, config.last_layers)
    given = LabelledTexts.from_columns(texts, labels, sample_weight)
    of_class = getattr(head, "class_weights_", None)
    if of_class is None:  # a loaded head with balanced classes: its record does not have their weights
        of_class = compute_class_weight(head.class_weight, classes=head.classes_, y=given.labels)
    names, samples = _samples(transformer, head, of_class, given)
    held = None
    if validation is not None:
        held = _samples(transformer, head, of_class, LabelledTexts.from_validation(validation))[1]
    check_memory(transformer, config.batch_size, samples.x.shape[2], copies=1, checkpoint=checkpoint is not None)
    module = TunedModule(transformer, copy.deepcopy(head.module_), config, names)
    shared = TrainConfig.model_fields.keys() & EndToEndConfig.model_fields.keys()
    settings = TrainConfig(**{name: getattr(config, name) for name in shared})
    seed = chosen_seed(head.random_state, head.seed)
    result = train(module, samples, held, settings, seed=seed, checkpoint=checkpoint, progress=progress)
    fitted = copy.copy(head)
    fitted.module_ = module.head
    fitted.history_, fitted.best_epoch_ = result.history, result.best_epoch
    calibrates = head.calibrate and held is not None
    fitted.temperature_ = temperature_of(module, held, config.batch_size) if calibrates and held is not None else 1.0
    fitted.fit_settings_ = replace(head.fit_settings_, seed=seed, calibrate=calibrates)
    fitted.train_size_, fitted.validation_size_ = len(samples), 0 if held is None else len(held)
    return load_finetuned(save_finetuned(transformer, None), body, config, seed), fitted


def _samples(
    transformer: SentenceTransformer, head: TorchHeadClassifier, of_class: NDArray[Any], given: LabelledTexts
) -> tuple[list[str], Samples]:
    """Return the names of what the transformer reads, and tokens, classes and weights of the sentences."""
    codes = class_numbers(given.labels, head.classes_, "the labels hold {!r}, which the head was not fitted on")
    weight = of_class[codes] * (1 if given.weight is None else given.weight)
    features = tokenize(transformer, given.texts)
    tensors = {name: value for name, value in features.items() if isinstance(value, Tensor) and value.dim() == 2}
    if "attention_mask" not in tensors:
        raise BodyError("this body reads no tokens with an attention mask, and cannot be trained with its head")
    device, dtype = transformer.device, next(head.module_.parameters()).dtype
    x = torch.stack(list(tensors.values()), dim=1).to(device)
    y, w = (torch.from_numpy(part).to(device) for part in (codes, weight))
    return list(tensors), Samples(x, y, w.to(dtype))
