"""Configure logging: text lines at a terminal, JSON lines for log collectors."""

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

# Libraries that log each connection error. At level info only their warnings are logged.
_CHATTY = ("kafka", "aiokafka", "faust", "mode")


def configure_logging(level: Level | None, form: Format | None, *, default: Level, every_line: bool = False) -> None:
    """Write all logs to standard error in one format. Standard output is for results.

    None means HRNN_LOG_LEVEL or HRNN_LOG_FORMAT, then the default. With `every_line`, everything that is written to
    standard error becomes a line of the JSON log.
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
    logging.captureWarnings(True)  # a library's warning becomes a log line
    root.setLevel(level.upper())
    if every_line and not text:
        catch_stray_lines()
    if level == "info":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


def _named(variable: str, allowed: tuple[Any, ...]) -> Any:
    value = os.environ.get(variable, "").lower() or None
    if value is not None and value not in allowed:
        raise Failure(f"{variable}={value} is not one of {', '.join(allowed)}", "correct or unset it", exit_code=2)
    return value
