"""The settings of classical heads."""

from __future__ import annotations

from typing import Any

import pytest

from ketfit.base_config import Config
from ketfit.errors import ConfigError
from ketfit.model.classical import LogisticRegressionConfig, MLPConfig, SVCConfig


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (LogisticRegressionConfig, {"C": 0.0}, "C=0.0"),
        (LogisticRegressionConfig, {"C": float("inf")}, "C=inf"),
        (LogisticRegressionConfig, {"solver": "magic"}, "solver='magic'"),
        (LogisticRegressionConfig, {"penalty": "l1"}, "no setting 'penalty'"),
        (SVCConfig, {"n_support": ()}, "at least one support vector"),
        (SVCConfig, {"n_support": (0, 0)}, "at least one support vector"),
        (SVCConfig, {"n_support": (1, -1)}, "n_support"),
        (SVCConfig, {"n_support": (1.0, 2)}, "n_support"),
        (SVCConfig, {"n_support": (1, 2), "kernel": "precomputed"}, "kernel='precomputed'"),
        (SVCConfig, {"n_support": (1, 2), "gamma": float("nan")}, "gamma"),
        (SVCConfig, {"n_support": (1, 2), "degree": 10**9}, "degree=1000000000"),
        (MLPConfig, {"hidden": 3, "units": 4}, "units=4 of a head with hidden=3"),
        (MLPConfig, {"match_parameters": 9, "units": 0}, "units=0"),
        (MLPConfig, {"hidden": -1, "units": -1}, "hidden=-1"),
        (MLPConfig, {"hidden": 3, "units": 3, "activation": "relu"}, "activation='relu'"),
    ],
)
def test_classical_config_invalid_setting_raises(config: type[Config], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_classical_config_shapes_of_several_classes() -> None:
    assert LogisticRegressionConfig().tensor_shapes(4, 3) == {"coef": (3, 4), "intercept": (3,)}
    assert SVCConfig(n_support=(1, 2, 3)).tensor_shapes(4, 3) == {
        "support": (6,),
        "support_vectors": (6, 4),
        "dual_coef": (2, 6),
        "intercept": (3,),
        "gamma": (),
        "platt.slopes": (3,),
        "platt.intercepts": (3,),
    }
    assert "platt.slopes" not in SVCConfig(n_support=(1, 2, 3), calibrated=False).tensor_shapes(4, 3)
    assert MLPConfig(hidden=0, units=0).tensor_shapes(4, 3) == {"output.weight": (3, 4), "output.bias": (3,)}
