"""Three real Kafka brokers on this machine, which can be killed, frozen and restarted by number.

with LocalCluster() as cluster:
    cluster.kill(2)
    cluster.restart(2)
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from stream.demo.broker import BROKER_SETTINGS, free_ports, new_cluster_id, wait_for_node
from stream.demo.broker_node import BrokerNode

BROKERS = 3
HEAP_MB = 350

# Two of three copies must have a write: one broker may fail without loss or a stop.
_REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class LocalCluster:
    """Brokers 1 to 3, which are also controllers, on loopback. They end like a `LocalKafka`."""

    def __init__(self, *, settings: Mapping[str, str] | None = None, environ: Mapping[str, str] = os.environ) -> None:
        """`settings` are broker properties that override the defaults."""
        self._environ = environ
        self._settings = dict(settings or {})
        self._nodes: dict[int, BrokerNode] = {}
        self.addresses: dict[int, str] = {}

    @property
    def bootstrap(self) -> str:
        """The addresses to connect to, host:port,…"""
        return ",".join(self.addresses.values())

    @property
    def running(self) -> list[int]:
        """The brokers with a running JVM, including frozen ones."""
        return [number for number, node in self._nodes.items() if node.pid is not None]

    def __enter__(self) -> Self:
        """Start the brokers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them and delete their data."""
        self.stop()

    def start(self) -> None:
        """Start all brokers and return when each serves."""
        numbers, ports = range(1, BROKERS + 1), free_ports(2 * BROKERS)
        self.addresses = {number: f"127.0.0.1:{ports[number - 1]}" for number in numbers}
        controllers = {number: f"127.0.0.1:{ports[BROKERS + number - 1]}" for number in numbers}
        voters = ",".join(f"{number}@{address}" for number, address in controllers.items())
        cluster_id = new_cluster_id()
        atexit.register(self.stop)
        try:
            for number in numbers:
                self._nodes[number] = node = BrokerNode(heap_mb=HEAP_MB, environ=self._environ)
                settings = {
                    **BROKER_SETTINGS,
                    **_REPLICATED,
                    "node.id": str(number),
                    "listeners": f"PLAINTEXT://{self.addresses[number]},CONTROLLER://{controllers[number]}",
                    "advertised.listeners": f"PLAINTEXT://{self.addresses[number]}",
                    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                    "controller.quorum.voters": voters,
                    **self._settings,
                }
                node.format(settings, cluster_id)
            for node in self._nodes.values():  # launch all before waiting: one alone has no quorum
                node.launch()
            for number, node in self._nodes.items():
                wait_for_node(node, self.addresses[number])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all brokers and delete their data."""
        atexit.unregister(self.stop)
        for node in self._nodes.values():
            node.end(signal.SIGKILL)
        for node in self._nodes.values():
            node.remove()
        self._nodes.clear()

    def kill(self, number: int) -> None:
        """Kill a broker like a power cut, keeping its data for `restart`."""
        self._nodes[number].end(signal.SIGKILL)

    def restart(self, number: int) -> None:
        """Start a broker again on the same data and port, and return when it serves. A running one is stopped first."""
        node = self._nodes[number]
        node.end(signal.SIGTERM)
        node.launch()
        wait_for_node(node, self.addresses[number])

    def pause(self, number: int) -> None:
        """Freeze a broker until `resume`."""
        self._nodes[number].signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Resume a frozen broker."""
        self._nodes[number].signal(signal.SIGCONT)

    def log(self, number: int) -> str:
        """Return a broker's log so far."""
        return self._nodes[number].log()
