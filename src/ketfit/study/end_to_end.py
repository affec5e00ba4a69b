"""Bodies that are trained end to end: each head has a body of its own, so that the driver does these tasks itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ketfit.bodies.body import Body
from ketfit.data.splits import Split
from ketfit.errors import KetFitError
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.model.tuning import EndToEndConfig
from ketfit.study.task import Fitted, Part, Task, content_hash, fit_tries, score, validate

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EndToEndRunner:
    """Runs the tasks whose body is trained end to end.

    A head that torch trains is fitted on the body as it was, once for each try; the one that validation chooses is then
    trained together with the body. SVC and logistic regression have no gradients: they are fitted on a body that was
    trained with a linear layer in their place.

    Attributes:
        texts: All sentences.
        codes: Their class numbers, shape (n,).
        folder: Where the checkpoint of the body at work is.
        progress: Show bars on stderr.
    """

    texts: Sequence[str]
    codes: NDArray[np.int64]
    folder: Path
    progress: bool
    _linear: dict[str, Body] = field(default_factory=dict)  # by what decided them

    def attempt(self, task: Task, body: Body, tuning: EndToEndConfig, split: Split) -> dict[str, Any]:
        """Run a task: ``{"result": ..., "timing": ...}``, or ``{"error": ...}`` if it cannot be trained."""
        _log.info("training %s end to end: %s, seed %d", body.name, task.head, task.seed)
        start = time.perf_counter()
        try:
            fitted, made = self._fit(task.config, body, tuning, split)
            seconds = time.perf_counter() - start
            outcome = score(fitted, *self._part(made, split.test))
        except KetFitError as error:
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        return {**outcome, "timing": {**outcome["timing"], "with_body": seconds}}

    def _fit(self, config: Mapping[str, Any], body: Body, tuning: EndToEndConfig, split: Split) -> tuple[Fitted, Body]:
        """The head of a task, and the body that goes with it."""
        instead = config["body"].get("trained_with")
        if instead is None:
            fitted, made = self._train(config, body, tuning, split)
            loss, accuracy = validate(fitted.head, *self._part(made, split.validation))
            return replace(fitted, validation_loss=loss, validation_accuracy=accuracy), made
        stand_in = {**config, **instead}
        key = content_hash(stand_in)
        if key not in self._linear:
            _, self._linear[key] = self._train(stand_in, body, tuning, split)
        made = self._linear[key]
        return fit_tries(config, self._part(made, split.train), self._part(made, split.validation)), made

    def _train(
        self, config: Mapping[str, Any], body: Body, tuning: EndToEndConfig, split: Split
    ) -> tuple[Fitted, Body]:
        """Choose a head on the body as it was, and train it together with the body."""
        from ketfit.estimators.end_to_end import tune_end_to_end

        fitted = fit_tries(config, self._part(body, split.train), self._part(body, split.validation))
        assert isinstance(fitted.head, TorchHeadClassifier)
        checkpoint = self.folder / f"end-to-end-{content_hash(config)[:16]}.safetensors"
        made, head = tune_end_to_end(
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
        return replace(fitted, head=head), made

    def _part(self, body: Body, rows: Iterable[int]) -> Part:
        rows = np.fromiter(rows, np.int64)
        return body.encode(self._sentences(rows), progress=self.progress), self.codes[rows]

    def _sentences(self, rows: Iterable[int]) -> list[str]:
        return [self.texts[row] for row in rows]
