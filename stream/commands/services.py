"""`hrnn worker` and `hrnn trainer`: the two services."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

import typer

from stream.commands.failures import Failure
from stream.commands.options import Json, note, results

log = logging.getLogger(__name__)

BROKER_TIMEOUT_S = 30.0  # Kafka may be starting at the same time
TRAINER_STOP_S = 10.0  # a third of Kubernetes' default grace period


def worker() -> None:
    """Read events, keep users' states and send lists, until SIGTERM. Up to one worker per partition shares the load.

    All settings come from the environment: HRNN_KAFKA_BOOTSTRAP, HRNN_DATA_DIR, HRNN_TOP_K, HRNN_METRICS_PORT…
    `hrnn settings` lists them.
    """
    from stream.app import StreamWorker
    from stream.commands.environment import load
    from stream.process.serving import MetricsServer
    from stream.settings import WorkerSettings
    from stream.source.topic_check import TopicsNotReady

    settings = load(WorkerSettings)
    require_folder(settings.data_dir)
    process = StreamWorker(settings)
    server = MetricsServer(
        process.registry,
        port=settings.metrics_port,
        bind=settings.metrics_bind,
        healthy=process.healthy,
        ready=process.ready,
    )
    with server:
        log.info("metrics at http://%s/metrics", server.address)
        try:
            status = process.run()
        except TopicsNotReady as error:
            raise Failure(str(error)) from None
        # the loop that handled signals has ended: a second SIGTERM must not turn a clean stop into a failure
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # everything is written; a regular exit of Python with torch takes seconds that users would wait for
    logging.shutdown()
    os._exit(status)


def require_folder(path: Path) -> None:
    """Create the folder of the stores and check that it is writable; raises Failure."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Failure(
            f"can't write in {path}: {error.strerror}", "set HRNN_DATA_DIR to a folder that this user can write to"
        ) from None


def trainer(
    once: bool = typer.Option(False, "--once", help="Train once, publish if the gate accepts the model, and exit."),
    as_json: Json = False,
) -> None:
    """Fit models to the sessions of the stream, and publish each model that is no worse than the serving one.

    Without --once it runs until SIGTERM. It trains when HRNN_TRAIN_INTERVAL_S has passed and there are
    HRNN_TRAIN_MIN_NEW_EVENTS new events. `hrnn settings` lists all settings. With --once the exit status is 0 if a
    model was published or rejected by the gate, 1 if none could be trained.
    """
    from stream.clients.connection import explained, require_broker
    from stream.commands.environment import load
    from trainer.settings import FittingSettings, TrainerSettings

    settings = load(TrainerSettings, fitting=load(FittingSettings))
    if once:  # the service waits without a limit
        require_broker(settings.kafka_bootstrap, timeout_s=BROKER_TIMEOUT_S)

    from stream.clients.connection import missing_topic
    from stream.process.serving import MetricsServer
    from trainer.data.copy_file import CopyUnusable
    from trainer.data.log_reader import TopicMissing
    from trainer.service.service import TrainerService

    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        # a fit stops at its next chunk, but counting signals or an evaluation does not. Exiting loses nothing: the copy
        # of the sessions is transactional, and a model is published only with its pointer
        bound = threading.Timer(TRAINER_STOP_S, os._exit, (0,))
        bound.daemon = True
        bound.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        service = TrainerService(settings, stopping=stopping)
    except CopyUnusable as error:
        raise Failure(str(error), "correct HRNN_TRAINER_DIR, or unset it to keep the copy in memory") from None
    try:
        if once:
            with explained(settings.kafka_bootstrap):
                run = service.run_once()
            if as_json:
                results(json.dumps(asdict(run)))
            if run.result in ("skipped", "stopped"):
                raise Failure(f"nothing was trained: {run.reason}", "produce events and run a worker that reads them")
            note(f"{run.result} {run.version}: {run.reason}" if run.version else f"{run.result}: {run.reason}")
        else:
            server = MetricsServer(
                service.registry, port=settings.metrics_port, bind=settings.metrics_bind, ready=service.ready
            )
            with server:
                log.info("metrics at http://%s/metrics", server.address)
                service.run()
    except TopicMissing as error:
        raise missing_topic(settings.kafka_bootstrap, settings.topics.sessions) from error
    except TimeoutError as error:
        raise Failure(str(error), "run `hrnn doctor`") from None
    finally:
        service.close()
