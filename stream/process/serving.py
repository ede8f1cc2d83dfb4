"""Serve /metrics for Prometheus, and /healthz and /readyz for the supervisor, over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, disable_created_metrics, generate_latest

from stream.commands.failures import Failure

Verdict = Callable[[], str]
"""Returns "" if all is well, else the reason, which is sent with status 503. Called on the server's threads."""


class MetricsServer:
    """An HTTP server on its own threads, so that a busy event loop does not delay a probe.

    `port` 0 means any free port, which `address` returns.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        port: int,
        bind: str = "127.0.0.1",
        healthy: Verdict = str,
        ready: Verdict = str,
    ) -> None:
        """Bind the port; raises Failure if it is in use."""
        # a creation time for each counter doubles the series, and Prometheus finds restarts without it
        disable_created_metrics()  # type: ignore[no-untyped-call]
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _answer(healthy),
            "/readyz": lambda: _answer(ready),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                if page is None:
                    status, kind, body = 404, "text/plain", b"served paths: /metrics, /healthz, /readyz\n"
                else:
                    status, kind, body = page()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing: probes come every few seconds."""

        try:
            self._server = ThreadingHTTPServer((bind, port), Handler)
        except OSError as error:
            raise Failure(
                f"can't serve metrics on {bind}:{port}: {error.strerror}",
                "set HRNN_METRICS_PORT to a free port, or to 0 for any",
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )

    @property
    def address(self) -> str:
        """The bound host:port."""
        host, port = self._server.server_address[:2]
        return f"{host if isinstance(host, str) else host.decode()}:{port}"

    def start(self) -> None:
        """Start the server."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5.0)
        self._server.server_close()

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()


def _answer(verdict: Verdict) -> tuple[int, str, bytes]:
    wrong = verdict()
    return (503, "text/plain", f"{wrong}\n".encode()) if wrong else (200, "text/plain", b"ok\n")
