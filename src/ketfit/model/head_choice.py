"""The record of an automatic choice of the head, saved with the model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ketfit.base_config import Config, Finite, Positive
from ketfit.model.classical import HeadKind


class HeadLoss(Config):
    """The validation loss of one kind of head: mean over the splits, and the standard error of the mean, in nats."""

    kind: HeadKind
    mean: Annotated[Finite, Field(ge=0)]
    standard_error: Annotated[Finite, Field(ge=0)]


class HeadChoice(Config):
    """The choice among heads by the one-standard-error rule (Breiman et al., 1984).

    >>> losses = [HeadLoss(kind="svc", mean=0.42, standard_error=0.02),
    ...           HeadLoss(kind="quantum", mean=0.41, standard_error=0.02)]
    >>> HeadChoice(n_splits=5, losses=losses).kind
    'svc'
    """

    n_splits: Annotated[Positive, Field(description="Repeated stratified splits")]
    losses: Annotated[list[HeadLoss], Field(description="The simplest kind first", min_length=1)]

    @model_validator(mode="after")
    def _check_kinds(self) -> HeadChoice:
        kinds = [loss.kind for loss in self.losses]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"losses name a kind of head twice: {', '.join(kinds)}")
        return self

    @property
    def limit(self) -> float:
        """The lowest mean loss plus its standard error."""
        best = min(self.losses, key=lambda loss: loss.mean)
        return best.mean + best.standard_error

    @property
    def kind(self) -> HeadKind:
        """The simplest kind whose mean loss is at most `limit`."""
        return next(loss.kind for loss in self.losses if loss.mean <= self.limit)
