"""Qiskit's primitives, and a gradient for Qiskit Machine Learning, on KetFit's simulator.

The classes are loaded when they are first used: the gradient alone needs qiskit-machine-learning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketfit.interop.qiskit.circuits import QiskitCircuitError as QiskitCircuitError
    from ketfit.interop.qiskit.estimator import KetFitEstimator as KetFitEstimator
    from ketfit.interop.qiskit.gradient import KetFitEstimatorGradient as KetFitEstimatorGradient
    from ketfit.interop.qiskit.sampler import KetFitSampler as KetFitSampler

_LAZY_IMPORTS = {
    "KetFitEstimator": "ketfit.interop.qiskit.estimator",
    "KetFitEstimatorGradient": "ketfit.interop.qiskit.gradient",
    "KetFitSampler": "ketfit.interop.qiskit.sampler",
    "QiskitCircuitError": "ketfit.interop.qiskit.circuits",
}

__all__ = [*_LAZY_IMPORTS]


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'ketfit.interop.qiskit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
