"""The kinds of head of a text classifier, and the untrained head that its settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from sklearn.base import clone

from ketfit.data.splits import check_fraction
from ketfit.errors import ConfigError
from ketfit.estimators.base import FitSettings, TorchHeadClassifier, ValidationMethod
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.classical import CLASSICAL_SETTINGS, ClassicalSettings, HeadKind
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.rng import chosen_seed, numpy_stream

HeadEstimator = QuantumHeadClassifier | LogisticRegressionHead | SVCHead | MLPHead
HeadSpec = HeadConfig | ClassicalSettings | HeadKind | Literal["auto"] | HeadEstimator | None

HEADS: dict[HeadKind, type[HeadEstimator]] = {
    "logistic-regression": LogisticRegressionHead,
    "svc": SVCHead,
    "mlp": MLPHead,
    "quantum": QuantumHeadClassifier,
}
"""Estimator of each kind of head, the simplest kind first: linear, a kernel, a perceptron, a circuit."""

AUTO = "auto"


@dataclass(frozen=True)
class NewHead:
    """An untrained head, and the settings of its fit that hold for every kind of head.

    Attributes:
        estimator: The head; if it is trained in epochs, its parameters are the same settings.
        seed: Source of all randomness.
        validation_fraction: Share of the sentences to hold out.
        class_weight: Weights by label, "balanced", or None.
        calibrate: Fit a temperature on the validation samples.
        validation: "holdout" or "cross".
    """

    estimator: HeadEstimator
    seed: int
    validation_fraction: float
    class_weight: Any
    calibrate: bool
    validation: ValidationMethod

    def fit_settings(self) -> FitSettings:
        """Return the settings as the record of a fit."""
        n_folds = getattr(self.estimator, "n_folds", None) if self.validation == "cross" else None
        return FitSettings(self.seed, float(self.validation_fraction), self.class_weight, bool(self.calibrate), n_folds)


def new_head(spec: HeadSpec, settings: Mapping[str, Any]) -> NewHead:
    """Return the untrained head that a text classifier describes.

    Args:
        spec: Settings of a head, a kind of head, a configured head, or None for the recommended quantum head.
        settings: The parameters ``train``, ``seed``, ``validation_fraction``, ``class_weight``, ``device``,
            ``calibrate``, ``random_state``, ``validation`` and ``n_folds`` of the text classifier.

    Raises:
        ConfigError: The head is unknown or of another type, or a setting does not apply to it or is given twice.
    """
    if spec is None or isinstance(spec, HeadConfig):
        estimator: HeadEstimator = QuantumHeadClassifier(head=spec, **settings)
    elif isinstance(spec, str) and spec in HEADS:
        estimator = _of_kind(spec, {}, settings)
    elif isinstance(spec, ClassicalSettings):
        kind = next(name for name, config in CLASSICAL_SETTINGS.items() if isinstance(spec, config))
        estimator = _of_kind(kind, dict(spec), settings)
    elif is_head(spec):
        estimator, settings = _merged(clone(spec), settings)
    else:
        kinds = ", ".join(map(repr, (*HEADS, AUTO)))
        fault = "unknown" if isinstance(spec, str) else "of the wrong type"
        raise ConfigError(f"head={spec!r} is {fault}; pass a HeadConfig, one of {kinds}, a head estimator, or None")
    seed = chosen_seed(settings["random_state"], settings["seed"])  # once: a RandomState gives another seed each time
    if isinstance(estimator, TorchHeadClassifier):
        estimator._check_settings()
        estimator.set_params(seed=seed, random_state=None)
    else:
        check_fraction("validation_fraction", settings["validation_fraction"])
        _refuse_unused(estimator, settings)
        estimator.check_saveable()
        if getattr(estimator, "solver", None) in ("sag", "saga") and estimator.random_state is None:
            estimator.set_params(random_state=int(numpy_stream(seed, "init").integers(2**31)))
    shared = {name: settings[name] for name in ("validation_fraction", "class_weight", "calibrate", "validation")}
    return NewHead(estimator, seed, **shared)


def _of_kind(kind: HeadKind, own: Mapping[str, Any], settings: Mapping[str, Any]) -> HeadEstimator:
    """Return a head of a kind with settings of its own and those of the text classifier that it has."""
    estimator = HEADS[kind]
    shared = {name: settings[name] for name in estimator._get_param_names() if name in settings}
    return estimator(**shared, **own)


def settings_for(kind: HeadKind, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that apply to a kind of head that was not named: not all have epochs and a temperature."""
    if issubclass(HEADS[kind], TorchHeadClassifier):
        return dict(settings)
    return {**settings, "train": None, "calibrate": False, "validation": "holdout"}


def is_head(value: object) -> TypeGuard[HeadEstimator]:
    """Return whether a value is an estimator of one of the kinds of `HEADS`."""
    return isinstance(value, tuple(HEADS.values()))


def _merged(estimator: HeadEstimator, settings: Mapping[str, Any]) -> tuple[HeadEstimator, dict[str, Any]]:
    """Return a configured head with the settings of the text classifier, and those settings with the head's own."""
    defaults = QuantumHeadClassifier().get_params(deep=False)
    merged, own = dict(settings), estimator.get_params(deep=False)
    device = str(own.get("device", defaults["device"]))
    if device not in (defaults["device"], str(settings["device"])):
        raise ConfigError(
            f"device={device!r} of the head differs from device={str(settings['device'])!r} of the text classifier, "
            "where body and head run; set it there"
        )
    for name in settings.keys() & own.keys() - {"device"}:
        if own[name] == defaults[name]:
            continue
        if settings[name] not in (defaults[name], own[name]):
            raise ConfigError(
                f"{name}={settings[name]!r} differs from the {name}={own[name]!r} of the head; set it in one of them"
            )
        merged[name] = own[name]
    return estimator.set_params(**{name: merged[name] for name in merged.keys() & own.keys()}), merged


def _refuse_unused(estimator: LogisticRegressionHead | SVCHead, settings: Mapping[str, Any]) -> None:
    """Refuse settings of the text classifier that a head fitted by scikit-learn cannot follow."""
    kind = estimator.kind
    if settings["train"] not in (None, TrainConfig()):
        raise ConfigError(f"train={settings['train']!r} is about epochs, and a head of kind {kind!r} has none")
    if settings["validation"] != "holdout":
        raise ConfigError(
            f"validation={settings['validation']!r} chooses the epochs of a head, and a head of kind {kind!r} has "
            "none; use validation='holdout'"
        )
    if settings["calibrate"] and not isinstance(estimator, SVCHead):
        raise ConfigError(
            f"calibrate=True: a head of kind {kind!r} has no temperature, and its loss calibrates it; leave it out"
        )
