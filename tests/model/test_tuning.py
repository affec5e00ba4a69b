"""The settings of tuning: two methods with settings of their own, read from one table."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import ConfigError
from ketfit.model.config import FitConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, as_stages, read_tuning


def test_read_tuning_method_chooses_class() -> None:
    assert read_tuning({"method": "contrastive", "epochs": 2}) == ContrastiveConfig(epochs=2)
    for method in ("full", "end-to-end"):
        assert read_tuning({"method": method, "angle_learning_rate": 0.5}) == EndToEndConfig(angle_learning_rate=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"method=None; it is contrastive or end-to-end"),
        ({"method": "magic"}, "method='magic'; it is contrastive or end-to-end"),
        ({"method": ["full"]}, "it is contrastive or end-to-end"),
        ({"method": "full", "pairs_per_sentence": 3}, "EndToEndConfig has no setting 'pairs_per_sentence'"),
        ({"method": "contrastive", "pairs_per_sentence": 3}, "pairs_per_sentence=3 is for loss='cosine'; leave it out"),
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


def test_fit_config_reads_list_of_stages(tmp_path: Path) -> None:
    path = tmp_path / "fit.toml"
    path.write_text('[[tune]]\nmethod = "contrastive"\nepochs = 2\n[[tune]]\nmethod = "end-to-end"\n')
    stages = (ContrastiveConfig(epochs=2), EndToEndConfig())
    assert FitConfig.from_toml(path).tune == stages
    assert FitConfig(tune=list(stages)).tune == stages  # type: ignore[arg-type]
    assert FitConfig(tune=stages[0]).tune == stages[0]
    path.write_text('[[tune]]\nmethod = "contrastive"\n[[tune]]\nepochs = 2\n')
    with pytest.raises(ConfigError, match=r"fit\.toml, table tune\[1\]: method=None; it is contrastive or end-to-end"):
        FitConfig.from_toml(path)


def test_as_stages_returns_stages_in_order() -> None:
    stages = ContrastiveConfig(), EndToEndConfig()
    assert as_stages(None) == ()
    assert as_stages(stages[1]) == stages[1:]
    assert as_stages(list(stages)) == stages


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "tune is an empty list; name a stage"),
        ([EndToEndConfig(), ContrastiveConfig()], "tune has contrastive tuning after end-to-end training.*put the con"),
        ([ContrastiveConfig(), ContrastiveConfig(epochs=2)], "tune has two contrastive stages in a row; leave one out"),
        ([ContrastiveConfig(), EndToEndConfig(), EndToEndConfig()], "tune has two end-to-end stages in a row"),
        ([EndToEndConfig(), ContrastiveConfig(), EndToEndConfig()], "contrastive tuning after end-to-end training"),
        ([ContrastiveConfig(), "end-to-end"], "tune='end-to-end' is of the wrong type; pass a ContrastiveConfig, an E"),
        ("contrastive", "tune='contrastive' is of the wrong type"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_stages(stages)
    with pytest.raises(ConfigError, match=message if isinstance(stages, list) else "tune"):
        FitConfig.from_mapping({"tune": stages})


def test_contrastive_config_loss_of_setfit_has_its_defaults() -> None:
    for loss in ("cosine", "triplet"):
        config = ContrastiveConfig.from_mapping({"loss": loss})
        assert (config.batch_size, config.learning_rate, config.epochs) == (16, 2e-5, 1)
        assert ContrastiveConfig.from_mapping({"loss": loss, "epochs": 3}).epochs == 3


def test_defaults_of_a_loss_follow_a_changed_loss() -> None:
    assert ContrastiveConfig().updated(loss="cosine") == ContrastiveConfig(loss="cosine")
    assert ContrastiveConfig(loss="cosine").updated(loss="supervised") == ContrastiveConfig()
    assert ContrastiveConfig().updated(warmup=0.2).updated(loss="triplet").epochs == 1


def test_given_settings_stay_when_the_loss_changes() -> None:
    given = ContrastiveConfig(epochs=8, batch_size=32)
    assert given.updated(loss="cosine") == ContrastiveConfig(loss="cosine", epochs=8, batch_size=32)
    assert copy.deepcopy(given).updated(loss="cosine").epochs == 8
    assert pickle.loads(pickle.dumps(given)).updated(loss="cosine").epochs == 8
