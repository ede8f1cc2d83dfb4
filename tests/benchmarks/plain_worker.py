"""A plain Faust worker doing the same model work event by event, on Faust's own tables and recovery.

What `make bench` and `make chaos ARGS=--plain` compare with: the Table API, `topic.send`, automatic acks, as Faust's
documentation has them. `HRNN_PLAIN=noop` makes its agent do nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

import faust
import torch
from faust.types import EventT, StreamT
from faust.worker import Worker

from models import records as contracts
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender
from models.records import BadRecord, decode_event
from models.users import state
from models.weights import ServingModel
from stream.feeds.models import ModelFeed
from stream.process.serving import MetricsServer
from stream.settings import WorkerSettings
from stream.source.topic_check import check_topics
from stream.stages.dead_letters import headers_of, kept
from stream.stages.intake import sourced
from stream.stages.origins import Origins
from stream.telemetry import Telemetry


async def _adopt(model: ServingModel) -> None:
    """Nothing but the weights is to be had ready."""


def main() -> int:
    """Run it like `hrnn worker`, from the same environment."""
    logging.basicConfig(level="INFO")
    settings = WorkerSettings()
    torch.set_num_threads(settings.torch_threads)
    topics = settings.topics
    partitions = check_topics(topics, settings.client_options()).partitions
    telemetry = Telemetry()
    app = faust.App(
        topics.app_id,
        broker=[f"kafka://{broker}" for broker in settings.kafka_bootstrap.split(",")],
        store="rocksdb://",
        datadir=str(settings.data_dir.absolute()),
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    settings.data_dir.mkdir(parents=True, exist_ok=True)

    def raw(name: str) -> Any:
        return app.topic(name, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")

    events, lists, sessions = raw(topics.interactions), raw(topics.recommendations), raw(topics.sessions)
    dead_letters = raw(topics.dead_letters)
    users = app.Table(
        "users", partitions=partitions, key_type=bytes, value_type=bytes, options={"block_cache_size": 16 * 2**20}
    )
    feed = ModelFeed(topics.models, settings.client_options(), telemetry, _adopt)
    recommender = Recommender(settings.session_rules, settings.top_k, settings.exclude_seen)
    popularity = Popularity()
    origins = Origins(b"nothing is sent on by this worker")
    noop = os.environ.get("HRNN_PLAIN") == "noop"

    async def one(record: EventT[bytes]) -> None:
        try:
            event = decode_event(record.value)
        except BadRecord as error:
            place = _Place(record.message)
            carried = kept(place)
            headers = dict(headers_of(place, carried, error))
            await dead_letters.send(key=carried.key, value=carried.value or b"", headers=headers)
            return
        key, at = event.user_id.encode(), record.message
        held = users.get(key)
        states = {(at.partition, event.user_id): state.decode(held)} if held else {}
        given = sourced(_Place(at), event, origins)
        decision = recommender.decide(feed.current, popularity, states, [given], time.time())
        for user_state in decision.states.values():
            users[key] = state.encode(user_state)
        for _, recommendation in decision.recommendations:
            await lists.send(key=key, value=contracts.encode(recommendation), partition=at.partition)
        for session_key, session in decision.sessions.items():
            await sessions.send(key=session_key.encode(), value=contracts.encode(session), partition=at.partition)
        telemetry.events.labels("applied").inc(decision.outcomes.applied)

    @app.agent(events, name="plain")
    async def recommend(stream: StreamT[bytes]) -> None:
        follow, watch = asyncio.ensure_future(feed.follow()), asyncio.ensure_future(watch_recovery())
        await feed.caught_up()
        async for record in stream.events():
            if noop:
                telemetry.events.labels("applied").inc()
            else:
                await one(record)
        follow.cancel()
        watch.cancel()

    status = ["starting"]  # for the thread that asks: Faust's objects are the loop's alone

    async def watch_recovery() -> None:
        while True:
            done = app.tables.recovery.completed.is_set() and not app.rebalancing
            status[0] = "" if done else "restoring"
            await asyncio.sleep(0.25)

    worker = Worker(app, loglevel="info", override_logging=False, redirect_stdouts=False, quiet=True)
    with MetricsServer(telemetry.registry, port=settings.metrics_port, ready=lambda: status[0]):
        try:
            worker.execute_from_commandline()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


class _Place:
    """A Faust message with the names that a Kafka record has."""

    def __init__(self, message: Any) -> None:
        self.topic, self.partition, self.offset = message.topic, message.partition, message.offset
        self.key, self.value = message.key, message.value
        self.timestamp = int(message.timestamp * 1000)
        self.headers = list(message.headers.items()) if isinstance(message.headers, dict) else message.headers or []


if __name__ == "__main__":
    sys.exit(main())
