"""Contrastive tuning: sentences of one label are drawn together and those of two apart, before any head is trained.

It runs on sentence-transformers' trainer and losses. Order, dropout and learning rate of a step depend on the seed and
the number of that step alone, so that a checkpoint is weights, AdamW's averages and a number: safetensors, no pickle.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from ketfit.bodies.body import Body, capture_library_logs
from ketfit.bodies.finetuned import (
    check_memory,
    digest,
    isolated_rng,
    max_token_count,
    save_finetuned,
    trainable_copy,
    tuned_body,
    tuned_folder,
)
from ketfit.data.labelled import LabelledTexts
from ketfit.errors import ConfigError, DataError, MissingExtraError, TrainingError
from ketfit.model.tuning import ContrastiveConfig
from ketfit.progress import ProgressBar
from ketfit.rng import numpy_stream
from ketfit.storage.cache_dir import is_folder
from ketfit.storage.hashing import hash_json
from ketfit.storage.tensors import read_tensors, write_tensors

try:
    from sentence_transformers.sentence_transformer import losses
except ImportError:  # before sentence-transformers 6
    from sentence_transformers import losses  # type: ignore[attr-defined,no-redef]

CHECKPOINT_SECONDS = 300.0  # a checkpoint is three times the trained weights, and takes seconds to write

_AVERAGES = ("exp_avg", "exp_avg_sq")

Rows = dict[str, list[Any]]  # columns of a data set, as the losses name them


def tune_body(
    body: Body,
    texts: Sequence[str],
    labels: ArrayLike,
    config: ContrastiveConfig | None = None,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> Body:
    """A body tuned on labelled sentences; `body` itself stays as it is.

    The same arguments give the same body. It is kept in the folder ``tuned`` of the cache, under a hash of all that
    decides it (the body's fingerprint, sentences, labels, settings, seed), and is tuned once: a second call finds it
    there. A process that is killed leaves no half body.

    Args:
        body: What to start from.
        texts: The sentences to train on; give it none to validate or test on.
        labels: As many, of two kinds or more.
        config: How to tune.
        seed: Source of the pairs, their order and the dropout.
        checkpoint: A file written every five minutes, and resumed from if it is there.
        progress: Show a bar on stderr.

    Raises:
        InputError: a sentence is blank, or there are not as many labels as sentences.
        DataError: there is one label only, or a label has one sentence only.
        ConfigError: the settings do not fit the body or the sentences.
        InsufficientMemoryError: the free memory cannot hold weights, gradients, averages and activations.
        TrainingError: the loss is not finite, or the checkpoint belongs to another run.
        BodyError, ModelFileError: the body or the checkpoint cannot be used.
        StorageError: the checkpoint cannot be written, or the tuned body can neither be kept in the cache nor, after a
            UserWarning, in a temporary folder.
        MissingExtraError: the packages of the extra ``tune`` are not installed.
    """
    if not all(find_spec(package) for package in ("accelerate", "datasets")):
        raise MissingExtraError("Contrastive tuning", "'ketfit[tune]'")
    config = config or ContrastiveConfig()
    sentences, codes = _checked(texts, labels)
    facts = {
        "body": body.fingerprint,
        "sentences": hash_json(sentences),
        "labels": hash_json(codes.tolist()),
        "tuning settings": config.model_dump_json(),
        "seed": str(seed),
    }
    name = digest(facts)
    folder = tuned_folder(name)
    if not is_folder(folder):
        rows = _rows(sentences, codes, config, seed)
        transformer = trainable_copy(body, config.last_layers)
        read = config.batch_size * (2 if config.loss == "cosine" else 1)
        check_memory(
            transformer, read, max_token_count(transformer, sentences), copies=0, checkpoint=checkpoint is not None
        )
        run = _TuningRun(transformer, rows, config, seed, facts)
        if checkpoint is not None and checkpoint.exists():
            run.load(checkpoint)
        run.train(checkpoint, progress)
        if _is_main_process():
            folder = save_finetuned(transformer, name)
        _wait_for_all()
        if not is_folder(folder):  # the cache cannot be written, and the first process has it to itself
            folder = save_finetuned(transformer, name)
    return tuned_body(folder, body, config, seed)


def _checked(texts: Sequence[str], labels: ArrayLike) -> tuple[list[str], NDArray[np.int64]]:
    given = LabelledTexts.from_columns(texts, labels)
    names, first, codes, counts = np.unique(given.labels, return_index=True, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(f"contrastive tuning needs sentences of two labels or more; these have {len(names)}")
    if counts.min() < 2:
        lonely = names[counts.argmin()].item()
        raise DataError(f"contrastive tuning pairs sentences of one label, and {lonely!r} has one sentence only")
    return given.texts, first.argsort().argsort()[
        codes
    ]  # numbered as they appear: what they are called decides nothing


def _rows(sentences: list[str], codes: NDArray[np.int64], config: ContrastiveConfig, seed: int) -> Rows:
    """What the trainer sees, in its order, all passes one after the other."""
    chances = [numpy_stream(seed, "pairs", epoch) for epoch in range(config.epochs)]
    if config.loss == "cosine":
        pairs = []
        for chance in chances:
            drawn = draw_pairs(codes, config.pairs_per_sentence, chance)
            pairs += batch_by_length(drawn, sentences, config.batch_size, chance) if config.group_by_length else drawn
        return {
            "sentence1": [sentences[one] for one, _ in pairs],
            "sentence2": [sentences[other] for _, other in pairs],
            "label": [float(codes[one] == codes[other]) for one, other in pairs],
        }
    order = np.concatenate([interleave_labels(codes, chance) for chance in chances])
    order = order[: len(order) // config.batch_size * config.batch_size or None]
    for start in range(0, len(order), config.batch_size):
        if len(set(codes[order[start : start + config.batch_size]].tolist())) < 2:
            raise ConfigError(f"batch_size={config.batch_size} leaves batches of one label only; raise it")
    return {"sentence": [sentences[row] for row in order], "label": codes[order].tolist()}


def draw_pairs(codes: NDArray[np.int64], count: int, chance: np.random.Generator) -> list[tuple[int, int]]:
    """For each sentence `count` partners of its own label and `count` of others, in random order, never itself."""
    pairs = []
    for row, code in enumerate(codes):
        own = np.flatnonzero(codes == code)
        for partners in (own[own != row], np.flatnonzero(codes != code)):
            chosen = chance.choice(partners, count, replace=len(partners) < count)
            pairs += [(row, int(partner)) for partner in chosen]
    return [pairs[place] for place in chance.permutation(len(pairs))]


def batch_by_length(
    pairs: list[tuple[int, int]], sentences: Sequence[str], batch_size: int, chance: np.random.Generator
) -> list[tuple[int, int]]:
    """The same pairs in batches of about equal first and equal second sentences, the batches in random order.

    A batch is padded to its longest sentence: on reviews in random batches half of what a body reads is padding.
    """
    one, other = (np.array([len(sentences[pair[side]]) for pair in pairs]) for side in (0, 1))
    by_first = np.argsort(one, kind="stable")
    stripes = np.array_split(by_first, max(1, round(math.sqrt(len(pairs) / batch_size))))
    order = np.concatenate([stripe[np.argsort(other[stripe], kind="stable")] for stripe in stripes])
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    mixed = np.concatenate([batches[chance.permutation(len(batches))].ravel(), order[whole:]])
    return [pairs[place] for place in mixed]


def interleave_labels(codes: NDArray[np.int64], chance: np.random.Generator) -> NDArray[np.int64]:
    """A random order of all sentences in which every label is spread evenly."""
    places = np.empty(len(codes))
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        places[chance.permutation(own)] = (np.arange(len(own)) + chance.random(len(own))) / len(own)
    return np.argsort(places, kind="stable")


class _PairTrainer(SentenceTransformerTrainer):
    """The library's trainer, with batches in the order of the data, no model card, and an eye on the loss."""

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> BatchSampler:
        """Batches in the order of the rows, which were drawn beforehand."""
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Nothing: the card would be filled from the sentences and with what the Hub says about them."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's loss, refused if it is not finite."""
        loss: Any = super().compute_loss(*args, **kwargs)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss of tuning is {loss.item()}; lower the learning rate")
        return loss


class _TuningRun(TrainerCallback):
    """A tuning: what changes while it runs, and what the trainer calls at every step."""

    def __init__(
        self, transformer: SentenceTransformer, rows: Rows, config: ContrastiveConfig, seed: int, facts: dict[str, str]
    ) -> None:
        self.transformer, self.rows, self.config, self.seed, self.facts = transformer, rows, config, seed, facts
        self.total = math.ceil(len(rows["label"]) / config.batch_size)
        self.done = self.first = 0  # steps taken in all, and before this process
        self.trained = {name: tensor for name, tensor in transformer.named_parameters() if tensor.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.checkpoint: Path | None = None
        self.saved = 0.0
        self.bar = ProgressBar("tuning", self.total, shown=False)

    def train(self, checkpoint: Path | None, progress: bool) -> None:
        """Take all steps that are left, and leave the transformer tuned."""
        self.checkpoint, self.saved, self.first = checkpoint, time.monotonic(), self.done
        self.bar = ProgressBar("tuning", self.total, shown=progress and _is_main_process(), done=self.done)
        if self.done < self.total:
            with self.bar, tempfile.TemporaryDirectory() as folder, isolated_rng(0), capture_library_logs():
                self._trainer(folder).train()
        self.transformer.eval()

    def _trainer(self, folder: str) -> _PairTrainer:
        from datasets import Dataset

        config = self.config
        left = {name: column[self.done * config.batch_size :] for name, column in self.rows.items()}
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=_share(config.batch_size),
            bf16=config.precision == "bfloat16",
            use_cpu=self.transformer.device.type == "cpu",
            dataloader_pin_memory=self.transformer.device.type != "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        loss = losses.CosineSimilarityLoss if config.loss == "cosine" else losses.BatchHardSoftMarginTripletLoss
        trainer = _PairTrainer(
            self.transformer,
            arguments,
            Dataset.from_dict(left),
            loss=loss(self.transformer),
            callbacks=[self],
            optimizers=(self.optimizer, torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        return trainer

    def _rate(self, step: int) -> float:
        """The share of the learning rate that the scheduler's `step` has: a rise, and then a fall to zero."""
        rise = self.config.warmup * self.total
        step += self.first
        return (step + 1) / (rise + 1) if step < rise else (self.total - step) / (self.total - rise)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Seed the dropout of this step, so that a resumed run needs no state of a generator."""
        torch.manual_seed(int(numpy_stream(self.seed, "dropout", self.done).integers(2**62)))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count the step, and write the checkpoint if it is due."""
        self.done += 1
        self.bar.set(self.done)
        if self.checkpoint is not None and _is_main_process() and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.save(self.checkpoint)
            self.saved = time.monotonic()

    def save(self, path: Path) -> None:
        """Write all that `load` needs to go on from here."""
        tensors = {f"weights.{name}": tensor.detach() for name, tensor in self.trained.items()}
        for name, tensor in self.trained.items():
            tensors |= {f"{key}.{name}": value for key, value in self.optimizer.state[tensor].items()}
        write_tensors(path, tensors, {"tuning": json.dumps({"run": self.facts, "steps": self.done})})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of this very tuning."""
        tensors, metadata = read_tensors(path)
        try:
            facts = json.loads(metadata["tuning"])
            run, steps = dict(facts["run"]), int(facts["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} is not a checkpoint of a tuning; name another file or remove it") from error
        changed = [name for name, value in self.facts.items() if run.get(name) != value]
        if changed:
            raise TrainingError(
                f"{path} belongs to another tuning (its {' and '.join(changed)} differ); "
                "use the same arguments, or remove it to start again"
            )
        shapes = {f"weights.{name}": one.shape for name, one in self.trained.items()}
        moved = [name for name in self.trained if f"step.{name}" in tensors]  # a pooler that nothing reads is not
        shapes |= {f"{key}.{name}": self.trained[name].shape for name in moved for key in _AVERAGES}
        shapes |= {f"step.{name}": torch.Size([]) for name in moved}
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes or not 0 < steps <= self.total:
            raise TrainingError(f"{path} does not hold the tensors of this tuning; remove it to start again")
        state = {
            place: {key: tensors[f"{key}.{name}"] for key in ("step", *_AVERAGES)}
            for place, name in enumerate(self.trained)
            if name in moved
        }
        with torch.no_grad():
            for name, tensor in self.trained.items():
                tensor.copy_(tensors[f"weights.{name}"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.done = steps


# --- Several devices: the launcher of accelerate or torch starts a process for each --------------------------------


def _share(batch_size: int) -> int:
    """What each device takes of a batch."""
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    if batch_size % devices:
        raise ConfigError(f"batch_size={batch_size} cannot be shared by {devices} processes; take a multiple")
    return batch_size // devices


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _wait_for_all() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
