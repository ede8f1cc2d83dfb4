"""One Kafka JVM: its folder, its process, and a guardian process that stops it when its owner ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stream.commands.failures import Failure
from stream.demo.kafka_jars import java_command, resolve_jars

STOP_TIMEOUT_S = 30.0
DELETE_TIMEOUT_S = 120.0

_LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

# Reads the pid of each started JVM (an empty line: none runs). The end of its input means that the parent has ended:
# no signal handler runs on kill -9, but the kernel closes the pipe.
_GUARDIAN = """
while IFS= read -r line; do child=$line; done
if [ -n "$child" ]; then
  kill -9 "$child" 2>/dev/null
  n=0; while kill -0 "$child" 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
fi
rm -rf -- "$1"
"""


class BrokerNode:
    """A broker and controller in one JVM, with its data in a temporary folder that `remove` deletes."""

    def __init__(self, *, heap_mb: int = 512, environ: Mapping[str, str] = os.environ) -> None:
        """Fetch the jars if needed, and create the folder."""
        self._java = java_command(environ)
        self._jars = resolve_jars(environ)
        self._heap = ("-Xms128m", f"-Xmx{heap_mb}m", "-XX:+UseSerialGC")
        self.folder = Path(tempfile.mkdtemp(prefix="hrnn-kafka-"))
        self.process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = _start_guardian(self.folder)

    @property
    def pid(self) -> int | None:
        """The JVM's process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def format(self, settings: Mapping[str, str], cluster_id: str) -> None:
        """Write the broker's properties and format its storage; raises Failure."""
        settings = {"log.dirs": str(self.folder / "data"), **settings}
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        command = self._command(*quick, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties))
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            output = essence(answer.stdout + answer.stderr)
            raise Failure(f"Kafka could not format its storage in {self.folder}:\n{output}", self.remedy())

    def launch(self) -> None:
        """Start the JVM. It serves some seconds later."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(*self._heap, "kafka.Kafka", str(self.folder / "server.properties")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for the owner: the broker must outlive its clients
            )
        self._write_to_guardian(str(self.process.pid))

    def end(self, how: signal.Signals) -> None:
        """Stop the JVM by a signal and wait for its end; does nothing if none runs."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a frozen process handles no other signal
            process.send_signal(how)
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._write_to_guardian("")

    def signal(self, number: signal.Signals) -> None:
        """Send the JVM a signal, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def remove(self) -> None:
        """Kill the JVM and delete its data."""
        self.end(signal.SIGKILL)  # its data are deleted, so it need not flush them
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()
            # hundreds of topics have tens of thousands of files: deleting them took more than 30 s on a busy disk
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guardian.wait(timeout=DELETE_TIMEOUT_S)
            self._guardian = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return the broker's log so far."""
        path = self.folder / "broker.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def remedy(self) -> str:
        """Return the remedy for a broker that can't start."""
        space = f"it needs 1 GB of memory and space in {self.folder.parent}"
        return f"{space}; or set HRNN_KAFKA_BOOTSTRAP to a broker that runs"

    def _command(self, *arguments: str) -> list[str]:
        return [self._java, *_LOGGING, "-cp", f"{self._jars}/*", *arguments]

    def _write_to_guardian(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.write(line.encode() + b"\n")
                self._guardian.stdin.flush()


def essence(log: str) -> str:
    """Return the last lines of a JVM's output without stack frames."""
    lines = [line for line in log.splitlines() if line.strip() and not line.lstrip().startswith(("at ", "..."))]
    return "\n".join(lines[-6:])


def _start_guardian(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARDIAN, "hrnn-kafka-guardian", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # it must survive the signal that ends its owner
    )
