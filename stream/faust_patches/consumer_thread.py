"""The group's consumer: what a transaction aborted is not read, nor what follows one that is open."""

from __future__ import annotations

from typing import Any, cast

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class CommittedConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, reading committed records only: Faust does so only where it writes transactions."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # which `start` makes the fetcher with
        return consumer

    def highwater(self, tp: TP) -> int:
        """Return the end of the log, behind open transactions, too: what waits for their end is lag."""
        return cast(int, self._ensure_consumer().highwater(tp))  # None before the first fetch, as Faust's own
