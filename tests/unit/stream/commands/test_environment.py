"""Settings from the environment: misspelt and impossible ones."""

import pytest

from stream.commands.environment import all_variables, load, read_settings, refuse_unknown, secrets
from stream.commands.failures import Failure
from stream.settings import WorkerSettings


def test_a_misspelt_variable_names_the_nearest_one() -> None:
    with pytest.raises(Failure, match=r"HRNN_TOPK is set.*did you mean HRNN_TOP_K") as failure:
        refuse_unknown({"HRNN_TOPK": "5", "PATH": "/bin"})
    assert failure.value.exit_code == 2


def test_every_setting_of_either_shell_is_known_with_its_reason() -> None:
    known = {variable.name: variable for variable in all_variables()}
    for name in ("HRNN_GAP_S", "HRNN_TRAIN_INTERVAL_S", "HRNN_BPTT", "HRNN_CACHE_DIR", "HRNN_PARTITIONS"):
        assert name in known
    assert known["HRNN_KAFKA_BOOTSTRAP"].reader == "commands, worker, trainer"
    assert "HRNN_FITTING" not in known
    assert all(variable.reason for variable in known.values())
    refuse_unknown(dict.fromkeys(known, "x"))


def test_an_impossible_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNN_TOP_K", "many")
    with pytest.raises(Failure, match="HRNN_TOP_K=many: Input should be a valid integer"):
        load(WorkerSettings)


def test_an_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNN_KAFKA_BOOTSTRAP", "a:1")
    monkeypatch.setenv("HRNN_TOPIC_PREFIX", "env-")
    settings = read_settings(kafka_bootstrap="b:2", topic_prefix=None)
    assert settings.kafka_bootstrap == "b:2"
    assert settings.topics.interactions == "env-interactions"


@pytest.mark.parametrize(
    ("value", "said"),
    [("abc", "is not a list"), ("5", "tuple"), ("[-1]", "greater than 0"), ('["x"]', "number"), ("[1e999]", "finite")],
)
def test_half_lives_that_nothing_can_decay_by_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("HRNN_HALF_LIVES_S", value)
    with pytest.raises(Failure) as failure:
        load(WorkerSettings)
    assert "HRNN_HALF_LIVES_S" in failure.value.what
    assert said in failure.value.what


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secrets() == {"HRNN_SASL_PASSWORD", "HRNN_ORIGIN_KEY"}
    monkeypatch.setenv("HRNN_ORIGIN_KEY", "too short")
    with pytest.raises(Failure) as failure:
        load(WorkerSettings)
    assert "too short" not in failure.value.what
