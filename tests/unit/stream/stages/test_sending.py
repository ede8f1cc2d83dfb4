"""Which send errors requeue a batch, and which end the worker."""

from __future__ import annotations

import pytest
from aiokafka import errors

from stream.stages.sending import NotSent, or_not_sent, queueing
from stream.telemetry import Telemetry

AWAY = [
    errors.NodeNotReadyError("away"),
    errors.NotLeaderForPartitionError(),
    errors.NotEnoughReplicasError(),
    errors.UnknownTopicOrPartitionError(),
    errors.KafkaTimeoutError(),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_a_broker_that_is_away_has_the_batch_read_again(error: errors.KafkaError) -> None:
    telemetry = Telemetry()
    with pytest.raises(NotSent, match=type(error).__name__), or_not_sent(telemetry):
        raise error
    with pytest.raises(NotSent, match=type(error).__name__), queueing():
        raise error


def test_what_no_retry_mends_is_raised() -> None:
    with pytest.raises(errors.MessageSizeTooLargeError), or_not_sent(Telemetry()):
        raise errors.MessageSizeTooLargeError
    with pytest.raises(errors.TopicAuthorizationFailedError), queueing():
        raise errors.TopicAuthorizationFailedError
