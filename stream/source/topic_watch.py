"""Watch the source topics while the worker runs: re-created, deleted, shorter, or with more partitions."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.errors import KafkaError as ClientError
from faust.types import TP
from kafka.errors import KafkaError

from models.records import Topics
from stream.faust_patches.consumer_client import known_partitions, refresh_metadata
from stream.faust_patches.delivery import BatchApp
from stream.faust_patches.recovery import BatchTableManager
from stream.source.log_epochs import LogEpochs
from stream.source.topic_check import TopicFacts
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

WATCH_S = 2.0  # for so long a re-created topic's events may be mistaken for the old one's
LOG_EVERY_S = 60.0


class TopicWatch:
    """Checks the topics every two seconds. Starts a restore and a seek when offsets have changed their meaning."""

    def __init__(
        self, app: BatchApp, tables: BatchTableManager, topics: Topics, epochs: LogEpochs, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._tables = tables
        self._topics = topics
        self._epochs = epochs
        self._telemetry = telemetry
        self._beyond: set[TP] = set()  # partitions that were read beyond their log's end at the last check
        self._logged_at: dict[str, float] = {}  # the loop's time, by line

    async def follow(self) -> None:
        """Watch until the worker stops. Errors of the broker are retried."""
        while not self._app.should_stop:
            await asyncio.sleep(WATCH_S)
            try:
                why = await self._why_start_over()
            except RuntimeError:
                if self._app.should_stop:  # the consumer's loop is closed by then
                    return
                raise
            except (KafkaError, ClientError, OSError) as error:
                self._log(f"check of the source topics failed, retrying: {type(error).__name__}: {error}")
                continue
            if why and self._reading():
                log.warning("restore and seek started: %s", why)
                self._beyond.clear()
                await self._tables.recovery.start_over()

    def _reading(self) -> bool:
        return not self._app.rebalancing and self._tables.recovery.completed.is_set()

    async def _why_start_over(self) -> str:
        """Return why the current positions are invalid, "" if they are valid."""
        known = self._epochs.topic_ids
        facts = await self._epochs.read_facts()
        self.report(facts)
        consumer, sources = self._app.batch_consumer, self._app.sources
        if any(known_partitions(consumer, topic) != facts.partitions_of.get(topic, 0) for topic in sources):
            await refresh_metadata(consumer)  # otherwise a re-created topic is not read for five minutes
        if not self._reading() or known is not self._epochs.topic_ids:
            return ""
        for topic, topic_id in known.items():
            now = facts.ids.get(topic, topic_id)
            if now and topic_id and now != topic_id:
                return f"topic re-created topic={topic}"
        if any(topic not in facts.partitions_of for topic in known):
            return ""  # nothing to read until it exists again
        expected = dict(consumer.expected)  # before the ends are read
        ends = await consumer.highwaters(*expected) if expected else {}
        beyond = {tp for tp, offset in expected.items() if ends.get(tp, offset) < offset}
        again, self._beyond = beyond & self._beyond, beyond
        return f"log is shorter than what was read partitions={sorted(map(str, again))}" if again else ""

    def report(self, facts: TopicFacts) -> None:
        """Log and count missing topics and added partitions."""
        sources = (self._topics.interactions, self._topics.requests, self._topics.transitions)
        missing = [topic for topic in sources if topic not in facts.partitions_of]
        self._telemetry.topics_missing.set(len(missing))
        if missing:
            self._log(f"source topics are missing, waiting for them topics={missing}", logging.ERROR)
        added = facts.added(self._topics)
        self._telemetry.added_partitions.set(sum(added.values()))
        if added:
            self._log(
                f"partitions were added without states, their events are forwarded to the first {facts.partitions}: "
                f"{added}; create new topics under another HRNN_TOPIC_PREFIX to use more partitions"
            )

    def _log(self, text: str, level: int = logging.WARNING) -> None:
        """Log a line at once, and the same line again only after a minute."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at.get(text, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_at = {line: at for line, at in self._logged_at.items() if now - at < LOG_EVERY_S}
            self._logged_at[text] = now
            log.log(level, "%s", text)
