"""The worker, top to bottom: app, tables, channels, agent, timers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from typing import Any

import mode
import torch
from faust.types import StreamT
from faust.worker import Worker
from models.recommender import Recommender
from prometheus_client import CollectorRegistry

from models import state
from models.contracts import Topics
from stream.changelog import Changelog
from stream.delivery import Batch, BatchApp
from stream.model_feed import ModelFeed
from stream.recovery import BatchTableManager
from stream.settings import WorkerSettings
from stream.telemetry import Telemetry
from stream.topic_check import check_topics
from stream.user_stage import PausedTooLong, UserStage

log = logging.getLogger(__name__)

FOREIGN_CHECK_S = 10.0  # far below the changelog's min.compaction.lag.ms: a stale record is mended before it is kept
MAX_REQUEST_BYTES = 6 * 2**20  # a dead letter carries its record, of up to 4 MiB, with headers


def make_app(settings: WorkerSettings) -> BatchApp:
    """Configure Faust; no topic is declared by it, they are made by `hrnn topics create`."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    app = BatchApp(
        settings.topics.app_id,
        TableManager=BatchTableManager,
        broker=[f"kafka://{broker}" for broker in settings.kafka_bootstrap.split(",")],
        store="rocksdb://",
        datadir=str(settings.data_dir.absolute()),
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,  # Faust's standbys lose state
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_request_timeout=max(90.0, settings.session_timeout_s + 1),
        broker_commit_interval=1.0,
        broker_max_poll_records=settings.max_poll_records,
        consumer_group_instance_id=settings.instance_id,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.0,  # batches are made here; waiting would only add latency
        producer_max_batch_size=256 * 1024,
        producer_max_request_size=MAX_REQUEST_BYTES,
        # below the session timeout: what waited through a pause expires in the producer instead of being written late
        producer_request_timeout=settings.session_timeout_s * 0.8,
        stream_recovery_delay=0.0,
        web_enabled=False,
        web_tables_enabled=False,
        web_router_enabled=False,
        web_bind="127.0.0.1",
    )
    app.sources = {}
    app.client_options = settings.client_options()
    return app


class StreamWorker:
    """One worker process: made, then run; `registry`, `alive` and `ready` are for the HTTP endpoints."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Check the topics, then build the app; raises TopicsNotReady."""
        self._settings = settings
        self._telemetry = telemetry = Telemetry()
        self.registry: CollectorRegistry = telemetry.registry
        torch.set_num_threads(settings.torch_threads)
        self._partitions = asyncio.run(check_topics(settings.topics, settings.client_options()))
        self._beat = time.monotonic()
        self.app = app = make_app(settings)
        self._topics: Topics = settings.topics

        users = app.Table(
            "users",
            partitions=self._partitions,
            key_type=bytes,
            value_type=bytes,
            options={
                "block_cache_size": settings.block_cache_bytes,
                "write_buffer_size": settings.write_buffer_bytes,
            },
        )
        self._changelog = changelog = Changelog(users, state.applied_offset, app.client_options, telemetry.foreign.inc)
        self._feed = feed = ModelFeed(settings.topics.models, app.client_options, telemetry)
        recommender = Recommender(
            settings.session_rules,
            top_k=settings.top_k,
            exclude_seen=settings.exclude_seen,
            asking_gap_s=settings.asking_gap_s,
        )
        stage = UserStage(app, changelog, recommender, feed, telemetry, settings.topics, self._partitions)

        batches = app.channel(maxsize=0)
        app.sources[settings.topics.interactions] = batches
        app.tables.changelogs.append((changelog, settings.topics.interactions))

        @app.agent(batches, name="users", supervisor_strategy=mode.CrashingSupervisor)
        async def recommend(stream: StreamT[Batch]) -> None:
            follow = asyncio.ensure_future(feed.follow())
            follow.add_done_callback(self._crash_with)
            await feed.caught_up()
            async for batch in stream:
                if not app.consumer.begin(batch):
                    continue
                try:
                    await stage.process(batch)
                except PausedTooLong:
                    telemetry.given_back.inc()
                    log.warning("paused for longer than the session timeout, batch given back")
                    await app.consumer.give_back(batch)
                else:
                    app.consumer.finished(batch)

        @app.timer(1.0)
        async def watch() -> None:
            self._observe()

        @app.timer(FOREIGN_CHECK_S)
        async def look_for_foreign() -> None:
            if not app.rebalancing and app.tables.recovery.completed.is_set():
                await changelog.look_for_foreign(app.producer._ensure_producer())

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit status: 0 after a clean stop, 1 after a crash."""
        worker = BoundedWorker(
            self.app,
            loglevel="info",  # at warn or error Faust sets the root logger to debug, for its spinner
            override_logging=False,
            redirect_stdouts=False,
            quiet=True,
        )
        worker.stop_timeout_s = self._settings.stop_timeout_s
        try:
            worker.execute_from_commandline()
        except SystemExit as stop:
            return int(stop.code or 0)
        except Exception:
            log.exception("worker crashed; what was not committed will be delivered again")
            return 1

    def alive(self) -> bool:
        """Tell whether the loop runs: its heartbeat is younger than a batch could make it."""
        return time.monotonic() - self._beat < 60.0

    def ready(self) -> bool:
        """Tell whether events are served: restored, assigned, and the published model in use."""
        app = self.app
        return (
            app.tables.recovery.completed.is_set()
            and not app.rebalancing
            and not app.tables.recovery.in_recovery
            and self._feed.is_caught_up
            and bool(self._changelog.last_known)
        )

    def _observe(self) -> None:
        self._beat = time.monotonic()
        telemetry, consumer = self._telemetry, self.app.consumer
        telemetry.restore_remaining.set(self.app.tables.restore_remaining)
        ready = self.ready()
        telemetry.set_recovery_state(
            "running" if ready else "restoring" if self.app.tables.recovery.in_recovery else "waiting"
        )
        for tp, offset in consumer.next_to_finish.items():
            highwater = consumer.highwater(tp)
            if highwater is not None:
                telemetry.lag_records.labels(tp.topic, tp.partition).set(max(0, highwater - offset))

    def _crash_with(self, task: asyncio.Future[Any]) -> None:
        """End the worker when the feed does: a worker that can't follow the models would serve an old one for ever."""
        if not task.cancelled() and (error := task.exception()):
            asyncio.ensure_future(self.app.crash(error))


class BoundedWorker(Worker):
    """Faust's worker, whose stop ends the process when it takes too long: the uncommitted is delivered again."""

    stop_timeout_s: float

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        timer = threading.Timer(self.stop_timeout_s, self._end)
        timer.daemon = True
        timer.start()
        super()._schedule_shutdown(signal)

    def _end(self) -> None:
        log.error("stop took longer than %.0f s, ending now", self.stop_timeout_s)
        os._exit(1)
