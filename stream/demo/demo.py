"""The demo: a real Kafka, real events, workers and a trainer. At the end a replay checks every state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from models.records import POPULARITY, Event, Topics
from stream.audit import AuditReport, audit
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.commands.environment import read_settings
from stream.commands.failures import Failure
from stream.demo.broker import LocalKafka
from stream.demo.movietweetings import load_events, load_titles
from stream.demo.panel import Display, Snapshot
from stream.demo.processes import Process, free_port
from stream.demo.replay_client import ReplayClient

HISTORY_SHARE = 0.8
HELD_BACK_SHARE = 0.25  # of the live part: sent after the next model is published, so that the swap is under load
SIGNAL_INTERVAL_S = 0.02  # a month is replayed in a minute, so a second has the events of half a day
WATCHED_USERS = 5
SHOWN_TITLES = 5
_EPOCH = re.compile(r"epoch (\d+) of at most (\d+): .*?([\d.]+) s\b")
MOST_REJECTIONS = 3  # of candidates in a row, then the demo fails


@dataclass(frozen=True)
class DemoOptions:
    """The options of `hrnn demo`."""

    rate: float | None = None
    workers: int = 1
    keep: bool = False
    json_line: bool = False
    partitions: int = 8
    events: int | None = None  # fewer than all, for tests


@dataclass(frozen=True)
class Figures:
    """The demo's figures."""

    events: int
    applied: int
    dead_letters: int
    late: int
    recommendations: int
    requests: int
    lost: int
    wrong_states: int
    wrong_lists: int
    wrong_sessions: int
    wrong_signals: int
    lists_checked: int
    not_checked: int
    model_versions: int
    swaps: int
    hit_rate_at_10: float
    popularity_hit_rate_at_10: float
    recent_popularity_hit_rate_at_10: float
    events_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    request_latency_p50_ms: float
    request_latency_p99_ms: float

    @property
    def passed(self) -> bool:
        """Return whether nothing is lost or wrong and a swap happened."""
        wrong = self.lost or self.wrong_states or self.wrong_lists or self.wrong_sessions or self.wrong_signals
        return not wrong and self.swaps >= 1 and self.applied > 0


class Demo:
    """One run, phase by phase."""

    def __init__(self, options: DemoOptions, kafka: LocalKafka, folder: Path, display: Display) -> None:
        self._options = options
        self._bootstrap = bootstrap = kafka.bootstrap
        self._display = display
        self._titles = load_titles()
        # an external broker may have an earlier demo's topics
        self.topics = Topics(f"{folder.name}." if kafka.external else "")
        environ = {
            "HRNN_KAFKA_BOOTSTRAP": bootstrap,
            "HRNN_TOPIC_PREFIX": self.topics.prefix,
            "HRNN_SIGNAL_INTERVAL_S": str(SIGNAL_INTERVAL_S),
        }
        self.workers = [
            Process(
                f"worker-{n}",
                ["worker"],
                folder,
                {**environ, "HRNN_DATA_DIR": str(folder / f"worker-{n}")},
                free_port(),
            )
            for n in range(1, options.workers + 1)
        ]
        total = len(load_events()) if options.events is None else options.events
        self.trainer = Process(
            "trainer",
            ["trainer"],
            folder,
            {
                **environ,
                "HRNN_TRAIN_INTERVAL_S": "1",
                "HRNN_TRAIN_POLL_S": "0.5",
                "HRNN_TRAIN_MIN_NEW_EVENTS": str(max(50, int(total * (1 - HISTORY_SHARE) / 4))),
                "HRNN_TRAIN_MAX_S": "75",
            },
            free_port(),
        )
        self._events = load_events()[:total]
        self._phase = "starting"
        self._model_since = time.monotonic()
        self._model = POPULARITY
        self._live_s = 0.0

    async def run(self) -> Figures:
        """Run the demo; raises Failure if a process ends or a phase takes too long."""
        with administration(self._bootstrap) as admin:
            topic_table.create(admin, topic_table.topic_table(self.topics, partitions=self._options.partitions))
        self._display.message(f"starting {len(self.workers)} worker(s)")
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            await asyncio.to_thread(worker.wait_ready)
        cut = int(len(self._events) * HISTORY_SHARE)
        history, live = self._events[:cut], self._events[cut:]
        held_back = live[len(live) - int(len(live) * HELD_BACK_SHARE) :]
        live = live[: len(live) - len(held_back)]

        async with ReplayClient(self._bootstrap, self.topics, self._options.partitions) as client:
            async with self._shown(client):
                await self._replay(client, "history", history)
                self._display.message(
                    f"{len(history):,} events of history are processed; the trainer fits the first model"
                )
                self.trainer.start()
                await self._until_model(self._model)
                self._display.message(f"model {self._model} serves; the rest is replayed live")
                client.measuring = client.asking = True
                await self._replay(client, "live", live)
                await self._until_published()
                half, first = len(held_back) // 2, self._model
                await self._replay(client, "live, swap", held_back[:half])
                await self._until_model(first)
                await self._replay(client, "live", held_back[half:])
                self._phase = "checking: stopping the trainer"
                code = await asyncio.to_thread(self.trainer.stop)
                if code != 0:
                    raise Failure(f"the trainer ended with status {code}: {self.trainer.log_tail()}")
                swaps = sum(int(w.metric("rec_model_swaps_total", 'result="swapped"')) for w in self.workers)
                report = await audit(self._bootstrap, self.topics, signing_key=read_settings().signing_key)
            return self._figures(client, report, (len(live) + len(held_back)) / self._live_s, swaps)

    def stop(self) -> None:
        """Stop all processes, and delete the topics on an external broker."""
        for process in (self.trainer, *self.workers):
            process.stop()
        if self.topics.prefix:
            with administration(self._bootstrap) as admin:
                admin.delete_topics([spec.name for spec in topic_table.topic_table(self.topics)])

    # -- phases -----------------------------------------------------------------------------------------------------

    async def _replay(self, client: ReplayClient, phase: str, events: Sequence[Event]) -> None:
        self._phase = phase
        rate = self._options.rate if client.measuring else None
        began = time.monotonic()
        await self._while_running(client.send(events, rate=rate))
        if not await client.drained(60.0):
            raise Failure(f"{client.outstanding} events have no list after 60 s {self.workers[0].log_tail()}")
        self._live_s += time.monotonic() - began if client.measuring else 0.0

    async def _until_model(self, before: str) -> None:
        """Wait until every worker has a model other than the one before."""
        self._phase = "training" if before == POPULARITY else "swapping"
        await self._while_running(self._until(lambda: all(v not in ("", before) for v in self._worker_models())))
        self._note_model(self._worker_models()[0])

    async def _until_published(self) -> None:
        """Wait until the trainer has published the next model."""
        self._phase = "retraining"
        await self._while_running(
            self._until(lambda: self.trainer.metric("rec_models_published_total") >= 2, every_s=0.05)
        )

    async def _until(self, condition: Callable[[], bool], every_s: float = 0.2) -> None:
        """Wait for a model while the trainer runs: the duration of a fit depends on the machine."""
        phase = self._phase
        while not await asyncio.to_thread(condition):
            rejected = await asyncio.to_thread(self.trainer.metric, "rec_gate_rejections_total")
            if rejected >= MOST_REJECTIONS:
                raise Failure(f"the gate refused {rejected:.0f} models: {self.trainer.log_tail()}")
            fitting = fit_progress(self.trainer.log_tail(lines=200))
            self._phase = f"{phase}, {fitting}" if fitting else phase
            await asyncio.sleep(every_s)
        self._phase = phase

    def _worker_models(self) -> list[str]:
        return [_label(worker.get("/metrics")[1], "rec_model_info", "version") for worker in self.workers]

    def _note_model(self, version: str) -> None:
        if version != self._model:
            self._model, self._model_since = version, time.monotonic()

    async def _while_running(self, step: object) -> None:
        """Await a step; raises Failure at once when a process ends."""
        task = asyncio.ensure_future(step)  # type: ignore[call-overload]
        while not task.done():
            await asyncio.wait([task], timeout=0.5)
            for process in (*self.workers, self.trainer):
                if process.exit_code is not None:
                    task.cancel()
                    raise Failure(f"{process.name} ended with status {process.exit_code}: {process.log_tail()}")
        await task

    # -- display ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _shown(self, client: ReplayClient) -> AsyncIterator[None]:
        task = asyncio.create_task(self._show(client))
        try:
            yield
        finally:
            task.cancel()

    async def _show(self, client: ReplayClient) -> None:
        at, answered = time.monotonic(), client.answers
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            speed, at, answered = (client.answers - answered) / (now - at), now, client.answers
            if client.last_version:
                self._note_model(client.last_version)
            watched = list(client.latest)[-WATCHED_USERS:]
            lists = {u: [self._titles.get(i, i) for i in client.latest[u][:SHOWN_TITLES]] for u in watched}
            self._display.show(
                Snapshot(
                    phase=self._phase,
                    events_per_s=speed,
                    answered=client.answers,
                    total=len(self._events),
                    lag=client.outstanding,
                    latency_ms=percentiles_ms(client.latencies_s[-5000:]) if client.latencies_s else None,
                    model_version=self._model,
                    model_age_s=now - self._model_since,
                    hit_rates=client.quality.rates(),
                    lists=lists,
                )
            )

    def _figures(self, client: ReplayClient, report: AuditReport, speed: float, swaps: int) -> Figures:
        p50, p99 = percentiles_ms(client.latencies_s)
        asked_p50, asked_p99 = percentiles_ms(client.request_latencies_s)
        hit_rate, all_time, recent = client.quality.rates() or (0.0, 0.0, 0.0)
        return Figures(
            events=report.events,
            applied=report.applied,
            dead_letters=report.dead_letters,
            late=report.late,
            recommendations=report.recommendations,
            requests=report.requests,
            lost=report.lost,
            wrong_states=report.wrong_states,
            wrong_lists=report.wrong_lists,
            wrong_sessions=report.wrong_sessions,
            wrong_signals=report.wrong_signals,
            lists_checked=report.lists_checked,
            not_checked=len(report.not_checked),
            model_versions=report.model_versions,
            swaps=swaps - len(self.workers),  # the first model replaced no other
            hit_rate_at_10=round(hit_rate, 4),
            popularity_hit_rate_at_10=round(all_time, 4),
            recent_popularity_hit_rate_at_10=round(recent, 4),
            events_per_s=round(speed, 1),
            latency_p50_ms=round(p50, 1),
            latency_p99_ms=round(p99, 1),
            request_latency_p50_ms=round(asked_p50, 1),
            request_latency_p99_ms=round(asked_p99, 1),
        )


def run_demo(options: DemoOptions) -> int:
    """Run the demo and return its exit status: 0 only if nothing is lost or wrong and a swap happened."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    folder = Path(tempfile.mkdtemp(prefix="hrnn-demo-"))
    kept = True
    try:
        with Display() as display, LocalKafka() as kafka:
            display.message(f"Kafka serves at {kafka.bootstrap}; logs and stores are in {folder}")
            demo = Demo(options, kafka, folder, display)
            try:
                figures = asyncio.run(demo.run())
                kept = not figures.passed
                _report(figures, options, display)
                if options.keep:
                    _keep(demo, kafka.bootstrap, display)
            finally:
                demo.stop()
                if kept:
                    display.message(f"the failed run's logs and stores are in {folder}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        kept = False
        return 130
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if kept else 0


def _report(figures: Figures, options: DemoOptions, display: Display) -> None:
    verdict = (
        "nothing is lost or wrong" if figures.passed else "FAILED: something is lost or wrong, or no swap happened"
    )
    for name, value in asdict(figures).items():
        display.message(f"  {name:<34} {value}")
    display.message(verdict)
    if options.json_line:
        sys.stdout.write(json.dumps(asdict(figures)) + "\n")
        sys.stdout.flush()


def _keep(demo: Demo, bootstrap: str, display: Display) -> None:
    topics = demo.topics
    demo.trainer.start()
    pages = "\n".join(
        f"  curl -s http://127.0.0.1:{p.port}/metrics   # {p.name}" for p in (*demo.workers, demo.trainer)
    )
    display.message(
        f"""
Everything keeps running until Ctrl-C. In another terminal:

  produce   echo '{{"user_id":"u","item_id":"1454468","timestamp":'$(date +%s)'}}' | \\
              kcat -P -b {bootstrap} -t {topics.interactions}
  consume   kcat -C -b {bootstrap} -t {topics.recommendations} -o end
or with the installed command:
  export HRNN_KAFKA_BOOTSTRAP={bootstrap} HRNN_TOPIC_PREFIX={topics.prefix}
  hrnn produce FILE.csv
  hrnn watch --user u
  hrnn models list
The metrics:
{pages}
"""
    )
    died: set[str] = set()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.5)
            for process in (*demo.workers, demo.trainer):
                if not process.running and process.name not in died:
                    died.add(process.name)
                    display.message(
                        f"{process.name} ended with status {process.exit_code}; the others keep running, Ctrl-C stops "
                        f"them. The end of {process.log_path}:{process.log_tail(lines=8)}"
                    )


def fit_progress(log: str) -> str:
    """Return the progress of a trainer's fit from its log; "" if it is not fitting."""
    found = list(_EPOCH.finditer(log))
    if not found or any(word in log[found[-1].end() :] for word in ("run ended", "published version")):
        return ""
    number, most, seconds = int(found[-1][1]), int(found[-1][2]), float(found[-1][3])
    return f"epoch {number} of at most {most}, at most {seconds * (most - number) / number:.0f} s left"


def percentiles_ms(latencies_s: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile in milliseconds; zeros without a value."""
    if not latencies_s:
        return 0.0, 0.0
    ordered = sorted(latencies_s)
    return ordered[len(ordered) // 2] * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000


def _label(page: str, metric: str, label: str) -> str:
    """Return a label of a metric's only series; "" if there is none."""
    for line in page.splitlines():
        if line.startswith(metric + "{") and f'{label}="' in line:
            return line.split(f'{label}="', 1)[1].split('"', 1)[0]
    return ""
