"""Tasks with a body trained end to end.

Each needs its own body and all cores, so they run one by one in the driver process, or each on a node of a cluster.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ketfit.bodies.body import Body
from ketfit.bodies.finetuned import available_precision
from ketfit.bodies.reference import BodyReference, load_reference
from ketfit.data.splits import Split
from ketfit.errors import DataWarning
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.model.tuning import EndToEndConfig
from ketfit.study.task import FittedHead, Part, Task, content_hash, fit_tries, score, validate

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EndToEndRunner:
    """Runner of the tasks whose body is trained end to end.

    A torch head is fitted on the body, frozen or contrastively tuned, once per try; the head chosen on validation is
    then trained end to end with the body. SVC and logistic regression have no gradients: they are fitted on a body that
    was trained with a linear layer.

    Attributes:
        texts: All sentences of the data set.
        codes: Class numbers of the sentences, shape (n,).
        folder: Folder of the training checkpoint.
        progress: Show progress bars on stderr.
    """

    texts: Sequence[str]
    codes: NDArray[np.int64]
    folder: Path
    progress: bool
    _linear_bodies: dict[tuple[int, str], Body] = field(default_factory=dict)  # by seed and hash, of the last seed

    def run_task(self, task: Task, body: Body, tuning: EndToEndConfig, split: Split) -> dict[str, Any]:
        """Run a task and return ``{"result": ..., "timing": ..., "precision": ...}``, or ``{"error": ...}``.

        The precision is that of the training end to end; an error is that of a training that failed.
        """
        _log.info("training %s end to end: %s, seed %d", body.name, task.head, task.seed)
        start = time.perf_counter()
        try:
            fitted, tuned = self._fit(task.config, body, tuning, split)
            seconds = time.perf_counter() - start
            outcome = score(task.config, fitted, *self._part(tuned, split.test))
        except Exception as error:  # of any type, such as torch.OutOfMemoryError, as for tasks of a frozen body
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        precision = available_precision(tuning.precision, body.transformer.device)
        return {**outcome, "timing": {**outcome["timing"], "with_body": seconds}, "precision": precision}

    def _fit(
        self, config: Mapping[str, Any], body: Body, tuning: EndToEndConfig, split: Split
    ) -> tuple[FittedHead, Body]:
        """Return the fitted head of a task and its tuned body."""
        linear_head = config["body"].get("trained_with")
        if linear_head is None:
            fitted, tuned = self._train(config, body, tuning, split)
            loss, accuracy = validate(fitted.head, *self._part(tuned, split.validation))
            return replace(fitted, validation_loss=loss, validation_accuracy=accuracy), tuned
        linear_config = {**config, **linear_head}
        key = config["seed"], content_hash(linear_config)
        if key not in self._linear_bodies:
            for other in [other for other in self._linear_bodies if other[0] != config["seed"]]:
                del self._linear_bodies[other]  # tasks come seed by seed, and a body takes hundreds of megabytes
            _, self._linear_bodies[key] = self._train(linear_config, body, tuning, split)
        tuned = self._linear_bodies[key]
        return fit_tries(config, self._part(tuned, split.train), self._part(tuned, split.validation)), tuned

    def _train(
        self, config: Mapping[str, Any], body: Body, tuning: EndToEndConfig, split: Split
    ) -> tuple[FittedHead, Body]:
        """Choose a head on the body as it is, then train both end to end."""
        from ketfit.estimators.end_to_end import tune_end_to_end

        fitted = fit_tries(config, self._part(body, split.train), self._part(body, split.validation))
        assert isinstance(fitted.head, TorchHeadClassifier)
        checkpoint = self.folder / f"end-to-end-{content_hash(config)[:16]}.safetensors"
        tuned, head = tune_end_to_end(
            body,
            fitted.head,
            self._sentences(split.train),
            self.codes[split.train],
            tuning,
            validation=(self._sentences(split.validation), self.codes[split.validation]),
            checkpoint=checkpoint,
            progress=self.progress,
        )
        checkpoint.unlink(missing_ok=True)
        return replace(fitted, head=head), tuned

    def _part(self, body: Body, rows: Iterable[int]) -> Part:
        rows = np.fromiter(rows, np.int64)
        return body.encode(self._sentences(rows), progress=self.progress), self.codes[rows]

    def _sentences(self, rows: Iterable[int]) -> list[str]:
        return [self.texts[row] for row in rows]


def shared_training(task: Task) -> str:
    """Return a key that is equal for tasks whose heads are fitted on the same body trained end to end."""
    linear_head = task.config["body"].get("trained_with")
    return task.id if linear_head is None else content_hash({**task.config, **linear_head})


def run_end_to_end_tasks(
    config: Mapping[str, Any], texts: Sequence[str], codes: NDArray[np.int64], reference: BodyReference
) -> dict[str, Any]:
    """Run tasks on a node of a cluster, on its GPU if the task has one.

    Args:
        config: ``tasks``, which share a body trained end to end, ``tuning`` and ``split``.
        texts: As in `EndToEndRunner`.
        codes: As in `EndToEndRunner`.
        reference: The body to start from.

    Returns:
        ``outcomes``, one per task, and ``warnings`` about the sentences.

    Raises:
        BodyError: The body cannot be found on this node.
    """
    with warnings.catch_warnings(record=True) as caught, TemporaryDirectory(prefix="ketfit-") as folder:
        warnings.simplefilter("always")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        body = load_reference(replace(reference, device=device))
        runner = EndToEndRunner(texts, codes, Path(folder), progress=False)
        outcomes = [runner.run_task(task, body, config["tuning"], config["split"]) for task in config["tasks"]]
    told = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    return {"outcomes": outcomes, "warnings": told}
