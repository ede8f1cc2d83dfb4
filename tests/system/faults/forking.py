"""Workers that start in half a second: forked from a process that has imported torch and Faust already.

What is forked runs `hrnn worker` as the command does; only the imports are done before. Hundreds of kills would
otherwise be hundreds of times some four seconds of imports on both cores.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import cast

from stream.demo.processes import Process

PRELOADED = [
    "aiokafka",
    "faust.livecheck",
    "faust.stores.rocksdb",
    "faust.transport.drivers.aiokafka",
    "kafka",
    "rocksdict",
    "stream.app",
    "stream.commands.main",
    "stream.commands.services",
    "stream.process.serving",
    "tests.system.faults.forking",
    "trainer.service.service",
]
COMMAND = "stream.commands.main"

_context: ForkServerContext = multiprocessing.get_context("forkserver")


class Forked:
    """The part of `subprocess.Popen` that `Process` uses, over a forked process."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """Give the exit status, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and give the status; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class ForkedProcess(Process):
    """A `Process` that is forked instead of started."""

    def start(self) -> None:
        """Start it, or start it again."""
        _context.set_forkserver_preload(PRELOADED)
        module, *arguments = self._arguments[2:]
        process = _context.Process(
            target=run_command, args=(module, arguments, self._environ, str(self.log_path)), daemon=True
        )
        process.start()
        self.popen = cast("subprocess.Popen[bytes]", Forked(process))


def run_command(module: str, arguments: list[str], environ: Mapping[str, str], log_path: str) -> None:
    """Become the process: its session, its log, its environment, its command line."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the fork server ends with the harness
    os.setsid()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [module, *arguments]
    if module == COMMAND:
        from stream.commands.main import main

        main()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
