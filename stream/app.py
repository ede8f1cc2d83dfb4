"""The worker, top to bottom: app, tables, channels, agent, timers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from typing import Any, cast

import mode
import torch
from aiokafka.errors import KafkaError
from faust.types import StreamT
from faust.worker import Worker
from prometheus_client import CollectorRegistry

from models import state
from models.recommender import Recommender
from stream.changelog import Changelog
from stream.delivery import Batch, BatchApp
from stream.model_feed import ModelFeed
from stream.recovery import BatchTableManager
from stream.settings import WorkerSettings
from stream.telemetry import Telemetry
from stream.topic_check import check_topics
from stream.user_stage import NotSent, Sending, UserStage

log = logging.getLogger(__name__)

FOREIGN_CHECK_S = 10.0  # far below the changelog's min.compaction.lag.ms: a stale record is mended before it is kept
OBSERVE_EVERY_S = 0.25
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
    """One worker process: made, then run; `registry`, `healthy` and `ready` are for the HTTP endpoints."""

    def __init__(self, settings: WorkerSettings, recommender: Recommender | None = None) -> None:
        """Check the topics, then build the app; raises TopicsNotReady."""
        self._settings = settings
        self._telemetry = telemetry = Telemetry()
        self.registry: CollectorRegistry = telemetry.registry
        torch.set_num_threads(settings.torch_threads)
        self._partitions = asyncio.run(check_topics(settings.topics, settings.client_options()))
        self._beat = time.monotonic()
        self._not_ready = "starting"
        self._tasks: list[asyncio.Future[None]] = []
        self.app = app = make_app(settings)
        app.on_hole = telemetry.holes.inc
        self._tables = cast(BatchTableManager, app.tables)
        self._tables.on_ready = telemetry.restore_duration.observe

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
        recommender = recommender or Recommender(
            settings.session_rules,
            top_k=settings.top_k,
            exclude_seen=settings.exclude_seen,
            asking_gap_s=settings.asking_gap_s,
        )
        stage = UserStage(app, changelog, recommender, feed, telemetry, settings.topics, self._partitions)

        batches = app.channel(maxsize=0)
        app.sources[settings.topics.interactions] = batches
        self._tables.changelogs.append((changelog, settings.topics.interactions))

        @app.agent(batches, name="users", supervisor_strategy=mode.CrashingSupervisor)
        async def recommend(stream: StreamT[Batch]) -> None:
            for task in (feed.follow(), self._observe_for_ever()):
                future = asyncio.ensure_future(task)
                future.add_done_callback(self._crash_with)
                self._tasks.append(future)
            await feed.caught_up()
            consumer = app.batch_consumer
            confirming: asyncio.Future[None] | None = None
            async for batch in stream:
                if not await consumer.begin(batch):
                    continue
                try:
                    sending = await stage.decide_and_send(batch)
                except NotSent as why:
                    await self._give_back(batch, why)
                    continue
                if confirming is not None:
                    await confirming
                # in the background: the next batch is decided while the broker acks this one
                confirming = asyncio.ensure_future(self._confirm(stage, sending))
                confirming.add_done_callback(self._crash_with)

        @app.timer(FOREIGN_CHECK_S)  # type: ignore[untyped-decorator]
        async def look_for_foreign() -> None:
            if not app.rebalancing and self._tables.recovery.completed.is_set():
                try:
                    await changelog.look_for_foreign(app.kafka_producer(), lambda: app.batch_consumer.busy)
                except KafkaError as error:
                    log.warning("could not look for another worker's writes, will again: %s", error)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit status: 0 after a clean stop, 1 after a crash."""
        worker = BoundedWorker(
            self.app,
            loglevel="info",  # at warn or error Faust sets the root logger to debug, for its spinner
            override_logging=False,
            redirect_stdouts=False,
            quiet=True,
        )
        worker.spinner = None  # it writes to the terminal, or to the log
        worker.stop_timeout_s = self._settings.stop_timeout_s
        try:
            worker.execute_from_commandline()
        except SystemExit as stop:
            return int(stop.code or 0)
        except Exception:
            log.exception("worker crashed; what was not committed will be delivered again")
            return 1

    def healthy(self) -> str:
        """Say what is wrong with the process itself, "" if nothing is: the loop's heartbeat, not the lag."""
        silent_s = time.monotonic() - self._beat
        return "" if silent_s < 60.0 else f"the event loop has not run for {silent_s:.0f} s"

    def ready(self) -> str:
        """Say why events are not served, "" if they are."""
        return self._not_ready

    def _why_not_ready(self) -> str:
        recovery = self._tables.recovery
        if not self._changelog.last_known:
            return "no partition is assigned"
        if self.app.rebalancing or recovery.in_recovery or not recovery.completed.is_set():
            return f"restoring, {self._tables.restore_remaining} records remain"
        return "" if self._feed.is_caught_up else "the models topic has not been read yet"

    async def _confirm(self, stage: UserStage, sending: Sending) -> None:
        try:
            await stage.confirm(sending)
        except NotSent as why:
            await self._give_back(sending.batch, why)
        else:
            self.app.batch_consumer.finished(sending.batch)

    async def _give_back(self, batch: Batch, why: NotSent) -> None:
        self._telemetry.given_back.inc()
        log.warning("batch will be read again: %s", why)
        await self.app.batch_consumer.give_back(batch)

    async def _observe_for_ever(self) -> None:
        while True:
            self._observe()
            await asyncio.sleep(OBSERVE_EVERY_S)

    def _observe(self) -> None:
        self._beat = time.monotonic()
        # kept here for the threads that ask: Faust's objects, some made when first asked for, are the loop's alone
        self._not_ready = self._why_not_ready()
        telemetry, consumer = self._telemetry, self.app.batch_consumer
        telemetry.restore_remaining.set(self._tables.restore_remaining)
        restoring = self._tables.recovery.in_recovery
        telemetry.set_recovery_state("restoring" if restoring else "waiting" if self._not_ready else "running")
        telemetry.set_lag(consumer.lag(time.time()))
        telemetry.set_volume(self._settings.data_dir)

    def _crash_with(self, task: asyncio.Future[Any]) -> None:
        """End the worker when the feed does: a worker that can't follow the models would serve an old one for ever."""
        if not task.cancelled() and (error := task.exception()):
            self._tasks.append(asyncio.ensure_future(self.app.crash(error)))


class BoundedWorker(Worker):
    """Faust's worker, whose stop ends the process when it takes too long: the uncommitted is delivered again."""

    stop_timeout_s: float

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        self._bound_the_stop()
        super()._schedule_shutdown(signal)

    async def crash(self, reason: BaseException) -> None:
        """Stop because of an error; that, too, in bounded time."""
        self._bound_the_stop()
        await super().crash(reason)

    def _bound_the_stop(self) -> None:
        timer = threading.Timer(self.stop_timeout_s, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        log.error("stop took longer than %.0f s, ending now", self.stop_timeout_s)
        os._exit(1)
