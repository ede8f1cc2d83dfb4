"""What is retried, how long a retry waits, and how much of it is logged."""

from __future__ import annotations

import logging

import pytest
from aiokafka import errors

from stream.process.retrying import LONGEST_PAUSE_S, Retries, is_transient, retried


@pytest.mark.parametrize(
    "error",
    [
        errors.NodeNotReadyError(),
        errors.KafkaConnectionError(),
        errors.KafkaTimeoutError(),
        errors.RequestTimedOutError(),
        errors.NotLeaderForPartitionError(),
        errors.LeaderNotAvailableError(),
        errors.NotEnoughReplicasError(),
        errors.NotEnoughReplicasAfterAppendError(),
        errors.UnknownTopicOrPartitionError(),
        errors.KafkaStorageError(),
        errors.GroupCoordinatorNotAvailableError(),
        errors.UnknownError(),
        errors.KafkaError("an answer that aiokafka has no name for"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_an_unreachable_broker_are_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.MessageSizeTooLargeError(),
        errors.TopicAuthorizationFailedError(),
        errors.GroupAuthorizationFailedError(),
        errors.SaslAuthenticationFailed(),
        errors.UnsupportedVersionError(),
        errors.InvalidTopicError(),
        ValueError(),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_lasting_errors_are_not_transient(error: Exception) -> None:
    assert not is_transient(error)


def test_failures_are_logged_at_first_every_30_s_and_after_the_recovery(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    retries = Retries("restore", lambda: now)
    with caplog.at_level(logging.INFO):
        pauses = []
        for second in range(70):
            now = float(second)
            pauses.append(retries.failed(errors.NodeNotReadyError("away")))
        assert retries.why == "restore failed, retrying: NodeNotReadyError: away"
        now = 70
        retries.succeeded()
        retries.succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        "restore failed, retrying: NodeNotReadyError: away",
        "restore still fails, retry failed count=31 for_s=30: NodeNotReadyError: away",
        "restore still fails, retry failed count=61 for_s=60: NodeNotReadyError: away",
        "restore works again failures=70 after_s=70.0",
    ]
    assert retries.why == ""
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.0
    assert pauses[-1] == LONGEST_PAUSE_S


async def test_an_attempt_is_retried_until_it_succeeds_or_fails_for_good() -> None:
    outcomes: list[Exception | int] = [errors.NodeNotReadyError(), ConnectionRefusedError(), 7, ValueError("no")]
    pauses: list[float] = []

    async def attempt() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    assert await retried(Retries("it"), attempt, pause) == 7
    assert len(pauses) == 2
    with pytest.raises(ValueError, match="no"):
        await retried(Retries("it"), attempt, pause)
