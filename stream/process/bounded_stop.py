"""Ending in bounded time, whether asked to or after a crash: what was not committed is delivered again."""

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
    """Faust's worker, whose stop ends the process when it takes too long: the uncommitted is delivered again."""

    stop_timeout_s: float

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        self._bound_the_stop()
        super()._schedule_shutdown(signal)

    async def crash(self, reason: BaseException) -> None:
        """Stop because of an error; that, too, in bounded time."""
        self._bound_the_stop()
        await super().crash(reason)

    def _bound_the_stop(self) -> None:
        timer = threading.Timer(self.stop_timeout_s, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        log.error("stop took longer than %.0f s, ending now", self.stop_timeout_s)
        os._exit(1)


class Watchdog:
    """A thread that ends the process when its stop after a crash takes too long, whatever the loop does."""

    def __init__(self, crashed: Callable[[], bool], bound_s: float) -> None:
        """`crashed` tells whether a crash has been noticed."""
        self._crashed = crashed
        self._bound_s = bound_s
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch, to the end of the process."""
        self._thread.start()

    def _watch(self) -> None:
        while not self._crashed():
            time.sleep(WATCH_EVERY_S)
        time.sleep(self._bound_s)
        log.error("the stop after a crash took longer than %.0f s, ending now", self._bound_s)
        logging.shutdown()
        os._exit(1)
