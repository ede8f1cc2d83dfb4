"""What reaches standard error beside the log: uncaught exceptions and prints become lines of the log."""

from __future__ import annotations

import io
import logging
import sys
import threading
from types import TracebackType
from typing import Any

log = logging.getLogger("stderr")


class LogStream(io.TextIOBase):
    """A standard error whose lines are logged one by one."""

    encoding = "utf-8"

    def __init__(self) -> None:
        """Begin with an empty line."""
        self._line = threading.local()  # each thread's unfinished line

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Log the lines that are complete; the rest waits for its end."""
        *lines, rest = (getattr(self._line, "text", "") + text).split("\n")
        self._line.text = rest
        for line in lines:
            if line.strip():
                log.error("%s", line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is written when it ends."""

    def isatty(self) -> bool:
        """Tell that nobody looks on."""
        return False


def catch_stray_lines() -> None:
    """Log what Python would print to standard error; handlers that hold the stream itself go on writing to it."""
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
