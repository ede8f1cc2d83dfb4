"""The group's consumer thread: it reads committed records only."""

from __future__ import annotations

from typing import Any, cast

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class CommittedConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread in isolation level read_committed. Faust sets it only for its own transactions."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # `start` passes it to the fetcher
        return consumer

    def highwater(self, tp: TP) -> int:
        """Return the end of the log, including open transactions: records that wait for their end are lag."""
        return cast(int, self._ensure_consumer().highwater(tp))  # None before the first fetch, as Faust's own
