"""KetFit: fine-tune sentence transformers with quantum classification heads.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketfit.bodies.transformer import BodyTransformer as BodyTransformer
    from ketfit.circuit.circuit import Circuit as Circuit
    from ketfit.errors import KetFitError as KetFitError
    from ketfit.estimators.distillation import distill as distill
    from ketfit.estimators.quantum import QuantumHeadClassifier as QuantumHeadClassifier
    from ketfit.estimators.text import TextClassifier as TextClassifier
    from ketfit.model.config import HeadConfig as HeadConfig
    from ketfit.model.config import TrainConfig as TrainConfig
    from ketfit.model.head import QuantumHead as QuantumHead
    from ketfit.model.tuning import ContrastiveConfig as ContrastiveConfig
    from ketfit.model.tuning import EndToEndConfig as EndToEndConfig
    from ketfit.simulate.expectation import expectation as expectation
    from ketfit.simulate.expectation import expectation_and_gradients as expectation_and_gradients
    from ketfit.simulate.noise import NoiseConfig as NoiseConfig

__version__ = "0.1.0"

_LAZY_IMPORTS = {
    "BodyTransformer": "ketfit.bodies.transformer",
    "ContrastiveConfig": "ketfit.model.tuning",
    "EndToEndConfig": "ketfit.model.tuning",
    "Circuit": "ketfit.circuit.circuit",
    "HeadConfig": "ketfit.model.config",
    "KetFitError": "ketfit.errors",
    "QuantumHead": "ketfit.model.head",
    "QuantumHeadClassifier": "ketfit.estimators.quantum",
    "TextClassifier": "ketfit.estimators.text",
    "TrainConfig": "ketfit.model.config",
    "NoiseConfig": "ketfit.simulate.noise",
    "distill": "ketfit.estimators.distillation",
    "expectation": "ketfit.simulate.expectation",
    "expectation_and_gradients": "ketfit.simulate.expectation",
}

__all__ = [*_LAZY_IMPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'ketfit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
