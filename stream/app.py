"""The worker: Faust app, tables, feeds, stages, channels, agents and timers."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import quote

import faust
import mode
import torch
from faust.types import StreamT
from faust.types.auth import CredentialsT
from prometheus_client import CollectorRegistry

from models.items import signals
from models.recommending.recommender import Recommender
from models.records import BROKER_MAX_BYTES
from models.users import state
from stream.faust_patches.assignor import BatchAssignor
from stream.faust_patches.changelog import Changelog
from stream.faust_patches.delivery import Batch, BatchApp, Source
from stream.faust_patches.recovery import BatchTableManager
from stream.faust_patches.stores import StoreFailed
from stream.feeds.item_topic import BadItems, ItemTopic
from stream.feeds.items import ItemFeed
from stream.feeds.models import ModelFeed
from stream.feeds.signals import SignalFeed
from stream.process.bounded_stop import BoundedWorker, Watchdog
from stream.process.health import Health, Unwell
from stream.process.retrying import Retries, is_transient
from stream.process.start import wait_for_topics
from stream.settings import WorkerSettings
from stream.source.log_epochs import LogEpochs
from stream.source.stream_clock import StreamClock
from stream.source.topic_check import TopicFacts, TopicReader, read_by_users
from stream.source.topic_watch import TopicWatch
from stream.stages.items import ItemStage
from stream.stages.origins import Origins
from stream.stages.requests import RequestStage
from stream.stages.sending import NotSent
from stream.stages.users import UserStage
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

FOREIGN_CHECK_S = 10.0  # far below the changelog's min.compaction.lag.ms: stale records are replaced before compaction
OBSERVE_EVERY_S = 0.25
# New objects between two garbage collections. A batch makes 20,000 objects and no cycles. Python's default of 700, with
# a full collection every hundredth time, took a quarter of a worker's time, in pauses of up to 0.3 s.
COLLECT_EVERY = 50_000


def make_app(settings: WorkerSettings) -> BatchApp:
    """Configure Faust. It creates no topics: `hrnn topics create` does."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    app = BatchApp(
        settings.topics.app_id,
        TableManager=BatchTableManager,
        PartitionAssignor=BatchAssignor,
        canonical_url=_member_url(settings.instance_id),
        broker=[f"kafka://{broker}" for broker in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(settings),
        store="rocksdb://",
        datadir=str(settings.data_dir.absolute()),
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,  # Faust's standbys lose state
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        # a join takes up to the rebalance timeout; more would only prolong the wait for an unreachable host
        broker_request_timeout=settings.rebalance_timeout_s + settings.session_timeout_s + 5.0,
        broker_commit_interval=1.0,
        broker_max_poll_records=settings.max_poll_records,
        consumer_group_instance_id=settings.instance_id,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.0,  # this worker builds the record batches; waiting would only add latency
        producer_max_batch_size=256 * 1024,
        producer_max_request_size=BROKER_MAX_BYTES,
        # below the session timeout: records that waited through a pause expire instead of being written late
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


def _member_url(instance_id: str | None) -> str:
    """Return this member's URL in Faust's assignments. Nothing is ever fetched from it.

    Faust's default is the host name, which may change while a static member stays the same.
    """
    return f"http://worker/{quote(instance_id or uuid.uuid4().hex, safe='')}"


def _credentials(settings: WorkerSettings) -> CredentialsT | None:
    """Return Faust's form of the credentials in `client_options`."""
    options = settings.access_options()
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


class StreamWorker:
    """One worker process. `registry`, `healthy` and `ready` are for the HTTP endpoints."""

    def __init__(self, settings: WorkerSettings, recommender: Recommender | None = None) -> None:
        """Prepare a worker. Only `run` connects to Kafka."""
        self._settings = settings
        self._telemetry = Telemetry()
        self.registry: CollectorRegistry = self._telemetry.registry
        torch.set_num_threads(settings.torch_threads)
        self._recommender = recommender or Recommender(
            settings.session_rules,
            top_k=settings.top_k,
            exclude_seen=settings.exclude_seen,
            asking_gap_s=settings.asking_gap_s,
        )
        self._health: Health | None = None  # until a broker answers
        self._not_ready = "starting"
        self._tasks: list[asyncio.Future[None]] = []

    def _build(self, facts: TopicFacts, origins: Origins) -> None:
        settings, telemetry, recommender = self._settings, self._telemetry, self._recommender
        self._partitions = facts.partitions
        self.app = app = make_app(settings)
        self._health = Health(app)
        app.on_hole = telemetry.holes.inc
        app.on_starting = functools.partial(self._run_in_background, self._observe_forever)
        self._tables = cast(BatchTableManager, app.tables)
        self._tables.on_ready = telemetry.restore_duration.observe

        users = app.Table(
            "users", partitions=self._partitions, key_type=bytes, value_type=bytes, options=self._store_options()
        )
        items = app.Table(
            "items", partitions=self._partitions, key_type=bytes, value_type=bytes, options=self._store_options()
        )
        client = app.client_options
        user_states = Changelog(users, state.applied_offset, client, telemetry.foreign.inc)
        item_states = Changelog(items, signals.applied_offset, client, telemetry.foreign.inc)
        topics = settings.topics
        self._changelogs = {topics.interactions: user_states, topics.transitions: item_states}
        self._tables.changelogs += [(changelog, source) for source, changelog in self._changelogs.items()]

        reader = TopicReader(topics, client)
        epochs = LogEpochs(
            app=app,
            topics=topics,
            facts=facts,
            reader=reader,
            telemetry=telemetry,
            user_states=user_states,
            item_states=item_states,
        )
        app.starts_of, app.epoch_of = epochs.starts, epochs.of
        app.forwarding_topics = read_by_users(topics)
        watch = TopicWatch(app, self._tables, topics, epochs, telemetry)

        # one thread: the event loop still answers Kafka while a batch is computed, and batches stay in order
        thread, clock = ThreadPoolExecutor(1, "recommender"), StreamClock()
        self._signal_feed = signal_feed = SignalFeed(
            *(topics.signals, self._partitions, client, settings.signal_rules, settings.signal_interval_s),
            *(clock, telemetry, thread),
        )
        item_topic = ItemTopic(topics.items, facts.partitions_of[topics.items], client, settings.schema_of("items"))
        self._item_feed = item_feed = ItemFeed(item_topic, telemetry)
        bad_items = BadItems(item_topic, topics.dead_letters, item_states, self._partitions, telemetry)
        self._feed = feed = ModelFeed(topics.models, client, telemetry, signal_feed.adopt)
        user_stage = UserStage(
            *(app, user_states, recommender, signal_feed, item_feed, clock, telemetry, topics),
            *(self._partitions, thread, origins),
        )
        request_stage = RequestStage(
            *(app, user_stage, recommender, signal_feed, item_feed, telemetry, topics),
            *(self._partitions, thread, origins),
        )
        item_stage = ItemStage(app, item_states, settings.signal_rules, telemetry, topics, thread)

        events, requests, transitions = (app.channel(maxsize=0) for _ in range(3))
        app.sources[topics.interactions] = Source(events)
        app.sources[topics.requests] = Source(requests)
        app.sources[topics.transitions] = Source(transitions, gathered_s=settings.signal_interval_s)

        @app.agent(events, name="users", supervisor_strategy=mode.CrashingSupervisor)
        async def recommend(stream: StreamT[Batch]) -> None:
            self._run_in_background(feed.follow)
            self._run_in_background(signal_feed.follow)
            self._run_in_background(item_feed.follow)
            self._run_in_background(watch.follow)
            await signal_feed.caught_up()
            await item_feed.caught_up()
            await feed.caught_up()
            confirming: asyncio.Future[None] | None = None
            async for batch in stream:
                if not await app.batch_consumer.begin(batch):
                    continue
                try:
                    sending = await user_stage.decide_and_send(batch)
                except NotSent as why:
                    await self._requeue(batch, why)
                    continue
                if confirming is not None:
                    await confirming
                # in the background: the next batch is decided while the broker acknowledges this one
                confirming = asyncio.ensure_future(self._finish(batch, user_stage.confirm(sending)))
                confirming.add_done_callback(self._crash_with)

        @app.agent(requests, name="requests", supervisor_strategy=mode.CrashingSupervisor)
        async def answer(stream: StreamT[Batch]) -> None:
            await signal_feed.caught_up()
            await item_feed.caught_up()
            await feed.caught_up()
            async for batch in stream:
                if await app.batch_consumer.begin(batch):
                    await self._finish(batch, request_stage.answer_and_confirm(batch))

        @app.agent(transitions, name="items", supervisor_strategy=mode.CrashingSupervisor)
        async def count(stream: StreamT[Batch]) -> None:
            async for batch in stream:
                if await app.batch_consumer.begin(batch):
                    await self._finish(batch, item_stage.fold_and_confirm(batch))

        checks = [
            (changelog.check_foreign, Retries(f"check of {name} for another worker's writes"))
            for name, changelog in (("users", user_states), ("items", item_states))
        ]
        checks.append((item_stage.signal_topic.check_foreign, Retries("check of signals for another worker's writes")))
        checks.append((bad_items.send_new, Retries("sending dead letters of items")))

        @app.timer(FOREIGN_CHECK_S)  # type: ignore[untyped-decorator]
        async def check_foreign() -> None:
            if not app.rebalancing and self._tables.recovery.completed.is_set():
                producer = app.kafka_producer()
                for check, retries in checks:
                    try:  # each for itself: a failed check must not prevent the others
                        await check(producer)
                        retries.succeeded()
                    except StoreFailed as failure:
                        self._restore_again(failure)
                    except Exception as error:
                        if not (isinstance(error, NotSent) or is_transient(error)):
                            raise
                        retries.failed(error)  # the timer is the pause

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit status: 0 after a clean stop, 1 after a crash.

        Waits for a broker without a limit; raises TopicsNotReady if the topics are not usable.
        """
        found = wait_for_topics(self._settings, self._set_not_ready)
        if found is None:
            return 0
        self._build(*found)
        worker = BoundedWorker(
            self.app,
            loglevel="info",  # at warn or error Faust sets the root logger to debug
            override_logging=False,
            redirect_stdouts=False,
            quiet=True,
        )
        worker.spinner = None  # it writes to the terminal or to the log
        worker.stop_timeout_s = self._settings.stop_timeout_s
        log.info(
            "worker starting group=%s instance=%s kafka=%s partitions=%d data=%s",
            *(self.app.conf.id, self._settings.instance_id or "dynamic", self._settings.kafka_bootstrap),
            *(self._partitions, self._settings.data_dir),
        )
        gc.freeze()
        gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
        Watchdog(lambda: self.app.crashed, self._settings.stop_timeout_s).start()
        try:
            worker.execute_from_commandline()
        except SystemExit as stop:
            status = int(stop.code or 0)
        except Exception:
            log.exception("worker crashed, uncommitted events will be delivered again")
            status = 1
        log.info("worker stopped status=%d", status)
        return status

    def healthy(self) -> str:
        """Return why the process is unhealthy, "" if it is healthy. Lag or an unreachable broker do not count."""
        return self._health.verdict() if self._health else ""

    def _set_not_ready(self, why: str) -> None:
        self._not_ready = why

    def ready(self) -> str:
        """Return why events are not served, "" if they are."""
        return self._not_ready

    def _why_not_ready(self) -> str:
        recovery = self._tables.recovery
        if self._tables.store_failure:
            return self._tables.store_failure
        for retries in (recovery.retries, self._signal_feed.retries, self._item_feed.retries, self._feed.retries):
            if retries.why:
                return retries.why
        member = self.app.batch_consumer.thread.member
        if member is None or not member.broker_answers:
            return "no broker answers as the consumer group's coordinator"
        if member.retries.why:
            return member.retries.why
        if not all(changelog.last_known for changelog in self._changelogs.values()):
            return "no partition is assigned"
        if self.app.rebalancing or recovery.in_recovery or not recovery.completed.is_set():
            return f"restoring, {self._tables.restore_remaining} records remain"
        if not self._signal_feed.is_caught_up:
            return "the signals topic has not been read yet"
        if not self._item_feed.is_caught_up:
            return "the items topic has not been read yet"
        return "" if self._feed.is_caught_up else "the models topic has not been read yet"

    def _store_options(self) -> dict[str, int]:
        settings = self._settings
        return {"block_cache_size": settings.block_cache_bytes, "write_buffer_size": settings.write_buffer_bytes}

    async def _finish(self, batch: Batch, step: Coroutine[Any, Any, None]) -> None:
        """Await the last step of a batch, then mark it finished, or requeue it."""
        try:
            await step
        except NotSent as why:
            await self._requeue(batch, why)
        else:
            self.app.batch_consumer.finished(batch)

    async def _requeue(self, batch: Batch, why: NotSent) -> None:
        self._telemetry.requeued.inc()
        log.warning("batch requeued topic=%s: %s", batch.topic, why)
        await self.app.batch_consumer.requeue(batch)
        if isinstance(why, StoreFailed):
            self._restore_again(why)

    def _restore_again(self, failure: StoreFailed) -> None:
        """Start a restore of a failed store in the running process."""
        self._telemetry.store_failures.labels(failure.kind).inc()
        self._tables.store_failure = str(failure)
        self._tables.recovery.restore_again()

    async def _observe_forever(self) -> None:
        while True:
            self._observe()
            await asyncio.sleep(OBSERVE_EVERY_S)

    def _observe(self) -> None:
        if (unwell := cast(Health, self._health).beat()) and not self.app.crashed:
            log.error("worker failed, ending for a restart by its supervisor: %s", unwell)
            raise Unwell(unwell)
        # stored for the HTTP threads: only the event loop may use Faust's objects
        self._not_ready = self._why_not_ready()
        telemetry, consumer = self._telemetry, self.app.batch_consumer
        telemetry.restore_remaining.set(self._tables.restore_remaining)
        restoring = self._tables.recovery.in_recovery
        telemetry.set_recovery_state("restoring" if restoring else "waiting" if self._not_ready else "running")
        telemetry.signals_age.set(self._signal_feed.age_s)
        telemetry.set_lag(consumer.lag(time.time()))
        telemetry.set_volume(self._settings.data_dir)

    def _run_in_background(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        future = asyncio.ensure_future(task())
        future.add_done_callback(self._crash_with)
        self._tasks.append(future)

    def _crash_with(self, task: asyncio.Future[Any]) -> None:
        """Crash the worker when a background task fails: without its feed it would serve an old model forever."""
        if not task.cancelled() and (error := task.exception()):
            self._tasks.append(asyncio.ensure_future(self.app.crash(error)))
