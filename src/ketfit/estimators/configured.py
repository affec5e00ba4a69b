"""A scikit-learn estimator whose settings are nested parameters."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sklearn.base import BaseEstimator
from typing_extensions import Self

from ketfit.base_config import Config
from ketfit.errors import ConfigError


class ConfiguredEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator whose `Config` parameters expose their settings as nested parameters, as estimators do.

    ``head__n_qubits`` in a grid search names the setting ``n_qubits`` of the parameter ``head``.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name and, if `deep`, each setting of a `Config` as ``name__setting``.

        >>> from ketfit import HeadConfig, QuantumHeadClassifier
        >>> QuantumHeadClassifier(HeadConfig(n_qubits=5)).get_params()["head__n_qubits"]
        5
        """
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            configs = {name: value for name, value in params.items() if isinstance(value, Config)}
            params |= {f"{name}__{key}": setting for name, config in configs.items() for key, setting in config}
            inner = {name: value for name, value in params.items() if isinstance(value, BaseEstimator)}
            params |= {
                f"{name}__{key}": value for name, each in inner.items() for key, value in each.get_params().items()
            }
        return params

    def _plain_settings(self) -> dict[str, Any]:
        """Return all parameters by name, the settings of each `Config` in place of it."""
        return {name: value for name, value in self.get_params().items() if not isinstance(value, Config)}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ``name__setting`` replaces one setting of the `Config` in the parameter ``name``.

        Args:
            params: New values by name.

        Raises:
            ConfigError: The setting does not exist or does not fit, or the parameter is not a `Config`.
            ValueError: The parameter does not exist.
        """
        nested: dict[str, dict[str, Any]] = defaultdict(dict)
        for key in [key for key in params if "__" in key]:
            name, _, setting = key.partition("__")
            nested[name][setting] = params.pop(key)
        super().set_params(**params)
        for name, settings in nested.items():
            config = getattr(self, name, None)
            if isinstance(config, BaseEstimator):
                config.set_params(**settings)
                continue
            if not isinstance(config, Config):
                key = next(iter(settings))
                raise ConfigError(
                    f"{name}__{key} has no configuration to change; pass {name}=... to the estimator first"
                )
            setattr(self, name, config.updated(**settings))
        return self
