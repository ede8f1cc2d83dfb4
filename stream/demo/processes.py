"""Run workers and trainers as processes, for the demo, the fault runs and the benchmarks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from stream.commands.failures import Failure


class Process:
    """One `hrnn …` process with a log file and a metrics port."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        folder: Path,
        environ: Mapping[str, str],
        port: int,
        module: str = "stream.commands.main",
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.port = port
        self._arguments = [sys.executable, "-m", module, *arguments]
        self._environ = {**os.environ, **environ, "HRNN_METRICS_PORT": str(port)}
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or restart it, in its own session: Ctrl-C is for the parent."""
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                self._arguments, env=self._environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    @property
    def running(self) -> bool:
        """Return whether it has been started and has not ended."""
        return self.popen is not None and self.popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return its exit status."""
        return None if self.popen is None else self.popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.popen is not None and self.running:
            self.popen.send_signal(number)

    def stop(self, timeout_s: float = 30.0) -> int:
        """Stop it, kill it after a timeout, and return its exit status."""
        if self.popen is None:
            return 0
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()

    def get(self, path: str, timeout_s: float = 2.0) -> tuple[int, str]:
        """Fetch one of its pages; status 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until /readyz returns 200; raises Failure with the end of its log if it ends or after a timeout."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.running:
                raise Failure(f"{self.name} ended with status {self.exit_code}: {self.log_tail()}")
            if self.get("/readyz")[0] == 200:
                return
            time.sleep(0.1)
        raise Failure(f"{self.name} was not ready within {timeout_s:.0f} s: {self.get('/readyz')} {self.log_tail()}")

    def metric(self, name: str, labels: str = "") -> float:
        """Return the sum of a metric's series whose labels contain a text; 0 if there are none."""
        page = self.get("/metrics")[1]
        pattern = re.compile(rf"^{re.escape(name)}(?:\{{([^}}]*)\}})? (\S+)$", re.MULTILINE)
        return sum(float(m[2]) for m in pattern.finditer(page) if labels in (m[1] or ""))

    def log_tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n" + "\n".join(text.splitlines()[-lines:])


def free_port() -> int:
    """Return a free port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """Let the kernel end this process when the parent is killed: no worker outlives a demo or a test."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; Linux only, as the rest of the project
