"""A process's own small web: /metrics for Prometheus, /healthz and /readyz for whoever supervises it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, disable_created_metrics, generate_latest

from stream.commands.failures import Failure

Verdict = Callable[[], str]
"""Answers "" when all is well, else what is not, sent with status 503. Called on the server's threads."""


def _well() -> str:
    return ""


class MetricsServer:
    """An HTTP server on threads of its own, so that a busy event loop does not delay a probe.

    `port` 0 takes any free port; `address` says which. Bound to loopback unless told otherwise.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        port: int,
        bind: str = "127.0.0.1",
        healthy: Verdict = _well,
        ready: Verdict = _well,
    ) -> None:
        """Bind at once, so that a taken port fails the start; raises Failure."""
        # a time of creation for each counter doubles the series, and Prometheus tells restarts without it
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
                    status, kind, body = 404, "text/plain", b"here are /metrics, /healthz and /readyz\n"
                else:
                    status, kind, body = page()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing: a probe every few seconds is no news."""

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
        """The host:port that it is bound to."""
        host, port = self._server.server_address[:2]
        return f"{host if isinstance(host, str) else host.decode()}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5.0)
        self._server.server_close()

    def __enter__(self) -> Self:
        """Begin to answer."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop answering."""
        self.stop()


def _answer(verdict: Verdict) -> tuple[int, str, bytes]:
    wrong = verdict()
    return (503, "text/plain", f"{wrong}\n".encode()) if wrong else (200, "text/plain", b"ok\n")
