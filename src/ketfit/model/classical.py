"""Settings of classical heads before and after the fit, and the shapes of the tensors that a model file holds."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ketfit.base_config import Config, Finite, Positive

HeadKind = Literal["quantum", "logistic-regression", "svc", "mlp"]
Shapes = dict[str, tuple[int, ...]]
_PositiveFloat = Annotated[Finite, Field(gt=0)]


class _ClassicalConfig(Config):
    @abstractmethod
    def tensor_shapes(self, embedding_dim: int, n_classes: int) -> Shapes:
        """Return the shape of each tensor by name."""

    def count_parameters(self, embedding_dim: int, n_classes: int) -> dict[str, int]:
        """Return the number of parameters that a prediction needs, by part, and their total.

        >>> LogisticRegressionConfig().count_parameters(embedding_dim=384, n_classes=2)["total"]
        385
        """
        shapes = self.tensor_shapes(embedding_dim, n_classes)
        counts = {
            name.replace("_", " ").replace(".", " "): math.prod(shape)
            for name, shape in shapes.items()
            if name not in _UNCOUNTED
        }
        return {**counts, "total": sum(counts.values())}


_UNCOUNTED = ("support", "gamma", "platt.slopes", "platt.intercepts")


class LogisticRegressionConfig(_ClassicalConfig):
    """Settings of a `LogisticRegressionHead` that a saved model holds; scikit-learn's other ones keep their defaults.

    >>> LogisticRegressionConfig().tensor_shapes(embedding_dim=384, n_classes=2)
    {'coef': (1, 384), 'intercept': (1,)}
    """

    C: Annotated[_PositiveFloat, Field(description="Inverse strength of the penalty")] = 1.0
    fit_intercept: bool = True
    solver: Literal["lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"] = "lbfgs"
    tol: _PositiveFloat = 1e-4
    max_iter: Positive = 100

    def tensor_shapes(self, embedding_dim: int, n_classes: int) -> Shapes:
        """Return the shape of each tensor by name."""
        rows = 1 if n_classes == 2 else n_classes
        return {"coef": (rows, embedding_dim), "intercept": (rows,)}


class SVCSettings(Config):
    """Settings of an `SVCHead` before the fit; scikit-learn's other ones keep their defaults."""

    C: Annotated[_PositiveFloat, Field(description="Inverse strength of the penalty")] = 1.0
    kernel: Literal["linear", "poly", "rbf", "sigmoid"] = "rbf"
    degree: Annotated[int, Field(ge=0, le=1000, description="Of the kernel poly")] = 3
    gamma: Literal["scale", "auto"] | Annotated[Finite, Field(ge=0)] = "scale"
    coef0: Finite = 0.0
    tol: _PositiveFloat = 1e-3


class SVCConfig(SVCSettings, _ClassicalConfig):
    """Settings of an `SVCHead` that a saved model holds, and the number of its support vectors.

    >>> SVCConfig(n_support=(3, 4)).tensor_shapes(embedding_dim=384, n_classes=2)["support_vectors"]
    (7, 384)
    """

    calibrated: Annotated[bool, Field(description="The model has the parameters of Platt scaling")] = True
    n_support: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**31)], ...],
        Field(strict=False, description="Support vectors of each class, in the order of the classes"),
    ]

    @model_validator(mode="after")
    def _check_support(self) -> SVCConfig:
        if not sum(self.n_support):
            raise ValueError(f"n_support={self.n_support}: a fitted head has at least one support vector")
        return self

    def tensor_shapes(self, embedding_dim: int, n_classes: int) -> Shapes:
        """Return the shape of each tensor by name."""
        n_vectors = sum(self.n_support)
        shapes: Shapes = {
            "support": (n_vectors,),
            "support_vectors": (n_vectors, embedding_dim),
            "dual_coef": (n_classes - 1, n_vectors),
            "intercept": (n_classes * (n_classes - 1) // 2,),
            "gamma": (),
        }
        if self.calibrated:
            rows = 1 if n_classes == 2 else n_classes
            shapes |= {"platt.slopes": (rows,), "platt.intercepts": (rows,)}
        return shapes


class MLPSettings(Config):
    """Settings of an `MLPHead` before the fit."""

    hidden: Annotated[int, Field(ge=0, description="Hidden units unless match_parameters chooses them")] = 48
    match_parameters: Positive | None = None
    activation: Literal["gelu", "none"] = "gelu"


class MLPConfig(MLPSettings, _ClassicalConfig):
    """Settings of an `MLPHead` that a saved model holds, and the number of its hidden units.

    >>> MLPConfig(hidden=8, units=8).tensor_shapes(embedding_dim=384, n_classes=2)["hidden.weight"]
    (8, 384)
    """

    units: Annotated[int, Field(ge=0, description="Hidden units of the fitted head; 0 is a single linear layer")]

    @model_validator(mode="after")
    def _check_units(self) -> MLPConfig:
        if self.match_parameters is None and self.units != self.hidden:
            raise ValueError(f"units={self.units} of a head with hidden={self.hidden}")
        if self.match_parameters is not None and self.units == 0:
            raise ValueError("units=0: a head with match_parameters has at least one hidden unit")
        return self

    def tensor_shapes(self, embedding_dim: int, n_classes: int) -> Shapes:
        """Return the shape of each tensor by name."""
        if not self.units:
            return {"output.weight": (n_classes, embedding_dim), "output.bias": (n_classes,)}
        return {
            "hidden.weight": (self.units, embedding_dim),
            "hidden.bias": (self.units,),
            "output.weight": (n_classes, self.units),
            "output.bias": (n_classes,),
        }


ClassicalConfig = LogisticRegressionConfig | SVCConfig | MLPConfig

ClassicalSettings = LogisticRegressionConfig | SVCSettings | MLPSettings
CLASSICAL_SETTINGS: dict[HeadKind, type[ClassicalSettings]] = {
    "logistic-regression": LogisticRegressionConfig,
    "svc": SVCSettings,
    "mlp": MLPSettings,
}
"""The settings of each kind of classical head before the fit."""
