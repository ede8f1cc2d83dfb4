from __future__ import annotations

import pytest

from tests.unit.trainer.made import Row, circles, quick, session
from trainer.data.histories import from_sessions
from trainer.fitting.course import NothingToLearn
from trainer.service.training import train
from trainer.settings import TrainerSettings


def settings() -> TrainerSettings:
    return TrainerSettings.model_validate({"fitting": quick()})


def only(*users: list[Row]) -> object:
    return from_sessions([session(f"u{n}", events) for n, events in enumerate(users)], {0: len(users)})


def test_no_sessions_is_nothing_to_learn_and_says_so() -> None:
    with pytest.raises(NothingToLearn, match="no sessions"):
        train(from_sessions([], {}), None, settings())


@pytest.mark.parametrize(
    "users",
    [
        [[("a", 1.0, None, None)]],
        [[("a", 1.0, None, None)], [("b", 2.0, None, None)]],
    ],
    ids=["one event", "users of one event"],
)
def test_too_little_to_learn_from_is_said_not_crashed_on(users: list[list[Row]]) -> None:
    with pytest.raises(NothingToLearn):
        train(only(*users), None, settings())  # type: ignore[arg-type]


def test_the_first_model_needs_no_other() -> None:
    candidate = train(circles(), None, settings())
    assert candidate.verdict.passed
    assert candidate.figures["serving"] == {}
    assert candidate.figures["candidate"]["mrr_at_20"] > candidate.figures["popularity"]["mrr_at_20"]
