"""`hrnn worker` and `hrnn trainer`: the two processes that run for long."""

from __future__ import annotations

import typer

from stream.cli.options import note


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("worker")(worker)
    app.command("trainer")(trainer)


def worker() -> None:
    """Read events, keep users' states, emit lists, until SIGTERM; as many workers as there are partitions can share.

    All its settings come from the environment: HRNN_KAFKA_BOOTSTRAP, HRNN_DATA_DIR, HRNN_TOP_K, HRNN_METRICS_PORT…
    """
    from stream.app import StreamWorker
    from stream.cli.connection import require_broker
    from stream.cli.environment import load
    from stream.cli.failures import Failure
    from stream.cli.serving import MetricsServer
    from stream.settings import WorkerSettings
    from stream.topic_check import TopicsNotReady

    settings = load(WorkerSettings)
    require_broker(settings.kafka_bootstrap, timeout_s=30.0)
    try:
        process = StreamWorker(settings)
    except TopicsNotReady as error:
        raise Failure(str(error)) from None
    server = MetricsServer(
        process.registry,
        port=settings.metrics_port,
        bind=settings.metrics_bind,
        healthy=process.healthy,
        ready=process.ready,
    )
    with server:
        note(f"metrics at http://{server.address}/metrics")
        raise typer.Exit(process.run())


def trainer(
    once: bool = typer.Option(False, "--once", help="Train and publish once if the gate allows, then exit."),
) -> None:
    """Fit models to the sessions that the stream writes, and publish those that the gate lets through."""
    raise NotImplementedError(once)
