"""Turn everything else on standard error (uncaught exceptions, prints) into log lines."""

from __future__ import annotations

import io
import logging
import sys
import threading
from types import TracebackType
from typing import Any

log = logging.getLogger("stderr")


class LogStream(io.TextIOBase):
    """A replacement of standard error that logs each line."""

    encoding = "utf-8"

    def __init__(self) -> None:
        """Start with an empty line."""
        self._line = threading.local()  # each thread's unfinished line

    def writable(self) -> bool:
        """Return that the stream can be written to."""
        return True

    def write(self, text: str) -> int:
        """Log the complete lines. An incomplete line is kept until its end."""
        *lines, rest = (getattr(self._line, "text", "") + text).split("\n")
        self._line.text = rest
        for line in lines:
            if line.strip():
                log.error("%s", line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is logged when it ends."""

    def isatty(self) -> bool:
        """Return that this is not a terminal."""
        return False


def catch_stray_lines() -> None:
    """Log what Python would print to standard error. Handlers that hold the original stream still write to it."""
    sys.stderr = LogStream()
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or issubclass(arguments.exc_type, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "?"
    log.error(
        "uncaught exception in thread %s",
        name,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )


def _unraisable(arguments: Any) -> None:
    error = arguments.exc_value
    trace = (arguments.exc_type, error, arguments.exc_traceback) if error is not None else None
    log.error("exception ignored in %s", arguments.err_msg or "a destructor", exc_info=trace)
