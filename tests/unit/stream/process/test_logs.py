"""Log lines: from level info upwards none names a user."""

from __future__ import annotations

import ast
import json
import logging
import warnings
from pathlib import Path

import pytest

from stream.process.logs import configure_logging
from tests.unit.logging_state import kept

ROOT = Path(__file__).parents[4]
SHELLS = [path for package in ("stream", "trainer") for path in sorted((ROOT / package).rglob("*.py"))]
LOUD = {"info", "warning", "error", "exception", "critical"}
PERSONAL = {"user_id", "user", "users", "key", "keys", "value", "values", "record", "event", "events", "history"}


def logged(path: Path) -> list[ast.Call]:
    """List a file's calls of a logger at info or above."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOUD
        and ast.unparse(node.func.value) in ("log", "logger", "self.log", "self.logger")
    ]


def named(call: ast.Call) -> set[str]:
    """Name what is written out: whole arguments, and the last part of dotted ones."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for argument in call.args[1:]
        for node in ast.walk(argument)
        if isinstance(node, ast.Name | ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        # `record.topic` writes a topic, not the record
        and not any(isinstance(p, ast.Attribute) and p.value is node for a in call.args for p in ast.walk(a))
    }


def test_there_is_something_to_look_at() -> None:
    assert sum(len(logged(path)) for path in SHELLS) > 25


@pytest.mark.parametrize("path", SHELLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_names_a_user_or_shows_a_record(path: Path) -> None:
    for call in logged(path):
        assert not named(call) & PERSONAL, f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
        assert not any(isinstance(argument, ast.JoinedStr) for argument in call.args[:1]), "its parts are arguments"


def test_a_line_that_names_a_user_would_be_found() -> None:
    (call,) = [n for n in ast.walk(ast.parse("log.info('applied %s', event.user_id)")) if isinstance(n, ast.Call)]
    assert named(call) & PERSONAL == {"user_id"}


def test_off_a_terminal_each_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    with kept(), warnings.catch_warnings():
        configure_logging("info", "auto", default="info")
        logging.getLogger("stream.app").info("worker starting group=%s", "hrnn")
        try:
            raise RuntimeError("no\nway")
        except RuntimeError:
            logging.getLogger("stream.app").exception("worker crashed")
        warnings.simplefilter("always")
        warnings.warn("a library's", stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("info", "stream.app"),
        ("error", "stream.app"),
        ("warning", "py.warnings"),
    ]
    assert lines[0]["event"] == "worker starting group=hrnn"
    assert lines[0]["timestamp"].endswith("Z")
    assert "RuntimeError: no\nway" in lines[1]["exception"]
