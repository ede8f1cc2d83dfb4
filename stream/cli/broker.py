"""A real single-node Apache Kafka for the demo and the tests, that leaves nothing behind.

with LocalKafka() as kafka:
    produce_to(kafka.bootstrap)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.cli.failures import Failure
from stream.cli.kafka_jars import java_command, resolve_jars

START_TIMEOUT_S = 90.0  # 4 s on an idle machine; two busy cores can take ten times as long
STOP_TIMEOUT_S = 30.0
DELETE_TIMEOUT_S = 120.0
PORTS = range(20_000, 32_000)  # below Linux's range for outgoing connections, so that a restart finds its port free

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "2000",  # so that fault tests need not wait long for a dead member
    "message.max.bytes": str(16 * 1024 * 1024),  # the topics' own max.message.bytes decide
    "replica.fetch.max.bytes": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.threads": "1",
    "log.cleaner.backoff.ms": "500",  # compaction within a test's time
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # 128 MiB by default, a quarter of the heap
    "log.segment.delete.delay.ms": "1000",
    "log.index.size.max.bytes": str(1024 * 1024),
}

_HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC")
_LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

# Reads a line per JVM started (an empty one: none runs). The end of its input means that the parent has gone,
# however it went: no signal handler runs on kill -9, but the kernel closes the pipe.
_GUARDIAN = """
while IFS= read -r line; do child=$line; done
if [ -n "$child" ]; then
  kill -9 "$child" 2>/dev/null
  n=0; while kill -0 "$child" 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
fi
rm -rf -- "$1"
"""


class LocalKafka:
    """One Kafka broker and controller on loopback, or the one that HRNN_KAFKA_BOOTSTRAP names.

    Its data lie in a temporary folder that is deleted at the end. It ends with `stop`, with the `with` block,
    at the exit of the process, and when the process is killed.
    """

    def __init__(
        self,
        *,
        own: bool = False,
        settings: Mapping[str, str] | None = None,
        listeners: Sequence[str] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Prepare one; `own` starts one whatever the environment names (fault tests kill it).

        `settings` are broker properties laid over the defaults. `listeners` are further security protocols to serve,
        beside plain text; `addresses` says where.
        """
        self._environ = environ
        self._listeners = tuple(listeners)
        self.addresses: dict[str, str] = {}
        self._settings = dict(settings or {})
        self._external = None if own else (environ.get("HRNN_KAFKA_BOOTSTRAP") or None)
        self._bootstrap = self._external or ""
        self._folder: Path | None = None
        self._java = ""
        self._jars: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address to connect to, host:port; empty before `start`."""
        return self._bootstrap

    @property
    def external(self) -> bool:
        """Whether this is somebody else's broker, that is neither started nor stopped here."""
        return self._external is not None

    @property
    def pid(self) -> int | None:
        """The JVM's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        """Start the broker."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and delete its data."""
        self.stop()

    def start(self) -> None:
        """Fetch the jars if need be, start the broker and return when it serves."""
        if self.external:
            wait_until_serving(self._bootstrap, timeout_s=10.0)
            return
        if self._folder is not None:
            raise RuntimeError("this broker was started before; restart() starts it again on the same data")
        self._java = java_command(self._environ)
        self._jars = resolve_jars(self._environ)
        self._folder = Path(tempfile.mkdtemp(prefix="hrnn-kafka-"))
        atexit.register(self.stop)
        try:
            self._guardian = _start_guardian(self._folder)
            self._format()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the broker and delete its data; does nothing when it is not running."""
        atexit.unregister(self.stop)
        # Its data go too, so it need not write them out first.
        self._end(signal.SIGKILL)
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()
            # hundreds of topics are ten thousands of files: on a busy disk that took more than 30 s, and is no failure
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guardian.wait(timeout=DELETE_TIMEOUT_S)
            self._guardian = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End the broker as a power cut would, keeping its data for `restart`."""
        self._own("kill")
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End the broker in good order, keeping its data for `restart`."""
        self._own("shut down")
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start the broker again on the same data and ports, and return when it serves.

        One that still runs is shut down first. After `kill` it takes 9 s longer: the controller waits that
        long for the broker that it believes alive (broker.session.timeout.ms).
        """
        self._own("restart")
        if self.pid is not None:
            self.shut_down()
        self._launch()

    def pause(self) -> None:
        """Freeze the broker where it stands, until `resume`."""
        self._own("pause")
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._own("resume")
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What the broker has written to its log so far."""
        path = None if self._folder is None else self._folder / "broker.log"
        return path.read_text(errors="replace") if path is not None and path.is_file() else ""

    def _own(self, verb: str) -> None:
        if self.external:
            raise Failure(f"can't {verb} the broker at {self._bootstrap}: it is not ours", "unset HRNN_KAFKA_BOOTSTRAP")
        if self._folder is None:
            raise RuntimeError(f"can't {verb} a broker that was never started")

    def _format(self) -> None:
        assert self._folder is not None
        protocols = ("PLAINTEXT", *self._listeners)
        controller, *ports = _free_ports(1 + len(protocols))
        self.addresses = {protocol: f"127.0.0.1:{port}" for protocol, port in zip(protocols, ports, strict=True)}
        self._bootstrap = self.addresses["PLAINTEXT"]
        served = ",".join(f"{protocol}://{address}" for protocol, address in self.addresses.items())
        settings = {
            **_SETTINGS,
            "listeners": f"{served},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", *(f"{p}:{p}" for p in protocols)]),
            "advertised.listeners": served,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(self._folder / "data"),
            **self._settings,
        }
        properties = self._folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        cluster = "h" + secrets.token_urlsafe(16)[:21]  # an id that begins with a dash is taken for an option
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        command = self._command(*quick, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties))
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            said = _essence(answer.stdout + answer.stderr)
            raise Failure(f"Kafka could not format its storage in {self._folder}:\n{said}", _remedy(self._folder))

    def _command(self, *arguments: str) -> list[str]:
        return [self._java, *_LOGGING, "-cp", f"{self._jars}/*", *arguments]

    def _launch(self) -> None:
        assert self._folder is not None
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(*_HEAP, "kafka.Kafka", str(self._folder / "server.properties")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for us: the broker must outlive what still writes to it
            )
        self._tell_guardian(str(self._process.pid))
        try:
            wait_until_serving(self._bootstrap, timeout_s=START_TIMEOUT_S, process=self._process)
        except Failure as failure:
            raise Failure(f"{failure.what}\n{_essence(self.log())}", _remedy(self._folder)) from None

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a frozen one hears nothing else
            process.send_signal(how)
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._tell_guardian("")

    def _tell_guardian(self, line: str) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.write(line.encode() + b"\n")
                self._guardian.stdin.flush()


def wait_until_serving(
    bootstrap: str,
    *,
    timeout_s: float,
    process: subprocess.Popen[bytes] | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Return when a broker at one of `bootstrap`'s addresses answers; raises Failure after `timeout_s`.

    A KRaft broker opens its port early but answers only when it has caught up with the metadata log.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if any(answers(address, tls=tls) for address in bootstrap.split(",")):
            return
        if process is not None and process.poll() is not None:
            raise Failure(f"Kafka ended with status {process.returncode} while starting")
        if time.monotonic() > deadline:
            raise Failure(
                f"no Kafka answers at {bootstrap}",
                "start it, or set HRNN_KAFKA_BOOTSTRAP to the host:port of one that runs",
            )
        time.sleep(0.1)


def answers(address: str, *, timeout_s: float = 2.0, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a Kafka broker at host:port answers an ApiVersions request, which needs no authentication."""
    name, _, port = address.strip().rpartition(":")
    host = name.strip("[]")
    # size, api key 18, version 0, correlation id, client id
    request = struct.pack(">ihhih4s", 14, 18, 0, 7, 4, b"hrnn")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=timeout_s) as plain,
            tls.wrap_socket(plain, server_hostname=host) if tls else plain as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(request)
            head = answer.read(8)
    except (OSError, ValueError):
        return False
    return len(head) == 8 and struct.unpack(">ii", head)[1] == 7


def _start_guardian(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARDIAN, "hrnn-kafka-guardian", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # it must survive the signal that ends us
    )


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise Failure(f"no free port among {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1", "end what occupies them")


def _essence(log: str) -> str:
    """Take the last lines that a person can do something with out of a JVM's output: no stack frames."""
    lines = [line for line in log.splitlines() if line.strip() and not line.lstrip().startswith(("at ", "..."))]
    return "\n".join(lines[-6:])


def _remedy(folder: Path) -> str:
    space = f"it needs 1 GB of memory and space in {folder.parent}"
    return f"{space}; or set HRNN_KAFKA_BOOTSTRAP to a broker that runs"
