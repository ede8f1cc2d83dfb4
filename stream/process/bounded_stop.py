"""Stop a process within a bounded time, after a signal or a crash. Uncommitted events are delivered again."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from faust.worker import Worker

log = logging.getLogger(__name__)

WATCH_EVERY_S = 1.0


class BoundedWorker(Worker):
    """Faust's worker. It ends the process when a stop takes longer than `stop_timeout_s`."""

    stop_timeout_s: float

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        self._bound_the_stop()
        super()._schedule_shutdown(signal)

    async def crash(self, reason: BaseException) -> None:
        """Stop because of an error, within the same bound."""
        self._bound_the_stop()
        await super().crash(reason)

    def _bound_the_stop(self) -> None:
        timer = threading.Timer(self.stop_timeout_s, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        log.error("stop timeout after %.0f s, ending now", self.stop_timeout_s)
        os._exit(1)


class Watchdog:
    """A thread that ends the process when its stop after a crash takes too long, even if the event loop hangs."""

    def __init__(self, crashed: Callable[[], bool], bound_s: float) -> None:
        """`crashed` returns true after a crash."""
        self._crashed = crashed
        self._bound_s = bound_s
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread. It runs until the process ends."""
        self._thread.start()

    def _watch(self) -> None:
        while not self._crashed():
            time.sleep(WATCH_EVERY_S)
        time.sleep(self._bound_s)
        log.error("stop timeout after a crash, %.0f s, ending now", self._bound_s)
        logging.shutdown()
        os._exit(1)
