"""Watching the source topics while the worker runs: re-created, deleted, shorter, or with more partitions."""

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

WATCH_S = 2.0  # one small request; as long as that, a re-created topic's events may be taken for the old one's
SAY_AGAIN_S = 60.0


class TopicWatch:
    """Looks at the topics every two seconds; starts over when offsets do not mean what they meant before."""

    def __init__(
        self, app: BatchApp, tables: BatchTableManager, topics: Topics, epochs: LogEpochs, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._tables = tables
        self._topics = topics
        self._epochs = epochs
        self._telemetry = telemetry
        self._beyond: set[TP] = set()  # partitions that were read beyond their log's end at the last look
        self._said: dict[str, float] = {}  # the loop's time by line

    async def follow(self) -> None:
        """Watch until the worker stops; what the broker does not answer is asked again."""
        while not self._app.should_stop:
            await asyncio.sleep(WATCH_S)
            try:
                why = await self._why_start_over()
            except RuntimeError:
                if self._app.should_stop:  # the consumer's own loop is closed by then
                    return
                raise
            except (KafkaError, ClientError, OSError) as error:
                self._say(f"could not look at the source topics, retrying: {type(error).__name__}: {error}")
                continue
            if why and self._reading():
                log.warning("starting over: %s", why)
                self._beyond.clear()
                await self._tables.recovery.start_over()

    def _reading(self) -> bool:
        return not self._app.rebalancing and self._tables.recovery.completed.is_set()

    async def _why_start_over(self) -> str:
        """Say what makes the positions of now useless, "" if nothing does."""
        known = self._epochs.topic_ids
        facts = await self._epochs.look()
        self.note(facts)
        consumer, sources = self._app.batch_consumer, self._app.sources
        if any(known_partitions(consumer, topic) != facts.partitions_of.get(topic, 0) for topic in sources):
            await refresh_metadata(consumer)  # or a topic that is back is read by nobody for five minutes
        if not self._reading() or known is not self._epochs.topic_ids:
            return ""
        for topic, topic_id in known.items():
            now = facts.ids.get(topic, topic_id)
            if now and topic_id and now != topic_id:
                return f"topic re-created topic={topic}"
        if any(topic not in facts.partitions_of for topic in known):
            return ""  # nothing to read until it is back
        expected = dict(consumer.expected)  # before the ends are asked for
        ends = await consumer.highwaters(*expected) if expected else {}
        beyond = {tp for tp, offset in expected.items() if ends.get(tp, offset) < offset}
        again, self._beyond = beyond & self._beyond, beyond
        return f"log is shorter than what was read partitions={sorted(map(str, again))}" if again else ""

    def note(self, facts: TopicFacts) -> None:
        """Tell of topics that are gone, and of partitions that no states are kept by."""
        sources = (self._topics.interactions, self._topics.requests, self._topics.transitions)
        missing = [topic for topic in sources if topic not in facts.partitions_of]
        self._telemetry.topics_missing.set(len(missing))
        if missing:
            self._say(f"source topics are missing, waiting for them topics={missing}", logging.ERROR)
        added = facts.added(self._topics)
        self._telemetry.added_partitions.set(sum(added.values()))
        if added:
            self._say(
                f"partitions were added, their events are forwarded to the {facts.partitions} that states are kept by: "
                f"{added}; make new topics under another HRNN_TOPIC_PREFIX to use them"
            )

    def _say(self, text: str, level: int = logging.WARNING) -> None:
        """Log a line at once, and the same one again only after a minute."""
        now = asyncio.get_running_loop().time()
        if now - self._said.get(text, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said = {line: at for line, at in self._said.items() if now - at < SAY_AGAIN_S} | {text: now}
            log.log(level, "%s", text)
