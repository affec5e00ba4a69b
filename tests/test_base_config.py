"""Errors about invalid settings."""

from __future__ import annotations

from typing import Any

import pytest

from ketfit.base_config import Config
from ketfit.errors import ConfigError


class Inner(Config):
    epochs: int = 3


class Outer(Config):
    seeds: int
    train: Inner = Inner()
    other: Inner | None = None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "Outer needs the setting 'seeds'"),
        ({"sedes": 3}, "Outer has no setting 'sedes'; did you mean 'seeds'?"),
        ({"seeds": 3, "epochs": 9}, "Outer has no setting 'epochs'; did you mean 'train.epochs'?"),
        (
            {"colour": 1},
            "Outer has no setting 'colour'; known are seeds, train, other; Outer needs the setting 'seeds'",
        ),
    ],
)
def test_config_missing_or_unknown_setting_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Outer.from_mapping(settings, where="plan.toml")
    assert str(raised.value) == f"plan.toml: {told}"


def test_config_endless_nesting_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="the settings of Inner are nested too deeply"):
        Inner(epochs=deep)
