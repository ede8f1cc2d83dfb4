"""Wait for a broker before anything else starts. The log and /readyz report the wait."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

from stream.process.refused_login import refusal
from stream.process.retrying import Retries
from stream.settings import WorkerSettings
from stream.source.topic_check import KafkaAway, TopicFacts, TopicsNotReady, check_topics
from stream.stages.origins import Origins, origins_for

log = logging.getLogger(__name__)

ANSWER_S = 15.0  # an unreachable host never answers, and a stop must not wait longer than this


def wait_for_topics(settings: WorkerSettings, report: Callable[[str], None]) -> tuple[TopicFacts, Origins] | None:
    """Return the topics' facts and the signer of forwarded records; None if stopped before a broker answers.

    `report` receives what the worker waits for. Raises TopicsNotReady for errors that waiting does not fix.
    """
    stopping = threading.Event()
    stops = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopping.set()) for number in stops]
    retries = Retries("start")
    try:
        while not stopping.is_set():
            try:
                found = asyncio.run(asyncio.wait_for(_check(settings), ANSWER_S))
            except (KafkaAway, TimeoutError) as error:
                pause_s = retries.failed(error)
                report(retries.why)
                stopping.wait(pause_s)
            else:
                retries.succeeded()
                report("starting")
                return found
    finally:
        for number, handler in zip(stops, before, strict=True):
            signal.signal(number, handler)
    log.info("worker stopped status=0 before a broker answered")
    return None


async def _check(settings: WorkerSettings) -> tuple[TopicFacts, Origins]:
    options = settings.client_options()
    try:
        facts = await asyncio.to_thread(check_topics, settings.topics, options)
        return facts, await origins_for(settings.signing_key, settings.topics, options)
    except KafkaAway:
        if refused := await refusal(options):
            raise TopicsNotReady(f"{refused}; run `hrnn doctor`") from None
        raise
