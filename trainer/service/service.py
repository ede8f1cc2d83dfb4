"""The trainer's round (read, fit, compare, publish) and the loop that runs it."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from models import weights
from models.weights import BadWeights, Manifest, ServingModel
from trainer.data.copy_file import CopyUnusable, DamagedCopy
from trainer.data.histories import Histories, from_sessions
from trainer.data.log_reader import LogReader, TopicMissing
from trainer.data.selection import Limits, Selection
from trainer.data.session_copy import SessionCopy
from trainer.fitting.course import NothingToLearn
from trainer.fitting.fit import Fitted
from trainer.service.publishing import ModelTopic, NoSuchVersion, Overtaken, Serving, version_name
from trainer.service.training import Candidate, train
from trainer.settings import TrainerSettings
from trainer.telemetry import Telemetry

MOST_DOUBLINGS = 6  # of the poll interval, 10 s, after failed runs: about ten minutes
MOST_DOUBLINGS_AWAY = 2  # while Kafka is unreachable: a retry is cheap, and a model may be due once it is back

log = logging.getLogger(__name__)

Result = Literal["published", "rejected", "skipped", "overtaken", "stopped"]


@dataclass(frozen=True)
class Run:
    """The result of a run, with a readable reason. `version` is the published one."""

    result: Result
    reason: str
    version: str = ""


class TrainerService:
    """One trainer. `run` returns soon after `stopping` is set, for example by a signal handler."""

    def __init__(
        self,
        settings: TrainerSettings,
        registry: CollectorRegistry | None = None,
        stopping: threading.Event | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open the local copy of the sessions. Connections are opened later."""
        self.stopping = stopping or threading.Event()
        self.registry = registry or CollectorRegistry()
        self._settings = settings
        self._now = now
        self._telemetry = Telemetry(self.registry, settings.train_interval_s)
        path = settings.trainer_dir / "sessions.sqlite" if settings.trainer_dir else None
        self._copy = copy = SessionCopy(path)
        self._telemetry.watch_lag(lambda: float(copy.lag))
        self._sessions: LogReader | None = None
        self._models: ModelTopic | None = None
        self._serving: ServingModel | None = None
        self._refused = -1  # the offset of the newest pointer to a model that can't be read
        self._events = 0  # in the copy
        self._seen_events = 0  # in the copy at the last run
        self._last_run = -math.inf
        self._not_ready = "the sessions have not been read yet"

    def ready(self) -> str:
        """Return why no model can be trained, "" if one can."""
        return self._not_ready

    def close(self) -> None:
        """Disconnect and close the copy."""
        self._disconnect()
        self._copy.close()

    def run(self) -> None:
        """Train whenever a model is due, until `stopping` is set. Errors are logged, counted and retried."""
        settings = self._settings
        log.info(
            "trainer starting kafka=%s interval_s=%.0f min_new_events=%d data=%s",
            *(settings.kafka_bootstrap, settings.train_interval_s, settings.train_min_new_events),
            settings.trainer_dir or "in memory",
        )
        failures = 0
        while not self.stopping.is_set():
            try:
                self._read_sessions()
                self._read_serving()
                self._not_ready = ""
                if self._due():
                    self.run_once()
                failures = 0
            except Exception as error:
                # on any error the serving model stays in use, and a later round may succeed
                away = isinstance(error, KafkaError | TopicMissing | TimeoutError | ConnectionError)
                failures = min(failures + 1, MOST_DOUBLINGS_AWAY if away else MOST_DOUBLINGS)
                known = away or isinstance(error, sqlite3.Error | CopyUnusable | DamagedCopy)
                log.error(
                    "training round failed, retry in %.0f s: %s: %s",
                    settings.train_poll_s * 2**failures,
                    type(error).__name__,
                    error,
                    exc_info=not known,
                )
                self._telemetry.runs.labels("failed").inc()
                self._not_ready = str(error) or type(error).__name__
                self._disconnect()
            # the pause doubles after each failure: a fit that always fails should not use all cores
            self.stopping.wait(self._settings.train_poll_s * 2**failures)
        log.info("trainer stopped")

    def run_once(self) -> Run:
        """Train on all sessions of the topic, and publish if the gate accepts the model.

        Raises TopicMissing, KafkaError, TimeoutError.
        """
        begun = time.monotonic()
        self._read_sessions()
        since = self._read_serving()
        self._not_ready = ""
        run = self._train(since)
        self._telemetry.duration.observe(time.monotonic() - begun)
        self._telemetry.runs.labels(run.result).inc()
        if run.result in ("published", "rejected"):
            self._telemetry.last_success.set(self._now())
        log.info("run ended result=%s version=%s: %s", run.result, run.version, run.reason)
        return run

    def _disconnect(self) -> None:
        """Close all connections before the next round: a stalled consumer was seen that never fetched again."""
        opened, self._sessions, self._models = (self._sessions, self._models), None, None
        for client in opened:
            if client is not None:
                try:
                    client.close()
                except Exception as error:  # the connection may have failed before
                    log.warning("close of a connection failed: %s: %s", type(error).__name__, error)

    def _due(self) -> bool:
        if self._events - self._seen_events < self._settings.train_min_new_events:
            return False
        return self._serving is None or self._now() - self._last_run >= self._settings.train_interval_s

    def _read_sessions(self) -> None:
        if self._sessions is None:
            self._sessions = LogReader(self._settings.topics.sessions, self._settings.client_options())
        try:
            records = self._copy.update(self._sessions, self._now(), self.stopping.is_set)
        except DamagedCopy:  # it is deleted now, so this reads the whole topic
            records = self._copy.update(self._sessions, self._now(), self.stopping.is_set)
        self._telemetry.records.inc(records)
        self._telemetry.bad_records.set(self._copy.bad_records)
        self._events = events = self._copy.events
        if events < self._seen_events:  # users were erased, or the topic was re-created
            self._seen_events = 0
        self._telemetry.events.set(events)
        self._telemetry.new_events.set(max(0, events - self._seen_events))
        if self._copy.lag == 0:
            self._telemetry.copied_at.set(self._now())

    def _read_serving(self) -> Serving:
        """Read the pointer and its model, and return the pointer. A model that can't be read counts as none."""
        models = self._model_topic()
        pointer = models.serving()
        if not pointer.version:
            self._serving = None
        known = pointer.offset == self._refused or (self._serving and self._serving.version == pointer.version)
        if pointer.version and not known:
            first = self._serving is None
            try:
                self._serving = models.read_model(pointer.version)
            except (BadWeights, NoSuchVersion) as error:
                log.error("read of the serving model failed, skipped version=%s: %s", pointer.version, error)
                self._refused = pointer.offset  # a version is complete before its pointer: a retry is useless
                return pointer
            manifest = self._serving.manifest
            self._telemetry.serving(manifest)
            if first:  # after a restart: continue from the trainer that made it
                self._last_run = max(self._last_run, manifest.trained_at)
                self._seen_events = max(self._seen_events, int(_events_copied(manifest)))
        return pointer

    def _model_topic(self) -> ModelTopic:
        if self._models is None:
            self._models = ModelTopic(self._settings.topics.models, self._settings.client_options())
        return self._models

    def _train(self, since: Serving) -> Run:
        if self.stopping.is_set():
            return Run("stopped", "stopped before training")
        events = self._events
        histories, selection = self._histories()
        try:
            candidate = train(histories, self._serving, self._settings, self.stopping.is_set)
        except NothingToLearn as error:
            run = Run("skipped", str(error))
        else:
            if self.stopping.is_set():
                return Run("stopped", "stopped before publishing")
            self._telemetry.trained(candidate.fitted.loss, candidate.figures)
            run = self._publish(candidate, histories, selection, since)
        self._seen_events, self._last_run = events, self._now()
        return run

    def _histories(self) -> tuple[Histories, Selection]:
        """Load the histories in the window and the sample. A damaged copy is read again once."""
        limits = Limits(self._settings.train_window_s, self._settings.train_max_events)
        for last_try in (False, True):
            try:
                selection = self._copy.select(limits)
                sessions, offsets = self._copy.sessions(selection), self._copy.offsets
                histories = from_sessions(sessions, offsets, selection.since)
            except DamagedCopy:
                if last_try:
                    raise
                self._read_sessions()
            else:
                break
        self._telemetry.used_events.set(histories.n_events)
        if histories.n_events < self._events:
            log.info(
                "training on a part of the sessions events=%d of=%d users=%d of=%d window_s=%.0f max_events=%d",
                histories.n_events,
                self._events,
                selection.users_taken,
                selection.n_users,
                limits.window_s,
                limits.max_events,
            )
        return histories, selection

    def _publish(self, candidate: Candidate, histories: Histories, selection: Selection, since: Serving) -> Run:
        if not candidate.verdict.passed:
            self._telemetry.rejections.inc()
            return Run("rejected", candidate.verdict.reason)
        fitted = candidate.fitted
        trained_at = self._now()
        blob = weights.pack(fitted.model, fitted.catalogue)
        manifest = weights.describe(
            blob,
            version=version_name(blob, trained_at),
            config=fitted.model.config,
            catalogue=fitted.catalogue,
            metrics={
                **candidate.metrics(),
                **selection.metrics(),
                "events": float(histories.n_events),
                "events_copied": float(self._events),
            },
            trained_at=trained_at,
            data_watermark=float(histories.times.max()),
            data_offsets={str(partition): offset for partition, offset in histories.offsets.items()},
        )
        models = self._model_topic()
        try:
            models.publish(blob, manifest, since, self._now())
        except Overtaken as error:
            return Run("overtaken", str(error))
        self._telemetry.published.inc()
        self._read_serving()
        for version in models.retain(self._settings.keep_versions):
            log.info("removed version=%s", version)
            if picture := self._picture(version):
                picture.unlink(missing_ok=True)
        self._draw(manifest.version, fitted)
        return Run("published", candidate.verdict.reason, manifest.version)

    def _picture(self, version: str) -> Path | None:
        """Return the path of a version's picture, beside the copy; None without a folder."""
        folder = self._settings.trainer_dir
        return folder / f"curves-{version}.png" if folder else None

    def _draw(self, version: str, fitted: Fitted) -> None:
        """Draw a version's training curves. An error does not fail the run."""
        picture = self._picture(version)
        if picture is None or not fitted.curve:
            return
        try:
            from trainer.plots import (
                draw_curves,
            )  # imported here: loading it takes a second

            draw_curves(picture, {version: fitted.curve})
        except Exception as error:
            log.warning("picture failed, skipped version=%s: %s: %s", version, type(error).__name__, error)


def _events_copied(manifest: Manifest) -> float:
    """Return the number of events in the copy at the time of a version. Older manifests name it `events`."""
    return manifest.metrics.get("events_copied", manifest.metrics.get("events", 0.0))
