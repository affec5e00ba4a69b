"""KetFit: fine-tune sentence transformers with quantum classification heads.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketfit.bodies.transformer import BodyTransformer as BodyTransformer
    from ketfit.circuit.circuit import Circuit as Circuit
    from ketfit.circuit.gate import Gate as Gate
    from ketfit.circuit.observable import Hermitian as Hermitian
    from ketfit.circuit.observable import PauliSum as PauliSum
    from ketfit.circuit.observable import Projector as Projector
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
    from ketfit.simulate.state import probabilities as probabilities
    from ketfit.simulate.state import sample_counts as sample_counts
    from ketfit.simulate.state import statevector as statevector
    from ketfit.simulate.state import variance as variance

__version__ = "0.1.0"

_LAZY_IMPORTS = {
    "BodyTransformer": "ketfit.bodies.transformer",
    "ContrastiveConfig": "ketfit.model.tuning",
    "EndToEndConfig": "ketfit.model.tuning",
    "Circuit": "ketfit.circuit.circuit",
    "Gate": "ketfit.circuit.gate",
    "HeadConfig": "ketfit.model.config",
    "Hermitian": "ketfit.circuit.observable",
    "KetFitError": "ketfit.errors",
    "PauliSum": "ketfit.circuit.observable",
    "Projector": "ketfit.circuit.observable",
    "QuantumHead": "ketfit.model.head",
    "QuantumHeadClassifier": "ketfit.estimators.quantum",
    "TextClassifier": "ketfit.estimators.text",
    "TrainConfig": "ketfit.model.config",
    "NoiseConfig": "ketfit.simulate.noise",
    "distill": "ketfit.estimators.distillation",
    "expectation": "ketfit.simulate.expectation",
    "expectation_and_gradients": "ketfit.simulate.expectation",
    "probabilities": "ketfit.simulate.state",
    "sample_counts": "ketfit.simulate.state",
    "statevector": "ketfit.simulate.state",
    "variance": "ketfit.simulate.state",
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
