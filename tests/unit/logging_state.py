"""Commands run inside the test's own process: they configure logging, which later tests must not notice."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from typer.testing import CliRunner

from stream.commands.main import app


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put the root logger back as it was, with pytest's handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)


def hrnn(*arguments: str) -> tuple[int, str]:
    """Run the command; returns its exit status and what it wrote to standard output."""
    with kept():
        answer = CliRunner().invoke(app, list(arguments))
    return answer.exit_code, answer.stdout
