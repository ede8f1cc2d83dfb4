"""Waiting for Kafka: which errors pass by themselves, how long to pause, and one log line for each spell of them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka import errors
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0  # a broker that comes back is noticed within this time
TELL_EVERY_S = 30.0

# Kafka's answers that are the same at each retry: somebody has to change a setting, a right or a record.
# All others pass: brokers that are away, elections, full replicas, and codes that aiokafka does not know.
_LASTING = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.ClusterAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.IllegalArgumentError,
    errors.IllegalSaslStateError,
    errors.IllegalStateError,
    errors.IncompatibleBrokerVersion,
    errors.InconsistentGroupProtocolError,
    errors.InvalidGroupIdError,
    errors.InvalidRequestError,
    errors.InvalidRequiredAcksError,
    errors.InvalidSessionTimeoutError,
    errors.InvalidTimestampError,
    errors.InvalidTopicError,
    errors.KafkaConfigurationError,
    errors.MessageSizeTooLargeError,
    errors.PolicyViolationError,
    errors.ProducerClosed,
    errors.ProducerFenced,
    errors.RecordListTooLargeError,
    errors.RecordTooLargeError,
    errors.SaslAuthenticationFailed,
    errors.SecurityDisabled,
    errors.TopicAuthorizationFailedError,
    errors.UnrecognizedBrokerVersion,
    errors.UnsupportedCodecError,
    errors.UnsupportedForMessageFormatError,
    errors.UnsupportedSaslMechanismError,
    errors.UnsupportedVersionError,
)


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed without anybody's doing: the broker is away, busy, or electing a leader."""
    if isinstance(error, KafkaError):
        return not isinstance(error, _LASTING)
    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror)


def named(error: BaseException) -> str:
    """Write an error with its type, that Kafka's own texts begin with already."""
    kind, text = type(error).__name__, str(error)
    return text if kind in text else f"{kind}: {text}" if text else kind


class Spell:
    """A time in which one thing fails again and again: a log line when it begins, each 30 s, and when it is over."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`what` begins the log lines: "restore", "model fetch"."""
        self.why = ""
        self._what = what
        self._clock = clock
        self._failures = 0
        self._began = self._told = 0.0

    def failed(self, error: BaseException) -> float:
        """Count a failure; returns how many seconds to pause before the retry."""
        now = self._clock()
        self.why = f"{self._what} failed, retrying: {named(error)}"
        if not self._failures:
            self._began = self._told = now
            log.warning("%s failed, retrying: %s", self._what, named(error))
        elif now - self._told >= TELL_EVERY_S:
            self._told = now
            log.warning(
                "%s still fails, retry failed count=%d for_s=%.0f: %s",
                self._what,
                self._failures + 1,
                now - self._began,
                named(error),
            )
        self._failures += 1
        return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10)))

    def over(self) -> None:
        """End the spell, if there is one: it worked."""
        if self._failures:
            log.info("%s works again failures=%d after_s=%.1f", self._what, self._failures, self._clock() - self._began)
        self._failures, self.why = 0, ""


async def retried(
    spell: Spell,
    attempt: Callable[[], Awaitable[T]],
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Return what an attempt returns, after as many attempts as it takes; raises only errors that last."""
    while True:
        try:
            result = await attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            await pause(spell.failed(error))
        else:
            spell.over()
            return result
