"""A TCP proxy in front of a broker, whose line can be cut in either direction without either side being told."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Forwards connections to a broker; while it is cut, bytes are held back and no connection is closed."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._target = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._requests, self._answers = asyncio.Event(), asyncio.Event()
        self.heal()

    async def start(self, target: str) -> None:
        """Listen, and forward to host:port."""
        self._target = target
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def __aenter__(self) -> Self:
        """Begin, without a target yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        self.reset()

    def cut(self, *, requests: bool = True, answers: bool = True) -> None:
        """Let nothing through any more, in one direction or both."""
        if requests:
            self._requests.clear()
        if answers:
            self._answers.clear()

    def heal(self) -> None:
        """Let through what was held back, and all that follows."""
        self._requests.set()
        self._answers.set()

    def reset(self) -> None:
        """Close all connections, as a firewall does that has forgotten them."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        try:
            from_broker, to_broker = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        self._writers |= {writer, to_broker}
        for source, sink, gate in ((reader, to_broker, self._requests), (from_broker, writer, self._answers)):
            task = asyncio.create_task(_pump(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            await gate.wait()
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError):
        sink.close()
