"""A real single-node Apache Kafka for the demo and the tests. It leaves nothing behind.

with LocalKafka() as kafka:
    produce_to(kafka.bootstrap)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.commands.failures import Failure
from stream.demo.broker_node import BrokerNode, essence

START_TIMEOUT_S = 90.0  # 4 s on an idle machine; two busy cores can take ten times as long
PORTS = range(20_000, 32_000)  # below Linux's range for outgoing connections, so that the port is free at a restart

# Size limits are Kafka's defaults, as on most brokers.
BROKER_SETTINGS = {
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
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.threads": "1",
    "log.cleaner.backoff.ms": "500",  # compaction within a test's time
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # 128 MiB by default, a quarter of the heap
    "log.segment.delete.delay.ms": "1000",
    "log.index.size.max.bytes": str(1024 * 1024),
}


class LocalKafka:
    """One Kafka broker and controller on loopback, or the one that HRNN_KAFKA_BOOTSTRAP names.

    Its data are in a temporary folder, which is deleted at the end. It ends with `stop`, with the `with` block, at the
    exit of the process, and when the process is killed.
    """

    def __init__(
        self,
        *,
        own: bool = False,
        settings: Mapping[str, str] | None = None,
        listeners: Sequence[str] = (),
        advertised: Mapping[str, str] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`own` starts a broker even if the environment names one (fault tests kill it).

        `settings` are broker properties that override the defaults. `listeners` are further security protocols beside
        plain text. `advertised` are further plain listeners by name, with the address (of a proxy) that their clients
        get. `addresses` has the addresses of all listeners.
        """
        self._environ = environ
        self._advertised = dict(advertised or {})
        self._listeners = (*listeners, *self._advertised)
        self.addresses: dict[str, str] = {}
        self._settings = dict(settings or {})
        self._external = None if own else (environ.get("HRNN_KAFKA_BOOTSTRAP") or None)
        self._bootstrap = self._external or ""
        self._node: BrokerNode | None = None

    @property
    def bootstrap(self) -> str:
        """The address to connect to, host:port; empty before `start`."""
        return self._bootstrap

    @property
    def external(self) -> bool:
        """Whether this is the environment's broker, which is neither started nor stopped here."""
        return self._external is not None

    @property
    def pid(self) -> int | None:
        """The JVM's process id while it runs."""
        return None if self._node is None else self._node.pid

    @property
    def folder(self) -> Path | None:
        """The folder of its data; None for an external broker."""
        return None if self._node is None else self._node.folder

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
        """Fetch the jars if needed, start the broker and return when it serves."""
        if self.external:
            wait_until_serving(self._bootstrap, timeout_s=10.0)
            return
        if self._node is not None:
            raise RuntimeError("this broker was started before; restart() starts it again on the same data")
        self._node = node = BrokerNode(environ=self._environ)
        atexit.register(self.stop)
        try:
            node.format(self._properties(), new_cluster_id())
            self._launch(node)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the broker and delete its data; does nothing if it is not running."""
        atexit.unregister(self.stop)
        node, self._node = self._node, None
        if node is not None:
            node.remove()

    def kill(self) -> None:
        """Kill the broker like a power cut, keeping its data for `restart`."""
        self._own("kill").end(signal.SIGKILL)

    def shut_down(self) -> None:
        """Stop the broker cleanly, keeping its data for `restart`."""
        self._own("shut down").end(signal.SIGTERM)

    def restart(self) -> None:
        """Start the broker again on the same data and ports, and return when it serves.

        A running broker is stopped first. After `kill` it takes 9 s longer: the controller waits for the timeout of the
        killed broker's session (broker.session.timeout.ms).
        """
        node = self._own("restart")
        if node.pid is not None:
            self.shut_down()
        self._launch(node)

    def pause(self) -> None:
        """Freeze the broker until `resume`."""
        self._own("pause").signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen broker."""
        self._own("resume").signal(signal.SIGCONT)

    def log(self) -> str:
        """The broker's log so far."""
        return "" if self._node is None else self._node.log()

    def _own(self, verb: str) -> BrokerNode:
        if self.external:
            raise Failure(f"can't {verb} the broker at {self._bootstrap}: it is external", "unset HRNN_KAFKA_BOOTSTRAP")
        if self._node is None:
            raise RuntimeError(f"can't {verb} a broker that was never started")
        return self._node

    def _properties(self) -> dict[str, str]:
        names = ("PLAINTEXT", *self._listeners)
        controller, *ports = free_ports(1 + len(names))
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
        self._bootstrap = self.addresses["PLAINTEXT"]
        protocols = {name: "PLAINTEXT" if name in self._advertised else name for name in names}
        return {
            **BROKER_SETTINGS,
            "listeners": f"{_listeners(self.addresses)},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", *(f"{name}:{protocol}" for name, protocol in protocols.items())]
            ),
            "advertised.listeners": _listeners(self.addresses | self._advertised),
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            **self._settings,
        }

    def _launch(self, node: BrokerNode) -> None:
        node.launch()
        wait_for_node(node, self._bootstrap)


def _listeners(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


def new_cluster_id() -> str:
    """Return a random cluster id."""
    return "h" + secrets.token_urlsafe(16)[:21]  # an id that begins with a dash would be read as an option


def wait_for_node(node: BrokerNode, bootstrap: str) -> None:
    """Wait until a launched node serves; raises Failure with the end of its log."""
    try:
        wait_until_serving(bootstrap, timeout_s=START_TIMEOUT_S, process=node.process)
    except Failure as failure:
        raise Failure(f"{failure.what}\n{essence(node.log())}", node.remedy()) from None


def wait_until_serving(
    bootstrap: str,
    *,
    timeout_s: float,
    process: subprocess.Popen[bytes] | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Wait until a broker at one of `bootstrap`'s addresses answers; raises Failure after `timeout_s`.

    A KRaft broker opens its port early but answers only after it has read the metadata log.
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


def free_ports(count: int) -> list[int]:
    """Return free ports that a restarted broker can use again."""
    found: list[int] = []
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise Failure(f"no free port from {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1", "stop the processes using them")
