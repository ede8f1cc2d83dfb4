"""Limit repeated log lines: a line is written once, then counted, with a summary every 30 s."""

from __future__ import annotations

import copy
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

SUMMARY_EVERY_S = 30.0
MAX_KINDS = 1000  # kinds of lines that are counted at a time; further kinds are written without a limit

# Only libraries repeat lines by the hundred, one for each broker and retry. Our own code limits its lines itself.
LIBRARIES = ("kafka", "aiokafka", "faust", "mode", "asyncio", "concurrent", "py.warnings", "urllib3")
_NUMBER = re.compile(r"\d+")


@dataclass
class Repeats:
    """One kind of line, in the current window."""

    last: logging.LogRecord
    began: float
    count: int = field(default=0)  # repeats since the last line that was written


class BoundedHandler(logging.StreamHandler[TextIO]):
    """A stream handler that writes a library's repeated line at most once in `SUMMARY_EVERY_S`.

    Lines are of one kind when logger, level and message template are equal, numbers aside. The first is written at
    once. Repeats are counted, and the last one is written with the count at the end of the window:
    `… repeated=412 in_s=30`.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        super().__init__(stream)
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], Repeats] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it. The caller holds the handler's lock."""
        self._summarise(only_due=True)
        if record.name.partition(".")[0] not in LIBRARIES and record.name not in LIBRARIES:
            super().emit(record)
            return
        kind = record.name, record.levelno, _NUMBER.sub("0", str(record.msg))
        known = self._kinds.get(kind)
        if known is not None:
            known.last, known.count = record, known.count + 1
            self._wake_later()
            return
        if len(self._kinds) < MAX_KINDS:
            self._kinds[kind] = Repeats(record, self._clock())
        super().emit(record)

    def close(self) -> None:
        """Write the remaining counts, then close."""
        with self._locked():
            if self._timer is not None:
                self._timer.cancel()
            self._summarise(only_due=False)
        super().close()

    def _summarise(self, *, only_due: bool) -> None:
        now = self._clock()
        for kind, repeats in list(self._kinds.items()):
            elapsed_s = now - repeats.began
            if only_due and elapsed_s < SUMMARY_EVERY_S:
                continue
            if not repeats.count:
                del self._kinds[kind]  # no repeat in a whole window: the next such line is written at once
                continue
            summary = copy.copy(repeats.last)
            summary.msg = f"{repeats.last.getMessage()} repeated={repeats.count} in_s={elapsed_s:.0f}"
            summary.args = ()
            super().emit(summary)
            repeats.began, repeats.count = now, 0

    def _wake_later(self) -> None:
        """Start a timer that writes the counts even if no further line is logged."""
        if self._timer is None:
            self._timer = threading.Timer(SUMMARY_EVERY_S + 0.5, self._wake)
            self._timer.daemon = True
            self._timer.start()

    def _wake(self) -> None:
        with self._locked():
            self._timer = None
            self._summarise(only_due=True)
            if any(repeats.count for repeats in self._kinds.values()):
                self._wake_later()

    def _locked(self) -> threading.RLock:
        assert self.lock is not None
        return self.lock
