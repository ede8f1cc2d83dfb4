"""Retry Kafka operations: which errors are transient, how long to pause, and what to log."""

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
LONGEST_PAUSE_S = 5.0  # a broker that is back is found within this time
LOG_EVERY_S = 30.0

# Errors that a retry cannot fix: a setting, a permission or a record must be changed.
# All others are transient: unreachable brokers, elections, too few replicas, and codes unknown to aiokafka.
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
    """Return whether a retry may succeed: the broker is unreachable, busy, or electing a leader."""
    if isinstance(error, KafkaError):
        return not isinstance(error, _LASTING)
    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror)


def named(error: BaseException) -> str:
    """Return an error's type and text. Kafka's own texts already begin with the type."""
    kind, text = type(error).__name__, str(error)
    return text if kind in text else f"{kind}: {text}" if text else kind


class Retries:
    """Consecutive failures of one operation: logs the first, one every 30 s, and the recovery."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`what` names the operation in log lines: "restore", "model fetch"."""
        self.why = ""
        self._what = what
        self._clock = clock
        self._failures = 0
        self._began = self._logged_at = 0.0

    def failed(self, error: BaseException) -> float:
        """Count a failure; returns the pause before the retry in seconds."""
        now = self._clock()
        self.why = f"{self._what} failed, retrying: {named(error)}"
        if not self._failures:
            self._began = self._logged_at = now
            log.warning("%s failed, retrying: %s", self._what, named(error))
        elif now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.warning(
                "%s still fails, retry failed count=%d for_s=%.0f: %s",
                self._what,
                self._failures + 1,
                now - self._began,
                named(error),
            )
        self._failures += 1
        return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10)))

    def succeeded(self) -> None:
        """Reset the count after a success."""
        if self._failures:
            log.info("%s works again failures=%d after_s=%.1f", self._what, self._failures, self._clock() - self._began)
        self._failures, self.why = 0, ""


async def retried(
    retries: Retries,
    attempt: Callable[[], Awaitable[T]],
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Repeat an attempt until it succeeds, and return its result; raises only errors that are not transient."""
    while True:
        try:
            result = await attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            await pause(retries.failed(error))
        else:
            retries.succeeded()
            return result
