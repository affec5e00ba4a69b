"""The settings of tuning: two methods with settings of their own, read from one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import ConfigError
from ketfit.model.config import FitConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, read_tuning


def test_read_tuning_method_chooses_class() -> None:
    assert read_tuning({"method": "contrastive", "epochs": 2}) == ContrastiveConfig(epochs=2)
    assert read_tuning({"method": "full", "angle_learning_rate": 0.5}) == EndToEndConfig(angle_learning_rate=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"method=None; it is one of contrastive, full"),
        ({"method": "magic"}, "method='magic'; it is one of contrastive, full"),
        ({"method": ["full"]}, "it is one of contrastive, full"),
        ({"method": "full", "pairs_per_sentence": 3}, "EndToEndConfig has no setting 'pairs_per_sentence'"),
        ({"method": "contrastive", "angle_learning_rate": 3}, "ContrastiveConfig has no setting 'angle_learning_rate'"),
        ({"method": "contrastive", "batch_size": 1}, "batch_size=1"),
        ({"method": "contrastive", "warmup": 1.0}, "warmup=1.0"),
        ({"method": "full", "last_layers": 0}, "last_layers=0"),
        ({"method": "full", "learning_rate": float("inf")}, "learning_rate=inf"),
        ({"method": "full", "precision": "float16"}, "precision='float16'"),
        ({"method": "full", "layer_decay": 1.5}, "layer_decay=1.5"),
        ({"method": "contrastive", "temperature": 0.0}, "temperature=0.0"),
        ({"method": "contrastive", "loss": "triplet", "cross_entropy": 1.0}, "is for loss='supervised'; leave it out"),
        ({"method": "contrastive", "loss": "supervised", "group_by_length": True}, "the supervised loss needs all"),
    ],
)
def test_tuning_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_tuning(settings)


def test_read_tuning_reads_table_of_file(tmp_path: Path) -> None:
    path = tmp_path / "fit.toml"
    path.write_text('dtype = "bfloat16"\n[tune]\nmethod = "full"\nlast_layers = 2\n')
    config = FitConfig.from_toml(path)
    assert config.tune == EndToEndConfig(last_layers=2)
    assert config.dtype == "bfloat16"
    assert FitConfig().tune is None
    path.write_text("[tune]\nepochs = 2\n")
    with pytest.raises(ConfigError, match=r"fit\.toml, table tune: method=None"):
        FitConfig.from_toml(path)
    with pytest.raises(ConfigError, match=r"tune\..*=3"):
        FitConfig.from_mapping({"tune": 3})
