"""The wait for a broker before anything else starts: as long as it takes, told of in the log and by /readyz."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

from stream.process.refused_login import refusal
from stream.process.retrying import Spell
from stream.settings import WorkerSettings
from stream.source.topic_check import KafkaAway, TopicFacts, TopicsNotReady, check_topics
from stream.stages.origins import Origins, origins_for

log = logging.getLogger(__name__)

ANSWER_S = 15.0  # a host that has vanished says nothing at all: a stop must not wait longer than this


def wait_for_topics(settings: WorkerSettings, tell: Callable[[str], None]) -> tuple[TopicFacts, Origins] | None:
    """Return what the topics are like, and what signs forwarded records; None if asked to stop before a broker answers.

    `tell` is given what is waited for. Raises TopicsNotReady for what waiting does not mend.
    """
    stopping = threading.Event()
    stops = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopping.set()) for number in stops]
    spell = Spell("start")
    try:
        while not stopping.is_set():
            try:
                found = asyncio.run(asyncio.wait_for(_check(settings), ANSWER_S))
            except (KafkaAway, TimeoutError) as error:
                pause_s = spell.failed(error)
                tell(spell.why)
                stopping.wait(pause_s)
            else:
                spell.over()
                tell("starting")
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
            raise TopicsNotReady(f"{refused}; see what `hrnn doctor` says") from None
        raise
