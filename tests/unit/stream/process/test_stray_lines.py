"""Off a terminal, each line that a service writes to standard error is one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import sys, threading, traceback, warnings
from stream.process.logs import configure_logging

configure_logging("info", "auto", default="info", every_line=True)

def fail():
    raise RuntimeError("in a thread")

thread = threading.Thread(target=fail, name="worker-thread")
thread.start()
thread.join()

print("a print\\nof two lines", file=sys.stderr)
sys.stderr.write("begun ")
sys.stderr.write("and ended\\n")
try:
    fail()
except RuntimeError:
    traceback.print_exc()
warnings.warn("a warning")

class Ends:
    def __del__(self):
        raise RuntimeError("in a destructor")

Ends()
raise RuntimeError("in the main thread")
"""


def test_tracebacks_threads_prints_and_warnings_are_lines_of_the_log() -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    assert all({"event", "level", "logger", "timestamp"} <= set(line) for line in lines)
    events = [line["event"] for line in lines]
    assert {"a print", "of two lines", "begun and ended", "uncaught exception"} <= set(events)
    assert "uncaught exception in thread worker-thread" in events
    traces = [line["exception"] for line in lines if "exception" in line]
    for what in ("in a thread", "in a destructor", "in the main thread"):
        assert any(f"RuntimeError: {what}" in trace for trace in traces), what
    assert any(line["logger"] == "py.warnings" for line in lines)
