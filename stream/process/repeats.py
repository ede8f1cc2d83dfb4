"""Bounding a log: a line that repeats is written once, then counted, with a summary each half minute."""

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
MAX_KINDS = 1000  # of lines told apart at once; past that, lines are written as they come

# What repeats by the hundred is said by libraries, of each broker at each try; our own lines are counted where they
# are made.
LIBRARIES = ("kafka", "aiokafka", "faust", "mode", "asyncio", "concurrent", "py.warnings", "urllib3")
_NUMBER = re.compile(r"\d+")


@dataclass
class Repeats:
    """One kind of line, in its window."""

    last: logging.LogRecord
    began: float
    count: int = field(default=0)  # since the line that was written last


class BoundedHandler(logging.StreamHandler[TextIO]):
    """A handler of a stream that writes a library's repeated line at most once in `SUMMARY_EVERY_S`.

    Lines are of one kind when logger, level and message template are the same, whatever numbers they have. The first
    is written at once; those that follow are counted, and the last of them is written with the count at the end of the
    window: `… repeated=412 in_s=30`.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds; the summaries are due by it."""
        super().__init__(stream)
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], Repeats] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it; called with the handler's lock held."""
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

    def flush(self) -> None:
        """Flush the stream."""
        super().flush()

    def close(self) -> None:
        """Write the counts that are still owed, and close."""
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
                del self._kinds[kind]  # it has stopped: the next one is the first of a new spell
                continue
            summary = copy.copy(repeats.last)
            summary.msg = f"{repeats.last.getMessage()} repeated={repeats.count} in_s={elapsed_s:.0f}"
            summary.args = ()
            super().emit(summary)
            repeats.began, repeats.count = now, 0

    def _wake_later(self) -> None:
        """See to it that the count is written even if nothing is logged any more."""
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
