from typing import Any

import pytest
from pydantic import ValidationError

from trainer.settings import FittingSettings, TrainerSettings


def test_the_environment_reaches_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "HRNN_KAFKA_BOOTSTRAP": "k1:9092,k2:9092",
        "HRNN_TOPIC_PREFIX": "shop-",
        "HRNN_HIDDEN_DIMENSION": "64",
        "HRNN_TRAIN_MIN_NEW_EVENTS": "5",
        "HRNN_TRAINING_MODE": "full",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = TrainerSettings()
    assert settings.client_options()["bootstrap_servers"] == ["k1:9092", "k2:9092"]
    assert settings.topics.models == "shop-models"
    assert settings.train_min_new_events == 5
    assert (settings.fitting.hidden_dimension, settings.fitting.training_mode) == (64, "full")


def test_the_defaults_are_personalizes_where_it_has_them() -> None:
    settings = FittingSettings()
    assert settings.bptt == 32
    assert settings.min_user_history_length_percentile == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_dimension": 0},
        {"dropout": 1.0},
        {"min_user_history_length_percentile": 1.0},
        {"training_mode": "warm"},
        {"epoch": 3},
    ],
)
def test_wrong_and_unknown_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FittingSettings(**wrong)


def test_every_setting_has_its_reason() -> None:
    for kind in (FittingSettings, TrainerSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []
