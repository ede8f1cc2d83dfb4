"""How a process logs: lines for a person at a terminal, JSON for whatever collects them otherwise."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Literal, get_args

import structlog

from stream.commands.failures import Failure
from stream.process.repeats import BoundedHandler
from stream.process.stray_lines import catch_stray_lines

Format = Literal["auto", "text", "json"]
Level = Literal["debug", "info", "warning", "error"]

# Clients that warn of each broker that is away for a second; what it means is logged by us.
_CHATTY = ("kafka", "aiokafka", "faust", "mode")


def configure_logging(level: Level | None, form: Format | None, *, default: Level, every_line: bool = False) -> None:
    """Send every library's log to standard error, in one form; standard output is for results.

    What is None comes from HRNN_LOG_LEVEL and HRNN_LOG_FORMAT. With `every_line`, whatever else is written to standard
    error becomes a line of a JSON log, too: services are read by machines.
    """
    level = level or _named("HRNN_LOG_LEVEL", get_args(Level)) or default
    form = form or _named("HRNN_LOG_FORMAT", get_args(Format)) or "auto"
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    before: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not text),
    ]
    last: list[structlog.types.Processor]
    if text:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = BoundedHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)  # a library's warning is a line of the log too
    root.setLevel(level.upper())
    if every_line and not text:
        catch_stray_lines()
    if level == "info":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


def _named(variable: str, allowed: tuple[Any, ...]) -> Any:
    value = os.environ.get(variable, "").lower() or None
    if value is not None and value not in allowed:
        raise Failure(f"{variable}={value} is none of {', '.join(allowed)}", "correct or unset it", exit_code=2)
    return value
